//! Steps: the typed effects a plan is made of.
//!
//! A step carries all that its execution needs; nothing is left to decide. [`Action`] is what is encoded into the
//! effect digest that an operator approves, so it holds no times, no log paths and no rendered text.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::agent_api::ProposalPhase;
use shared::config::Overlay;
use shared::draft::{StagedFile, StatePath};
use shared::gate::{Asker, GateClass, GateView};
use shared::plan::EffectClass;
use shared::spec::{LimitsSpec, RunState};
use shared::{AgentName, AgentUid, CommitOid, Digest, GateId, ProposalNumber, ServerName};

use crate::host::RefUpdate;
use crate::model::build::{BuildRequest, Grants};
use crate::model::order::Verb;

/// What a step does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Accepts that these agents are no longer declared.
    #[serde(rename_all = "camelCase")]
    AcceptRemoval {
        /// The agents and their uids.
        agents: Vec<(AgentName, AgentUid)>,
        /// The spec that no longer names them.
        spec: Digest,
    },
    /// Makes the agent's repo and folders.
    Spawn,
    /// Makes a draft's config repo, with its overlay as the first commit. It has no power: nothing runs, and nothing of
    /// it is in force.
    #[serde(rename_all = "camelCase")]
    MakeDraft {
        /// The overlay.
        overlay: Option<Overlay>,
        /// The time written into its commit.
        at: Timestamp,
    },
    /// Makes a draft an agent: lays its files down, and deploys its commit.
    #[serde(rename_all = "camelCase")]
    SpawnDraft {
        /// Its name.
        name: AgentName,
        /// The build.
        build: Digest,
        /// The realised system.
        system: String,
        /// What its config repo begins with.
        seed: CommitOid,
        /// The commit.
        commit: CommitOid,
        /// What the overlay is granted beyond `spawnDefaults`.
        grants: Grants,
        /// The files laid down in `/state`.
        files: BTreeMap<StatePath, StagedFile>,
        /// MCP servers to watch during the probation.
        watched: BTreeSet<ServerName>,
    },
    /// Ends an offer that can come to nothing.
    #[serde(rename_all = "camelCase")]
    EndOffer {
        /// When it was made.
        offered_at: Timestamp,
        /// Why it ends.
        reason: String,
    },
    /// Deletes the staged files of what is a draft no more.
    DropStaged,
    /// Deletes a draft that was given up: it never ran.
    DropDraft,
    /// Moves a proposal to another phase in the ledger.
    #[serde(rename_all = "camelCase")]
    SetPhase {
        /// The proposal.
        number: ProposalNumber,
        /// The phase.
        phase: ProposalPhase,
        /// Why.
        reason: String,
    },
    /// Builds a system.
    #[serde(rename_all = "camelCase")]
    Build {
        /// The key under which the outcome is kept.
        key: Digest,
        /// The inputs.
        request: Box<BuildRequest>,
        /// The proposal it is for.
        proposal: Option<ProposalNumber>,
        /// Hosts that this one build may fetch from besides those that the operator declared. A person agrees to these.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        hosts: BTreeSet<String>,
    },
    /// Makes a built system the deployed one. One ledger transaction; all else follows from it.
    #[serde(rename_all = "camelCase")]
    Deploy {
        /// The build.
        build: Digest,
        /// The realised system.
        system: String,
        /// The system that is deployed now.
        from: Option<String>,
        /// The commit.
        commit: CommitOid,
        /// Where `main` is now.
        main: CommitOid,
        /// The proposal, when it is one.
        proposal: Option<ProposalNumber>,
        /// What the overlay is granted beyond the ceiling.
        grants: Grants,
        /// What follows for the running agent.
        interrupts: Interruption,
        /// MCP servers to watch during the probation.
        watched: BTreeSet<ServerName>,
    },
    /// Repairs one ref of the config repo.
    ProjectRef(RefUpdate),
    /// Writes launch file, tree and config file of the deployed system.
    #[serde(rename_all = "camelCase")]
    Activate {
        /// The system.
        system: String,
        /// Its launch.
        toplevel: Digest,
        /// Its config.
        config: Digest,
    },
    /// Puts in force what a manager ordered. What follows for the running agent is a step of its own.
    #[serde(rename_all = "camelCase")]
    Obey {
        /// The order's number among those about this agent.
        number: u64,
        /// What is ordered.
        verb: Verb,
        /// What the spec says about the run state.
        declared: RunState,
    },
    /// Ends an order that can come to nothing.
    #[serde(rename_all = "camelCase")]
    EndOrder {
        /// The order's number.
        number: u64,
        /// Why.
        reason: String,
    },
    /// Starts the agent.
    #[serde(rename_all = "camelCase")]
    Start {
        /// From this.
        toplevel: Digest,
    },
    /// Stops the agent.
    #[serde(rename_all = "camelCase")]
    Stop {
        /// The run that is stopped, so that one permission never stops two.
        run: String,
    },
    /// Stops the agent, waits until it is gone, starts it.
    #[serde(rename_all = "camelCase")]
    Restart {
        /// From this.
        toplevel: Digest,
        /// The run that is ended.
        run: String,
    },
    /// Holds the running agent to its limits again.
    #[serde(rename_all = "camelCase")]
    Limit {
        /// The limits.
        limits: LimitsSpec,
        /// What was found instead, in words.
        found: String,
    },
    /// Starts or stops the clock of a probation.
    #[serde(rename_all = "camelCase")]
    ProbationClock {
        /// Whether the agent is active now.
        active: bool,
    },
    /// Ends a probation well.
    #[serde(rename_all = "camelCase")]
    MarkGood {
        /// The system that is now the last good one.
        system: String,
    },
    /// Ends a probation badly: back to the last good system, or to none.
    #[serde(rename_all = "camelCase")]
    Revert {
        /// The system that failed.
        failed: String,
        /// The system to go back to.
        to: Option<String>,
        /// Why.
        reason: String,
    },
    /// Ends the probation of a narrowed agent badly: the last good system may do more than the spec allows now, so it
    /// does not come back. The agent is stopped.
    #[serde(rename_all = "camelCase")]
    Halt {
        /// The system that failed.
        failed: String,
        /// Why.
        reason: String,
    },
    /// Notes that a run ended unasked, in the agent's failures and in its probation.
    #[serde(rename_all = "camelCase")]
    NoteFailure {
        /// When.
        at: Timestamp,
        /// What it looked like.
        what: String,
        /// It ended for want of memory.
        #[serde(default)]
        out_of_memory: bool,
    },
    /// Notes that the kernel killed processes of a run for want of memory, and tells of it.
    #[serde(rename_all = "camelCase")]
    NoteOutOfMemory {
        /// The run.
        run: String,
        /// How many so far.
        kills: u64,
    },
    /// Forgets failures, because the agent has run well for a while.
    ClearFailures,
    /// Moves the agent's state and repo to the archive.
    Archive,
    /// Moves them back.
    Restore,
    /// Deletes what the archive keeps of an agent. A step of the hive: the agent's name may be another's by now.
    #[serde(rename_all = "camelCase")]
    Purge {
        /// Its name.
        agent: AgentName,
        /// Its uid.
        uid: AgentUid,
    },
}

