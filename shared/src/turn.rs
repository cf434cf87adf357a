//! What a turn was: told by the harness when it has ended, kept by the daemon for ninety days.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::TurnId;
use crate::name::AgentName;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum TurnResult {
    /// Well.
    Ok,
    /// It was cut short because somebody asked for that.
    Interrupted,
    /// The conversation is longer than the model takes.
    ContextFull,
    /// The provider refuses for a while.
    RateLimited,
    /// The provider has no room just now.
    Overloaded,
    /// There is no valid login.
    Auth,
    /// The account cannot pay.
    Billing,
    /// A limit of this turn was reached: steps, tokens or money.
    LimitReached,
    /// The machine had no memory left.
    OutOfMemory,
    /// The driver's program ended in a way it should not.
    Crashed,
    /// The driver was silent for too long, or the turn took too long.
    Hung,
    /// An outcome this build does not know.
    #[serde(other)]
    Unknown,
}

impl TurnResult {
    /// The outcome in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Interrupted => "interrupted",
            Self::ContextFull => "context full",
            Self::RateLimited => "rate limited",
            Self::Overloaded => "overloaded",
            Self::Auth => "needs login",
            Self::Billing => "billing",
            Self::LimitReached => "limit reached",
            Self::OutOfMemory => "out of memory",
            Self::Crashed => "crashed",
            Self::Hung => "hung",
            Self::Unknown => "unknown",
        }
    }
}

/// Tokens of one turn, by how the provider counts them. The sum of all four is what the turn used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// Read afresh.
    #[serde(default)]
    pub fresh: u64,
    /// Read from the provider's cache.
    #[serde(default)]
    pub cached: u64,
    /// Written to the provider's cache.
    #[serde(default)]
    pub created: u64,
    /// Written by the model.
    #[serde(default)]
    pub output: u64,
}

impl Tokens {
    /// All of them.
    pub fn total(self) -> u64 {
        [self.fresh, self.cached, self.created, self.output]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TurnStats {
    /// The turn. Told twice, it is one row.
    pub turn: TurnId,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// How it ended.
    pub result: TurnResult,
    /// Why, when it did not end well.
    #[serde(default)]
    pub error: Option<String>,
    /// The model that answered.
    #[serde(default)]
    pub model: Option<String>,
    /// The driver's conversation.
    #[serde(default)]
    pub session: Option<String>,
    /// Tokens of this turn alone.
    #[serde(default)]
    pub tokens: Tokens,
    /// How much of the model's window the conversation takes at the end, in tokens.
    #[serde(default)]
    pub context: Option<u64>,
    /// What the turn cost in US dollars; absent when that is not known.
    #[serde(default)]
    pub cost_usd: Option<f64>,
    /// How often each tool was called.
    #[serde(default)]
    pub tool_calls: BTreeMap<String, u64>,
    /// Who or what woke the turn: the kinds of sender of the messages it took up, as in `operator`, `agent`, `system`,
    /// `reminder`; `compaction` for a turn of the harness's own.
    #[serde(default)]
    pub woken_by: Vec<String>,
}

/// A turn as the daemon keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TurnInfo {
    /// Its number, per hive.
    pub id: u64,
    /// Whose turn it was.
    pub agent: AgentName,
    /// When the daemon was told.
    pub at: Timestamp,
    /// What its harness says of it. Untrusted.
    pub stats: TurnStats,
}
