//! What changes while a step is being carried out, and what goes wrong in the middle of one.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may end at the first surprise, and says so"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use reconciler::control::command::Because;
use reconciler::control::reconciler::Settings;
use reconciler::control::run::run;
use reconciler::control::{Key, Reconciler};
use reconciler::host::fake::World;
use reconciler::host::{Builder, Host, HostError, UnitState};
use reconciler::ledger::Ledger;
use reconciler::model::build::{BuildOutput, BuildRequest};
use reconciler::model::records::AgentOrigin;
use shared::gate::GateState;
use shared::plan::WaitingOn;
use shared::spec::RunState;
use shared::{AgentName, HiveId};
use tokio::sync::{mpsc, watch};

/// What happens once, in the middle of the next build.
#[derive(Clone)]
enum Meanwhile {
    /// The operator writes this spec, and the daemon takes it in.
    Spec(&'static str),
    /// The program has a fault.
    Panic,
}

/// A builder with something happening in the middle of a build.
struct Interrupted {
    inner: Arc<dyn Builder>,
    world: World,
    reconciler: OnceLock<Arc<Reconciler>>,
    meanwhile: Mutex<Option<Meanwhile>>,
}

#[async_trait]
impl Builder for Interrupted {
    async fn build(&self, request: &BuildRequest) -> Result<BuildOutput, HostError> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        match meanwhile {
            Some(Meanwhile::Spec(spec)) => {
                self.world.lock().spec = Ok(spec.into());
                self.reconciler
                    .get()
                    .unwrap()
                    .reconcile(&Key::Hive)
                    .await
                    .unwrap();
            }
            Some(Meanwhile::Panic) => panic!("planted"),
            None => {}
        }
        self.inner.build(request).await
    }

    async fn present(&self, systems: &[String]) -> Result<BTreeMap<String, bool>, HostError> {
        self.inner.present(systems).await
    }
}

struct Hive {
    world: World,
    ledger: Ledger,
    reconciler: Arc<Reconciler>,
    builder: Arc<Interrupted>,
    nudged: mpsc::UnboundedReceiver<Key>,
}

async fn hive() -> Hive {
    let world = World::new();
    let host = world.host();
    let builder = Arc::new(Interrupted {
        inner: Arc::clone(&host.builder),
        world: world.clone(),
        reconciler: OnceLock::new(),
        meanwhile: Mutex::new(None),
    });
    let host = Host {
        builder: Arc::clone(&builder) as _,
        ..host
    };
    let now = world.lock().now;
    let ledger = Ledger::open_in_memory(now, HiveId(uuid::Uuid::from_u128(7)))
        .await
        .unwrap();
    let settings = Settings {
        harness: "/fake/hive-harness".into(),
        max_transitions: 4,
    };
    let (reconciler, nudged) = Reconciler::new(host, ledger.clone(), settings);
    assert!(builder.reconciler.set(Arc::clone(&reconciler)).is_ok());
    Hive {
        world,
        ledger,
        reconciler,
        builder,
        nudged,
    }
}

fn alice() -> AgentName {
    "alice".parse().unwrap()
}

impl Hive {
    async fn look(&self) {
        self.reconciler.reconcile(&Key::Hive).await.unwrap();
        self.reconciler.reconcile(&Key::Agent(alice())).await.unwrap();
    }

    async fn prompt(&self) -> String {
        let agent = self.ledger.agent(&alice()).await.unwrap().unwrap();
        agent.record.deployed.unwrap().output.config.prompt
    }
}

#[tokio::test]
async fn a_policy_that_is_tightened_during_a_build_holds_for_the_deployment() {
    let hive = hive().await;
    hive.world.lock().spec = Ok(
        br#"{ "version": 1, "hive": { "name": "h" }, "agents": { "alice": { "prompt": "old" } } }"#.to_vec(),
    );
    hive.look().await;
    assert_eq!(hive.prompt().await, "old");

    hive.world.lock().spec = Ok(
        br#"{ "version": 1, "hive": { "name": "h" }, "agents": { "alice": { "prompt": "new" } } }"#.to_vec(),
    );
    *hive.builder.meanwhile.lock().unwrap() = Some(Meanwhile::Spec(
        r#"{ "version": 1, "hive": { "name": "h" }, "policy": { "spec": { "deployWidens": "ask" } },
             "agents": { "alice": { "prompt": "new" } } }"#,
    ));
    hive.look().await;
    assert!(
        hive.builder.meanwhile.lock().unwrap().is_none(),
        "nothing was built"
    );
    assert_eq!(
        hive.prompt().await,
        "old",
        "deployed under a policy that is not in force"
    );
    let gates = hive.ledger.gates(false).await.unwrap().complete().unwrap();
    let states: Vec<_> = gates
        .iter()
        .map(|gate| (gate.class.as_str(), gate.state))
        .collect();
    assert_eq!(states, [("deployWidens", GateState::Open)]);
}

