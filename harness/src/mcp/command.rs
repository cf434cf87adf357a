//! `hive-harness mcp`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use camino::Utf8PathBuf;
use clap::Args;
use shared::TurnId;

use super::{Settings, reference, serve};
use crate::control;

/// Arguments of `hive-harness mcp`.
#[derive(Debug, Args)]
pub struct McpArgs {
    /// Socket of the agent API
    #[arg(long, value_name = "FILE", default_value = "/run/hive/hive.sock")]
    socket: Utf8PathBuf,
    /// Socket of the harness's loop; by default run/control.sock in the agent's own folder
    #[arg(long, value_name = "FILE")]
    control: Option<Utf8PathBuf>,
    /// The agent's own folder
    #[arg(long, value_name = "FOLDER", default_value = "/state")]
    state: Utf8PathBuf,
    /// Folder in which the daemon writes agent.json
    #[arg(long, value_name = "FOLDER", default_value = "/config")]
    config: Utf8PathBuf,
    /// The turn that holds the leases
    #[arg(long, value_name = "ID", required_unless_present = "list_tools")]
    turn: Option<TurnId>,
    /// Write all tools and their schemas as JSON and end
    #[arg(long)]
    list_tools: bool,
}

/// Runs it.
///
/// # Errors
/// When it cannot serve; the text is for a person.
pub fn run(args: McpArgs) -> anyhow::Result<ExitCode> {
    let McpArgs {
        socket,
        control,
        state,
        config,
        turn,
        list_tools,
    } = args;
    let Some(turn) = turn.filter(|_| !list_tools) else {
        let mut text =
            serde_json::to_string_pretty(&reference()).context("cannot write the tools as JSON")?;
        text.push('\n');
        std::io::stdout()
            .write_all(text.as_bytes())
            .context("cannot write to standard output")?;
        return Ok(ExitCode::SUCCESS);
    };
    let settings = Settings {
        control: control.unwrap_or_else(|| state.join(control::SOCKET)),
        socket,
        state,
        config,
        turn,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let served = runtime.block_on(serve(settings));
    // Standard input may be read by a thread that nothing can interrupt.
    runtime.shutdown_timeout(Duration::from_millis(200));
    served?;
    Ok(ExitCode::SUCCESS)
}
