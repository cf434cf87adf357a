use std::collections::BTreeMap;

use shared::gate::{Decision, Gate, GateView};

use super::*;

fn hive() -> HiveId {
    HiveId(uuid::Uuid::from_u128(1))
}

fn start_step(toplevel: &str) -> Step {
    let toplevel = digest(Encoding::Toplevel, toplevel).unwrap();
    Step {
        agent: Some("alice".parse().unwrap()),
        uid: Some(AgentUid(uuid::Uuid::from_u128(2))),
        action: Action::Start { toplevel },
        authority: Authority::Class {
            class: GateClass::Start,
            asked_by: Asker::Agent,
        },
    }
}

fn planned(step: Step, policy: &PolicySpec) -> PlannedStep {
    PlannedStep {
        id: step_id(&step).unwrap(),
        effect_digest: effect_digest(hive(), policy, &step).unwrap(),
        view: GateView::default(),
        step,
    }
}

fn plan(steps: Vec<PlannedStep>) -> Plan {
    Plan {
        steps,
        ..Plan::new(None)
    }
}

fn asking() -> PolicySpec {
    PolicySpec {
        agent: BTreeMap::from([(GateClass::Start, Verdict::Ask)]),
        ..PolicySpec::default()
    }
}

fn record(id: u64, planned: &PlannedStep, state: GateState, completed: bool) -> GateRecord {
    let decided = Decision {
        approve: state != GateState::Denied,
        by: "unix:root".into(),
        at: Timestamp::UNIX_EPOCH,
        reason: String::new(),
        digest: planned.effect_digest.clone(),
    };
    GateRecord {
        gate: Gate {
            id: GateId(id),
            agent: planned.step.agent.clone(),
            uid: planned.step.uid,
            class: GateClass::Start,
            asked_by: Asker::Agent,
            state,
            digest: planned.effect_digest.clone(),
            proposal: None,
            commit: None,
            system: None,
            opened_at: Timestamp::UNIX_EPOCH,
            decision: (state != GateState::Open).then_some(decided),
            consumed_at: None,
            completed_at: completed.then_some(Timestamp::UNIX_EPOCH),
            ended_because: None,
            view: GateView::default(),
        },
        step: planned.step.clone(),
    }
}

#[test]
fn the_default_policy_is_the_table_of_the_design() {
    use GateClass as C;
    let row = |class| [Asker::Spec, Asker::Agent, Asker::Manager].map(|asker| default_verdict(class, asker));
    let (auto, ask, never) = (Verdict::Auto, Verdict::Ask, Verdict::Never);
    assert_eq!(row(C::Build), [auto, auto, auto]);
    assert_eq!(row(C::Spawn), [auto, ask, ask]);
    assert_eq!(row(C::DeployWithin), [auto, ask, ask]);
    assert_eq!(row(C::DeployWidens), [auto, ask, ask]);
    assert_eq!(row(C::ReloadWithin), [auto, ask, ask]);
    assert_eq!(row(C::ReloadWidens), [auto, ask, ask]);
    assert_eq!(row(C::BaseUpdate), [auto, never, never]);
    for class in [C::Start, C::Stop, C::Restart, C::Rebuild] {
        assert_eq!(row(class), [auto, never, auto], "{class}");
    }
    for class in [C::Archive, C::MirrorDelete, C::MassRemoval, C::Purge] {
        assert_eq!(row(class), [ask, ask, ask], "{class}");
    }
}

#[test]
fn no_table_can_make_mass_removal_or_purge_automatic() {
    for class in [GateClass::MassRemoval, GateClass::Purge] {
        let table = BTreeMap::from([(class, Verdict::Auto)]);
        let policy = PolicySpec {
            spec: table.clone(),
            agent: table,
        };
        for asker in [Asker::Spec, Asker::Agent, Asker::Manager] {
            assert_eq!(verdict(&policy, class, asker).0, Verdict::Ask);
        }
    }
}

