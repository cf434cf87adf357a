//! What must be true of every run, and of a disturbed run beside an undisturbed one.

use std::collections::BTreeMap;

use shared::gate::{GateClass, GateState};

use super::driver::{End, Scenario};

/// What must hold of every run, whatever happened.
pub(crate) fn check_alone(scenario: &Scenario, end: &End, what: &str) {
    let script = || format!("{what}\nscript: {:#?}\n{}", scenario.moves, end.fingerprint);
    assert_eq!(end.noise, 0, "not quiet after converging: {}", script());
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
        end.count("makeRepo") <= used(&[GateClass::Spawn]),
        "spawned without a gate: {}",
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
    ];
    assert!(
        deployed <= used(&deploys),
        "deployed without a gate: {}",
        script()
    );
}

/// What must hold of a disturbed run beside the undisturbed one: the same end, and nothing done twice.
pub(crate) fn check_same(scenario: &Scenario, reference: &End, end: &End, what: &str) {
    let script = || format!("{what}\nscript: {:#?}", scenario.moves);
    check_same_end(scenario, reference, end, what);
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
        "other messages: {:?} instead of {:?}: {}",
        end.told,
        reference.told,
        script()
    );
    let counted = |end: &End| {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for effect in &end.effects {
            if matches!(effect.kind, "start" | "stop" | "archive") {
                *counts.entry(effect.kind).or_default() += 1;
            }
        }
        counts
    };
    assert_eq!(
        counted(reference),
        counted(end),
        "other starts, stops or removals: {}",
        script()
    );
}

/// The same end, and the operator decided about the same. How often agents were started may differ: one that could not
/// be built at once runs what it had meanwhile.
pub(crate) fn check_same_end(scenario: &Scenario, reference: &End, end: &End, what: &str) {
    let script = || format!("{what}\nscript: {:#?}", scenario.moves);
    assert_eq!(
        reference.fingerprint,
        end.fingerprint,
        "another end: {}",
        script()
    );
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
        "the operator was asked something else: {}",
        script()
    );
}
