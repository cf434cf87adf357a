//! Gates: classes, verdicts, and a gate as both APIs show it.

use std::collections::BTreeMap;

use jiff::Timestamp;
#[cfg(feature = "schema")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::draft::{StagedFile, StatePath};
use crate::id::{AgentUid, CommitOid, Digest, GateId, ProposalNumber};
use crate::name::AgentName;

/// What kind of permission a step needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "the table of gate classes in docs/architecture.md explains each"
)]
pub enum GateClass {
    Build,
    Spawn,
    DeployWithin,
    ReloadWithin,
    DeployWidens,
    ReloadWidens,
    BaseUpdate,
    Start,
    Stop,
    Restart,
    Rebuild,
    Archive,
    MirrorDelete,
    MassRemoval,
    Purge,
}

impl GateClass {
    /// All of them, in order.
    pub const ALL: [Self; 15] = [
        Self::Build,
        Self::Spawn,
        Self::DeployWithin,
        Self::ReloadWithin,
        Self::DeployWidens,
        Self::ReloadWidens,
        Self::BaseUpdate,
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Rebuild,
        Self::Archive,
        Self::MirrorDelete,
        Self::MassRemoval,
        Self::Purge,
    ];

    /// The class as it is written in the spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Spawn => "spawn",
            Self::DeployWithin => "deployWithin",
            Self::ReloadWithin => "reloadWithin",
            Self::DeployWidens => "deployWidens",
            Self::ReloadWidens => "reloadWidens",
            Self::BaseUpdate => "baseUpdate",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Rebuild => "rebuild",
            Self::Archive => "archive",
            Self::MirrorDelete => "mirrorDelete",
            Self::MassRemoval => "massRemoval",
            Self::Purge => "purge",
        }
    }

    /// Whether no policy can decide this class: a person must.
    pub fn always_asks(self) -> bool {
        matches!(self, Self::MassRemoval | Self::Purge)
    }
}

impl std::fmt::Display for GateClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a policy says to a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Approved by the policy, and recorded as its decision.
    Auto,
    /// The operator decides.
    Ask,
    /// Refused.
    Never,
}

/// Who asked for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Asker {
    /// It follows from the spec, or from an operator's command.
    Spec,
    /// An agent.
    Agent,
    /// A manager, for another agent.
    Manager,
}

/// Where a gate is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum GateState {
    /// Waits for a decision.
    Open,
    /// Approved, not yet executed.
    Approved,
    /// Denied.
    Denied,
    /// Replaced by another gate, or withdrawn because its effect is no longer wanted or possible.
    Superseded,
    /// Nobody decided in time.
    Expired,
    /// Approved, and its effect was begun. It authorises nothing else.
    Consumed,
}

impl GateState {
    /// The state in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
            Self::Consumed => "consumed",
        }
    }
}

/// A decision: written once, used once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Whether it approves.
    pub approve: bool,
    /// Who: `unix:<user>` for a peer on the admin socket, `policy:<rule>` for a policy.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
    /// The effect digest that was shown to whoever decided.
    pub digest: Digest,
}

/// One change of what an agent can do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CapabilityChange {
    /// What changes, as a path: `mcpServers.wiki.command`.
    pub field: String,
    /// Before; absent when it is new.
    #[serde(default)]
    pub before: Option<String>,
    /// After; absent when it goes.
    #[serde(default)]
    pub after: Option<String>,
    /// Whether the agent can do more than before.
    pub widens: bool,
}

/// What an operator sees before deciding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct GateView {
    /// One line: what happens on approval.
    pub summary: String,
    /// The commit's title, when an agent proposed one. Written by the agent: untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The agent's reason. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// (a) the commit diff, unified, bounded. Untrusted.
    #[serde(default)]
    pub commit_diff: String,
    /// (b) the closure diff.
    #[serde(default)]
    pub closure_diff: Vec<String>,
    /// (c) the capability diff.
    #[serde(default)]
    pub capabilities: Vec<CapabilityChange>,
    /// (d) the steps: what restarts, reloads or waits, and why.
    #[serde(default)]
    pub steps: Vec<String>,
    /// Files that are laid down in `/state` before the agent runs for the first time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<StatePath, StagedFile>,
}

/// A gate as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// Its number.
    pub id: GateId,
    /// The agent concerned; absent for a gate about the whole hive.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// The agent's uid.
    #[serde(default)]
    pub uid: Option<AgentUid>,
    /// What kind of permission it asks for.
    pub class: GateClass,
    /// Who asked for the step.
    pub asked_by: Asker,
    /// Where it is in its life.
    pub state: GateState,
    /// The identity of what is to be approved. A decision must quote it.
    pub digest: Digest,
    /// The proposal behind it.
    #[serde(default)]
    pub proposal: Option<ProposalNumber>,
    /// The commit behind it.
    #[serde(default)]
    pub commit: Option<CommitOid>,
    /// The realised system behind it.
    #[serde(default)]
    pub system: Option<String>,
    /// When it opened.
    pub opened_at: Timestamp,
    /// The decision, once there is one.
    #[serde(default)]
    pub decision: Option<Decision>,
    /// When its effect was begun.
    #[serde(default)]
    pub consumed_at: Option<Timestamp>,
    /// When its effect was seen to be complete.
    #[serde(default)]
    pub completed_at: Option<Timestamp>,
    /// Why it ended without a decision.
    #[serde(default)]
    pub ended_because: Option<String>,
    /// What the operator sees.
    pub view: GateView,
}
