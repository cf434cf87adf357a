//! What happens in an agent's turns, as it happens: kept by its harness for a week, and streamed.
//!
//! Nothing is decided by it, and it is in no ledger. What the hive as a whole did is in [`crate::event`].

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::TurnId;
use crate::turn::Tokens;

/// The longest text of one event, in bytes; a longer one is cut by whoever tells it.
pub const MAX_TEXT_BYTES: usize = 16 * 1024;

/// What kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum AgentEventKind {
    /// A turn began. Its text: what for.
    Started,
    /// The model wrote this; the text goes on with the next event of this kind.
    Text,
    /// A tool was called. Its text: with what.
    ToolCall,
    /// A tool answered. Its text: what.
    ToolResult,
    /// A sentence about the turn.
    Notice,
    /// Something is not as it should be, although the turn goes on.
    Alarm,
    /// What the turn used so far; each counts instead of the one before.
    Used,
    /// What the driver said and the harness does not know.
    Raw,
    /// The turn ended. Its text: how, and why if not well.
    Ended,
    /// Events before this one are missing: there were too many at once. Its text: how many.
    Lost,
    /// An event was kept that cannot be read any more. Its text: why.
    Unreadable,
    /// A kind this build does not know.
    #[serde(other)]
    Unknown,
}

impl AgentEventKind {
    /// The kind in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "turn begins",
            Self::Text => "text",
            Self::ToolCall => "calls",
            Self::ToolResult => "answer",
            Self::Notice => "notice",
            Self::Alarm => "alarm",
            Self::Used => "used",
            Self::Raw => "raw",
            Self::Ended => "turn ends",
            Self::Lost => "lost",
            Self::Unreadable => "unreadable",
            Self::Unknown => "unknown",
        }
    }
}

/// What a turn has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct UsedSoFar {
    /// Tokens of this turn alone.
    #[serde(default)]
    pub tokens: Tokens,
    /// What it cost in US dollars; absent when that is not known.
    #[serde(default)]
    pub cost_usd: Option<f64>,
    /// How much of the model's window the conversation takes, in tokens.
    #[serde(default)]
    pub context: Option<u64>,
    /// The model's window, in tokens.
    #[serde(default)]
    pub window: Option<u64>,
}

/// One event. Everything in it was told by the agent's harness: untrusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentEvent {
    /// Rises within a run of the harness. Pieces of text that were put together have the number of the last.
    pub seq: u64,
    /// When it happened, by the harness's clock.
    pub at: Timestamp,
    /// The turn; absent when that cannot be read any more.
    #[serde(default)]
    pub turn: Option<TurnId>,
    /// What kind.
    pub kind: AgentEventKind,
    /// What it says; at most 16 KiB.
    #[serde(default)]
    pub text: String,
    /// The tool that is called, or that answers.
    #[serde(default)]
    pub tool: Option<String>,
    /// Whether it went well: of a tool's answer and of a turn's end.
    #[serde(default)]
    pub ok: Option<bool>,
    /// What the turn used so far.
    #[serde(default)]
    pub used: Option<UsedSoFar>,
}

/// The most events in one batch.
pub const MAX_BATCH_EVENTS: usize = 512;

/// Events of one agent, told by its harness. A batch that is told again, because the answer was lost, is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EventBatch {
    /// The run of the harness, as in its reports.
    pub run_id: String,
    /// In the order of their numbers; at most 512.
    pub events: Vec<AgentEvent>,
}

/// What a harness is told about its events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EventBatchAnswer {
    /// Whether somebody watches: then events are worth telling sooner.
    #[serde(default)]
    pub watched: bool,
}

/// An event in the daemon's memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StreamedEvent {
    /// Its position in the agent's stream, from 1; rises by one within an epoch.
    pub position: u64,
    /// The event. Untrusted.
    pub event: AgentEvent,
}

/// The recent past of an agent's turns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentEventPage {
    /// The stream's epoch. Another one is another stream: the daemon was restarted, or the agent is another.
    pub epoch: String,
    /// The position of the newest event there was; 0 when there was none.
    pub last: u64,
    /// Oldest first.
    pub events: Vec<StreamedEvent>,
}
