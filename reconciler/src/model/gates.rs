//! What is to be done about gates, as values.

use shared::gate::{Asker, GateClass, GateView};
use shared::{AgentName, AgentUid, CommitOid, Digest, GateId, ProposalNumber};

use crate::model::step::Step;

/// A gate to open.
#[derive(Debug, Clone, PartialEq)]
pub struct NewGate {
    /// The agent; absent for a gate about the whole hive.
    pub agent: Option<AgentName>,
    /// Its uid.
    pub uid: Option<AgentUid>,
    /// The class.
    pub class: GateClass,
    /// Who asked.
    pub asked_by: Asker,
    /// The effect digest.
    pub digest: Digest,
    /// The proposal behind it.
    pub proposal: Option<ProposalNumber>,
    /// The commit behind it.
    pub commit: Option<CommitOid>,
    /// The realised system behind it.
    pub system: Option<String>,
    /// What an operator is shown.
    pub view: GateView,
    /// The step it holds back.
    pub step: Step,
    /// The policy rule that approves it at once, as in `spec.start=auto`.
    pub auto: Option<String>,
}

/// What to do about one gate.
#[derive(Debug, Clone, PartialEq)]
pub enum GateAction {
    /// Open it; with `auto`, opened and approved in one transaction.
    Open(Box<NewGate>),
    /// Its effect is no longer wanted or possible: open and approved gates end as superseded.
    End {
        /// The gate.
        gate: GateId,
        /// Why.
        reason: String,
    },
}
