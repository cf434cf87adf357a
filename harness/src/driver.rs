//! Drivers: what runs one turn.
//!
//! A driver's turn runs in its own task and is watched through a [`RunningTurn`]. However the turn goes, it ends
//! with exactly one [`TurnEnd`].

pub mod acp;
pub mod claude;
mod conversation;
mod files;
mod lines;
mod process;
pub mod program;
mod running;
pub mod scripted;
pub mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shared::TurnId;
use shared::agent_api::Message;
use shared::config::AgentConfig;
use shared::login::LoginCode;
use shared::spec::DriverSpec;
use shared::turn::{Tokens, TurnResult};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::turn::Purpose;
use tools::Offered;

/// What a turn is about.
#[derive(Debug, Clone)]
pub struct TurnSpec {
    /// The turn.
    pub turn: TurnId,
    /// What it is for.
    pub purpose: Purpose,
    /// The messages leased to it, in the order they were sent. Untrusted.
    pub messages: Vec<Message>,
    /// The config in force.
    pub config: Arc<AgentConfig>,
    /// What the declared MCP servers are known to offer, as far as they were probed.
    pub offered: Offered,
    /// The number of the conversation, as the daemon announced it.
    pub conversation: Option<u64>,
    /// What it may cost in US dollars, as it stood when the turn began. Whoever runs the turn ends it at what is told
    /// later; a program that names its cost at the end alone is given this.
    pub cost_limit_usd: Option<f64>,
    /// Whether the agent waits for messages in the middle of the turn: then its silence means nothing.
    pub waits: watch::Receiver<bool>,
}

/// A declared MCP server as a turn's program found it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerInTurn {
    /// Why it does not work, if so.
    pub fault: Option<String>,
    /// The names of its tools as programs give them (see [`tools::plain`]), those the agent may not use left out or not;
    /// absent when that is not known.
    pub tools: Option<BTreeSet<String>>,
}

/// Something a driver tells while a turn runs.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnEvent {
    /// A sentence for the log.
    Notice(String),
    /// Something is not as it should be, although the turn goes on. It is kept with the turn.
    Alarm(String),
    /// The conversation that the driver runs.
    Session(String),
    /// What became of the declared MCP servers, by name; one that is absent is as it was before.
    Servers(BTreeMap<String, ServerInTurn>),
    /// The model that answers.
    Model(String),
    /// Text of the model, while it is being written.
    Text(String),
    /// The agent calls a tool.
    ToolCall {
        /// The tool.
        name: String,
        /// With what, as far as it is known.
        input: String,
    },
    /// A call of a tool came back, or was not allowed.
    ToolResult {
        /// The tool, when that is known.
        name: Option<String>,
        /// Whether it failed.
        failed: bool,
        /// What it said.
        text: String,
    },
    /// The provider did not answer, and is asked again.
    Retry {
        /// Which attempt this was.
        attempt: u64,
        /// What it said.
        error: String,
    },
    /// The conversation is being shortened, or was.
    Compacting(bool),
    /// What the turn used so far; replaces what was said before.
    Used(Used),
    /// Something this build does not know: its kind.
    Unknown(String),
}

/// What a turn used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    /// Tokens of this turn alone.
    pub tokens: Tokens,
    /// What it cost in US dollars; absent when that is not known.
    pub cost_usd: Option<f64>,
    /// How much of the model's window the conversation takes, in tokens.
    pub context: Option<u64>,
    /// The model's window.
    pub window: Option<u64>,
}

/// Why a driver's turn did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub result: TurnResult,
    /// In words.
    pub error: String,
    /// How long the provider refuses, when it said so.
    pub pause: Option<Duration>,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(result: TurnResult, error: impl Into<String>) -> Self {
        Self {
            result,
            error: error.into(),
            pause: None,
        }
    }
}

/// How a driver's turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnEnd {
    /// Well.
    Completed,
    /// By [`RunningTurn::interrupt`].
    Interrupted,
    /// Not well, for this reason.
    Failed(Failure),
    /// With the wish that the whole harness ends, with this status.
    ExitHarness(u8),
}

/// Runs turns.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Whether the agent fetches its messages itself, while the turn runs. Else they are leased before it begins.
    fn fetches_messages(&self) -> bool {
        false
    }

    /// Starts a turn and returns while it runs.
    async fn start_turn(&self, turn: TurnSpec) -> RunningTurn;

    /// Makes ready for turns: ends what an earlier run of the harness did not live to end. Returns why no turn can be run
    /// at all, if so. Looks at files: not to be called where nothing may block.
    fn prepare(&self, _driver: &DriverSpec) -> Option<String> {
        None
    }

    /// Logs in: tells the address where a person gets a code, and takes that.
    ///
    /// # Errors
    /// Why there is no login, in words.
    async fn log_in(
        &self,
        _config: Arc<AgentConfig>,
        _address: oneshot::Sender<String>,
        _code: oneshot::Receiver<LoginCode>,
    ) -> Result<(), String> {
        Err("the driver of this agent needs no login".to_owned())
    }

    /// Something that changes when the login does. Looks at files, like [`Driver::prepare`].
    fn login(&self) -> u64 {
        0
    }
}

/// How often each tool was called. The number of different tools is bounded, since their names come from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolCalls(BTreeMap<String, u64>);

impl ToolCalls {
    /// The most different tools that are counted by name.
    const MOST: usize = 200;

    /// Counts one call.
    pub fn count(&mut self, tool: &str) {
        let known = self.0.contains_key(tool) || self.0.len() < Self::MOST;
        let name = if known { tool } else { "other" };
        let calls = self.0.entry(name.to_owned()).or_default();
        *calls = calls.saturating_add(1);
    }

    /// The counts by name.
    pub fn into_map(self) -> BTreeMap<String, u64> {
        self.0
    }
}

/// What happens next in a turn.
#[derive(Debug, Clone, PartialEq)]
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
            end = &mut self.task => TurnProgress::End(end.unwrap_or_else(|error| {
                let error = format!("the driver's task broke off: {error}");
                TurnEnd::Failed(Failure::new(TurnResult::Crashed, error))
            })),
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
