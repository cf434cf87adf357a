//! The programs this harness starts, and the processes they leave behind.
//!
//! Every program is started here, in a process group of its own, so that it can be ended with all it started. The
//! harness is also the parent of last resort for processes whose parents died (it is PID 1 or a subreaper), and it
//! must collect those without taking an exit status from under tokio. The rule: a process id is *ours* from before
//! it exists until its status was collected, all under one lock; whatever is not ours is an orphan.

use std::collections::BTreeSet;
use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, kill_process_group, waitid, waitpid,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// How much of a program's standard error is kept, in bytes.
pub const LAST_WORDS: usize = 2048;

/// The processes that are ours.
#[derive(Debug, Clone, Default)]
pub struct Children {
    ours: Arc<Mutex<BTreeSet<i32>>>,
}

/// A program to start, with the harness's own environment.
#[expect(clippy::disallowed_methods, reason = "the one place that starts programs")]
pub fn command(program: &str) -> Command {
    Command::new(program)
}

/// A program to start with nothing in its environment but the search path.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that starts programs; without PATH none is found"
)]
pub fn clean_command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Reads a program's standard error to its end, so that the program never blocks, and keeps the last of it: a line
/// without control characters.
pub async fn last_words(mut stream: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut chunk = vec![0; 4096];
    while let Ok(count) = stream.read(&mut chunk).await
        && count > 0
    {
        kept.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let surplus = kept.len().saturating_sub(LAST_WORDS);
        kept.drain(..surplus);
    }
    crate::tame(&String::from_utf8_lossy(&kept), LAST_WORDS)
}

impl Children {
    /// Starts a program as the leader of a new process group.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<OwnChild> {
        command.process_group(0);
        // Held across the start: a child that ends at once must not be taken for an orphan.
        let mut ours = self.lock();
        let child = command.spawn()?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("a process that was just started has no id"))?;
        ours.insert(pid.as_raw_nonzero().get());
        drop(ours);
        Ok(OwnChild {
            child: Some(child),
            pid,
            children: self.clone(),
        })
    }

    /// Collects this process's exit status unless it is one of ours. Returns whether it did.
    pub fn reap(&self, pid: i32) -> bool {
        let ours = self.lock();
        if ours.contains(&pid) {
            return false;
        }
        let reaped = Pid::from_raw(pid).map(|pid| waitpid(Some(pid), WaitOptions::NOHANG));
        matches!(reaped, Some(Ok(Some(_))))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        // The set is valid after each single operation, so a panic elsewhere does not spoil it.
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, pid: Pid) {
        self.lock().remove(&pid.as_raw_nonzero().get());
    }
}

/// A program that was started here. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct OwnChild {
    /// Absent once its status is collected.
    child: Option<Child>,
    pid: Pid,
    children: Children,
}

impl OwnChild {
    /// Its standard input, once.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.as_mut()?.stdin.take()
    }

    /// Its standard output, once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.as_mut()?.stdout.take()
    }

    /// Its standard error, once.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.as_mut()?.stderr.take()
    }

    /// Waits until it ends, and collects its status. Cancel-safe.
    ///
    /// # Errors
    /// When the operating system refuses, or the status was collected before.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let child = self
            .child
            .as_mut()
            .ok_or_else(|| io::Error::other("its exit status was collected before"))?;
        let status = child.wait().await?;
        self.child = None;
        self.children.forget(self.pid);
        Ok(status)
    }

    /// Waits until it ends, but not longer than this, and does not collect its status: its process group stays
    /// its own, so that [`OwnChild::end`] still reaches what it left behind.
    pub async fn linger(&self, longest: Duration) {
        let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = async {
            while self.child.is_some() && matches!(waitid(WaitId::Pid(self.pid), peek), Ok(None)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(longest, ended).await.is_err() {
            tracing::debug!(pid = self.pid.as_raw_nonzero(), "process did not end by itself");
        }
    }

    /// Sends it a signal, alone.
    pub fn signal(&self, signal: Signal) {
        // As long as the status is not collected the number cannot belong to anybody else.
        if self.child.is_some()
            && let Err(error) = kill_process(self.pid, signal)
        {
            tracing::debug!(pid = self.pid.as_raw_nonzero(), %error, "signal not sent");
        }
    }

    /// Kills its process group without waiting.
    pub fn kill(&self) {
        self.kill_group();
    }

    /// Kills its process group and waits until it is gone.
    ///
    /// # Errors
    /// As for [`OwnChild::wait`].
    pub async fn end(&mut self) -> io::Result<ExitStatus> {
        self.kill_group();
        self.wait().await
    }

    fn kill_group(&self) {
        // As long as the status is not collected the group's number cannot belong to anybody else.
        if self.child.is_some()
            && let Err(error) = kill_process_group(self.pid, Signal::KILL)
        {
            tracing::debug!(pid = self.pid.as_raw_nonzero(), %error, "process group not killed");
        }
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        self.kill_group();
        let Some(mut child) = self.child.take() else {
            return;
        };
        let (children, pid) = (self.children.clone(), self.pid);
        // Without a runtime the whole harness is ending, and there is nobody left to collect anything.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = child.wait().await {
                    tracing::debug!(%error, "exit status not collected");
                }
                children.forget(pid);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = clean_command("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn the_status_of_our_own_child_is_never_taken_away() {
        let children = Children::default();
        let mut child = children.spawn(&mut shell("exit 7")).expect("start");
        let pid = child.pid.as_raw_nonzero().get();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !crate::reap::zombies(&std::process::id().to_string())
            .expect("process list")
            .contains(&pid)
        {
            assert!(Instant::now() < deadline, "the child never ended");
            tokio::task::yield_now().await;
        }
        assert!(!children.reap(pid));
        assert_eq!(child.wait().await.expect("status").code(), Some(7));
        assert!(children.lock().is_empty());
    }

    #[tokio::test]
    async fn of_a_flood_the_end_is_kept_on_one_line() {
        let flood = format!("{}\nthe\u{1b}end\n", "x".repeat(10_000));
        let words = last_words(flood.as_bytes()).await;
        assert!(words.ends_with("x the end"), "{words}");
        assert_eq!(words.len(), LAST_WORDS - 1, "all but the last line's end");
    }

    #[tokio::test]
    async fn dropping_a_child_ends_its_whole_group_and_forgets_it() {
        let children = Children::default();
        let mut command = shell("sleep 1000 & echo $!; wait");
        command.stdout(std::process::Stdio::piped());
        let mut child = children.spawn(&mut command).expect("start");
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(
            child.stdout().expect("standard output"),
        ));
        let sleeper = lines.next_line().await.expect("read").expect("a line");
        drop(child);
        // The sleeper held the pipe open: its end is what closes it.
        let end = tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await;
        assert_eq!(end.expect("the sleeper ended").expect("read"), None, "{sleeper}");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !children.lock().is_empty() {
            assert!(Instant::now() < deadline, "the child was never forgotten");
            tokio::task::yield_now().await;
        }
    }
}
