//! What containers printed, from the host's journal: it has the console, from the first word on, also of a container that
//! is gone or never came up.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use crate::host::follow::{self, Lines};
use crate::host::{HostError, Output};

const PROGRAM: &str = "journalctl";
/// Nobody waits longer for a journal.
const PATIENCE: Duration = Duration::from_secs(20);
/// More lines than any bound on bytes lets through.
const LINES: &str = "--lines=20000";

/// A unit's own words and nothing else, whatever characters they are of.
fn words<'a>(unit: &'a str, which: &[&'a str]) -> Vec<&'a str> {
    let plain = ["--output=cat", "--no-pager", "--quiet", "--all"];
    ["--unit", unit]
        .into_iter()
        .chain(plain)
        .chain(which.iter().copied())
        .collect()
}

/// At most the last `max` bytes of what a unit printed.
pub(super) async fn tail(unit: &str, max: u64) -> Result<Output, HostError> {
    let failed = || HostError::io("read the journal of", unit);
    let (_ended_with_this, mut out) = follow::start(PROGRAM, &words(unit, &[LINES]))?;
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let read = async {
        let mut output = Output::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = out.read(&mut buffer).await.map_err(failed())?;
            if count == 0 {
                break Ok(output);
            }
            output.end.extend_from_slice(&buffer[..count]);
            let surplus = output.end.len().saturating_sub(max);
            output.cut |= surplus > 0;
            drop(output.end.drain(..surplus));
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| {
        Err(HostError::failed(
            unit,
            "its journal was not read in time; try again",
        ))
    })
}

/// The last lines of what a unit printed, and then each new one.
pub(super) fn follow(unit: &str, lines: u32) -> Result<Lines, HostError> {
    let lines = format!("--lines={lines}");
    Lines::of(PROGRAM, &words(unit, &["--follow", lines.as_str()]))
}