#[test]
fn an_approval_of_one_effect_grants_no_other() {
    let policy = asking();
    let approved = planned(start_step("one"), &policy);
    let other = planned(start_step("two"), &policy);
    let gates = [record(1, &approved, GateState::Approved, false)];
    assert_eq!(
        permission(&policy, &approved, &gates),
        Permission::Granted(Some(GateId(1)))
    );
    assert_eq!(permission(&policy, &other, &gates), Permission::NoGate);
}

#[test]
fn a_consumed_gate_covers_the_rest_of_its_try_and_nothing_after_it() {
    let policy = asking();
    let step = planned(start_step("one"), &policy);
    let unfinished = [record(1, &step, GateState::Consumed, false)];
    assert_eq!(
        permission(&policy, &step, &unfinished),
        Permission::Granted(Some(GateId(1)))
    );
    let finished = [record(1, &step, GateState::Consumed, true)];
    assert_eq!(permission(&policy, &step, &finished), Permission::NoGate);
}

#[test]
fn a_denied_effect_is_not_asked_about_again() {
    let policy = asking();
    let step = planned(start_step("one"), &policy);
    let gates = [record(1, &step, GateState::Denied, false)];
    assert_eq!(permission(&policy, &step, &gates), Permission::Denied(GateId(1)));
    assert!(revalidate(&policy, &plan(vec![step]), &gates).is_empty());
}

#[test]
fn an_unchanged_effect_keeps_its_gate_and_its_decision() {
    let policy = asking();
    let step = planned(start_step("one"), &policy);
    for state in [GateState::Open, GateState::Approved, GateState::Consumed] {
        let gates = [record(1, &step, state, false)];
        assert!(
            revalidate(&policy, &plan(vec![step.clone()]), &gates).is_empty(),
            "{state:?}"
        );
    }
}

#[test]
fn a_changed_effect_ends_the_old_gate_and_opens_another() {
    let policy = asking();
    let old = planned(start_step("one"), &policy);
    let new = planned(start_step("two"), &policy);
    for state in [GateState::Open, GateState::Approved] {
        let gates = [record(1, &old, state, false)];
        let actions = revalidate(&policy, &plan(vec![new.clone()]), &gates);
        assert!(matches!(&actions[0], GateAction::End { gate: GateId(1), .. }));
        assert!(matches!(&actions[1], GateAction::Open(gate) if gate.digest == new.effect_digest));
        assert_eq!(actions.len(), 2);
    }
}

#[test]
fn a_policy_that_says_never_opens_no_gate() {
    let policy = PolicySpec::default();
    let step = planned(start_step("one"), &policy);
    assert_eq!(
        permission(&policy, &step, &[]),
        Permission::Never("agent.start=never".into())
    );
    assert!(revalidate(&policy, &plan(vec![step]), &[]).is_empty());
}

#[test]
fn a_changed_rule_asks_anew() {
    // What was approved under "auto" is not approved under "ask".
    let auto = PolicySpec {
        agent: BTreeMap::from([(GateClass::Start, Verdict::Auto)]),
        ..PolicySpec::default()
    };
    let step = start_step("one");
    assert_ne!(
        effect_digest(hive(), &auto, &step).unwrap(),
        effect_digest(hive(), &asking(), &step).unwrap()
    );
    let other_hive = HiveId(uuid::Uuid::from_u128(9));
    assert_ne!(
        effect_digest(hive(), &auto, &step).unwrap(),
        effect_digest(other_hive, &auto, &step).unwrap()
    );
}

#[test]
fn backoff_doubles_from_a_second_to_five_minutes_and_is_spread() {
    let now = Timestamp::UNIX_EPOCH;
    let millis = |tries, jitter| backoff(tries, jitter, now).as_millisecond();
    assert_eq!(millis(1, 0.0), 1_000);
    assert_eq!(millis(2, 0.0), 2_000);
    assert_eq!(millis(9, 0.0), 256_000);
    assert_eq!(millis(10, 0.0), 300_000);
    assert_eq!(millis(u32::MAX, 0.0), 300_000);
    assert_eq!(millis(1, 1.0), 1_250);
}

