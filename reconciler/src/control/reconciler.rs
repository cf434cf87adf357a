//! What every pass shares: the doors, the ledger, the spec in force, and the views that the APIs show.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use camino::Utf8PathBuf;
use jiff::Timestamp;
use shared::AgentName;
use shared::canonical::NotCanonical;
use shared::spec::AgentSpec;
use tokio::sync::{mpsc, watch};

use super::permits::Permits;
use super::rest::Resting;
use super::rollout::Line;
use super::views::Views;
use super::watching::Watching;
use crate::execute::ExecuteError;
use crate::host::{Host, HostError};
use crate::ledger::{Ledger, LedgerError};
use crate::model::build::NixInputs;
use crate::model::records::{AgentOrigin, AgentRecord};
use crate::plan::{HiveFacts, support};
use crate::spec::Accepted;

/// Something to reconcile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The spec file, the register of agents, removals.
    Hive,
    /// One agent.
    Agent(AgentName),
}

/// When to run again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requeue {
    /// This key; `None`: only when something happens.
    pub at: Option<Timestamp>,
    /// Other keys, at once and in this order.
    pub others: Vec<Key>,
}

/// A pass could not be finished. The key is run again later.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A step could not be carried out.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// A value has no canonical form.
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
    /// Something outside could not be observed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The planner broke a rule: its plan is not carried out.
    #[error("the plan breaks an invariant and is not carried out: {0}")]
    Invariant(String),
    /// The program has a fault that ended the pass in the middle.
    #[error("a fault of the program ended the pass; the log has the place, please report it")]
    Panicked,
    /// A pass did not come to rest.
    #[error("no rest after {0} rounds: something undoes what this pass does")]
    Restless(usize),
}

/// How the daemon was started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The harness program, unless the spec names one.
    pub harness: Utf8PathBuf,
    /// Restarts, starts and stops that may run at once.
    pub max_transitions: usize,
}

/// The reconciler. Cheap to share.
pub struct Reconciler {
    pub(super) host: Host,
    pub(super) ledger: Ledger,
    pub(super) settings: Settings,
    watching: Mutex<Watching>,
    jumps: watch::Sender<u64>,
    pub(super) accepted: Mutex<Option<Arc<Accepted>>>,
    pub(super) views: Mutex<Views>,
    pub(super) resting: Resting,
    pub(super) builds: Permits,
    pub(super) transitions: Permits,
    /// Spawns count the agents.
    pub(super) spawns: Permits,
    /// Updates of the base count who is on trial.
    pub(super) updates: Permits,
    pub(super) line: Line,
    /// One change of staged files at a time: what nothing refers to is deleted after each.
    pub(super) staging: tokio::sync::Mutex<()>,
    nudges: mpsc::UnboundedSender<Key>,
}

impl Reconciler {
    /// A reconciler and the stream of keys that others ask it to look at.
    pub fn new(host: Host, ledger: Ledger, settings: Settings) -> (Arc<Self>, mpsc::UnboundedReceiver<Key>) {
        let (nudges, nudged) = mpsc::unbounded_channel();
        let now = host.clock.now();
        let reconciler = Self {
            // The spec's `maxBuilds`, once there is a spec.
            builds: Permits::up_to(0),
            transitions: Permits::up_to(settings.max_transitions.max(1)),
            spawns: Permits::one_by_one(),
            updates: Permits::one_by_one(),
            line: Line::default(),
            staging: tokio::sync::Mutex::default(),
            accepted: Mutex::new(None),
            views: Mutex::new(Views::new(now)),
            resting: Resting::default(),
            watching: Mutex::new(Watching::begin(now, host.clock.steady())),
            jumps: watch::Sender::new(0),
            host,
            ledger,
            settings,
            nudges,
        };
        (Arc::new(reconciler), nudged)
    }

    /// Asks for a look at `key`. Never says why.
    pub fn nudge(&self, key: Key) {
        // The receiver only goes away when the daemon ends.
        let _ended = self.nudges.send(key);
    }

    /// A handle that others may nudge through.
    pub fn nudger(&self) -> mpsc::UnboundedSender<Key> {
        self.nudges.clone()
    }

    /// The doors.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What is in force, and what is wrong with the file; `None` before the first look.
    pub fn accepted(&self) -> Option<Arc<Accepted>> {
        lock(&self.accepted).clone()
    }

    /// What the APIs show.
    pub fn views(&self) -> MutexGuard<'_, Views> {
        lock(&self.views)
    }

    /// Looks at one key, and carries out what is wanted, possible and permitted.
    ///
    /// # Errors
    /// When the pass could not be finished.
    pub async fn reconcile(&self, key: &Key) -> Result<Requeue, PassError> {
        match key {
            Key::Hive => self.hive_pass().await,
            Key::Agent(name) => self.agent_pass(name).await,
        }
    }

    /// Lets this many builds run at once. Builds that run already are not cut short.
    pub(super) fn limit_builds(&self, most: u32) {
        self.builds
            .resize(usize::try_from(most).unwrap_or(usize::MAX).max(1));
    }

    /// Looks at every agent's container once, in one go: running agents are adopted. No step is taken before that.
    ///
    /// # Errors
    /// When they cannot be observed; then nothing is known, and nothing may be done.
    pub async fn first_inventory(&self) -> Result<usize, PassError> {
        let names: Vec<AgentName> = self
            .ledger
            .agents()
            .await?
            .items
            .into_iter()
            .map(|r| r.name)
            .collect();
        self.host.runtime.observe(&names).await?;
        Ok(names.len())
    }

    /// Notices when the clock was set. Nobody watched the time that it skipped or repeats, so what is measured by
    /// watching begins anew, and everything is looked at.
    pub(super) fn heed_clock(&self) {
        let (now, steady) = (self.host.clock.now(), self.host.clock.steady());
        if let Some(jump) = lock(&self.watching).look(now, steady) {
            tracing::warn!(by = %jump, "the clock was set: everything is looked at anew");
            self.jumps.send_modify(|jumps| *jumps += 1);
        }
    }

    /// Counts how often the clock was set.
    pub(super) fn jumps(&self) -> watch::Receiver<u64> {
        self.jumps.subscribe()
    }

    /// What planning needs to know of the hive; `None` while no spec is in force.
    pub(super) fn facts(&self, accepted: &Accepted) -> Option<HiveFacts> {
        let spec = accepted.in_force()?;
        let harness = spec
            .harness
            .as_ref()
            .map_or_else(|| self.settings.harness.clone(), Utf8PathBuf::from);
        Some(HiveFacts {
            id: self.ledger.meta().hive_id,
            name: spec.hive.name.clone(),
            operator: spec.operator.clone(),
            policy: spec.policy.clone(),
            harness,
            programs: spec.programs.clone(),
            model_url: spec.egress.model_url.clone(),
            provides_key: spec.egress.api_key_file.is_some(),
            runtime: self.host.runtime.kind(),
            nix: NixInputs::of(&spec.builder),
            unsupported: support::unsupported(spec, self.host.runtime.kind(), self.host.builder.kind()),
            watched_since: lock(&self.watching).since,
        })
    }
}

/// What is declared of an agent; one that was spawned and that the spec does not name has the settings of all spawned.
pub(super) fn declared<'a>(accepted: &'a Accepted, record: &AgentRecord) -> Option<&'a AgentSpec> {
    let spawned = || (record.origin == AgentOrigin::Spawn).then_some(&accepted.spec.spawn_defaults);
    accepted.spec.agents.get(&record.name).or_else(spawned)
}

/// Takes a lock whose holder cannot leave it half-changed: each critical section is one assignment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