#[tokio::test]
async fn an_override_that_runs_out_during_a_turn_waits_for_the_end_of_the_turn() {
    let hive = hive().await;
    hive.world.lock().spec = Ok(
        br#"{ "version": 1, "hive": { "name": "h" }, "agents": { "alice": { "run": "stopped" } } }"#.to_vec(),
    );
    hive.look().await;
    let until = hive.world.lock().now + Duration::from_secs(2 * 3600);
    let because = Because {
        by: "unix:operator".into(),
        reason: String::new(),
        until: Some(until),
    };
    hive.reconciler
        .set_run(&alice(), RunState::Running, because)
        .await
        .unwrap();
    hive.look().await;
    assert!(matches!(hive.world.unit(&alice()), UnitState::Running { .. }));

    hive.world.advance(2 * 3600 + 1);
    let now = hive.world.lock().now;
    hive.world.lock().busy = BTreeMap::from([(alice(), now)]);
    hive.look().await;
    assert!(
        matches!(hive.world.unit(&alice()), UnitState::Running { .. }),
        "stopped in the middle of a turn"
    );
    let waiting = hive.reconciler.views().agents[&alice()].status.waiting.clone();
    assert!(
        waiting
            .iter()
            .any(|waiting| matches!(waiting.on, WaitingOn::TurnBoundary { .. })),
        "{waiting:?}"
    );
    hive.world.lock().busy.clear();
    hive.look().await;
    assert!(!matches!(hive.world.unit(&alice()), UnitState::Running { .. }));
}

#[tokio::test]
async fn an_order_to_a_daemon_that_just_started_is_judged_by_the_spec_all_the_same() {
    let declares_alice =
        br#"{ "version": 1, "hive": { "name": "h" }, "agents": { "alice": {}, "bob": {} } }"#;
    let because = || Because {
        by: "unix:operator".into(),
        reason: String::new(),
        until: None,
    };
    let hive = hive().await;
    hive.world.lock().spec = Ok(declares_alice.to_vec());
    hive.look().await;
    let again = || {
        let settings = Settings {
            harness: "/fake/hive-harness".into(),
            max_transitions: 4,
        };
        Reconciler::new(hive.world.host(), hive.ledger.clone(), settings).0
    };

    let changed = again().set_run(&alice(), RunState::Running, because()).await;
    assert!(!changed.unwrap(), "the spec says that already");
    let overrides = hive.ledger.agent(&alice()).await.unwrap().unwrap().overrides;
    assert!(overrides.run.is_none(), "{overrides:?}");

    hive.world.lock().spec =
        Ok(br#"{ "version": 1, "hive": { "name": "h" }, "agents": { "bob": {} } }"#.to_vec());
    hive.look().await;
    hive.world.lock().spec = Ok(declares_alice.to_vec());
    let (said, _) = again().restore(&alice(), None, because()).await.unwrap();
    assert_eq!(said, "alice is wanted again", "it is declared, not spawned");
    let record = hive.ledger.agent(&alice()).await.unwrap().unwrap().record;
    assert_eq!(record.origin, AgentOrigin::Spec);
}

#[tokio::test]
async fn an_agent_whose_pass_panicked_is_looked_at_again() {
    let hive = hive().await;
    hive.world.lock().spec =
        Ok(br#"{ "version": 1, "hive": { "name": "h" }, "agents": { "alice": {} } }"#.to_vec());
    *hive.builder.meanwhile.lock().unwrap() = Some(Meanwhile::Panic);
    let Hive {
        world,
        reconciler,
        builder,
        nudged,
        ..
    } = hive;
    let (end, shutdown) = watch::channel(false);
    let (passes, mut passed) = mpsc::unbounded_channel();
    let daemon = tokio::spawn(run(Arc::clone(&reconciler), nudged, shutdown, move |key| {
        let _ended = passes.send(key.clone());
    }));
    let started = async {
        while !matches!(world.unit(&alice()), UnitState::Running { .. }) {
            passed.recv().await.unwrap();
            // Past whatever holds a retry back.
            world.advance(5);
            reconciler.nudge(Key::Agent(alice()));
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), started).await;
    assert!(builder.meanwhile.lock().unwrap().is_none(), "nothing was built");
    assert!(
        in_time.is_ok(),
        "alice was given up: {:?}",
        reconciler.views().failures
    );
    end.send(true).unwrap();
    daemon.await.unwrap();
}
