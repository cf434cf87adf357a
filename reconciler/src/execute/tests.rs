//! What is checked right before an effect. Each test changes one thing between planning and execution.

use std::sync::Arc;

use async_trait::async_trait;
use shared::HiveId;
use shared::gate::GateState;
use shared::spec::{BuilderKind, ConfigField};

use super::*;
use crate::control::reconciler::Settings;
use crate::control::{Key, Reconciler};
use crate::host::fake::{World, oid};
use crate::host::{Builder, Limits};
use crate::model::build::{BuildOutput, BuildRequest};
use crate::model::records::{BuildState, GateRecord};

/// A hive in which alice runs one system and the deployment of another is approved.
struct Hive {
    world: World,
    host: Host,
    alice: AgentLedger,
    ready: Ready,
}

fn alice() -> AgentName {
    "alice".parse().expect("a name")
}

async fn ledger_of(world: &World) -> Ledger {
    let now = world.lock().now;
    let ledger = Ledger::open_in_memory(now, HiveId(uuid::Uuid::from_u128(7))).await;
    ledger.expect("a ledger")
}

/// A daemon that has not made a pass yet.
fn daemon_on(host: Host, ledger: &Ledger) -> Arc<Reconciler> {
    let settings = Settings {
        harness: "/fake/hive-harness".into(),
        max_transitions: 4,
    };
    let (reconciler, _nudged) = Reconciler::new(host, ledger.clone(), settings);
    reconciler
}

impl Hive {
    async fn new() -> Self {
        let world = World::new();
        let host = world.host();
        let ledger = ledger_of(&world).await;
        let reconciler = daemon_on(host.clone(), &ledger);
        for prompt in ["old", "new"] {
            let spec = json!({
                "version": 1, "hive": { "name": "h" },
                "policy": { "spec": if prompt == "old" { json!({}) } else { json!({ "deployWidens": "ask" }) } },
                "agents": { "alice": { "prompt": prompt } },
            });
            world.lock().spec = Ok(spec.to_string().into_bytes());
            reconciler.reconcile(&Key::Hive).await.expect("a pass");
            reconciler.reconcile(&Key::Agent(alice())).await.expect("a pass");
        }
        let alice = ledger.agent(&alice()).await.expect("a read").expect("alice");
        let [gate] = &alice.gates[..] else {
            panic!("one gate asks for the deployment: {:?}", alice.gates);
        };
        let ready = Ready {
            planned: PlannedStep {
                step: gate.step.clone(),
                id: crate::gate::step_id(&gate.step).expect("an id"),
                effect_digest: gate.gate.digest.clone(),
                view: gate.gate.view.clone(),
            },
            gate: Some(gate.gate.id),
        };
        Self {
            world,
            host,
            alice,
            ready,
        }
    }

    /// What the deployment comes to; `None`: it is done.
    async fn refusal(&self) -> Option<String> {
        let effect = deploy::carry_out(
            &self.host,
            &self.alice,
            &self.ready,
            &self.ready.planned.step.action,
        )
        .await;
        match effect.expect("the host answers") {
            Effect::Done(changes) => {
                assert!(
                    changes
                        .iter()
                        .any(|change| matches!(change, Change::Deployed { .. }))
                );
                None
            }
            Effect::Gone(why) => Some(why),
        }
    }
}

/// A part of the deployment that was approved, to be changed.
macro_rules! approved {
    ($hive:ident, $($field:ident),+) => {
        let Action::Deploy { $($field,)+ .. } = &mut $hive.ready.planned.step.action else {
            panic!("{:?}", $hive.ready);
        };
    };
}

#[tokio::test]
async fn an_approved_deployment_of_what_was_built_is_done() {
    let hive = Hive::new().await;
    assert_eq!(hive.refusal().await, None);
}

#[tokio::test]
async fn nothing_is_deployed_without_a_gate() {
    let mut hive = Hive::new().await;
    hive.ready.gate = None;
    assert_eq!(hive.refusal().await.as_deref(), Some("no gate allows it"));
}

#[tokio::test]
async fn nothing_is_deployed_over_another_system_than_the_approved_one() {
    for meanwhile in [Some("/systems/other".to_owned()), None] {
        let mut hive = Hive::new().await;
        approved!(hive, from);
        *from = meanwhile;
        let why = hive.refusal().await;
        assert_eq!(why.as_deref(), Some("another system was deployed meanwhile"));
    }
}

