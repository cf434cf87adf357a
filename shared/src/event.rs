//! The durable stream of what happened in the hive.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::name::AgentName;

/// How much an operator should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// Good to know.
    Info,
    /// Worth a look.
    Warning,
    /// Needs the operator.
    Alert,
}

/// One event. `seq` rises by one within an epoch; a new epoch means another ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Position in the stream, from 1.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The agent concerned.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// How much an operator should care.
    pub level: Level,
    /// A stable word, as in `gateOpened`.
    pub kind: String,
    /// One line for a person.
    pub message: String,
    /// What the event is about, in structured form.
    #[serde(default)]
    pub data: serde_json::Value,
}
