//! What of a plan may happen now, and what the rest waits on.

use shared::canonical::{Encoding, digest};
use shared::gate::{GateClass, GateState, Verdict};
use shared::plan::WaitingOn;

use super::world::*;
use crate::model::records::Attempt;
use crate::plan::Plan;

/// A plan of one step that needs a decision.
fn asking() -> (Case, Plan) {
    let mut case = Case::at_rest();
    case.propose(1);
    case.build_proposal(r#"{ "network": "none" }"#);
    let plan = case.plan();
    assert_eq!(kinds(&plan), ["deploy"]);
    (case, plan)
}

fn tried(case: &mut Case, plan: &Plan, terminal: bool, error: &str) {
    let attempt = Attempt {
        count: 3,
        first_at: at(0),
        last_at: at(NOW - 1),
        next_at: at(NOW + 8),
        in_flight: error.is_empty(),
        terminal,
        error: error.to_owned(),
    };
    case.ledger.attempts.insert(plan.steps[0].id.clone(), attempt);
}

fn only_wait(case: &Case, plan: &Plan) -> (WaitingOn, Option<String>) {
    let schedule = case.scheduled(plan);
    assert_eq!(schedule.ready, []);
    let [waiting] = &schedule.waiting[..] else {
        panic!("{:?}", schedule.waiting)
    };
    (waiting.on.clone(), waiting.hint.clone())
}

#[test]
fn without_a_gate_a_step_waits_for_one() {
    let (case, plan) = asking();
    assert!(matches!(only_wait(&case, &plan).0, WaitingOn::Dependency { .. }));
}

#[test]
fn an_open_gate_is_named_with_its_class_and_the_next_command() {
    let (mut case, plan) = asking();
    let gate = case.gate(&plan.steps[0], GateState::Open);
    let class = GateClass::DeployWithin;
    let hint = Some(format!("hive gate show {gate}"));
    assert_eq!(only_wait(&case, &plan), (WaitingOn::Gate { gate, class }, hint));
}

#[test]
fn an_approved_step_is_ready_under_its_gate() {
    let (mut case, plan) = asking();
    let gate = case.gate(&plan.steps[0], GateState::Approved);
    let schedule = case.scheduled(&plan);
    assert_eq!(schedule.ready[0].gate, Some(gate));
    assert!(schedule.waiting.is_empty());
}

#[test]
fn a_denied_step_is_stuck_and_says_which_gate() {
    let (mut case, plan) = asking();
    let gate = case.gate(&plan.steps[0], GateState::Denied);
    let (on, _) = only_wait(&case, &plan);
    assert!(matches!(on, WaitingOn::Terminal { error } if error == format!("gate {gate} was denied")));
}

#[test]
fn a_step_the_policy_never_allows_is_stuck_and_says_which_rule() {
    let mut case = Case::declared();
    case.facts.policy.spec.insert(GateClass::Spawn, Verdict::Never);
    let plan = case.plan();
    let (on, hint) = only_wait(&case, &plan);
    assert!(matches!(on, WaitingOn::Terminal { error } if error.contains("spec.spawn=never")));
    assert!(hint.is_some());
}

#[test]
fn a_step_that_failed_waits_for_its_next_try_and_wakes_then() {
    let (mut case, plan) = asking();
    case.gate(&plan.steps[0], GateState::Approved);
    tried(&mut case, &plan, false, "disk full");
    let (on, hint) = only_wait(&case, &plan);
    let (until, error) = (at(NOW + 8), "disk full".to_owned());
    assert_eq!(
        on,
        WaitingOn::Backoff {
            until,
            attempts: 3,
            error
        }
    );
    assert_eq!(hint.as_deref(), Some("hive retry alice"));
    assert_eq!(case.scheduled(&plan).wake_at, Some(until));
    case.now = until;
    assert_eq!(case.scheduled(&plan).ready.len(), 1);
}

#[test]
fn a_try_that_was_interrupted_says_so() {
    let (mut case, plan) = asking();
    case.gate(&plan.steps[0], GateState::Consumed);
    tried(&mut case, &plan, false, "");
    assert!(
        matches!(only_wait(&case, &plan).0, WaitingOn::Backoff { error, .. } if error.contains("interrupted"))
    );
}

#[test]
fn a_step_that_cannot_work_is_not_tried_again() {
    let (mut case, plan) = asking();
    case.gate(&plan.steps[0], GateState::Approved);
    tried(&mut case, &plan, true, "refused");
    case.now = at(NOW + 1_000_000);
    assert!(matches!(only_wait(&case, &plan).0, WaitingOn::Terminal { error } if error == "refused"));
}

#[test]
fn the_earliest_of_all_wakes_counts() {
    let (mut case, mut plan) = asking();
    case.gate(&plan.steps[0], GateState::Approved);
    tried(&mut case, &plan, false, "disk full");
    for (wake, earliest) in [(NOW + 3, NOW + 3), (NOW + 30, NOW + 8)] {
        plan.wake_at = Some(at(wake));
        assert_eq!(case.scheduled(&plan).wake_at, Some(at(earliest)));
    }
}

#[test]
fn one_step_that_waits_holds_no_other_back() {
    let (mut case, _) = asking();
    case.absent();
    let plan = case.plan();
    case.gate(step(&plan, "deploy"), GateState::Open);
    case.gate(step(&plan, "start"), GateState::Approved);
    let schedule = case.scheduled(&plan);
    assert_eq!(schedule.ready.len(), 1);
    assert_eq!(schedule.ready[0].planned.step.action.kind(), "start");
}

#[test]
fn a_deployment_that_waits_for_its_next_try_is_not_overtaken() {
    let (mut case, mut plan) = asking();
    let mut second = plan.steps[0].clone();
    second.id = digest(Encoding::Content, "another step").unwrap();
    second.effect_digest = digest(Encoding::Content, "another effect").unwrap();
    plan.steps.push(second);
    let first = case.gate(&plan.steps[0], GateState::Consumed);
    let gate = case.gate(&plan.steps[1], GateState::Approved);
    assert_eq!(case.scheduled(&plan).ready.len(), 2);

    tried(&mut case, &plan, false, "");
    let schedule = case.scheduled(&plan);
    assert_eq!(schedule.ready, [], "gate {gate} overtook gate {first}");
    let waits = schedule.waiting.iter().map(|waiting| &waiting.on);
    assert!(
        matches!(
            &waits.collect::<Vec<_>>()[..],
            [WaitingOn::Backoff { .. }, WaitingOn::Dependency { .. }]
        ),
        "{:?}",
        schedule.waiting
    );

    tried(&mut case, &plan, true, "it cannot be done");
    assert_eq!(
        case.scheduled(&plan).ready[0].gate,
        Some(gate),
        "what is stuck holds nobody up"
    );
}
