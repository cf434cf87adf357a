//! What every pass shares: the doors, the ledger, the spec in force, and the views that the APIs show.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use camino::Utf8PathBuf;
use jiff::Timestamp;
use shared::AgentName;
use shared::canonical::NotCanonical;
use tokio::sync::{Semaphore, mpsc};

use super::views::Views;
use crate::execute::ExecuteError;
use crate::host::Host;
use crate::ledger::{Ledger, LedgerError};
use crate::plan::HiveFacts;
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
    /// Other keys, at once.
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
    /// The planner broke a rule: its plan is not carried out.
    #[error("the plan breaks an invariant and is not carried out: {0}")]
    Invariant(String),
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
    watched_since: Timestamp,
    pub(super) accepted: Mutex<Option<Arc<Accepted>>>,
    pub(super) views: Mutex<Views>,
    pub(super) builds: Semaphore,
    pub(super) transitions: Semaphore,
    nudges: mpsc::UnboundedSender<Key>,
}

impl Reconciler {
    /// A reconciler and the stream of keys that others ask it to look at.
    pub fn new(host: Host, ledger: Ledger, settings: Settings) -> (Arc<Self>, mpsc::UnboundedReceiver<Key>) {
        let (nudges, nudged) = mpsc::unbounded_channel();
        let now = host.clock.now();
        let reconciler = Self {
            // Raised to the spec's `maxBuilds` when a spec is accepted.
            builds: Semaphore::new(2),
            transitions: Semaphore::new(settings.max_transitions.max(1)),
            accepted: Mutex::new(None),
            views: Mutex::new(Views::new(now)),
            watched_since: now,
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
            unsupported: unsupported(spec),
            watched_since: self.watched_since,
        })
    }
}

/// Why this daemon cannot run agents of this spec.
fn unsupported(spec: &shared::spec::Spec) -> Option<String> {
    use shared::spec::{BuilderKind, RuntimeKind};
    match (spec.runtime.kind, spec.builder.kind) {
        (RuntimeKind::Nspawn, _) => {
            Some("runtime.kind \"nspawn\" is not part of this version yet: write \"process\"".to_owned())
        }
        (_, BuilderKind::Nix) => {
            Some("builder.kind \"nix\" is not part of this version yet: write \"plain\"".to_owned())
        }
        (RuntimeKind::Process, BuilderKind::Plain) => None,
    }
}

/// Takes a lock whose holder cannot leave it half-changed: each critical section is one assignment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