#[tokio::test]
async fn nothing_is_deployed_once_main_has_moved() {
    let mut hive = Hive::new().await;
    let deployed = hive.alice.record.deployed.as_mut().expect("old is deployed");
    deployed.output.commit = oid("elsewhere");
    assert_eq!(hive.refusal().await.as_deref(), Some("main moved meanwhile"));
}

#[tokio::test]
async fn nothing_is_deployed_that_does_not_descend_from_main() {
    let mut hive = Hive::new().await;
    approved!(hive, commit);
    *commit = oid("unrelated");
    assert_eq!(hive.refusal().await.as_deref(), Some("main moved meanwhile"));
}

#[tokio::test]
async fn nothing_is_deployed_but_the_approved_output() {
    let other = "the approved system is not the one that was built";
    let mut hive = Hive::new().await;
    approved!(hive, system, from);
    // One that is there, so that nothing else could be wrong with it.
    *system = from.clone().expect("old is deployed");
    assert_eq!(hive.refusal().await.as_deref(), Some(other));

    let mut hive = Hive::new().await;
    approved!(hive, build, grants);
    grants.insert(ConfigField::Prompt, build.clone());
    assert_eq!(hive.refusal().await.as_deref(), Some(other));

    let mut hive = Hive::new().await;
    approved!(hive, build);
    let failed = BuildState::Failed {
        error: "no such model".to_owned(),
    };
    hive.alice.builds.insert(build.clone(), failed);
    assert_eq!(hive.refusal().await.as_deref(), Some(other));
}

/// A builder whose systems were all deleted.
struct Emptied(Arc<dyn Builder>);

#[async_trait]
impl Builder for Emptied {
    async fn build(&self, request: &BuildRequest) -> Result<BuildOutput, HostError> {
        self.0.build(request).await
    }

    async fn present(&self, systems: &[String]) -> Result<BTreeMap<String, bool>, HostError> {
        Ok(systems.iter().map(|system| (system.clone(), false)).collect())
    }
}

#[tokio::test]
async fn a_system_that_is_gone_is_not_deployed() {
    let mut hive = Hive::new().await;
    hive.host.builder = Arc::new(Emptied(Arc::clone(&hive.host.builder)));
    let effect = deploy::carry_out(
        &hive.host,
        &hive.alice,
        &hive.ready,
        &hive.ready.planned.step.action,
    )
    .await;
    let Err(error) = effect else {
        panic!("it is deployed");
    };
    // It is built again, and the approval still holds.
    assert!(!error.is_terminal(), "{error:?}");
}

/// A world in which alice is declared with limits.
async fn limited() -> (World, Ledger) {
    let world = World::new();
    let ledger = ledger_of(&world).await;
    let spec = json!({
        "version": 1, "hive": { "name": "h" },
        "agents": { "alice": { "limits": { "memory": "1G" } }, "boss": { "role": "manager" } },
    });
    world.lock().spec = Ok(spec.to_string().into_bytes());
    (world, ledger)
}

/// A daemon that has just come up and brought everything to rest.
async fn daemon(world: &World, ledger: &Ledger) -> Arc<Reconciler> {
    let reconciler = daemon_on(world.host(), ledger);
    reconciler.reconcile(&Key::Hive).await.expect("a pass");
    for agent in [alice(), boss()] {
        reconciler.reconcile(&Key::Agent(agent)).await.expect("a pass");
    }
    reconciler
}

fn boss() -> AgentName {
    "boss".parse().expect("a name")
}

#[tokio::test]
async fn kills_for_want_of_memory_are_told_once_to_the_agent_and_its_managers_also_over_a_restart() {
    let (world, ledger) = limited().await;
    let reconciler = daemon(&world, &ledger).await;
    let inboxes = || async {
        let mut waiting = Vec::new();
        for agent in [alice(), boss()] {
            waiting.push(
                ledger
                    .agent(&agent)
                    .await
                    .expect("a read")
                    .expect("an agent")
                    .inbox,
            );
        }
        waiting
    };
    let before = inboxes().await;
    world.kill_for_memory(&alice());
    reconciler.reconcile(&Key::Agent(alice())).await.expect("a pass");
    drop(reconciler);
    daemon(&world, &ledger).await;
    let events = ledger.events(0, 1000).await.expect("a read");
    let told: Vec<_> = events.iter().filter(|it| it.kind == "outOfMemory").collect();
    assert_eq!(told.len(), 1, "{events:?}");
    assert!(
        told[0]
            .message
            .contains("1 so far in this run; limits.memory is 1G"),
        "{told:?}"
    );
    let after = inboxes().await;
    let new: Vec<_> = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after - before)
        .collect();
    assert_eq!(new, [1, 1], "one message to each: {before:?}, {after:?}");
}

