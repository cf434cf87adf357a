//! Stopping: ask the harness, then insist, and return when everything is gone.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use shared::AgentName;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::ProcessRuntime;
use super::proc::{self, Stat};
use super::record::{Handles, Run};
use crate::host::{HostError, UnitState};

/// How long the kernel may take to clear away what was killed.
const KILL_TIME: Duration = Duration::from_secs(5);
/// How long to wait before looking again at a harness that has just been started.
const SETTLE_TIME: Duration = Duration::from_millis(10);

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
        let deadline = Instant::now() + self.inner.options.grace;
        let asked = timeout_at(deadline, self.ask(agent)).await;
        if let Ok(Err(error)) = asked {
            return Err(error);
        }
        if timeout_at(deadline, done.changed()).await.is_err() {
            tracing::warn!(%agent, "agent did not end in time and is killed");
            self.kill(agent, &mut done).await?;
        }
        let (run, _) = self.current(agent).await?;
        match run {
            Some(run) if !run.record.sandboxed => self.sweep(agent, run.record.pid).await,
            _ => Ok(()),
        }
    }

    /// Sends SIGTERM to the harness, as soon as there is one that would notice.
    async fn ask(&self, agent: &AgentName) -> Result<(), HostError> {
        loop {
            let (run, handles) = self.current(agent).await?;
            let Some(run) = run.filter(|_| !handles.is_empty()) else {
                return Ok(());
            };
            // In the sandbox it is the harness or nobody: `bwrap` would end at once, and the harness unasked.
            let asked = if run.record.sandboxed {
                handles.harness
            } else {
                handles.outer
            };
            let listens = run
                .listens(Signal::TERM)
                .map_err(HostError::io("look at", agent.as_str()))?;
            if let Some(harness) = asked.filter(|_| listens) {
                return signal(&harness, Signal::TERM, agent);
            }
            // Only in the first moments after a start is there anything to wait for.
            tokio::time::sleep(SETTLE_TIME).await;
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
