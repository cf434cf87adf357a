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
    /// These and others.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            fresh: self.fresh.saturating_add(other.fresh),
            cached: self.cached.saturating_add(other.cached),
            created: self.created.saturating_add(other.created),
            output: self.output.saturating_add(other.output),
        }
    }

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
    /// How large the agent's notes are when it ends, in bytes; absent when that is not known.
    #[serde(default)]
    pub notes_bytes: Option<u64>,
}

/// What the daemon itself knows of a turn, at the time when it was told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TurnFacts {
    /// The kinds of sender of the messages it had: `operator`, `agent`, `reminder`, `system`. Empty when it had none, or
    /// when that is not known any more.
    #[serde(default)]
    pub woken_by: Vec<String>,
    /// How many messages it had.
    #[serde(default)]
    pub taken_up: u64,
    /// How many messages the agent sent while it ran, by kind of recipient: `operator`, `manager`, `agent`.
    #[serde(default)]
    pub sent: BTreeMap<String, u64>,
    /// What was open at its end and involved the agent, besides reminders.
    #[serde(default)]
    pub loose_ends: u64,
    /// Reminders that were still to come at its end.
    #[serde(default)]
    pub reminders: u64,
    /// Messages that waited at its end.
    #[serde(default)]
    pub inbox: u64,
    /// The most messages that waited at once since the turn before.
    #[serde(default)]
    pub inbox_max: u64,
}

impl TurnFacts {
    /// What woke a turn: as the daemon knows it, else as its harness says.
    pub fn wakers<'a>(&'a self, stats: &'a TurnStats) -> &'a [String] {
        if self.woken_by.is_empty() {
            &stats.woken_by
        } else {
            &self.woken_by
        }
    }
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
    /// What the daemon itself knows of it.
    #[serde(default)]
    pub facts: TurnFacts,
}

/// How values are spread over turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// Half of them are not above this.
    pub p50: u64,
    /// 95 % of them are not above this.
    pub p95: u64,
    /// The highest.
    pub max: u64,
}

/// The same of what turns cost, in US dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct UsdSpread {
    /// Half of them are not above this.
    pub p50: f64,
    /// 95 % of them are not above this.
    pub p95: f64,
    /// The highest.
    pub max: f64,
}

/// The turns of one agent within a while, added up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TurnSeries {
    /// Whose turns.
    pub agent: AgentName,
    /// Those that were told of since then.
    pub since: Timestamp,
    /// How many.
    pub turns: u64,
    /// How many ended how, in words.
    #[serde(default)]
    pub results: BTreeMap<String, u64>,
    /// What they used together.
    #[serde(default)]
    pub tokens: Tokens,
    /// What those cost together whose cost is known, in US dollars.
    #[serde(default)]
    pub cost_usd: f64,
    /// Of how many the cost is not known.
    #[serde(default)]
    pub cost_unknown: u64,
    /// Tokens of one turn.
    #[serde(default)]
    pub tokens_per_turn: Option<Spread>,
    /// How long one turn took, in milliseconds.
    #[serde(default)]
    pub duration_ms: Option<Spread>,
    /// How much of the model's window the conversation took at the end of a turn, in tokens.
    #[serde(default)]
    pub context: Option<Spread>,
    /// What one turn cost, of those of which it is known.
    #[serde(default)]
    pub cost_per_turn: Option<UsdSpread>,
    /// How often each tool was called.
    #[serde(default)]
    pub tool_calls: BTreeMap<String, u64>,
    /// How many turns were woken by each kind of sender.
    #[serde(default)]
    pub woken_by: BTreeMap<String, u64>,
    /// How many messages were sent, by kind of recipient.
    #[serde(default)]
    pub sent: BTreeMap<String, u64>,
    /// Messages that wait now.
    #[serde(default)]
    pub inbox: u64,
    /// The most messages that waited at once.
    #[serde(default)]
    pub inbox_max: u64,
    /// When the last turn was told of.
    #[serde(default)]
    pub last_turn_at: Option<Timestamp>,
    /// How large the agent's notes were when last told.
    #[serde(default)]
    pub notes_bytes: Option<u64>,
    /// The same over time, the oldest first; a point in which no turn ended is left out.
    #[serde(default)]
    pub points: Vec<TurnPoint>,
}

/// The turns of one agent within one part of a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TurnPoint {
    /// Where it begins.
    pub from: Timestamp,
    /// How many turns.
    pub turns: u64,
    /// Tokens they used together.
    #[serde(default)]
    pub tokens: u64,
    /// What those cost together whose cost is known, in US dollars.
    #[serde(default)]
    pub cost_usd: f64,
    /// How long one turn took, in milliseconds.
    #[serde(default)]
    pub duration_ms: Option<Spread>,
    /// The most messages that waited at once.
    #[serde(default)]
    pub inbox_max: u64,
}
