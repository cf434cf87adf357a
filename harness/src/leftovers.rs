//! What a turn left behind: processes that still run when its program is gone.
//!
//! Tools start programs in sessions of their own, so the group of the turn's program does not reach them. Each process of
//! a turn is known by a variable that it inherits, whoever became its parent.

use std::io::Read as _;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

/// How much of an environment is looked at.
const MAX_ENVIRONMENT: u64 = 1024 * 1024;
/// Rounds of looking and killing; each catches what was started during the one before.
const ROUNDS: usize = 10;

/// Kills every process that has this variable with this value. Returns how many. Blocks.
///
/// # Errors
/// When the process list cannot be read.
pub fn kill_marked(name: &str, value: &str) -> std::io::Result<usize> {
    let mark = format!("{name}={value}");
    let mut killed = 0;
    for _ in 0..ROUNDS {
        let found = marked(&mark)?;
        if found.is_empty() {
            break;
        }
        killed = killed.max(found.len());
        for pid in found {
            kill(pid, &mark);
        }
    }
    Ok(killed)
}

/// The processes with this mark, ourselves left out.
fn marked(mark: &str) -> std::io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        if pid != getpid() && is_marked(pid, mark) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// A process that has ended has no environment any more, even before it is collected.
fn is_marked(pid: Pid, mark: &str) -> bool {
    let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
    let Ok(file) = std::fs::File::open(Path::new(&path)) else {
        return false;
    };
    let mut bytes = Vec::new();
    if file.take(MAX_ENVIRONMENT).read_to_end(&mut bytes).is_err() {
        return false;
    }
    bytes
        .split(|byte| *byte == 0)
        .any(|variable| variable == mark.as_bytes())
}

/// Looks once more through a descriptor that stays with this very process, then kills it.
fn kill(pid: Pid, mark: &str) {
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if is_marked(pid, mark)
        && let Err(error) = pidfd_send_signal(&process, Signal::KILL)
    {
        tracing::debug!(pid = pid.as_raw_nonzero(), %error, "what a turn left behind was not killed");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;
    use crate::children::{Children, clean_command};

    #[tokio::test]
    async fn only_processes_with_the_mark_are_killed_even_in_other_sessions() {
        let children = Children::default();
        let start = |value: &str, script: &str| {
            let mut command = clean_command("sh");
            command
                .args(["-c", script])
                .env("HIVE_TEST_MARK", value)
                .stdout(Stdio::piped());
            children.spawn(&mut command).expect("start")
        };
        let (mine, others) = (crate::ids::run_id(), crate::ids::run_id());
        let mut marked = start(&mine, "setsid sleep 1000 & echo ready; wait");
        let mut unmarked = start(&others, "read -r _ < /dev/null; exit 4");
        let output = marked.stdout().expect("standard output");
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(output));
        assert_eq!(lines.next_line().await.expect("read").as_deref(), Some("ready"));
        let killed = tokio::task::spawn_blocking(move || kill_marked("HIVE_TEST_MARK", &mine));
        assert_eq!(killed.await.expect("ran").expect("looked"), 2);
        // The one in another session held the pipe open.
        assert_eq!(lines.next_line().await.expect("read"), None);
        assert_eq!(marked.wait().await.expect("ended").code(), None, "it was killed");
        assert_eq!(unmarked.wait().await.expect("ended").code(), Some(4));
    }
}