/// What a deployment does to the running agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Interruption {
    /// Nothing: it does not run, or nothing it uses changes.
    None,
    /// It reloads its config at the turn boundary.
    Reload,
    /// It is stopped and started.
    Restart,
}

/// On whose authority a step may be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Authority {
    /// Needs none: it repairs a projection or keeps books.
    Free,
    /// Needs a decision of this class.
    #[serde(rename_all = "camelCase")]
    Class {
        /// The class.
        class: GateClass,
        /// Who asked.
        asked_by: Asker,
    },
    /// Follows from a gate that was consumed: an approved deployment covers its restart, its reload and its revert.
    Under(GateId),
}

/// One planned step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The agent; absent for a step of the hive.
    pub agent: Option<AgentName>,
    /// Its uid.
    pub uid: Option<AgentUid>,
    /// What to do.
    pub action: Action,
    /// On whose authority.
    pub authority: Authority,
}

impl Step {
    /// Whether it gives an agent a new base, and changes nothing else.
    pub fn updates_base(&self) -> bool {
        match self.authority {
            Authority::Class { class, .. } => class == GateClass::BaseUpdate,
            Authority::Free | Authority::Under(_) => false,
        }
    }
}

/// A step together with what people are shown before they decide. Not part of any digest.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedStep {
    /// The step.
    pub step: Step,
    /// Identity of its tries.
    pub id: Digest,
    /// Identity of its approval.
    pub effect_digest: Digest,
    /// What an operator is shown, when it is gated. The commit diff is filled in when the gate is opened.
    pub view: GateView,
}

impl Action {
    /// A stable word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AcceptRemoval { .. } => "acceptRemoval",
            Self::Spawn => "spawn",
            Self::MakeDraft { .. } => "makeDraft",
            Self::SpawnDraft { .. } => "spawnDraft",
            Self::EndOffer { .. } => "endOffer",
            Self::DropStaged => "dropStaged",
            Self::DropDraft => "dropDraft",
            Self::SetPhase { .. } => "setPhase",
            Self::Build { .. } => "build",
            Self::Deploy { .. } => "deploy",
            Self::ProjectRef(_) => "projectRef",
            Self::Activate { .. } => "activate",
            Self::Obey { .. } => "obey",
            Self::EndOrder { .. } => "endOrder",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Limit { .. } => "limit",
            Self::ProbationClock { .. } => "probationClock",
            Self::MarkGood { .. } => "markGood",
            Self::Revert { .. } => "revert",
            Self::Halt { .. } => "halt",
            Self::NoteFailure { .. } => "noteFailure",
            Self::NoteOutOfMemory { .. } => "noteOutOfMemory",
            Self::ClearFailures => "clearFailures",
            Self::Archive => "archive",
            Self::Restore => "restore",
            Self::Purge { .. } => "purge",
        }
    }

    /// What it does to the agent's life.
    pub fn effect_class(&self) -> EffectClass {
        match self {
            Self::Build { .. } => EffectClass::RunsAgentCode,
            Self::Stop { .. } | Self::Restart { .. } => EffectClass::Restart,
            Self::Deploy {
                interrupts: Interruption::Restart,
                ..
            } => EffectClass::Restart,
            Self::AcceptRemoval { .. }
            | Self::Archive
            | Self::DropDraft
            | Self::Purge { .. }
            | Self::Revert { .. }
            | Self::Halt { .. } => EffectClass::Destructive,
            _ => EffectClass::Additive,
        }
    }

    /// Whether only the ledger changes.
    pub fn is_bookkeeping(&self) -> bool {
        matches!(
            self,
            Self::SetPhase { .. }
                | Self::EndOffer { .. }
                | Self::EndOrder { .. }
                | Self::ProbationClock { .. }
                | Self::MarkGood { .. }
                | Self::Revert { .. }
                | Self::Halt { .. }
                | Self::NoteFailure { .. }
                | Self::NoteOutOfMemory { .. }
                | Self::ClearFailures
        )
    }
}
