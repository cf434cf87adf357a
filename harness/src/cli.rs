//! The command line.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Parser, Subcommand};
use shared::secret::CREDENTIALS_VARIABLE;
use tracing_subscriber::EnvFilter;

use crate::children::Children;
use crate::driver::{claude, program};
use crate::events;
use crate::fds;
use crate::mcp;
use crate::reap;
use crate::relay::Ways;
use crate::secrets::Secrets;
use crate::serve::{Settings, serve};

/// The program inside each agent of a hive.
#[derive(Debug, Parser)]
#[command(name = "hive-harness", version)]
pub struct Cli {
    /// What to log to standard error: error, warn, info, debug, trace, or directives as in `info,harness=debug`
    #[arg(long, global = true, value_name = "FILTER", default_value = "info,rmcp=off")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the turn loop until told to end
    Serve(ServeArgs),
    /// Offer the hive's tools to one turn: an MCP server on standard input and output
    Mcp(mcp::command::McpArgs),
    /// Show what happened in this agent's turns of the last seven days, one JSON object a line
    Events(events::command::EventsArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Socket of the agent API
    #[arg(long, value_name = "FILE", default_value = "/run/hive/hive.sock")]
    socket: Utf8PathBuf,
    /// Folder in which the daemon writes agent.json
    #[arg(long, value_name = "FOLDER", default_value = "/config")]
    config: Utf8PathBuf,
    /// The agent's own folder
    #[arg(long, value_name = "FOLDER", default_value = "/state")]
    state: Utf8PathBuf,
    /// Folder of the sockets that lead out of a container without a network; there may be none
    #[arg(long, value_name = "FOLDER", default_value = "/run/hive-egress")]
    egress: Utf8PathBuf,
    /// Rules for the scripted driver (a JSON list) instead of those in the config; for development
    #[arg(long, value_name = "FILE")]
    script: Option<Utf8PathBuf>,
    /// Claude Code's program, instead of `claude` in PATH; the variable HIVE_CLAUDE says the same
    #[arg(long, value_name = "FILE")]
    claude: Option<Utf8PathBuf>,
}

/// Parses the command line and runs it.
///
/// # Errors
/// When the command cannot run; the text is for a person.
pub fn main() -> anyhow::Result<ExitCode> {
    // Before anything else can start a thread or a program.
    fds::keep_from_children().context("cannot keep inherited descriptors from children")?;
    let Cli { log, command } = Cli::parse();
    let filter = EnvFilter::try_new(&log).with_context(|| format!("--log {log:?} is not a filter"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match command {
        Command::Serve(args) => run_serve(args),
        Command::Mcp(args) => mcp::command::run(args),
        Command::Events(args) => events::command::run(args),
    }
}

fn run_serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let ServeArgs {
        socket,
        config,
        state,
        egress,
        script,
        claude,
    } = args;
    let programs = program_settings(claude, [&socket, &config, &state])?;
    let settings = Settings {
        socket,
        config,
        state,
        egress,
        script,
        minute: Duration::from_secs(60),
        programs,
    };
    // One thread: the harness waits nearly all the time, and there may be many on a machine.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let children = Children::default();
    let status = runtime.block_on(async {
        // Only the program itself may collect what it did not start: it is sure to be alone in its process.
        match reap::become_subreaper() {
            Ok(()) => drop(tokio::spawn(collect_orphans(children.clone()))),
            Err(error) => not_collected(&error),
        }
        serve(settings, children).await
    })?;
    // What still runs (a probe, a turn that was given up) is dropped, which ends its programs.
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(ExitCode::from(status))
}

async fn collect_orphans(children: Children) {
    if let Err(error) = reap::collect_orphans(children).await {
        not_collected(&error);
    }
}

fn not_collected(error: &std::io::Error) {
    tracing::warn!(%error, "what tools leave behind will not be collected");
}

/// What the drivers need to know that run a program; the one place that reads the environment for them.
#[expect(
    clippy::disallowed_methods,
    reason = "what the driver's program is to have of our environment can only be read from it"
)]
fn program_settings(
    claude: Option<Utf8PathBuf>,
    [socket, config, state]: [&Utf8Path; 3],
) -> anyhow::Result<program::Settings> {
    let named = std::env::var_os("HIVE_CLAUDE").filter(|named| !named.is_empty());
    let named = named.map(|named| Utf8PathBuf::try_from(std::path::PathBuf::from(named)));
    let named = named.transpose().context("HIVE_CLAUDE is not UTF-8")?;
    let secrets = std::env::var_os(CREDENTIALS_VARIABLE)
        .map(|named| Utf8PathBuf::try_from(std::path::PathBuf::from(named)));
    let secrets = secrets
        .transpose()
        .context("CREDENTIALS_DIRECTORY is not UTF-8")?;
    let passed = claude::PASSED_ON.into_iter();
    let harness = std::env::current_exe().context("cannot find out where this program is")?;
    let folders = [
        "--socket",
        socket.as_str(),
        "--config",
        config.as_str(),
        "--state",
        state.as_str(),
    ];
    Ok(program::Settings {
        claude: claude.or(named),
        environment: passed
            .filter_map(|name| Some((name.to_owned(), std::env::var_os(name)?)))
            .collect(),
        secrets: Secrets::new(secrets),
        own_server: program::OwnServer {
            program: Utf8PathBuf::try_from(harness).context("where this program is, is not UTF-8")?,
            args: ["mcp"].into_iter().chain(folders).map(str::to_owned).collect(),
        },
        ways: Ways::default(),
        // No tool may take that long: commands end after ten minutes at most, tools of MCP servers too.
        silence: Duration::from_mins(15),
        grace: Duration::from_secs(10),
    })
}
