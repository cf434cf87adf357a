//! Writes what was told into the log. Whatever goes wrong with that is told, and tried again.

use std::time::Duration;

use camino::Utf8PathBuf;
use shared::TurnId;
use shared::agent_event::{AgentEvent, AgentEventKind};
use tokio::sync::watch;

use super::Feed;
use super::log::{Log, LogError};

/// How long things take; shorter in tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// How long events are gathered before they are written: a write for each word would be too many.
    pub(super) gather: Duration,
    /// The first wait before a write that failed is tried again; each is twice as long as the one before.
    pub(super) again: Duration,
    /// The longest.
    pub(super) longest: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(250),
            again: Duration::from_secs(1),
            longest: Duration::from_secs(300),
        }
    }
}

/// Keeps what is told until the feed is closed; says in `fault` why it is not kept, if so. The file is open only while a
/// turn runs.
pub(super) async fn keep(feed: Feed, path: Utf8PathBuf, times: Times, fault: watch::Sender<Option<String>>) {
    let mut log = None;
    loop {
        feed.wait_to_keep().await;
        feed.pause(times.gather).await;
        let events = feed.take_to_keep();
        if events.is_empty() {
            if feed.is_closed() {
                // Closing it syncs the disk.
                drop(tokio::task::spawn_blocking(move || drop(log)).await);
                return;
            }
            continue;
        }
        let mut writing = Writing {
            log,
            last: events
                .last()
                .is_some_and(|event| event.kind == AgentEventKind::Ended),
            events,
            path: path.clone(),
        };
        let mut wait = times.again;
        loop {
            let written = tokio::task::spawn_blocking(move || writing.write()).await;
            let Ok((left, outcome)) = written else {
                fault.send_replace(Some(
                    "what writes the log of events broke off: restart the agent".to_owned(),
                ));
                return;
            };
            writing = left;
            let Err(error) = outcome else { break };
            let error = crate::error_chain(&error);
            fault.send_if_modified(|known| {
                let new = known.as_ref() != Some(&error);
                if new {
                    tracing::error!(error, "events are not kept");
                    *known = Some(error);
                }
                new
            });
            if feed.is_closed() {
                return;
            }
            feed.pause(wait).await;
            wait = (wait * 2).min(times.longest);
        }
        if fault.send_if_modified(|known| known.take().is_some()) {
            tracing::info!("events are kept again");
        }
        log = writing.log;
    }
}

/// One write, with all it needs.
struct Writing {
    log: Option<Log>,
    /// Whether the turn is over with these.
    last: bool,
    events: Vec<AgentEvent>,
    path: Utf8PathBuf,
}

impl Writing {
    /// Writes, and closes the log at the end of a turn, which syncs the disk. What was written is no longer in `events`.
    fn write(mut self) -> (Self, Result<(), LogError>) {
        let outcome = self.try_write();
        // After a fault it is opened anew: a file that was removed or replaced meanwhile is not the one that is open.
        if self.last || outcome.is_err() {
            self.log = None;
        }
        (self, outcome)
    }

    fn try_write(&mut self) -> Result<(), LogError> {
        let now = crate::clock::now();
        let mut log = match self.log.take() {
            Some(log) => log,
            None => {
                let (log, damaged) = Log::open(&self.path)?;
                self.say(damaged.as_deref());
                log
            }
        };
        if let Err(error) = log.append(&self.events, now) {
            if !matches!(error, LogError::Damaged { .. }) {
                return Err(error);
            }
            let (new, damaged) = log.replace(&error)?;
            log = new;
            self.say(Some(&damaged));
            log.append(&self.events, now)?;
        }
        self.events.clear();
        self.log = Some(log);
        Ok(())
    }

    /// Puts it before the events that the log before was damaged, if it was.
    fn say(&mut self, damaged: Option<&str>) {
        if let Some(damaged) = damaged {
            tracing::error!(damaged, "events of the past are lost");
            let turn = self.events.first().and_then(|event| event.turn);
            self.events.insert(0, said(damaged, turn));
        }
    }
}

/// What became of the log before, as the first event of the one that follows it.
fn said(damaged: &str, turn: Option<TurnId>) -> AgentEvent {
    AgentEvent {
        seq: 0,
        at: crate::clock::now(),
        turn,
        kind: AgentEventKind::Lost,
        text: crate::tame(damaged, 1000),
        tool: None,
        ok: None,
        used: None,
    }
}

#[cfg(test)]
mod tests;
