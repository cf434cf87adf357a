//! Three axes of status, never mixed: sync, health, activity. A view for people and scripts, never an input to planning.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::AgentConfig;
use crate::egress::EgressStatus;
use crate::id::{AgentUid, CommitOid, Digest, GateId, ProposalNumber};
use crate::name::{AgentName, ServerName};
use crate::plan::Waiting;
use crate::spec::Role;

macro_rules! axis {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase")]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// All values, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The value in words.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

axis! {
    /// Whether what is there is what is wanted.
    Sync {
        /// It is.
        InSync = "in sync",
        /// It is not.
        OutOfSync = "out of sync",
        /// Not everything could be observed.
        Unknown = "unknown",
    }
}
axis! {
    /// Whether the agent works.
    Health {
        /// It does.
        Healthy = "healthy",
        /// It is starting, or on probation.
        Progressing = "progressing",
        /// It runs, but something about it is broken.
        Degraded = "degraded",
        /// It should run and does not.
        Missing = "missing",
        /// It is stopped, paused or suspended, as wanted.
        Suspended = "suspended",
        /// It could not be observed.
        Unknown = "unknown",
    }
}
axis! {
    /// What is being done about it.
    Activity {
        /// Nothing.
        Idle = "idle",
        /// Waits for the operator.
        AwaitingGate = "awaiting gate",
        /// Waits until the agent is between two turns.
        WaitingForTurn = "waiting for turn",
        /// A step is being carried out, or its effect is awaited.
        Applying = "applying",
        /// A step failed and will be tried again.
        BackingOff = "backing off",
        /// Nothing will happen without new input.
        Stalled = "stalled",
    }
}

/// One axis with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "{T}Condition")
)]
#[serde(rename_all = "camelCase")]
pub struct Condition<T> {
    /// The value.
    pub value: T,
    /// A stable word for the reason, as in `gateOpen`.
    pub reason: String,
    /// A sentence for a person.
    pub message: String,
    /// Since when the value holds.
    pub since: Timestamp,
}

/// What a turn loop is doing, as its harness reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum TurnState {
    /// Loading its config, probing its MCP servers.
    Starting,
    /// The driver has no valid login.
    NeedsLogin,
    /// Between two turns.
    Idle,
    /// In a turn.
    Thinking,
    /// Shortening its conversation.
    Compacting,
    /// Asleep by its own wish.
    Napping,
    /// Refused by the provider for a while.
    RateLimited,
    /// Told to take no turns.
    Paused,
    /// Out of budget.
    OverBudget,
    /// Ending.
    Stopping,
    /// A state this build does not know.
    #[serde(other)]
    Unknown,
}

impl TurnState {
    /// Whether a restart now would interrupt a turn.
    pub fn is_busy(self) -> bool {
        matches!(self, Self::Thinking | Self::Compacting | Self::Unknown)
    }

    /// The state in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::NeedsLogin => "needs login",
            Self::Idle => "idle",
            Self::Thinking => "thinking",
            Self::Compacting => "compacting",
            Self::Napping => "napping",
            Self::RateLimited => "rate limited",
            Self::Paused => "paused",
            Self::OverBudget => "over budget",
            Self::Stopping => "stopping",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether an MCP server works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum McpHealth {
    /// It answered the handshake.
    Healthy,
    /// It did not.
    Failed,
    /// This harness cannot probe servers of its kind.
    Unprobed,
    /// It works, but turns find other tools than the probe did.
    Differs,
    /// A state this build does not know.
    #[serde(other)]
    Unknown,
}

/// An MCP server as the harness found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct McpServerState {
    /// Whether it works.
    pub health: McpHealth,
    /// The tools it offers, the first of them if there are very many.
    #[serde(default)]
    pub tools: Vec<String>,
    /// How many tools it offers besides these.
    #[serde(default)]
    pub more_tools: u64,
    /// What the descriptions of its tools take of a model's window, in tokens: an estimate, by their length. Absent when
    /// they were not seen.
    #[serde(default)]
    pub schema_tokens: Option<u64>,
    /// The last error.
    #[serde(default)]
    pub error: Option<String>,
}

impl McpServerState {
    /// A server in this state, of which no more is known.
    pub fn of(health: McpHealth) -> Self {
        Self {
            health,
            tools: Vec::new(),
            more_tools: 0,
            schema_tokens: None,
            error: None,
        }
    }
}

