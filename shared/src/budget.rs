//! What a turn uses while it runs, and what it may use.

use serde::{Deserialize, Serialize};

use crate::id::TurnId;

/// What a turn has used so far: told when it begins, before anything is used, and again as it goes on. What is told once
/// counts, whether the turn's end is ever told or not; it never goes down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TurnUsage {
    /// The turn.
    pub turn: TurnId,
    /// Tokens of all kinds.
    #[serde(default)]
    pub tokens: u64,
    /// What that cost in US dollars; absent while it is not known.
    #[serde(default)]
    pub cost_usd: Option<f64>,
}

/// What a turn may use, all in all. It is to be ended as soon as it has used that much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TurnLimits {
    /// The turn must not begin: there is nothing left for it. Says nothing about one that has begun.
    #[serde(default)]
    pub over_budget: bool,
    /// Tokens of all kinds; absent: as many as it likes.
    #[serde(default)]
    pub tokens: Option<u64>,
    /// US dollars; absent: as many as it likes.
    #[serde(default)]
    pub cost_usd: Option<f64>,
}
