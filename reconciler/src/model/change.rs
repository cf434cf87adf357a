//! Changes of the ledger, as values. All of one list are applied in one transaction, or none.

use jiff::Timestamp;
use serde_json::Value;
use shared::agent_api::ProposalPhase;
use shared::event::Level;
use shared::spec::RunState;
use shared::topic::Topic;
use shared::{AgentName, AgentUid, CommitOid, Digest, GateId, ProposalNumber};

use crate::model::draft::Draft;
use crate::model::order::ManagerOrder;
use crate::model::records::{
    AgentLife, AgentOrigin, BuildState, Deployed, Failures, Mark, Order, OutOfMemory, Override, Probation,
    Proposal, Quarantine,
};

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A new agent, in life [`AgentLife::Declared`].
    Register {
        /// Its name.
        name: AgentName,
        /// Its uid.
        uid: AgentUid,
        /// Why it exists.
        origin: AgentOrigin,
        /// When.
        at: Timestamp,
    },
    /// An agent's life.
    Life {
        /// The agent.
        uid: AgentUid,
        /// Its life from now on.
        life: AgentLife,
    },
    /// Why the agent exists.
    Origin {
        /// The agent.
        uid: AgentUid,
        /// Why, from now on.
        origin: AgentOrigin,
    },
    /// The operator's order to keep nothing of the agent; `None` takes it back.
    PurgeOrder {
        /// The agent.
        uid: AgentUid,
        /// The order.
        order: Option<Order>,
    },
    /// What is prepared of an agent; `None`: nothing is staged any more.
    Draft {
        /// The agent.
        uid: AgentUid,
        /// All of it.
        draft: Option<Box<Draft>>,
    },
    /// A draft's overlay became a commit.
    DraftCommit {
        /// The agent.
        uid: AgentUid,
        /// The commit.
        commit: CommitOid,
    },
    /// A draft's offer comes to nothing, unless it is another one by now. Its owner is told.
    OfferEnded {
        /// The agent.
        uid: AgentUid,
        /// When the offer was made.
        offered_at: Timestamp,
        /// Why.
        reason: String,
        /// When it ended.
        at: Timestamp,
    },
    /// The seed commit.
    Seeded {
        /// The agent.
        uid: AgentUid,
        /// The commit.
        commit: CommitOid,
    },
    /// What should be running; `None` after a first deployment that failed.
    Deployed {
        /// The agent.
        uid: AgentUid,
        /// The deployment.
        deployed: Option<Box<Deployed>>,
    },
    /// The last good deployment.
    LastGood {
        /// The agent.
        uid: AgentUid,
        /// The deployment.
        deployed: Box<Deployed>,
    },
    /// The operator wants every run that began before this time to be restarted.
    RestartBefore {
        /// The agent.
        uid: AgentUid,
        /// The time.
        at: Timestamp,
    },
    /// What a manager ordered about the agent.
    Order {
        /// The agent.
        uid: AgentUid,
        /// The order, and where it is.
        order: Box<ManagerOrder>,
    },
    /// An order is allowed: it holds from now on, unless another has taken its place or the operator's stands against it.
    Obey {
        /// The agent.
        uid: AgentUid,
        /// The order's number.
        number: u64,
        /// What the spec says about the run state.
        declared: RunState,
        /// The gate that allowed it.
        gate: Option<GateId>,
        /// When.
        at: Timestamp,
    },
    /// An order comes to nothing. Whoever gave it is told.
    OrderEnded {
        /// The agent.
        uid: AgentUid,
        /// The order's number.
        number: u64,
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// Whether what the spec and its commit ask for is to be built once more.
    Rebuild {
        /// The agent.
        uid: AgentUid,
        /// Whether.
        wanted: bool,
    },
    /// A new proposal.
    Propose {
        /// The agent.
        uid: AgentUid,
        /// The proposal.
        proposal: Box<Proposal>,
    },
    /// A phase of a proposal was reached.
    Phase {
        /// The agent.
        uid: AgentUid,
        /// The proposal.
        number: ProposalNumber,
        /// The phase.
        phase: ProposalPhase,
        /// What its tag says.
        mark: Mark,
    },
    /// Nothing of the transaction is carried out unless the proposal is still in this phase: a decision may have moved
    /// it since it was looked at.
    InPhase {
        /// The agent.
        uid: AgentUid,
        /// The proposal.
        number: ProposalNumber,
        /// The phase.
        phase: ProposalPhase,
    },
    /// The outcome of a build.
    Built {
        /// The agent.
        uid: AgentUid,
        /// The digest of its request.
        key: Digest,
        /// The outcome.
        state: BuildState,
        /// When.
        at: Timestamp,
    },
    /// The deployment on trial; `None` ends the trial.
    Probation {
        /// The agent.
        uid: AgentUid,
        /// The trial.
        probation: Option<Probation>,
    },
    /// A system failed its trial.
    Quarantine {
        /// The agent.
        uid: AgentUid,
        /// The system.
        system: String,
        /// Why and since when.
        quarantine: Quarantine,
    },
    /// The operator wants another try: attempts, failures, quarantines and failed builds are forgotten.
    Forget {
        /// The agent.
        uid: AgentUid,
    },
    /// The operator's override of whether the agent runs; `None` takes it back.
    RunOverride {
        /// The agent.
        uid: AgentUid,
        /// The override.
        run: Option<Override<RunState>>,
    },
    /// The operator's model; `None` takes it back.
    ModelOverride {
        /// The agent.
        uid: AgentUid,
        /// The override.
        model: Option<Override<String>>,
    },
    /// The suspension of planning; `None` ends it.
    Suspension {
        /// The agent.
        uid: AgentUid,
        /// The override.
        suspended: Option<Override<()>>,
    },
    /// What was told of processes killed for want of memory.
    OutOfMemory {
        /// The agent.
        uid: AgentUid,
        /// All that was told.
        told: OutOfMemory,
    },
    /// The agent's unasked ends.
    Failures {
        /// The agent.
        uid: AgentUid,
        /// All of them.
        failures: Failures,
    },
    /// Something happened that people may want to know.
    Event {
        /// The agent.
        agent: Option<AgentName>,
        /// How much an operator should care.
        level: Level,
        /// A stable word.
        kind: &'static str,
        /// One line.
        message: String,
        /// More.
        data: Value,
        /// When.
        at: Timestamp,
    },
    /// A message from the daemon to every manager but the agent it is about.
    NotifyManagers {
        /// About whom.
        about: AgentName,
        /// What they are told.
        notice: Notice,
    },
    /// A message from the daemon to an agent.
    Notify {
        /// To whom.
        agent: AgentName,
        /// What it is told.
        notice: Notice,
    },
}

/// What the daemon tells an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What it is about.
    pub topic: Topic,
    /// The text, one line.
    pub body: String,
    /// An agent gets it once for the same id.
    pub dedupe: String,
    /// When.
    pub at: Timestamp,
}
