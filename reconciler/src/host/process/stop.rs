//! Stopping: ask the harness, then insist, and return when everything is gone.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use shared::AgentName;
use tokio::sync::watch;
use tokio::time::timeout;

use super::ProcessRuntime;
use super::proc::{self, Stat};
use super::record::{Handles, Run};
use crate::host::{HostError, UnitState};

/// How long the kernel may take to clear away what was killed.
const KILL_TIME: Duration = Duration::from_secs(5);
/// How long a sandbox that is just being made may take to have its harness.
const SETTLE_TIME: Duration = Duration::from_secs(1);

impl ProcessRuntime {
    pub(super) async fn stop_in_turn(&self, agent: &AgentName) -> Result<(), HostError> {
        // Observing adopts: from here on somebody waits for the end.
        match self.observe_one(agent).await? {
            UnitState::Absent | UnitState::Exited { .. } => return Ok(()),
            UnitState::Foreign { what } => {
                return Err(HostError::failed(format!("the stop of {agent}"), what));
            }
            UnitState::Running { .. } => {}
        }
        let Some(mut done) = self.inner.watches.mark_stopped(agent) else {
            return Ok(());
        };
        let (run, handles) = self.settled(agent).await?;

        if let Some(handle) = handles.harness.as_ref().or(handles.outer.as_ref()) {
            signal(handle, Signal::TERM, agent)?;
        }
        if !ends(&mut done, self.inner.options.grace).await {
            tracing::warn!(%agent, "agent did not end in time and is killed");
            self.kill(agent, &mut done).await?;
        }
        match run {
            Some(run) if !run.record.sandboxed => self.sweep(agent, run.record.pid).await,
            _ => Ok(()),
        }
    }

    /// The run, with the harness's process if there is one in the sandbox.
    async fn settled(&self, agent: &AgentName) -> Result<(Option<Run>, Handles), HostError> {
        let deadline = tokio::time::Instant::now() + SETTLE_TIME;
        loop {
            let (run, handles) = self.current(agent).await?;
            // Without the harness only `bwrap` could be ended, which would leave a half-made sandbox behind.
            let settled = run.as_ref().is_none_or(|run| !run.record.sandboxed)
                || handles.harness.is_some()
                || handles.outer.is_none();
            if settled || tokio::time::Instant::now() >= deadline {
                return Ok((run, handles));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn current(&self, agent: &AgentName) -> Result<(Option<Run>, Handles), HostError> {
        let name = agent.clone();
        self.blocking(agent.as_str(), move |inner| {
            let Some(run) = Run::read(&inner.files(&name))? else {
                return Ok((None, Handles::default()));
            };
            let handles = run
                .open(&inner.boot_id)
                .map_err(HostError::io("look at the processes of", name.as_str()))?;
            Ok((Some(run), handles))
        })
        .await
    }

    async fn kill(&self, agent: &AgentName, done: &mut watch::Receiver<()>) -> Result<(), HostError> {
        let (_, handles) = self.current(agent).await?;
        // Process 1 of the namespace takes everything inside with it, and `bwrap` then ends by itself.
        for handle in [handles.harness, handles.outer].iter().flatten() {
            signal(handle, Signal::KILL, agent)?;
            if ends(done, KILL_TIME).await {
                return Ok(());
            }
        }
        if ends(done, KILL_TIME).await {
            return Ok(());
        }
        Err(HostError::failed(
            format!("the stop of {agent}"),
            "its processes are still there after SIGKILL; look for processes in state D, for instance on a dead mount",
        ))
    }

    /// Without a sandbox, what the harness started may outlive it. Its session tells.
    async fn sweep(&self, agent: &AgentName, session: i32) -> Result<(), HostError> {
        let name = agent.clone();
        self.blocking(agent.as_str(), move |_| {
            let failed = || HostError::io("clear up after", name.as_str());
            for pid in proc::of_session(session).map_err(failed())? {
                let handle = proc::open(pid).map_err(failed())?;
                let stat = Stat::read(pid).map_err(failed())?;
                if let (Some(handle), Some(stat)) = (handle, stat)
                    && stat.session == session
                {
                    signal(&handle, Signal::KILL, &name)?;
                }
            }
            Ok(())
        })
        .await
    }
}

/// Whether the end comes within `time`. The sender never sends: it is dropped.
async fn ends(done: &mut watch::Receiver<()>, time: Duration) -> bool {
    timeout(time, done.changed()).await.is_ok()
}

/// Signals a process that may be gone already.
pub(super) fn signal(handle: &OwnedFd, signal: Signal, agent: &AgentName) -> Result<(), HostError> {
    match rustix::process::pidfd_send_signal(handle, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(HostError::io("signal", agent.as_str())(errno.into())),
    }
}
