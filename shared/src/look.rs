//! What is shown of one agent besides its status: its configuration and its log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::agent_api::ProposalInfo;
use crate::config::AgentConfig;
use crate::event::Event;
use crate::id::{CommitOid, ProposalNumber};
use crate::name::AgentName;
use crate::status::Origin;

/// The most lines of a log in one answer.
pub const MAX_LOG_LINES: u32 = 1_000;
/// The most events beside them.
pub const MAX_LOG_EVENTS: u32 = 100;

/// An agent's configuration: what is in force, where it comes from, and what is offered to change it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConfigInfo {
    /// The agent.
    pub agent: AgentName,
    /// The deployed commit, or the seed; absent before there is a repo.
    #[serde(default)]
    pub commit: Option<CommitOid>,
    /// The proposal it came from; 0 is the seed.
    #[serde(default)]
    pub proposal: Option<ProposalNumber>,
    /// The effective config; absent before the first deployment. Values of `env` are left out.
    #[serde(default)]
    pub config: Option<AgentConfig>,
    /// Where the value of each field comes from.
    #[serde(default)]
    pub origins: BTreeMap<String, Origin>,
    /// `agent.json` as that commit has it; absent when it has none, or one larger than 256 KiB. Written by the agent:
    /// untrusted.
    #[serde(default)]
    pub overlay: Option<String>,
    /// The last proposals, newest first.
    #[serde(default)]
    pub proposals: Vec<ProposalInfo>,
}

/// A line that an agent printed, as it is told while it is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// The line, without control characters; what looks like a key is masked. Untrusted.
    pub line: String,
}

/// The end of what an agent's harness and driver printed, and the last events about the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentLog {
    /// The agent.
    pub agent: AgentName,
    /// The last lines, oldest first, without control characters; what looks like a key is masked. Untrusted.
    pub lines: Vec<String>,
    /// Whether there is more before them.
    pub cut: bool,
    /// The last events, oldest first, without their structured part.
    #[serde(default)]
    pub events: Vec<Event>,
}
