//! Plans as both APIs show them, and the closed list of what a plan can wait on.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::gate::GateClass;
use crate::id::{Digest, GateId};
use crate::name::AgentName;

/// What a step does to the agent's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum EffectClass {
    /// Only adds or repairs something nobody uses yet.
    Additive,
    /// Interrupts the agent.
    Restart,
    /// Takes something away.
    Destructive,
    /// Runs what an agent wrote.
    RunsAgentCode,
}

impl EffectClass {
    /// The class in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Additive => "additive",
            Self::Restart => "restart",
            Self::Destructive => "destructive",
            Self::RunsAgentCode => "runs agent code",
        }
    }
}

/// Why there is no progress. Every pass that makes none names at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", tag = "on")]
pub enum WaitingOn {
    /// The operator's decision.
    #[serde(rename_all = "camelCase")]
    Gate {
        /// The gate.
        gate: GateId,
        /// Its class.
        class: GateClass,
    },
    /// The end of the agent's turn.
    #[serde(rename_all = "camelCase")]
    TurnBoundary {
        /// When it is interrupted all the same.
        deadline: Timestamp,
    },
    /// An observation that is missing, failed, or older than our last write.
    #[serde(rename_all = "camelCase")]
    StaleInventory {
        /// The source.
        source: String,
        /// What the source said.
        error: Option<String>,
    },
    /// Another step or agent.
    #[serde(rename_all = "camelCase")]
    Dependency {
        /// What must come first.
        first: String,
    },
    /// The next try of a step that failed.
    #[serde(rename_all = "camelCase")]
    Backoff {
        /// When.
        until: Timestamp,
        /// The failed tries so far.
        attempts: u32,
        /// What failed.
        error: String,
    },
    /// The agent's health report.
    #[serde(rename_all = "camelCase")]
    Health {
        /// When it is taken for broken.
        until: Timestamp,
    },
    /// The operator's `resume`.
    #[serde(rename_all = "camelCase")]
    Suspended {
        /// When it ends by itself.
        until: Option<Timestamp>,
        /// Who suspended it.
        by: String,
        /// Why.
        reason: String,
    },
    /// New input; what is wrong will not mend itself.
    #[serde(rename_all = "camelCase")]
    Terminal {
        /// What is wrong.
        error: String,
    },
    /// A breaker that tripped: too much happened in too short a time.
    #[serde(rename_all = "camelCase")]
    Breaker {
        /// When it closes.
        until: Timestamp,
        /// What tripped it.
        why: String,
    },
}

/// One thing that waits, and what would unblock it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// What is blocked, in words.
    pub what: String,
    /// On what.
    pub on: WaitingOn,
    /// The next command to run, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// One planned step as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    /// The agent; absent for a step of the hive.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// A stable word for the kind, as in `deploy`.
    pub kind: String,
    /// One line for a person.
    pub summary: String,
    /// What it does to the agent's life.
    pub effect: EffectClass,
    /// The permission it needs; absent when it needs none.
    #[serde(default)]
    pub gate_class: Option<GateClass>,
    /// The gate that asks for it, when there is one.
    #[serde(default)]
    pub gate: Option<GateId>,
    /// What must be there before.
    #[serde(default)]
    pub expected_before: Option<String>,
    /// What will be there after.
    #[serde(default)]
    pub expected_after: Option<String>,
}

/// A plan as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PlanView {
    /// The agent; absent for the plan of the hive itself.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// The digest of the whole plan.
    pub digest: Digest,
    /// One generated line.
    pub summary: String,
    /// What to do, in order.
    pub steps: Vec<StepView>,
    /// What is blocked, and on what.
    pub waiting: Vec<Waiting>,
}
