//! How a play ended, gathered for the oracles.

use std::collections::BTreeMap;

use reconciler::broker::{Ask, Broker};
use reconciler::host::fake::{Effect, World};
use shared::event::Event;
use shared::gate::{Gate, GateState};
use shared::plan::Waiting;
use shared::status::AgentStatus;
use shared::{AgentName, TurnId};

use super::driver::Player;

/// How it ended.
pub(crate) struct End {
    pub(crate) world: World,
    pub(crate) fingerprint: String,
    pub(crate) effects: Vec<Effect>,
    pub(crate) gates: Vec<Gate>,
    pub(crate) events: Vec<Event>,
    pub(crate) statuses: Vec<AgentStatus>,
    pub(crate) hive_waiting: Vec<Waiting>,
    /// What the daemon wrote to each agent.
    pub(crate) told: BTreeMap<AgentName, Vec<String>>,
    /// What came of looking at everything once more: effects, transactions, gates, messages, events. Nothing should.
    pub(crate) noise: Vec<String>,
    /// Planned steps or keys without progress that named no reason.
    pub(crate) unexplained: Vec<String>,
    /// Effects that nothing allowed when they happened.
    pub(crate) convictions: Vec<String>,
    /// The most passes that one move took.
    pub(crate) most_passes: usize,
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

    /// Everything the hive noted, for people.
    pub(crate) fn story(&self) -> String {
        let line = |event: &Event| format!("{} {}: {}\n", event.at, event.kind, event.message);
        self.events.iter().map(line).collect()
    }

    pub(crate) fn count(&self, kind: &str) -> usize {
        self.effects.iter().filter(|e| e.kind == kind).count()
    }
}

impl Player {
    /// Lets everything come to its end, looks once more, and gathers what is there.
    pub(crate) async fn end(mut self) -> End {
        self.disarm();
        self.resync().await;
        // The longest turn is over by then: what waited for its end has happened.
        self.rest_until(7_200).await;
        let noise = self.noise().await;
        let told = self.told().await;
        let (statuses, hive_waiting, unexplained) = self.shown();
        let convictions = self.convictions.lock().unwrap().clone();
        let effects = self.world.lock().effects.clone();
        End {
            fingerprint: self.world.fingerprint(),
            effects,
            gates: self.ledger.gates(true).await.unwrap().complete().unwrap(),
            events: self.happened().await,
            statuses,
            hive_waiting,
            told,
            noise,
            unexplained,
            convictions,
            most_passes: self.most_passes,
            world: self.world,
        }
    }

    /// How many gates wait for a person, and how many ever did.
    pub(crate) async fn asking(&self) -> (usize, usize) {
        let gates = self.ledger.gates(true).await.unwrap().complete().unwrap();
        let open = gates.iter().filter(|gate| gate.state == GateState::Open);
        let by_policy = |gate: &Gate| {
            gate.decision
                .as_ref()
                .is_some_and(|d| d.by.starts_with("policy:"))
        };
        (open.count(), gates.iter().filter(|gate| !by_policy(gate)).count())
    }

    /// Everything that can matter from here on, without times.
    pub(crate) async fn standing(&self) -> String {
        let ledger = &self.ledger;
        let agents = ledger.agent_ledgers().await.unwrap().complete().unwrap();
        let archived = ledger.archived().await.unwrap().complete().unwrap();
        let hive = (
            ledger.hive_gates().await.unwrap(),
            ledger.hive_attempts().await.unwrap(),
        );
        let spec = ledger.spec().await.unwrap().map(|stored| stored.digest);
        let gates = ledger.gates(true).await.unwrap().complete().unwrap();
        let gate = |gate: &Gate| {
            let decision = gate.decision.as_ref();
            (
                gate.class,
                gate.state,
                decision.map(|d| (d.approve, d.by.clone())),
            )
        };
        let gates: Vec<_> = gates.iter().map(gate).collect();
        let mut done: Vec<&str> = Vec::new();
        let state = self.world.lock();
        done.extend(state.effects.iter().map(|effect| effect.kind));
        done.sort_unstable();
        let busy: Vec<_> = state.busy.keys().cloned().collect();
        drop(state);
        let world = self.world.fingerprint();
        timeless(&format!(
            "{world}\n{busy:?}\n{done:?}\n{spec:?}\n{agents:?}\n{archived:?}\n{hive:?}\n{gates:?}"
        ))
    }

    /// What came of looking at everything once more. Nothing should.
    pub(crate) async fn noise(&mut self) -> Vec<String> {
        let before = self.traces().await;
        self.resync().await;
        self.rest().await;
        let after = self.traces().await;
        before
            .iter()
            .zip(&after)
            .filter(|((_, before), (_, after))| before != after)
            .map(|((what, before), (_, after))| format!("{what}: {before}, then {after}"))
            .collect()
    }

    async fn traces(&self) -> [(&'static str, u64); 5] {
        let (effects, boundaries) = {
            let state = self.world.lock();
            (state.begun, state.boundaries)
        };
        let gates = self.ledger.gates(true).await.unwrap().complete().unwrap().len();
        let agents = self.ledger.agent_ledgers().await.unwrap().complete().unwrap();
        let count = |number: usize| u64::try_from(number).unwrap();
        [
            ("effects", count(effects)),
            ("effects and transactions", count(boundaries)),
            ("gates", count(gates)),
            ("messages", agents.iter().map(|agent| agent.inbox).sum()),
            ("events", self.ledger.last_seq().await.unwrap()),
        ]
    }

    /// What the daemon wrote to each agent.
    async fn told(&self) -> BTreeMap<AgentName, Vec<String>> {
        let broker = Broker::new(self.ledger.clone());
        let now = self.world.lock().now;
        let mut told = BTreeMap::new();
        for record in self.ledger.agents().await.unwrap().complete().unwrap() {
            let turn = TurnId(uuid::Uuid::from_u128(1));
            let ask = Ask {
                turn,
                received: None,
                max: 32,
                at: now,
            };
            let batch = broker.recv(&record.name, ask).await.unwrap();
            told.insert(record.name, batch.messages.into_iter().map(|m| m.body).collect());
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

    async fn happened(&self) -> Vec<Event> {
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
}

/// The text with every time in it taken out.
fn timeless(text: &str) -> String {
    let is_time = |rest: &[u8]| {
        let shape = b"dddd-dd-ddTdd:dd:dd";
        rest.len() > shape.len()
            && rest.iter().zip(shape).all(|(byte, shape)| match shape {
                b'd' => byte.is_ascii_digit(),
                other => byte == other,
            })
    };
    let (mut kept, mut from, mut at) = (String::new(), 0, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        if bytes[at].is_ascii_digit() && is_time(&bytes[at..]) {
            kept.push_str(&text[from..at]);
            at += bytes[at..].iter().position(|byte| *byte == b'Z').unwrap() + 1;
            from = at;
        } else {
            at += 1;
        }
    }
    kept.push_str(&text[from..]);
    kept
}
