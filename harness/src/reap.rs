//! Collects processes whose parents died before them.

use std::io;

use rustix::process::{WaitId, WaitIdOptions, getpid, set_child_subreaper, waitid};
use tokio::signal::unix::{SignalKind, signal};

use crate::children::Children;

/// Makes the harness the parent of every descendant that loses its own.
///
/// # Errors
/// When the kernel refuses.
pub fn become_subreaper() -> io::Result<()> {
    set_child_subreaper(Some(getpid())).map_err(io::Error::from)
}

/// Collects orphans whenever a child ends. Never returns by itself.
///
/// # Errors
/// When the signal cannot be listened to.
pub async fn collect_orphans(children: Children) -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    loop {
        // Signals coalesce, so each round looks at all there is.
        if ended.recv().await.is_none() {
            return Ok(());
        }
        if !anything_ended() {
            continue;
        }
        let children = children.clone();
        let round = tokio::task::spawn_blocking(move || collect_once(&children));
        match round.await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(count)) => tracing::debug!(count, "orphans collected"),
            Ok(Err(error)) => tracing::debug!(%error, "process list not readable"),
        }
    }
}

/// Whether any child waits to be collected; saves the look at all processes after most signals.
fn anything_ended() -> bool {
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::All, peek), Ok(Some(_)))
}

fn collect_once(children: &Children) -> io::Result<usize> {
    let own_pid = getpid().as_raw_nonzero().to_string();
    Ok(zombies(&own_pid)?
        .into_iter()
        .filter(|pid| children.reap(*pid))
        .count())
}

/// The ended, not yet collected children of a process. Asking the kernel for "any" child would name a child of ours
/// for as long as tokio has not collected it, and hide the orphans behind it.
pub(crate) fn zombies(parent: &str) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process that is gone by now was collected by somebody else.
        let Ok(stat) = std::fs::read(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if is_zombie_of(&stat, parent) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Reads state and parent from `/proc/<pid>/stat`. The name in parentheses may hold anything, `)` too.
fn is_zombie_of(stat: &[u8], parent: &str) -> bool {
    let Some(end_of_name) = stat.iter().rposition(|byte| *byte == b')') else {
        return false;
    };
    let rest = String::from_utf8_lossy(stat.get(end_of_name + 1..).unwrap_or_default()).into_owned();
    let mut fields = rest.split_ascii_whitespace();
    fields.next() == Some("Z") && fields.next() == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_parent_are_found_behind_any_name() {
        assert!(is_zombie_of(b"12 (sh) Z 7 12 12 0", "7"));
        assert!(is_zombie_of(b"12 (a) R 9 (b) Z 7 12 12 0", "7"));
        assert!(!is_zombie_of(b"12 (sh) S 7 12 12 0", "7"));
        assert!(!is_zombie_of(b"12 (sh) Z 8 12 12 0", "7"));
        assert!(!is_zombie_of(b"12 (\xff\xfe) S", "7"));
        assert!(!is_zombie_of(b"", "7"));
    }
}