#[test]
fn a_partial_plan_ends_no_gate() {
    let policy = asking();
    let step = planned(start_step("one"), &policy);
    for state in [GateState::Open, GateState::Approved] {
        let gates = [record(1, &step, state, false)];
        let partial = Plan {
            partial: true,
            ..plan(Vec::new())
        };
        assert!(revalidate(&policy, &partial, &gates).is_empty());
        assert_eq!(revalidate(&policy, &plan(Vec::new()), &gates).len(), 1);
    }
}

#[test]
fn the_gate_of_what_is_wanted_later_stays() {
    let policy = asking();
    let step = planned(start_step("one"), &policy);
    let gates = [record(1, &step, GateState::Approved, false)];
    let later = Plan {
        later: vec![step.effect_digest.clone()],
        ..plan(Vec::new())
    };
    assert!(revalidate(&policy, &later, &gates).is_empty());
}

#[test]
fn a_gate_that_ended_permits_nothing_and_asks_anew() {
    let policy = asking();
    let step = planned(start_step("one"), &policy);
    for state in [GateState::Superseded, GateState::Expired] {
        let gates = [record(1, &step, state, false)];
        assert_eq!(
            permission(&policy, &step, &gates),
            Permission::NoGate,
            "{state:?}"
        );
        let actions = revalidate(&policy, &plan(vec![step.clone()]), &gates);
        assert!(matches!(&actions[..], [GateAction::Open(_)]), "{state:?}");
    }
}

#[test]
fn a_live_gate_outweighs_an_earlier_denial_of_the_same_effect() {
    let policy = asking();
    let step = planned(start_step("one"), &policy);
    let gates = [
        record(1, &step, GateState::Denied, false),
        record(2, &step, GateState::Approved, false),
    ];
    assert_eq!(
        permission(&policy, &step, &gates),
        Permission::Granted(Some(GateId(2)))
    );
}

#[test]
fn an_effect_that_has_begun_is_never_taken_back_by_a_plan() {
    let policy = asking();
    let step = planned(start_step("one"), &policy);
    for (state, completed) in [
        (GateState::Consumed, false),
        (GateState::Consumed, true),
        (GateState::Denied, false),
    ] {
        let gates = [record(1, &step, state, completed)];
        assert!(
            revalidate(&policy, &plan(Vec::new()), &gates).is_empty(),
            "{state:?}"
        );
    }
}

#[test]
fn a_gate_that_ends_says_what_the_plan_says() {
    let policy = asking();
    let step = planned(start_step("one"), &policy);
    let gates = [record(1, &step, GateState::Approved, false)];
    let moved = Plan {
        ended_because: "main moved on".to_owned(),
        ..plan(Vec::new())
    };
    let actions = revalidate(&policy, &moved, &gates);
    assert!(matches!(&actions[..], [GateAction::End { reason, .. }] if reason == "main moved on"));
}

#[test]
fn an_automatic_approval_names_the_rule_and_asking_names_none() {
    let auto = PolicySpec {
        agent: BTreeMap::from([(GateClass::Start, Verdict::Auto)]),
        ..PolicySpec::default()
    };
    for (policy, rule) in [(auto, Some("agent.start=auto")), (asking(), None)] {
        let step = planned(start_step("one"), &policy);
        let actions = revalidate(&policy, &plan(vec![step]), &[]);
        let [GateAction::Open(gate)] = &actions[..] else {
            panic!("{actions:?}");
        };
        assert_eq!(gate.auto.as_deref(), rule);
    }
}

#[test]
fn what_follows_from_a_consumed_gate_needs_no_other() {
    let policy = PolicySpec::default();
    for authority in [Authority::Free, Authority::Under(GateId(9))] {
        let step = Step {
            authority,
            ..start_step("one")
        };
        let step = planned(step, &policy);
        assert_eq!(permission(&policy, &step, &[]), Permission::Granted(None));
        assert!(revalidate(&policy, &plan(vec![step]), &[]).is_empty());
    }
}
