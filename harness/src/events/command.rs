//! `hive-harness events`: what the log of events holds, for whoever is in the container.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use camino::Utf8PathBuf;
use clap::Args;
use shared::TurnId;

use super::log::{FILE, Log, Wanted};

/// Arguments of `hive-harness events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// The agent's own folder
    #[arg(long, value_name = "FOLDER", default_value = "/state")]
    state: Utf8PathBuf,
    /// Only events of this turn
    #[arg(long, value_name = "ID")]
    turn: Option<TurnId>,
    /// The newest so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    lines: u32,
}

/// Writes the events as one JSON object a line, the oldest first.
///
/// # Errors
/// When the log cannot be read; the text is for a person.
pub fn run(args: EventsArgs) -> anyhow::Result<ExitCode> {
    let EventsArgs { state, turn, lines } = args;
    let Some(log) = Log::open_existing(&state.join(FILE))? else {
        return Ok(ExitCode::SUCCESS);
    };
    let wanted = Wanted { turn, last: lines };
    let mut out = std::io::stdout().lock();
    for event in log.read(&wanted, crate::clock::now())? {
        let line = serde_json::to_string(&event).context("cannot write an event as JSON")?;
        writeln!(out, "{line}").context("cannot write to standard output")?;
    }
    Ok(ExitCode::SUCCESS)
}