/// Desired, built and running identity of one agent, side by side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Generations {
    /// The system that spec and deployed commit ask for; absent while it is not built.
    #[serde(default)]
    pub desired: Option<String>,
    /// The deployed system.
    #[serde(default)]
    pub deployed: Option<String>,
    /// The last system that passed its probation.
    #[serde(default)]
    pub last_good: Option<String>,
    /// The toplevel the running container was started from.
    #[serde(default)]
    pub running_toplevel: Option<Digest>,
    /// The config its harness has loaded.
    #[serde(default)]
    pub running_config: Option<Digest>,
    /// The deployed commit.
    #[serde(default)]
    pub commit: Option<CommitOid>,
    /// The proposal it came from; 0 is the seed.
    #[serde(default)]
    pub proposal: Option<ProposalNumber>,
}

/// Where a value of the effective config comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The spec.
    Spec,
    /// The deployed commit, within the spec's ceiling.
    Commit,
    /// The deployed commit, beyond the ceiling, by an approved gate.
    Granted,
    /// The commit sets it, but the operator changed the field since: the spec's value holds.
    Lapsed,
    /// The commit sets it, but the spec locks the field: the spec's value holds.
    Locked,
}

/// Which model runs an agent's turns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// The one that the latest turn was begun with, as its harness says; absent before the first, and where the driver
    /// chooses.
    #[serde(default)]
    pub active: Option<String>,
    /// The one that the next turn begins with, when that is another.
    #[serde(default)]
    pub queued: Option<String>,
    /// When the operator last switched to another than the config's; absent when the config's holds.
    #[serde(default)]
    pub switched_at: Option<Timestamp>,
    /// Who did.
    #[serde(default)]
    pub switched_by: Option<String>,
}

/// One agent's status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Its name.
    pub name: AgentName,
    /// Its uid; absent while it is not registered.
    #[serde(default)]
    pub uid: Option<AgentUid>,
    /// What it is in the hive.
    pub role: Role,
    /// Sync.
    pub sync: Condition<Sync>,
    /// Health.
    pub health: Condition<Health>,
    /// Activity.
    pub activity: Condition<Activity>,
    /// What its turn loop does, when known.
    #[serde(default)]
    pub turn: Option<TurnState>,
    /// The model of its turns; absent while nothing is deployed. Only in the detailed view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelStatus>,
    /// What this agent waits on.
    #[serde(default)]
    pub waiting: Vec<Waiting>,
    /// Its open gates.
    #[serde(default)]
    pub gates: Vec<GateId>,
    /// Identities side by side.
    #[serde(default)]
    pub generations: Generations,
    /// MCP servers as its harness found them.
    #[serde(default)]
    pub mcp: BTreeMap<ServerName, McpServerState>,
    /// Its way out through the egress service; absent where it has none. Only in the detailed view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressStatus>,
    /// Undelivered messages.
    #[serde(default)]
    pub inbox: u64,
    /// Faults of its spec.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Things an operator should know: an override in force, no sandbox, limits that are not enforced.
    #[serde(default)]
    pub notices: Vec<String>,
    /// The effective config, and where each value comes from. Only in the detailed view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<AgentConfig>,
    /// Origin of each field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub origins: BTreeMap<String, Origin>,
}

/// How the spec stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SpecStatus {
    /// The file.
    pub path: String,
    /// How often its meaning changed, from 1.
    pub generation: u64,
    /// The digest in force.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// Faults of the file as it is now; when the document itself is at fault the last good spec stays in force.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Whether what is in force is older than the file.
    #[serde(default)]
    pub stale: bool,
}

/// The whole hive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct HiveStatus {
    /// The hive's name.
    pub hive: String,
    /// The daemon's version.
    pub version: String,
    /// The event stream's epoch; changes when the ledger is replaced.
    pub epoch: String,
    /// The last event this snapshot includes.
    pub seq: u64,
    /// When the snapshot was taken.
    pub now: Timestamp,
    /// When the daemon started.
    pub started_at: Timestamp,
    /// When the last pass over any agent ended.
    #[serde(default)]
    pub last_pass_at: Option<Timestamp>,
    /// Keys waiting to be reconciled.
    pub queue_depth: u64,
    /// How the spec stands.
    pub spec: SpecStatus,
    /// What the hive as a whole waits on.
    #[serde(default)]
    pub waiting: Vec<Waiting>,
    /// Open gates of all agents and of the hive.
    #[serde(default)]
    pub gates: Vec<GateId>,
    /// Things the operator should know.
    #[serde(default)]
    pub notices: Vec<String>,
    /// The agents, by name.
    pub agents: Vec<AgentStatus>,
}
