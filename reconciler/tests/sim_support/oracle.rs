//! What must be true of every run, and of a disturbed run beside an undisturbed one.

use std::collections::BTreeMap;

use shared::gate::{GateClass, GateState};

use super::driver::End;

/// One move comes to rest within this many passes, whatever goes wrong.
pub(crate) const MOST_PASSES: usize = 60;

/// What must hold of every run, whatever happened.
pub(crate) fn check_alone(end: &End) {
    let script = || &end.fingerprint;
    assert!(
        end.noise.is_empty(),
        "not quiet after converging: {:?}",
        end.noise
    );
    assert!(end.convictions.is_empty(), "ungated: {:#?}", end.convictions);
    assert!(
        end.most_passes <= MOST_PASSES,
        "{} passes for one move: it converges too slowly",
        end.most_passes
    );
    assert!(
        end.unexplained.is_empty(),
        "no progress and no reason: {:?} {}",
        end.unexplained,
        script()
    );
    for gate in &end.gates {
        if gate.consumed_at.is_some() {
            let decision = gate.decision.as_ref();
            let approved = decision.is_some_and(|d| d.approve && d.digest == gate.digest);
            assert!(
                approved,
                "gate {} was consumed without a matching approval: {}",
                gate.id,
                script()
            );
        }
        if gate.state == GateState::Consumed {
            assert!(
                gate.completed_at.is_some(),
                "gate {} was begun and never ended: {}",
                gate.id,
                script()
            );
        }
    }
    // Nothing of a class happens more often than its gates allow.
    let used = |class: &[GateClass]| {
        end.gates
            .iter()
            .filter(|g| g.consumed_at.is_some() && class.contains(&g.class))
            .count()
    };
    assert!(
        end.count("archive") <= used(&[GateClass::Archive]),
        "archived without a gate: {}",
        script()
    );
    assert!(
        end.count("purge") <= used(&[GateClass::Purge]),
        "purged without a gate: {}",
        script()
    );
    let happened = |kind: &str| end.events.iter().filter(|e| e.kind == kind).count();
    assert!(
        end.count("makeRepo") <= used(&[GateClass::Spawn]) + happened("drafted"),
        "spawned without a gate: {}",
        script()
    );
    let spawns = used(&[GateClass::Spawn, GateClass::DeployWidens]);
    assert!(
        happened("spawned") <= spawns && end.count("layDown") <= spawns,
        "a draft became an agent without a gate: {}",
        script()
    );
    assert!(
        end.count("build") <= used(&[GateClass::Build]),
        "built without a gate: {}",
        script()
    );
    let deployed = end.events.iter().filter(|e| e.kind == "deployed").count();
    let deploys = [
        GateClass::DeployWithin,
        GateClass::DeployWidens,
        GateClass::ReloadWithin,
        GateClass::ReloadWidens,
        GateClass::BaseUpdate,
    ];
    assert!(
        deployed <= used(&deploys),
        "deployed without a gate: {}",
        script()
    );
}

/// What must hold of a disturbed run beside the undisturbed one: the same end, and nothing done twice.
pub(crate) fn check_same(reference: &End, end: &End) {
    check_like(reference, end, &["start", "stop", "archive", "restore", "purge"]);
}

/// What must hold when a source lagged behind: the same end, and nothing stopped or removed twice. An agent that dies as
/// soon as it is started may be started once more, because the daemon saw its earlier death again.
pub(crate) fn check_late(reference: &End, end: &End) {
    check_like(reference, end, &["stop", "archive", "restore", "purge"]);
}

fn check_like(reference: &End, end: &End, counted: &[&str]) {
    check_same_end(reference, end);
    let told = |end: &End| -> BTreeMap<String, usize> {
        // Whether a manager was there already when another agent was spawned depends on the order of passes.
        let count = |bodies: &Vec<String>| bodies.iter().filter(|body| !body.contains("spawned")).count();
        let told = end.told.iter();
        told.map(|(agent, bodies)| (agent.to_string(), count(bodies)))
            .collect()
    };
    assert_eq!(
        told(reference),
        told(end),
        "other messages: {:?} instead of {:?}; calm:\n{}",
        end.told,
        reference.told,
        reference.story()
    );
    let count = |end: &End| {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for effect in &end.effects {
            if counted.contains(&effect.kind) {
                *counts.entry(effect.kind).or_default() += 1;
            }
        }
        counts
    };
    assert_eq!(
        count(reference),
        count(end),
        "other starts, stops or removals: {:#?}",
        end.effects
    );
}

/// The same end, and the operator decided about the same. How often agents were started may differ: one that could not
/// be built at once runs what it had meanwhile.
pub(crate) fn check_same_end(reference: &End, end: &End) {
    assert_eq!(reference.fingerprint, end.fingerprint, "another end");
    let decided = |end: &End| {
        let by_people = end
            .gates
            .iter()
            .filter(|g| g.decision.as_ref().is_some_and(|d| !d.by.starts_with("policy:")));
        let mut kinds: Vec<_> = by_people
            .map(|g| (g.class, g.decision.as_ref().map(|d| d.approve)))
            .collect();
        kinds.sort();
        kinds
    };
    assert_eq!(
        decided(reference),
        decided(end),
        "the operator was asked something else"
    );
}

/// What must hold when a decision arrives while something is under way. It counts like one that arrives at rest, before
/// or after, or like none; or it does not fit any more, and then it is withdrawn and the agent is told.
pub(crate) fn check_decided(at_rest: &[End], end: &End) {
    if at_rest.iter().any(|other| other.fingerprint == end.fingerprint) {
        return;
    }
    let withdrawn = end
        .gates
        .iter()
        .filter(|gate| gate.ended_because.is_some() && gate.decision.is_some());
    for gate in withdrawn {
        let (id, told) = (format!("gate {} ", gate.id), &gate.agent);
        let heard = told.as_ref().and_then(|agent| end.told.get(agent));
        let noted = end.events.iter().any(|event| event.message.starts_with(&id));
        if noted && heard.is_none_or(|bodies| bodies.iter().any(|body| body.contains(&id))) {
            return;
        }
    }
    let others: Vec<&str> = at_rest.iter().map(|other| other.fingerprint.as_str()).collect();
    panic!(
        "another end, and nobody was told of a decision that did not count: {:#?}\n{}\ninstead of\n{}",
        end.gates,
        end.fingerprint,
        others.join("\nor\n")
    );
}
