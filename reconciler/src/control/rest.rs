//! Agents at rest: what the last pass looked at when it left nothing to do and nothing to wait for.
//!
//! Planning is a pure function. As long as the same spec is in force, nobody wrote to the ledger, and what is observed is
//! the same, it would come to the same end; so a pass that finds that ends there, without reading the ledger and without
//! a plan. A pass that has to look again at some time is never remembered, so the time does not matter.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use shared::AgentName;

use super::reconciler::lock;
use crate::host::HarnessState;
use crate::model::inventory::AgentInventory;
use crate::observe::Subject;
use crate::spec::Accepted;

/// All but the observation that a pass depends on.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    /// How often the ledger was written to.
    pub(super) writes: u64,
    /// What is in force.
    pub(super) accepted: Arc<Accepted>,
    /// Since when time is measured by watching it.
    pub(super) watched_since: Timestamp,
}

impl Ground {
    fn is(&self, other: &Self) -> bool {
        self.writes == other.writes
            && Arc::ptr_eq(&self.accepted, &other.accepted)
            && self.watched_since == other.watched_since
    }
}

/// What a pass looked at.
#[derive(Debug)]
pub(super) struct Rest {
    ground: Ground,
    subject: Subject,
    inventory: AgentInventory,
}

impl Rest {
    /// What is to be looked at.
    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Whether this is what its harness had reported then.
    pub(super) fn heard(&self, harness: Option<&HarnessState>) -> bool {
        harness == self.inventory.harness.as_ref()
    }

    /// Whether this is what was seen then.
    pub(super) fn saw(&self, inventory: &AgentInventory) -> bool {
        let AgentInventory {
            collected_at: _,
            unit,
            repo,
            descends,
            folders,
            systems,
            harness,
        } = inventory;
        let then = &self.inventory;
        *unit == then.unit
            && *repo == then.repo
            && *descends == then.descends
            && *folders == then.folders
            && *systems == then.systems
            && self.heard(harness.as_ref())
    }
}

/// The agents at rest.
#[derive(Debug, Default)]
pub(super) struct Resting(Mutex<BTreeMap<AgentName, Arc<Rest>>>);

impl Resting {
    /// Remembers that the agent is at rest.
    pub(super) fn note(&self, name: &AgentName, ground: Ground, subject: Subject, inventory: AgentInventory) {
        let rest = Rest {
            ground,
            subject,
            inventory,
        };
        lock(&self.0).insert(name.clone(), Arc::new(rest));
    }

    /// What the last pass looked at, if that is to be trusted on this ground. It is forgotten: who trusts it puts it back.
    pub(super) fn take(&self, name: &AgentName, ground: &Ground) -> Option<Arc<Rest>> {
        lock(&self.0).remove(name).filter(|rest| rest.ground.is(ground))
    }

    /// Nothing has changed.
    pub(super) fn put_back(&self, name: &AgentName, rest: Arc<Rest>) {
        lock(&self.0).insert(name.clone(), rest);
    }
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;
    use shared::spec::Spec;

    use super::*;
    use crate::control::reconciler::Settings;
    use crate::control::{Key, Reconciler};
    use crate::host::fake::{Source, World};
    use crate::ledger::Ledger;

    fn alice() -> AgentName {
        "alice".parse().expect("a name")
    }

    /// A hive with one agent, at rest.
    async fn at_rest() -> (World, Ledger, Arc<Reconciler>) {
        let world = World::new();
        world.lock().spec = Ok(r#"{ "version": 1, "hive": { "name": "home" },
            "agents": { "alice": { "run": "stopped", "driver": { "kind": "scripted" } } } }"#
            .into());
        let now = world.lock().now;
        let ledger = Ledger::open_in_memory(now, shared::HiveId(uuid::Uuid::from_u128(7)))
            .await
            .expect("a ledger");
        let settings = Settings {
            harness: "/fake/hive-harness".into(),
            max_transitions: 4,
        };
        let (reconciler, _nudged) = Reconciler::new(world.host(), ledger.clone(), settings);
        for key in [Key::Hive, Key::Agent(alice()), Key::Agent(alice())] {
            reconciler.reconcile(&key).await.expect("a pass");
        }
        assert!(reconciler.resting.remembers(&alice()));
        (world, ledger, reconciler)
    }

    impl Resting {
        fn remembers(&self, name: &AgentName) -> bool {
            lock(&self.0).contains_key(name)
        }
    }

    #[tokio::test]
    async fn nothing_new_is_rest_again() {
        let (_world, ledger, reconciler) = at_rest().await;
        let writes = ledger.writes();
        let before = lock(&reconciler.resting.0)
            .get(&alice())
            .cloned()
            .expect("a memory");
        reconciler.reconcile(&Key::Agent(alice())).await.expect("a pass");
        let after = lock(&reconciler.resting.0)
            .get(&alice())
            .cloned()
            .expect("a memory");
        assert!(Arc::ptr_eq(&before, &after), "no new plan was made");
        assert_eq!(ledger.writes(), writes);
    }

    #[tokio::test]
    async fn an_agent_that_cannot_be_observed_is_not_at_rest() {
        let (world, _ledger, reconciler) = at_rest().await;
        for source in [Source::Runtime, Source::Repos, Source::Folders] {
            world.lock().blind = vec![source];
            reconciler.reconcile(&Key::Agent(alice())).await.expect("a pass");
            assert!(!reconciler.resting.remembers(&alice()), "{source:?}");
            world.lock().blind.clear();
            reconciler.reconcile(&Key::Agent(alice())).await.expect("a pass");
            assert!(reconciler.resting.remembers(&alice()));
        }
    }

    #[tokio::test]
    async fn a_write_a_spec_and_a_clock_that_was_set_are_each_another_ground() {
        let accepted = |name: &str| {
            let spec: Spec = serde_json::from_value(serde_json::json!({
                "version": 1, "hive": { "name": name }
            }))
            .expect("a spec");
            Arc::new(Accepted::restored(Utf8PathBuf::from("/hive.json"), spec, 1))
        };
        let ground = Ground {
            writes: 7,
            accepted: accepted("home"),
            watched_since: Timestamp::UNIX_EPOCH,
        };
        let others = [
            Ground {
                writes: 8,
                ..ground.clone()
            },
            Ground {
                accepted: accepted("home"),
                ..ground.clone()
            },
            Ground {
                watched_since: Timestamp::MAX,
                ..ground.clone()
            },
        ];
        assert!(ground.is(&ground.clone()));
        for other in others {
            assert!(!ground.is(&other), "{other:?}");
        }
    }

    #[tokio::test]
    async fn what_a_ledger_is_told_counts_once_it_changes_a_row() {
        let (_world, ledger, _reconciler) = at_rest().await;
        let writes = ledger.writes();
        let now = Timestamp::UNIX_EPOCH;
        ledger.prune(now).await.expect("nothing to be removed");
        assert_eq!(ledger.writes(), writes);
        let event = crate::execute::event(&alice(), shared::event::Level::Info, "looked", "looked at", now);
        ledger.apply(vec![event]).await.expect("a write");
        assert_eq!(ledger.writes(), writes + 1);
    }
}
