//! What the ledger remembers, as values.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::agent_api::ProposalPhase;
use shared::gate::{Asker, Gate};
use shared::spec::RunState;
use shared::{AgentName, AgentUid, CommitOid, Digest, GateId, ProposalNumber, ServerName};

use crate::model::build::BuildOutput;
use crate::model::draft::Draft;
use crate::model::order::{ManagerOrder, OrderState, Verb};
use crate::model::step::Step;
use crate::model::user_range::UserRange;

/// Where an agent is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AgentLife {
    /// Somebody prepares it: it has a repo and staged files, and becomes an agent once the operator agrees.
    Draft,
    /// A draft that its owner gave up: what there is of it is being deleted.
    GivenUp {
        /// Since when.
        since: Timestamp,
    },
    /// Declared; nothing of it exists yet.
    Declared,
    /// Its repo and folders exist.
    Active,
    /// No longer declared: it is stopped, and archived once the operator agrees.
    Removed {
        /// Since when.
        since: Timestamp,
    },
    /// Its state lies in the archive.
    Archived {
        /// Since when.
        since: Timestamp,
    },
    /// The operator wants it back: its state is being moved out of the archive.
    Restoring {
        /// Since when.
        since: Timestamp,
    },
    /// Its state and its repo are deleted; its history stays.
    Purged {
        /// Since when.
        since: Timestamp,
    },
}

impl AgentLife {
    /// Whether nothing is left to do about it. Its name is free for another agent.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Archived { .. } | Self::Purged { .. })
    }
}

/// What the operator ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Who.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// Why an agent exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AgentOrigin {
    /// The spec declares it.
    Spec,
    /// An approved spawn proposal created it.
    Spawn,
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRecord {
    /// Its uid.
    pub uid: AgentUid,
    /// Its name. Among agents that are not archived, names are unique.
    pub name: AgentName,
    /// Where it is in its life.
    pub life: AgentLife,
    /// Why it exists.
    pub origin: AgentOrigin,
    /// When it was first declared.
    pub declared_at: Timestamp,
    /// The seed commit, once the repo exists.
    #[serde(default)]
    pub seed: Option<CommitOid>,
    /// What should be running.
    #[serde(default)]
    pub deployed: Option<Deployed>,
    /// The last deployment that passed its probation.
    #[serde(default)]
    pub last_good: Option<Deployed>,
    /// The operator asked for a restart of any run that began before.
    #[serde(default)]
    pub restart_before: Option<Timestamp>,
    /// What a manager ordered about it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Box<ManagerOrder>>,
    /// What the spec and its commit ask for is to be built once more, whatever that led to before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rebuild: bool,
    /// The operator ordered that nothing be kept of it. Once it is archived, a gate asks once more.
    #[serde(default)]
    pub purge: Option<Order>,
    /// What was prepared of it. In any other life than a draft's it only says that staged files are still to be deleted.
    #[serde(default)]
    pub draft: Option<Box<Draft>>,
    /// This record was lost, and made anew from what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
    /// What was told last of processes killed for want of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<OutOfMemory>,
}

impl AgentRecord {
    /// Where `main` belongs.
    pub fn main(&self) -> Option<&CommitOid> {
        self.deployed
            .as_ref()
            .map(|d| &d.output.commit)
            .or_else(|| self.recovered.as_ref()?.main.as_ref())
            .or(self.seed.as_ref())
    }

    /// The gate under which a manager's order has it archived, while it is removed.
    pub fn archived_under(&self) -> Option<GateId> {
        let order = self.order.as_deref()?;
        let holds = order.verb == Verb::Archive && order.state == OrderState::Done;
        order
            .gate
            .filter(|_| holds && matches!(self.life, AgentLife::Removed { .. }))
    }

    /// Whether a run that is found may be one that was allowed: what is deployed is not known any more, and not yet
    /// decided anew.
    pub fn adopts(&self) -> bool {
        self.deployed.is_none() && self.recovered.as_ref().is_some_and(|found| found.adopts)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Processes that the kernel killed for want of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutOfMemory {
    /// In which run.
    pub run: String,
    /// How many.
    pub kills: u64,
}

/// What was found of an agent whose record was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovered {
    /// When.
    pub at: Timestamp,
    /// Where `main` belongs while nothing is deployed: the commit that was deployed last, as far as the tags tell.
    #[serde(default)]
    pub main: Option<CommitOid>,
    /// A run that is found is left alone. Ends with the first deployment, which says what should run.
    pub adopts: bool,
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployed {
    /// The system, and all that follows from it.
    pub output: BuildOutput,
    /// The proposal its commit came from; 0 is the seed.
    pub proposal: ProposalNumber,
    /// The gate that allowed it.
    pub gate: GateId,
    /// When.
    pub at: Timestamp,
}

/// A phase of a proposal was reached: what its tag says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// When.
    pub at: Timestamp,
    /// The gate that was decided.
    #[serde(default)]
    pub gate: Option<GateId>,
    /// The digest that was decided about.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// Who decided.
    #[serde(default)]
    pub by: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// One immutable commit offered for a config repo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proposal {
    /// Its number.
    pub number: ProposalNumber,
    /// The commit.
    pub commit: CommitOid,
    /// The commit's title. Untrusted.
    pub title: String,
    /// The rest of the commit's message. Untrusted.
    pub reason: String,
    /// Who offered it.
    pub asked_by: Asker,
    /// Where it is in its life.
    pub phase: ProposalPhase,
    /// The phases it reached; the tags are a projection of this.
    pub marks: BTreeMap<ProposalPhase, Mark>,
}

/// A gate and the step it holds back. After approval this very step is carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateRecord {
    /// The gate as shown.
    pub gate: Gate,
    /// The step.
    pub step: Step,
}

