//! A hive at work: agents that write to each other, proposals that are decided, a spec that changes. What it comes to
//! does not depend on when what happens, so that two runs can be compared.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camino::Utf8PathBuf;
use reconciler::host::folders::write_atomic;
use serde_json::{Value, json};
use shared::admin_api::EventPage;
use shared::agent_api::ProposalInfo;
use shared::event::Event;
use shared::gate::{Gate, GateState};
use shared::status::{Health, Sync};

use super::http;
use super::processes::git;
use super::world::{DEADLINE, World, name, scripted, spec, with, within};

pub(crate) const AGENTS: usize = 50;
/// Jobs for each agent.
pub(crate) const ROUNDS: usize = 10;
/// How often the spec changes.
pub(crate) const VERSIONS: usize = 4;
/// Every so many agents one makes a proposal.
const PROPOSERS: usize = 5;
/// An agent that later versions of the spec declare.
const NEWCOMER: &str = "newcomer";

pub(crate) fn agent(index: usize) -> String {
    format!("a{:02}", index % AGENTS)
}

/// Those that make a proposal, and whether the operator likes it.
pub(crate) fn proposers() -> impl Iterator<Item = (usize, bool)> {
    (0..AGENTS)
        .step_by(PROPOSERS)
        .map(|index| (index, index % (2 * PROPOSERS) == 0))
}

/// What agent `index` does: a job makes it write to the next agent, a note makes it write to the operator.
fn rules(index: usize) -> Value {
    let next = agent(index + 1);
    let mut rules = vec![json!({ "on": "improve yourself", "do": [{ "propose": {
        "title": "Look after more", "reason": "I can", "set": { "prompt": "You look after more." } } }] })];
    for round in 0..ROUNDS {
        rules.push(json!({ "on": format!("job {round}."), "do": [
            { "send": { "to": next, "body": format!("note {round}.") } }] }));
        rules.push(json!({ "on": format!("note {round}."), "do": [
            { "send": { "to": "operator", "body": format!("noted {round}.") } }] }));
    }
    rules.into()
}

/// The spec in one of its versions: prompts change, an agent comes.
pub(crate) fn declared(version: usize) -> Value {
    let mut agents = BTreeMap::new();
    for index in 0..AGENTS {
        let mut declared = scripted(&rules(index));
        if index % PROPOSERS == 1 {
            declared = with(declared, &json!({ "prompt": format!("version {version}") }));
        }
        agents.insert(agent(index), declared);
    }
    if version >= 2 {
        agents.insert(NEWCOMER.to_owned(), scripted(&json!([])));
    }
    spec(&json!(agents))
}

/// Sends what the operator has to say, each thing as often as it takes. `reached` waits until so much of the whole,
/// in hundredths, may have been said.
pub(crate) fn operate(front: &Front, reached: impl Fn(usize)) {
    let mut due: Vec<(usize, Duty)> = Vec::new();
    due.extend((0..ROUNDS).map(|round| (round * 100 / ROUNDS, Duty::Round(round))));
    due.extend((1..=VERSIONS).map(|version| (version * 100 / (VERSIONS + 1), Duty::Version(version))));
    let proposals = proposers().enumerate();
    due.extend(proposals.map(|(nth, (index, _))| (nth * 8 + 4, Duty::Improve(index))));
    due.sort_by_key(|(when, _)| *when);
    for (when, duty) in due {
        reached(when);
        match duty {
            Duty::Round(round) => {
                for index in 0..AGENTS {
                    front.tell(index, &format!("job {round}."));
                }
            }
            Duty::Version(version) => {
                let text = declared(version).to_string();
                write_atomic(&front.spec, text.as_bytes(), 0o644).unwrap_or_else(|e| panic!("{}", e.chain()));
            }
            Duty::Improve(index) => front.tell(index, "improve yourself"),
        }
    }
}

enum Duty {
    Round(usize),
    Version(usize),
    Improve(usize),
}

/// Tells others that it is over, also when a test fails.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What clients see of a hive whose daemon comes and goes.
#[derive(Clone)]
pub(crate) struct Front {
    socket: Utf8PathBuf,
    spec: Utf8PathBuf,
}

impl Front {
    pub(crate) fn of(world: &World) -> Self {
        Self {
            socket: world.socket(),
            spec: world.spec_path(),
        }
    }

