//! The clock is set, forwards and backwards, while the daemon's own loop runs in a fake world.
#![expect(
    clippy::unwrap_used,
    reason = "a test may end at the first surprise, and says so"
)]

use std::sync::Arc;

use jiff::SignedDuration;
use reconciler::control::reconciler::Settings;
use reconciler::control::{Key, Reconciler};
use reconciler::host::UnitState;
use reconciler::host::fake::{Behaviour, World};
use reconciler::ledger::Ledger;
use shared::gate::GateState;
use shared::plan::WaitingOn;
use shared::{AgentName, HiveId};

const DAY: SignedDuration = SignedDuration::from_hours(24);
const YEAR: SignedDuration = SignedDuration::from_hours(24 * 365);

struct Hive {
    world: World,
    ledger: Ledger,
    reconciler: Arc<Reconciler>,
}

async fn hive(alice: &str, behaviour: Behaviour) -> Hive {
    let world = World::new();
    {
        let mut state = world.lock();
        state.behaviours.insert("odd".to_owned(), behaviour);
        state.spec = Ok(format!(
            r#"{{ "version": 1, "hive": {{ "name": "h" }}, {alice} "agents": {{ "alice": {{ "prompt": "odd" }} }} }}"#
        )
        .into_bytes());
    }
    let now = world.lock().now;
    let ledger = Ledger::open_in_memory(now, HiveId(uuid::Uuid::from_u128(7)))
        .await
        .unwrap();
    let settings = Settings {
        harness: "/fake/hive-harness".into(),
        max_transitions: 4,
    };
    let (reconciler, _nudged) = Reconciler::new(world.host(), ledger.clone(), settings);
    Hive {
        world,
        ledger,
        reconciler,
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

    fn runs(&self) -> bool {
        matches!(self.world.unit(&alice()), UnitState::Running { .. })
    }

    fn starts(&self) -> usize {
        let state = self.world.lock();
        state
            .effects
            .iter()
            .filter(|effect| effect.kind == "start")
            .count()
    }

    /// When the wait for the next try ends, if there is one.
    fn backs_off(&self) -> Option<SignedDuration> {
        let now = self.world.lock().now;
        let views = self.reconciler.views();
        let waiting = &views.agents[&alice()].status.waiting;
        waiting.iter().find_map(|waiting| match waiting.on {
            WaitingOn::Backoff { until, .. } => Some(until.duration_since(now)),
            _ => None,
        })
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_retry_wait_for_it_and_no_busy_loop() {
    let hive = hive("", Behaviour::Crashes).await;
    for _ in 0..2 {
        hive.look().await;
    }
    let wait = hive
        .backs_off()
        .unwrap_or_else(|| panic!("it waits before the next start"));
    hive.world.advance(wait.as_secs() + 1);
    hive.look().await;
    let starts = hive.starts();
    hive.world.set_clock(-DAY);
    for _ in 0..5 {
        hive.look().await;
    }
    assert!(
        hive.starts() <= starts + 1,
        "{} starts at once",
        hive.starts() - starts
    );
    if let Some(wait) = hive.backs_off() {
        assert!(wait <= SignedDuration::from_secs(600), "it waits {wait}");
    }
}

#[tokio::test]
async fn a_trial_neither_fails_by_a_jump_nor_lasts_for_ever() {
    for jump in [DAY, YEAR, -DAY, -YEAR] {
        let hive = hive("", Behaviour::Silent).await;
        for _ in 0..2 {
            hive.look().await;
        }
        assert!(hive.runs(), "{jump}: it is on trial");
        hive.world.advance(30);
        hive.world.set_clock(jump);
        for _ in 0..3 {
            hive.look().await;
        }
        assert!(hive.runs(), "{jump}: the jump counted as time");
        hive.world.advance(65);
        for _ in 0..3 {
            hive.look().await;
        }
        assert!(!hive.runs(), "{jump}: the trial does not end");
    }
}

#[tokio::test]
async fn no_gate_ends_by_a_jump_and_events_stay_in_order() {
    let hive = hive(r#""policy": { "spec": { "build": "ask" } },"#, Behaviour::Good).await;
    hive.look().await;
    let open = async || -> Vec<_> {
        let gates = hive.ledger.gates(false).await.unwrap().complete().unwrap();
        gates.iter().map(|gate| (gate.id, gate.state)).collect()
    };
    let before = open().await;
    assert!(matches!(before[..], [(_, GateState::Open)]), "{before:?}");
    for jump in [YEAR, -YEAR, -YEAR] {
        hive.world.set_clock(jump);
        hive.look().await;
        assert_eq!(open().await, before, "{jump}");
    }
    let (gate, _) = before[0];
    let gate = hive.ledger.gate(gate).await.unwrap().unwrap().gate;
    let by = "unix:root".to_owned();
    hive.reconciler
        .decide(gate.id, true, gate.digest, by, String::new())
        .await
        .unwrap();
    hive.look().await;
    assert!(hive.runs());
    let events = hive.ledger.events(0, 1_000).await.unwrap();
    assert!(events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    assert!(events.last().unwrap().at < events[0].at, "the clock was set back");
}