/// The tries of one step. The row is deleted when the step is seen to have worked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// How often it was begun.
    pub count: u32,
    /// When it was first begun.
    pub first_at: Timestamp,
    /// When it was last begun.
    pub last_at: Timestamp,
    /// Not before then.
    pub next_at: Timestamp,
    /// Whether it was begun and its outcome is not known.
    pub in_flight: bool,
    /// Whether trying again is vain.
    pub terminal: bool,
    /// The last error; empty when there was none.
    pub error: String,
}

/// The outcome of a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BuildState {
    /// It is there.
    Built(Box<BuildOutput>),
    /// The input is at fault.
    Failed {
        /// How.
        error: String,
    },
    /// It would fetch from hosts that the operator did not declare, and is built once somebody agrees to exactly these.
    Wants {
        /// These.
        hosts: BTreeSet<String>,
    },
}

impl BuildState {
    /// Whether there is no system to show for it.
    pub fn is_failed(&self) -> bool {
        !matches!(self, Self::Built(_))
    }
}

/// A deployment on trial. It ends in last-good or in a revert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probation {
    /// The system on trial.
    pub system: String,
    /// When the trial began.
    pub since: Timestamp,
    /// How long it may take to become healthy, in seconds of active time.
    pub window_secs: u32,
    /// Active seconds of ended runs.
    pub active_secs: u32,
    /// Since when the agent runs; absent while it does not.
    #[serde(default)]
    pub active_since: Option<Timestamp>,
    /// How often it was started in vain during the trial.
    #[serde(default)]
    pub failed_starts: u32,
    /// MCP servers that this deployment added or altered: they must be healthy.
    #[serde(default)]
    pub watched: BTreeSet<ServerName>,
    /// The gate that allowed the deployment, and with it the restart, the reload and the revert.
    pub gate: GateId,
    /// The proposal deployed, when it was one.
    #[serde(default)]
    pub proposal: Option<ProposalNumber>,
    /// Whether it tries a new base, which other agents wait for.
    #[serde(default)]
    pub updates_base: bool,
}

/// A system that failed its probation. It is not deployed again until its inputs change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantine {
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// An override of the spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Override<T> {
    /// What holds instead.
    pub value: T,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; absent: until taken back.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Ordered by a manager while the spec says this: it lapses when the spec says something else. Absent: ordered by the
    /// operator, whatever the spec says.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub over: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

impl<T> Override<T> {
    /// Whether it holds now.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// An agent's overrides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overrides {
    /// Whether it should run.
    #[serde(default)]
    pub run: Option<Override<RunState>>,
    /// Planning is suspended.
    #[serde(default)]
    pub suspended: Option<Override<()>>,
    /// The model that runs its turns, in place of the config's.
    #[serde(default)]
    pub model: Option<Override<String>>,
}

impl Overrides {
    /// Whether the agent should run, as far as that is overridden now. `declared` is what the spec says.
    pub fn run_at(&self, declared: RunState, now: Timestamp) -> Option<&Override<RunState>> {
        let lapsed = |o: &Override<RunState>| o.over.is_some_and(|over| over != declared);
        self.run.as_ref().filter(|o| o.holds(now) && !lapsed(o))
    }

    /// Whether the agent should run.
    pub fn wanted_run(&self, declared: RunState, now: Timestamp) -> RunState {
        self.run_at(declared, now).map_or(declared, |o| o.value)
    }

    /// The operator's model, while it lasts.
    pub fn model_at(&self, now: Timestamp) -> Option<&Override<String>> {
        self.model.as_ref().filter(|o| o.holds(now))
    }

    /// The suspension, while it lasts.
    pub fn suspended_at(&self, now: Timestamp) -> Option<&Override<()>> {
        self.suspended.as_ref().filter(|o| o.holds(now))
    }
}

/// The run of ended runs that nobody asked for; it feeds the back-off of starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// How many in a row.
    pub count: u32,
    /// The last one.
    #[serde(default)]
    pub last_at: Option<Timestamp>,
    /// What it looked like.
    #[serde(default)]
    pub last: String,
}

/// All the ledger knows of one agent that its planning needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentLedger {
    /// The agent.
    pub record: AgentRecord,
    /// Its proposals, oldest first: all that are not final, and the latest of the others.
    pub proposals: Vec<Proposal>,
    /// Gates that can still matter: open, approved, denied, and consumed but not complete.
    pub gates: Vec<GateRecord>,
    /// Outcomes of builds, by the digest of their request.
    pub builds: BTreeMap<Digest, BuildState>,
    /// Steps that did not work yet, by step id.
    pub attempts: BTreeMap<Digest, Attempt>,
    /// The deployment on trial.
    pub probation: Option<Probation>,
    /// Systems that failed their trial, by path.
    pub quarantine: BTreeMap<String, Quarantine>,
    /// Overrides.
    pub overrides: Overrides,
    /// Runs that ended unasked.
    pub failures: Failures,
    /// The user ids of its container; `None`: all ranges are taken.
    #[serde(default)]
    pub user_range: Option<UserRange>,
    /// Undelivered messages.
    pub inbox: u64,
}