    /// The same message until it is taken: its id makes it one.
    fn tell(&self, index: usize, body: &str) {
        let agent = agent(index);
        let message = json!({ "body": body, "dedupe": format!("{agent} {body}") });
        let path = format!("/v1/agents/{agent}/messages");
        let taken = within(2 * DEADLINE, || {
            let answer = http::post(&self.socket, &path, &message).ok()?;
            (answer.status == 200).then_some(())
        });
        taken.unwrap_or_else(|| panic!("{agent} never takes {body:?}"));
    }

    /// Decides about proposals, until `over`. An answer that is lost is asked for again.
    pub(crate) fn decide(&self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            let gates = http::get(&self.socket, "/v1/gates");
            let gates: Vec<Gate> = gates
                .ok()
                .filter(|answer| answer.status == 200)
                .map_or_else(Vec::new, |answer| answer.ok());
            for gate in gates.iter().filter(|gate| gate.state == GateState::Open) {
                let likes = gate.agent.as_ref().and_then(|agent| {
                    let mut proposers = proposers();
                    proposers.find(|(index, _)| self::agent(*index) == agent.as_str())
                });
                let Some((_, likes)) = likes else { continue };
                let decision = json!({ "approve": likes, "digest": gate.digest, "reason": "as ever" });
                // Taken, refused because it was taken before, or lost: the next look tells.
                let path = format!("/v1/gates/{}/decision", gate.id);
                drop(http::post(&self.socket, &path, &decision));
            }
            let _pause = within(Duration::from_millis(50), || {
                over.load(Ordering::Relaxed).then_some(())
            });
        }
    }
}

/// Every event, oldest first.
pub(crate) fn events(world: &World) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.seq);
        let page: EventPage = world.get(&format!("/v1/events?after={after}&limit=1000")).ok();
        if page.events.is_empty() {
            return events;
        }
        events.extend(page.events);
    }
}

/// Messages between people and agents, as the ledger has them: sender, recipient, text, state.
fn messages(world: &World) -> Vec<String> {
    world.messages("SELECT from_addr, to_addr, body, state FROM messages WHERE kind <> 'system' ORDER BY id")
}

/// What the messages must come to, whatever happened: for each sender and recipient, in order.
fn expected() -> BTreeMap<String, Vec<String>> {
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for index in 0..AGENTS {
        let (this, next) = (agent(index), agent(index + 1));
        for round in 0..ROUNDS {
            let mut of = |pair: String, what: &str| {
                expected
                    .entry(pair)
                    .or_default()
                    .push(format!("{what} {round}. acked"));
            };
            of(format!("operator {this}"), "job");
            of(format!("{this} {next}"), "note");
            of(format!("{this} operator"), "noted");
        }
    }
    expected
}

fn found(world: &World) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in messages(world) {
        if row.contains("improve yourself acked") {
            continue;
        }
        let mut words = row.splitn(3, ' ');
        let pair = format!("{} {}", words.next().unwrap(), words.next().unwrap());
        found
            .entry(pair)
            .or_default()
            .push(words.next().unwrap().to_owned());
    }
    found
}

/// Waits until everything that was asked for is done, and nothing more is under way.
pub(crate) fn settle(world: &World) {
    let proposals = proposers().count();
    let mut missing = Vec::new();
    let settled = within(3 * DEADLINE, || {
        missing = unsettled(world, proposals);
        missing.is_empty().then_some(())
    });
    assert!(settled.is_some(), "it does not settle: {}", missing.join("\n"));
}

/// What is still to be done.
fn unsettled(world: &World, proposals: usize) -> Vec<String> {
    let mut missing = Vec::new();
    let (found, expected) = (found(world), expected());
    for (pair, bodies) in &expected {
        let there = found.get(pair);
        if there != Some(bodies) {
            missing.push(format!("{pair}: {there:?}"));
        }
    }
    let others = found.keys().filter(|pair| !expected.contains_key(*pair));
    missing.extend(others.map(|pair| format!("{pair}: {:?} was never to be said", found[pair])));
    let status = world.status();
    for agent in &status.agents {
        let works = agent.health.value == Health::Healthy && agent.waiting.is_empty();
        if agent.sync.value != Sync::InSync || agent.inbox > 0 || !works {
            missing.push(format!(
                "{}: {} {} inbox {} {:?}",
                agent.name, agent.sync.message, agent.health.message, agent.inbox, agent.waiting
            ));
        }
    }
    if status.agents.len() != AGENTS + 1 || !status.gates.is_empty() || !status.notices.is_empty() {
        missing.push(format!(
            "{} agents, {:?} {:?}",
            status.agents.len(),
            status.gates,
            status.notices
        ));
    }
    let gates: Vec<Gate> = world.get("/v1/gates?all=true").ok();
    let decided = gates.iter().filter(|gate| is_decided(gate)).count();
    if decided != proposals {
        missing.push(format!("{decided} decisions"));
    }
    missing
}

