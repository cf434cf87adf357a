//! Drivers: what runs one turn.
//!
//! A driver's turn runs in its own task and is watched through a [`RunningTurn`]. However the turn goes, it ends
//! with exactly one [`TurnEnd`].

pub mod scripted;

use std::sync::Arc;

use async_trait::async_trait;
use shared::TurnId;
use shared::agent_api::Message;
use shared::config::AgentConfig;
use shared::spec::DriverKind;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// What a driver can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it can shorten its own conversation.
    pub can_compact: bool,
    /// Whether it says what a turn cost.
    pub reports_cost: bool,
    /// Whether its text arrives while it is being written.
    pub streams_text: bool,
    /// Whether it can allow single command patterns.
    pub per_command_allow_list: bool,
    /// Whether its conversation goes on after an interruption.
    pub survives_interrupt: bool,
}

/// What a turn is about.
#[derive(Debug, Clone)]
pub struct TurnSpec {
    /// The turn.
    pub turn: TurnId,
    /// The messages leased to it, in the order they were sent. Untrusted.
    pub messages: Vec<Message>,
    /// The config in force.
    pub config: Arc<AgentConfig>,
}

/// Something a driver tells while a turn runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnEvent {
    /// A sentence for the log.
    Notice(String),
}

/// How a driver's turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnEnd {
    /// Well.
    Completed,
    /// By [`RunningTurn::interrupt`].
    Interrupted,
    /// Not well, for this reason.
    Failed(String),
    /// With the wish that the whole harness ends, with this status.
    ExitHarness(u8),
}

/// Runs turns.
#[async_trait]
pub trait Driver: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Starts a turn and returns while it runs.
    async fn start_turn(&self, turn: TurnSpec) -> RunningTurn;
}

/// What happens next in a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnProgress {
    /// Something worth telling.
    Event(TurnEvent),
    /// The end; nothing comes after it.
    End(TurnEnd),
}

/// A turn under way. Dropping it ends the turn at once.
#[derive(Debug)]
pub struct RunningTurn {
    events: mpsc::Receiver<TurnEvent>,
    interrupt: watch::Sender<bool>,
    task: JoinHandle<TurnEnd>,
}

impl RunningTurn {
    /// Runs `turn` as a task. It gets a channel for its events, and a signal that turns true when it should end.
    pub fn spawn<F>(turn: impl FnOnce(mpsc::Sender<TurnEvent>, watch::Receiver<bool>) -> F) -> Self
    where
        F: Future<Output = TurnEnd> + Send + 'static,
    {
        let (event_sender, events) = mpsc::channel(64);
        let (interrupt, interrupted) = watch::channel(false);
        let task = tokio::spawn(turn(event_sender, interrupted));
        Self {
            events,
            interrupt,
            task,
        }
    }

    /// What happens next. Cancel-safe; not to be called again after the end.
    pub async fn next(&mut self) -> TurnProgress {
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => TurnProgress::Event(event),
            end = &mut self.task => TurnProgress::End(
                end.unwrap_or_else(|error| TurnEnd::Failed(format!("the driver's task broke off: {error}")))
            ),
        }
    }

    /// Asks the turn to end soon.
    pub fn interrupt(&self) {
        self.interrupt.send_replace(true);
    }
}

impl Drop for RunningTurn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why this build cannot run turns with a driver of this kind; `None` when it can.
pub fn missing(kind: DriverKind) -> Option<String> {
    match kind {
        DriverKind::Scripted => None,
        DriverKind::Claude => Some(
            "this harness has no driver `claude` yet: set driver.kind to `scripted`, or update hyperhive"
                .into(),
        ),
    }
}
