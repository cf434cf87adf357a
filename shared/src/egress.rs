//! What the egress service tells the daemon, at the door `egress.sock`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::name::AgentName;

/// Why an agent was not let out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum RefusalReason {
    /// The host, or the port of it, is not in the agent's list.
    NotListed,
    /// The name leads to an address that is not of the public Internet.
    PrivateAddress,
    /// A reason that this build does not know.
    #[serde(other)]
    Unknown,
}

impl RefusalReason {
    /// The word for it, as on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotListed => "notListed",
            Self::PrivateAddress => "privateAddress",
            Self::Unknown => "unknown",
        }
    }
}

/// Connections that an agent was refused, all to the same host and port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The agent.
    pub agent: AgentName,
    /// The host, in lower case; an address of the sixth version stands in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Why the latest was refused.
    pub reason: RefusalReason,
    /// How many.
    pub count: u64,
    /// When the first was.
    pub first_at: Timestamp,
    /// When the last was.
    pub last_at: Timestamp,
}

/// Bytes of one agent since the report before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// From the agent to the outside.
    pub sent: u64,
    /// From the outside to the agent.
    pub received: u64,
}

/// What is known of an agent's way out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EgressStatus {
    /// Bytes from the agent to the outside, its model provider included.
    pub sent: u64,
    /// Bytes from the outside to the agent.
    pub received: u64,
    /// Connections that it was refused.
    pub refused: u64,
    /// The hosts it was refused last, newest first, at most 20.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
}

/// What has happened since the report before. It is sent again, unchanged, until it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EgressReport {
    /// The run of the service: another after each start.
    pub run: String,
    /// The number of this report in the run, from 1. The same number again is the same report.
    pub seq: u64,
    /// What was refused.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
    /// How many refused connections are not told of, because there were too many different ones.
    #[serde(default)]
    pub dropped: u64,
    /// Bytes, by agent.
    #[serde(default)]
    pub traffic: BTreeMap<AgentName, Traffic>,
}