/// Whether the operator decided about this gate, and what followed is over.
fn is_decided(gate: &Gate) -> bool {
    let by_a_person = gate
        .decision
        .as_ref()
        .is_some_and(|decision| !decision.by.starts_with("policy:"));
    let over = gate.state == GateState::Denied || gate.completed_at.is_some();
    by_a_person && over
}

/// What can be compared between two runs: no times, no numbers of gates, no ids made from either.
pub(crate) fn end_state(world: &World) -> BTreeMap<String, Value> {
    let names = (0..AGENTS).map(agent).chain([NEWCOMER.to_owned()]);
    names
        .map(|agent| (agent.clone(), of_agent(world, &agent)))
        .collect()
}

/// What differs between two ends, field by field.
pub(crate) fn differences(wanted: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> Vec<String> {
    let mut differ = Vec::new();
    for (agent, wanted) in wanted {
        for (field, wanted) in wanted.as_object().unwrap() {
            let found = &found[agent][field];
            if found != wanted {
                differ.push(format!("{agent} {field}: {found} instead of {wanted}"));
            }
        }
    }
    differ
}

fn of_agent(world: &World, agent: &str) -> Value {
    let status = world.agent(agent).expect("it is there");
    let mut config = json!(status.config);
    // A commit holds the time of what caused it, its tree does not; a uid is drawn.
    for drawn in ["commit", "uid"] {
        config[drawn].take();
    }
    let repo = world.layout.repo(&name(agent));
    let refs = git(
        &repo,
        &[
            "for-each-ref",
            "--format=%(refname) %(tree)%(*tree)",
            "refs/heads",
            "refs/tags",
        ],
    );
    let proposals: Vec<ProposalInfo> = http::get(&world.door(agent), "/v1/proposals").unwrap().ok();
    let proposals: Vec<Value> = proposals
        .iter()
        .map(|p| json!([p.number, p.title, p.phase, p.reason]))
        .collect();
    json!({
        "refs": refs.lines().collect::<Vec<_>>(),
        "proposals": proposals,
        "config": config,
        "deployed": status.generations.deployed == status.generations.desired,
        "lastGood": status.generations.deployed == status.generations.last_good,
        "proposal": status.generations.proposal,
        "health": status.health.value,
        "notices": status.notices,
        "faults": status.faults,
        "waiting": status.waiting.len(),
    })
}

/// No decision is lost, none is used twice, and nothing was deployed without one.
pub(crate) fn check_decisions(world: &World) {
    let gates: Vec<Gate> = world.get("/v1/gates?all=true").ok();
    let events = events(world);
    for (index, likes) in proposers() {
        let agent = agent(index);
        let mut decided = gates
            .iter()
            .filter(|gate| is_decided(gate) && gate.agent.as_ref().is_some_and(|of| of.as_str() == agent));
        let gate = decided
            .next()
            .unwrap_or_else(|| panic!("{agent}: nothing was decided"));
        assert!(decided.next().is_none(), "{agent}: the operator was asked twice");
        let decision = gate.decision.as_ref().expect("a decision");
        assert_eq!(
            (decision.approve, &decision.digest),
            (likes, &gate.digest),
            "{agent}"
        );
        let of_agent = |kind: &str| {
            let about = events
                .iter()
                .filter(|e| e.kind == kind && e.agent.as_ref().is_some_and(|of| of.as_str() == agent));
            about.count()
        };
        // The seed, and what was approved.
        assert_eq!(of_agent("deployed"), 1 + usize::from(likes), "{agent}");
        assert_eq!(of_agent("proposed"), 1, "{agent}");
    }
    let dead = events.iter().filter(|event| event.kind == "messageDead").count();
    assert_eq!(dead, 0);
    for pair in events.windows(2) {
        assert_eq!(pair[0].seq + 1, pair[1].seq, "a gap in the events");
    }
}
