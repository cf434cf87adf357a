//! What containers printed, from the host's journal: it has the console, from the first word on, also of a container that
//! is gone or never came up.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::host::{HostError, Output};

/// Nobody waits longer for a journal.
const PATIENCE: Duration = Duration::from_secs(20);
/// More lines than any bound on bytes lets through.
const LINES: &str = "--lines=20000";

#[expect(
    clippy::disallowed_methods,
    reason = "programs are started in host/ alone; this is one of the places"
)]
fn journalctl() -> Command {
    Command::new("journalctl")
}

/// At most the last `max` bytes of what a unit printed.
pub(super) async fn tail(unit: &str, max: u64) -> Result<Output, HostError> {
    let failed = || HostError::io("read the journal of", unit);
    let mut child = journalctl()
        .args([
            "--unit",
            unit,
            "--output=cat",
            "--no-pager",
            "--quiet",
            "--all",
            LINES,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed())?;
    let mut out = child
        .stdout
        .take()
        .ok_or_else(|| HostError::failed(unit, "its journal has no output"))?;
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