#[tokio::test]
async fn limits_are_put_back_and_told_of_once_while_the_agent_runs_on() {
    let (world, ledger) = limited().await;
    let reconciler = daemon(&world, &ledger).await;
    let before = world.unit(&alice());
    let changed = Limits {
        memory: 64 << 20,
        cpu: u64::MAX,
        tasks: 16_384,
    };
    world.change_limits(&alice(), changed);
    assert_ne!(world.unit(&alice()), before);
    for _ in 0..2 {
        reconciler.reconcile(&Key::Agent(alice())).await.expect("a pass");
    }
    assert_eq!(world.unit(&alice()), before);
    let events = ledger.events(0, 1000).await.expect("a read");
    let told: Vec<_> = events.iter().filter(|it| it.kind == "limitsPutBack").collect();
    assert_eq!(told.len(), 1, "{events:?}");
    assert!(told[0].message.contains("memory is 64M and not 1G"), "{told:?}");
}

#[tokio::test]
async fn a_later_run_than_the_planned_one_is_not_stopped() {
    let hive = Hive::new().await;
    let UnitState::Running { run, .. } = hive.world.unit(&alice()) else {
        panic!("alice runs");
    };
    stop(&hive.host, &alice(), "an earlier run")
        .await
        .expect("nothing to do");
    assert!(matches!(hive.world.unit(&alice()), UnitState::Running { .. }));
    stop(&hive.host, &alice(), &run).await.expect("it stops");
    assert!(!matches!(hive.world.unit(&alice()), UnitState::Running { .. }));
}

/// A Nix builder whose builds fetch from two hosts, one after the other.
struct Fetching(Arc<dyn Builder>);

#[async_trait]
impl Builder for Fetching {
    fn kind(&self) -> BuilderKind {
        BuilderKind::Nix
    }

    async fn build(&self, request: &BuildRequest) -> Result<BuildOutput, HostError> {
        let allowed = request.nix.clone().expect("inputs of Nix").hosts;
        let wanted = ["x.example", "y.example"].map(str::to_owned);
        match wanted.into_iter().find(|host| !allowed.contains(host)) {
            None => self.0.build(request).await,
            Some(host) => Err(HostError::WantsHosts {
                subject: "the build".to_owned(),
                message: format!("it would fetch from {host}"),
                hosts: BTreeSet::from([host]),
            }),
        }
    }

    async fn present(&self, systems: &[String]) -> Result<BTreeMap<String, bool>, HostError> {
        self.0.present(systems).await
    }
}

#[tokio::test]
async fn hosts_that_nobody_declared_are_fetched_from_once_somebody_agrees_to_all_of_them() {
    let world = World::new();
    let mut host = world.host();
    host.builder = Arc::new(Fetching(Arc::clone(&host.builder)));
    let now = world.lock().now;
    let ledger = ledger_of(&world).await;
    let reconciler = daemon_on(host, &ledger);
    let spec = json!({
        "version": 1, "hive": { "name": "h" }, "agents": { "alice": {} },
        "builder": { "kind": "nix", "nixpkgs": "/nix/store/00000000000000000000000000000000-source", "guestModule": "/g" },
    });
    world.lock().spec = Ok(spec.to_string().into_bytes());
    reconciler.reconcile(&Key::Hive).await.expect("a pass");
    for asked in ["x.example", "x.example, y.example"] {
        reconciler.reconcile(&Key::Agent(alice())).await.expect("a pass");
        let record = ledger.agent(&alice()).await.expect("a read").expect("alice");
        assert!(record.record.deployed.is_none(), "nothing was built");
        let open = |gate: &&GateRecord| gate.gate.state == GateState::Open;
        let open: Vec<_> = record.gates.iter().filter(open).collect();
        let [gate] = &open[..] else {
            panic!("one gate asks: {open:?}");
        };
        let summary = &gate.gate.view.summary;
        assert!(summary.ends_with(&format!("fetching from {asked}")), "{summary}");
        let (id, digest) = (gate.gate.id, gate.gate.digest.clone());
        let decided = ledger.decide(id, true, "unix:root".into(), String::new(), digest, now);
        decided.await.expect("a decision");
    }
    reconciler.reconcile(&Key::Agent(alice())).await.expect("a pass");
    let record = ledger.agent(&alice()).await.expect("a read").expect("alice");
    assert!(record.record.deployed.is_some(), "{:?}", record.builds);
}
