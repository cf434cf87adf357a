//! Plays a scenario against the real loop in a fake world.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use reconciler::broker::Broker;
use reconciler::control::command::{Because, CommandError};
use reconciler::control::reconciler::Settings;
use reconciler::control::{Key, Reconciler};
use reconciler::host::fake::{Behaviour, Effect, Fault, World};
use reconciler::host::{Imported, UnitState};
use reconciler::ledger::Ledger;
use reconciler::model::records::AgentRecord;
use reconciler::queue::Queue;
use shared::event::Event;
use shared::gate::{Asker, Gate, GateState};
use shared::plan::Waiting;
use shared::status::AgentStatus;
use shared::{AgentName, CommitOid, HiveId, TurnId};
use tokio::sync::mpsc::UnboundedReceiver;

/// A pass more than this for one move, and it does not converge.
const MAX_PASSES: usize = 400;

/// One thing that happens to the hive.
#[derive(Debug, Clone)]
pub(crate) enum Move {
    /// The operator writes this spec.
    Spec(String),
    /// The spec file goes away.
    SpecVanishes,
    /// An agent offers a commit on top of `main`, holding this overlay.
    Propose(&'static str, &'static str),
    /// An agent offers a commit on top of what `main` was at first.
    ProposeOnSeed(&'static str, &'static str),
    /// The operator approves every open gate.
    Approve,
    /// The operator denies every open gate.
    Deny,
    /// An agent's process is killed.
    Kill(&'static str),
    /// Somebody moves `main` of an agent's repo to its seed.
    TamperMain(&'static str),
    /// The operator stops an agent.
    Stop(&'static str),
    /// The operator starts it again.
    Start(&'static str),
    /// The operator suspends an agent.
    Suspend(&'static str),
    /// The operator resumes it.
    Resume(&'static str),
    /// An agent begins a turn.
    TurnBegins(&'static str),
    /// It ends its turn.
    TurnEnds(&'static str),
    /// Time passes.
    Wait(i64),
    /// The daemon restarts.
    Restart,
    /// This source cannot be observed while the next move is made.
    Blind(&'static str),
    /// This goes wrong at the effect that is so many effects away.
    Fault(usize, Fault),
}

impl Move {
    /// Whether it changes when things happen and never what is wanted.
    pub(crate) fn is_disturbance(&self) -> bool {
        matches!(self, Self::Restart | Self::Blind(_) | Self::Fault(..))
    }
}

/// A story, and what must be true at its end.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) behaviours: Vec<(&'static str, Behaviour)>,
    pub(crate) unbuildable: Vec<&'static str>,
    pub(crate) moves: Vec<Move>,
    pub(crate) expect: fn(&End),
}

/// What goes wrong on the way.
#[derive(Debug, Clone)]
pub(crate) enum Disturbance {
    None,
    /// At this effect.
    Effect(usize, Fault),
    /// This source cannot be observed during this move.
    Blind(usize, &'static str),
    /// The daemon restarts after this move.
    Restart(usize),
}

/// How it ended.
pub(crate) struct End {
    pub(crate) world: World,
    pub(crate) fingerprint: String,
    pub(crate) effects: Vec<Effect>,
    pub(crate) begun: usize,
    /// How many effects were begun by the end of each move.
    pub(crate) begun_by: Vec<usize>,
    pub(crate) gates: Vec<Gate>,
    pub(crate) events: Vec<Event>,
    pub(crate) statuses: Vec<AgentStatus>,
    pub(crate) hive_waiting: Vec<Waiting>,
    /// What the daemon wrote to each agent.
    pub(crate) told: BTreeMap<AgentName, Vec<String>>,
    /// Effects, gates, messages and events that came of looking at everything once more.
    pub(crate) noise: usize,
    /// Planned steps or keys without progress that named no reason.
    pub(crate) unexplained: Vec<String>,
}

impl End {
    pub(crate) fn status(&self, name: &str) -> &AgentStatus {
        self.statuses.iter().find(|s| s.name.as_str() == name).unwrap()
    }

    /// Whether the daemon told this agent something that holds this text.
    pub(crate) fn was_told(&self, name: &str, text: &str) -> bool {
        let told = self.told.get(&name.parse::<AgentName>().unwrap());
        told.is_some_and(|told| told.iter().any(|body| body.contains(text)))
    }

    pub(crate) fn count(&self, kind: &str) -> usize {
        self.effects.iter().filter(|e| e.kind == kind).count()
    }
}

struct Daemon {
    world: World,
    ledger: Ledger,
    reconciler: Arc<Reconciler>,
    nudged: UnboundedReceiver<Key>,
    queue: Queue<Key>,
}

/// A command was carried out or refused with a reason. Anything else is a failure of the daemon.
fn answered<T>(result: Result<T, CommandError>) {
    if let Err(CommandError::Ledger(error)) = result {
        panic!("the ledger failed: {error}");
    }
}

fn boot(world: &World, ledger: &Ledger) -> (Arc<Reconciler>, UnboundedReceiver<Key>) {
    let settings = Settings {
        harness: "/fake/hive-harness".into(),
        max_transitions: 4,
    };
    Reconciler::new(world.host(), ledger.clone(), settings)
}

pub(crate) async fn play(scenario: &Scenario, disturbance: &Disturbance) -> End {
    let world = World::new();
    {
        let mut state = world.lock();
        state.behaviours = scenario
            .behaviours
            .iter()
            .map(|(t, b)| ((*t).to_owned(), *b))
            .collect();
        state.unbuildable = scenario.unbuildable.iter().map(|&t| t.to_owned()).collect();
        if let Disturbance::Effect(number, fault) = disturbance {
            state.fault = Some((*number, *fault));
        }
    }
    let now = world.lock().now;
    let ledger = Ledger::open_in_memory(now, HiveId(uuid::Uuid::from_u128(7)))
        .await
        .unwrap();
    let (reconciler, nudged) = boot(&world, &ledger);
    let mut daemon = Daemon {
        world,
        ledger,
        reconciler,
        nudged,
        queue: Queue::default(),
    };
    let mut begun_by = Vec::new();
    for (index, step) in scenario.moves.iter().enumerate() {
        if let Disturbance::Blind(at, source) = disturbance
            && *at == index
        {
            daemon.world.lock().blind = vec![source];
        }
        daemon.make(step).await;
        if matches!(step, Move::Blind(_) | Move::Fault(..)) {
            continue;
        }
        daemon.rest(scenario.name).await;
        if !daemon.world.lock().blind.is_empty() {
            daemon.world.lock().blind.clear();
            daemon.resync().await;
            daemon.rest(scenario.name).await;
        }
        if matches!(disturbance, Disturbance::Restart(at) if *at == index) {
            daemon.restart().await;
            daemon.rest(scenario.name).await;
        }
        begun_by.push(daemon.world.lock().begun);
    }
    daemon.end(scenario.name, begun_by).await
}

impl Daemon {
    /// The daemon dies and starts again over the same ledger and the same world.
    async fn restart(&mut self) {
        self.world.restart_daemon();
        let (reconciler, nudged) = boot(&self.world, &self.ledger);
        self.reconciler = reconciler;
        self.nudged = nudged;
        self.queue = Queue::default();
        self.resync().await;
    }

    async fn resync(&mut self) {
        let now = self.world.lock().now;
        self.queue.add(Key::Hive, now);
        for record in self.ledger.agents().await.unwrap().complete().unwrap() {
            self.queue.add(Key::Agent(record.name), now);
        }
    }

    /// What the ledger knows of an agent that has a repo.
    async fn record(&self, agent: &AgentName) -> Option<AgentRecord> {
        let known = self.ledger.agent(agent).await.unwrap()?;
        known.record.seed.is_some().then_some(known.record)
    }

    async fn propose(&mut self, agent: &AgentName, parent: &CommitOid, overlay: &str) {
        let commit = self.world.commit(agent, parent, overlay);
        let imported = Imported {
            commit,
            title: overlay.to_owned(),
            reason: String::new(),
        };
        answered(self.reconciler.propose(agent, imported, Asker::Agent).await);
    }

    async fn decide(&mut self, approve: bool) {
        for gate in self.ledger.gates(false).await.unwrap().complete().unwrap() {
            if gate.state == GateState::Open {
                let by = "unix:operator".to_owned();
                let decided = self
                    .reconciler
                    .decide(gate.id, approve, gate.digest, by, "because".into())
                    .await;
                decided.unwrap();
            }
        }
    }

    async fn make(&mut self, step: &Move) {
        let because = || Because {
            by: "unix:operator".into(),
            reason: String::new(),
            until: None,
        };
        let name = |text: &str| -> AgentName { text.parse().unwrap() };
        let now = self.world.lock().now;
        match step {
            Move::Spec(text) => {
                self.world.lock().spec = Ok(text.clone().into_bytes());
                self.queue.add(Key::Hive, now);
            }
            Move::SpecVanishes => {
                self.world.lock().spec = Err("no such file".to_owned());
                self.queue.add(Key::Hive, now);
            }
            Move::Propose(agent, overlay) => {
                let agent = name(agent);
                if let Some(record) = self.record(&agent).await {
                    let main = record.main().unwrap().clone();
                    self.propose(&agent, &main, overlay).await;
                }
            }
            Move::ProposeOnSeed(agent, overlay) => {
                let agent = name(agent);
                if let Some(seed) = self.record(&agent).await.and_then(|record| record.seed) {
                    self.propose(&agent, &seed, overlay).await;
                }
            }
            Move::Approve => self.decide(true).await,
            Move::Deny => self.decide(false).await,
            Move::Kill(agent) => {
                self.world.kill(&name(agent));
                self.queue.add(Key::Agent(name(agent)), now);
            }
            Move::TamperMain(agent) => {
                let agent = name(agent);
                if let Some(record) = self.record(&agent).await {
                    self.world.tamper_main(&agent, record.seed);
                    self.queue.add(Key::Agent(agent), now);
                }
            }
            Move::Stop(agent) => {
                let run = shared::spec::RunState::Stopped;
                answered(self.reconciler.set_run(&name(agent), run, because()).await);
            }
            Move::Start(agent) => {
                let run = shared::spec::RunState::Running;
                answered(self.reconciler.set_run(&name(agent), run, because()).await);
            }
            Move::Suspend(agent) => {
                self.reconciler.suspend(&name(agent), because()).await.unwrap();
            }
            Move::Resume(agent) => {
                self.reconciler.resume(&name(agent), because()).await.unwrap();
            }
            Move::TurnBegins(agent) => {
                let agent = name(agent);
                if matches!(self.world.unit(&agent), UnitState::Running { .. }) {
                    self.world.lock().busy.insert(agent, now);
                }
            }
            Move::TurnEnds(agent) => {
                let agent = name(agent);
                self.world.lock().busy.remove(&agent);
                self.queue.add(Key::Agent(agent), now);
            }
            Move::Wait(secs) => {
                self.world.advance(*secs);
                self.resync().await;
            }
            Move::Restart => self.restart().await,
            Move::Blind(source) => self.world.lock().blind.push(source),
            Move::Fault(away, fault) => {
                let mut state = self.world.lock();
                state.fault = Some((state.begun + away, *fault));
            }
        }
    }

    /// Runs passes until nothing is due and no timer within the horizon is left.
    async fn rest(&mut self, scenario: &str) {
        self.rest_until(scenario, 900).await;
    }

    async fn rest_until(&mut self, scenario: &str, horizon_secs: i64) {
        let horizon = self
            .world
            .lock()
            .now
            .checked_add(jiff::SignedDuration::from_secs(horizon_secs))
            .unwrap();
        for _ in 0..MAX_PASSES {
            while let Ok(key) = self.nudged.try_recv() {
                let now = self.world.lock().now;
                self.queue.add(key, now);
            }
            let now = self.world.lock().now;
            let Some(popped) = self.queue.pop(now) else {
                match self.queue.next_at() {
                    Some(next) if next <= horizon => {
                        self.skip_to(next);
                        continue;
                    }
                    _ => return,
                }
            };
            let outcome = self.reconciler.reconcile(&popped.key).await;
            if self.world.lock().crashed {
                self.restart().await;
                continue;
            }
            let now = self.world.lock().now;
            match outcome {
                Ok(requeue) => {
                    self.queue.done(&popped.key, requeue.at);
                    for other in requeue.others {
                        self.queue.add(other, now);
                    }
                }
                Err(error) => {
                    // A pass that failed is run again, as the daemon's shell does.
                    let again = now.checked_add(jiff::SignedDuration::from_secs(5)).unwrap();
                    assert!(
                        !matches!(error, reconciler::control::PassError::Invariant(_)),
                        "{scenario}: {error}"
                    );
                    self.queue.done(&popped.key, Some(again));
                }
            }
        }
        panic!("{scenario}: does not converge within {MAX_PASSES} passes");
    }

    fn skip_to(&self, time: Timestamp) {
        let mut state = self.world.lock();
        state.now = state.now.max(time);
    }

    async fn traces(&self) -> (usize, u64, usize, u64) {
        let effects = self.world.lock().begun;
        let seq = self.ledger.last_seq().await.unwrap();
        let gates = self.ledger.gates(true).await.unwrap().complete().unwrap().len();
        let agents = self.ledger.agent_ledgers().await.unwrap().complete().unwrap();
        (effects, seq, gates, agents.iter().map(|agent| agent.inbox).sum())
    }

    /// What the daemon wrote to each agent.
    async fn told(&self) -> BTreeMap<AgentName, Vec<String>> {
        let broker = Broker::new(self.ledger.clone());
        let now = self.world.lock().now;
        let mut told = BTreeMap::new();
        for record in self.ledger.agents().await.unwrap().complete().unwrap() {
            let turn = TurnId(uuid::Uuid::from_u128(1));
            let messages = broker.recv(&record.name, turn, 32, now).await.unwrap();
            told.insert(record.name, messages.into_iter().map(|m| m.body).collect());
        }
        told
    }

    /// What the APIs would show, and agents that make no progress and give no reason.
    fn shown(&self) -> (Vec<AgentStatus>, Vec<Waiting>, Vec<String>) {
        let views = self.reconciler.views();
        let stuck = views
            .agents
            .values()
            .filter(|v| !v.plan.steps.is_empty() && v.status.waiting.is_empty());
        let unexplained = stuck
            .map(|v| format!("{}: {}", v.status.name, v.plan.summary))
            .collect();
        let statuses = views.agents.values().map(|view| view.status.clone()).collect();
        (statuses, views.hive_waiting.clone(), unexplained)
    }

    async fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.seq);
            let page = self.ledger.events(after, 1_000).await.unwrap();
            if page.is_empty() {
                return events;
            }
            events.extend(page);
        }
    }

    async fn end(mut self, scenario: &str, begun_by: Vec<usize>) -> End {
        self.resync().await;
        // The longest turn is over by then: what waited for its end has happened.
        self.rest_until(scenario, 7_200).await;
        let before = self.traces().await;
        self.resync().await;
        self.rest(scenario).await;
        let after = self.traces().await;
        let noise = (after.0 - before.0)
            + usize::try_from((after.1 - before.1) + (after.3 - before.3)).unwrap()
            + (after.2 - before.2);
        let told = self.told().await;
        let (statuses, hive_waiting, unexplained) = self.shown();
        let (effects, begun) = {
            let state = self.world.lock();
            (state.effects.clone(), state.begun)
        };
        End {
            fingerprint: self.world.fingerprint(),
            effects,
            begun,
            begun_by,
            gates: self.ledger.gates(true).await.unwrap().complete().unwrap(),
            events: self.events().await,
            statuses,
            hive_waiting,
            told,
            noise,
            unexplained,
            world: self.world,
        }
    }
}
