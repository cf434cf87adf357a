//! One task per running agent waits for its end, notes why, and tells the loop.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};

use shared::AgentName;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::sync::watch;

use super::record::{ExitRecord, Handles, Run, cause_of_code};
use super::{Inner, locked};
use crate::host::folders::{remove_leftovers, write_atomic};
use crate::host::readable::readable;
use crate::host::{ExitCause, HostError};

/// Which run of which agent is watched.
#[derive(Default)]
pub(super) struct Watches(Mutex<HashMap<AgentName, Watch>>);

struct Watch {
    run: String,
    /// We ended it: whatever its last status, that is no fault.
    stopped: bool,
    done: watch::Receiver<()>,
}

/// The right to watch one run. While it exists the run counts as running.
pub(super) struct Registration {
    inner: Arc<Inner>,
    agent: AgentName,
    run: String,
    /// Closed last: whoever waits for the end finds the run no longer registered.
    _done: watch::Sender<()>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut watches = locked(&self.inner.watches.0);
        if watches
            .get(&self.agent)
            .is_some_and(|watch| watch.run == self.run)
        {
            watches.remove(&self.agent);
        }
    }
}

impl Watches {
    /// Whether this run is watched.
    pub(super) fn has(&self, agent: &AgentName, run: &str) -> bool {
        locked(&self.0).get(agent).is_some_and(|watch| watch.run == run)
    }

    /// Notes that we are about to end what runs. The result closes when the end is on record.
    pub(super) fn mark_stopped(&self, agent: &AgentName) -> Option<watch::Receiver<()>> {
        let mut watches = locked(&self.0);
        let watch = watches.get_mut(agent)?;
        watch.stopped = true;
        Some(watch.done.clone())
    }

    fn is_stopped(&self, agent: &AgentName, run: &str) -> bool {
        locked(&self.0)
            .get(agent)
            .is_some_and(|watch| watch.run == run && watch.stopped)
    }
}

impl Inner {
    /// Registers a run; `None` when it is registered already.
    pub(super) fn register(self: &Arc<Self>, agent: &AgentName, run: &str) -> Option<Registration> {
        let mut watches = locked(&self.watches.0);
        if watches.get(agent).is_some_and(|watch| watch.run == run) {
            return None;
        }
        let (sender, done) = watch::channel(());
        watches.insert(
            agent.clone(),
            Watch {
                run: run.to_owned(),
                stopped: false,
                done,
            },
        );
        Some(Registration {
            inner: Arc::clone(self),
            agent: agent.clone(),
            run: run.to_owned(),
            _done: sender,
        })
    }

    /// Watches a run that somebody else started.
    pub(super) fn adopt(
        self: &Arc<Self>,
        agent: &AgentName,
        run: &Run,
        handles: Handles,
    ) -> Result<(), HostError> {
        match self.register(agent, &run.record.run) {
            Some(registration) => {
                tracing::info!(%agent, run = %run.record.run, pid = run.record.pid, "agent adopted");
                registration.watch(handles, None)
            }
            None => Ok(()),
        }
    }

    /// Notes why a run ended.
    fn conclude(
        &self,
        agent: &AgentName,
        run_id: &str,
        status: Option<ExitStatus>,
    ) -> Result<ExitCause, HostError> {
        let files = self.files(agent);
        let Some(run) = Run::read(&files)?.filter(|run| run.record.run == run_id) else {
            return Ok(ExitCause::Unseen);
        };
        let cause = if self.watches.is_stopped(agent, run_id) {
            ExitCause::Clean
        } else {
            run.account
                .cause()
                .or_else(|| status.map(cause_of_status))
                .unwrap_or(ExitCause::Unseen)
        };
        let exit = ExitRecord {
            run: run_id.to_owned(),
            at: self.options.clock.now(),
            cause: cause.clone(),
        };
        let bytes = serde_json::to_vec(&exit).map_err(|e| {
            HostError::failed(files.exit().as_str(), format!("cannot be written as JSON: {e}"))
        })?;
        remove_leftovers(files.folder(), "exit.json")?;
        write_atomic(&files.exit(), &bytes, 0o600)?;
        Ok(cause)
    }
}

impl Registration {
    /// The run's identity.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// Hands the run to a task of its own. A child is also reaped.
    pub(super) fn watch(self, handles: Handles, child: Option<Child>) -> Result<(), HostError> {
        let watched = |handle: Option<OwnedFd>| {
            let watched = handle.map(readable).transpose();
            watched.map_err(HostError::io("watch", self.agent.as_str()))
        };
        let (outer, harness) = (watched(handles.outer)?, watched(handles.harness)?);
        tokio::spawn(async move {
            let status = match child {
                Some(mut child) => child.wait().await.ok(),
                None => None,
            };
            for handle in [outer, harness].into_iter().flatten() {
                ended(&handle, &self.agent).await;
            }
            self.finish(status).await;
        });
        Ok(())
    }

    async fn finish(self, status: Option<ExitStatus>) {
        let (inner, agent, run) = (Arc::clone(&self.inner), self.agent.clone(), self.run.clone());
        let concluded = {
            let (inner, agent, run) = (Arc::clone(&inner), agent.clone(), run.clone());
            tokio::task::spawn_blocking(move || inner.conclude(&agent, &run, status)).await
        };
        match concluded {
            Ok(Ok(cause)) => tracing::info!(%agent, %run, %cause, "agent ended"),
            Ok(Err(error)) => {
                tracing::warn!(%agent, %run, error = %error.chain(), "agent ended, but why could not be noted");
            }
            Err(error) => tracing::warn!(%agent, %run, %error, "agent ended, but why could not be noted"),
        }
        drop(self);
        (inner.options.notify)(agent);
    }
}

/// Waits until the process is gone.
async fn ended(handle: &AsyncFd<OwnedFd>, agent: &AgentName) {
    let outcome: io::Result<_> = handle.readable().await;
    if let Err(error) = outcome {
        // Only when the runtime shuts down. The next daemon adopts the run.
        tracing::debug!(%agent, %error, "stopped watching");
    }
}

fn cause_of_status(status: ExitStatus) -> ExitCause {
    match (status.code(), status.signal()) {
        (Some(code), _) => cause_of_code(code),
        (None, Some(signal)) => ExitCause::Signal(signal),
        (None, None) => ExitCause::Unseen,
    }
}
