//! What is planned about an order of a manager.

use shared::GateId;
use shared::gate::{Asker, GateClass, GateState, Verdict};
use shared::spec::RunState;

use super::world::*;
use crate::gate::{Permission, permission};
use crate::invariants::{self, Violation};
use crate::model::draft::Standing;
use crate::model::order::{ManagerOrder, OrderState, Verb};
use crate::model::records::{AgentLife, BuildState};
use crate::model::step::{Action, Authority};
use crate::plan::Plan;

fn ordered(verb: Verb) -> Case {
    let mut case = Case::at_rest();
    case.ledger.record.order = Some(Box::new(ManagerOrder {
        number: 3,
        verb,
        by: "queen".parse().unwrap(),
        by_uid: shared::AgentUid(uuid::Uuid::from_u128(9)),
        reason: "it hangs".to_owned(),
        at: at(NOW - 10),
        dedupe: None,
        state: OrderState::Pending,
        gate: None,
    }));
    case
}

#[test]
fn an_order_that_waits_is_a_step_of_its_class_and_nothing_else_changes() {
    for (verb, class) in [
        (Verb::Start, GateClass::Start),
        (Verb::Stop, GateClass::Stop),
        (Verb::Restart, GateClass::Restart),
    ] {
        let case = ordered(verb);
        let plan = case.plan();
        let [planned] = &plan.steps[..] else {
            panic!("{:?}", kinds(&plan));
        };
        let asked_by = Asker::Manager;
        assert_eq!(planned.step.authority, Authority::Class { class, asked_by });
        assert!(matches!(planned.step.action, Action::Obey { number: 3, .. }));
        assert_eq!(planned.view.reason.as_deref(), Some("it hangs"));
        assert_eq!(permission(&case.facts.policy, planned, &[]), Permission::NoGate);
    }
}

#[test]
fn an_order_is_never_planned_without_asking() {
    let case = ordered(Verb::Stop);
    let mut plan = case.plan();
    plan.steps[0].step.authority = Authority::Free;
    let broken = invariants::check(&plan, &case.inventory, &case.ledger);
    assert_eq!(broken, [Violation::Ungated { kind: "obey" }]);
}

#[test]
fn an_approval_of_one_order_allows_no_other() {
    let mut case = ordered(Verb::Stop);
    let first = case.plan().steps.remove(0);
    let gates = [gate_record(GateId(7), &first, GateState::Approved)];
    case.ledger.record.order.as_mut().unwrap().number = 4;
    let second = case.plan().steps.remove(0);
    assert_eq!(
        permission(&case.facts.policy, &second, &gates),
        Permission::NoGate
    );
}

#[test]
fn an_order_that_cannot_be_allowed_ends() {
    let mut case = ordered(Verb::Stop);
    case.facts.policy.agent.insert(GateClass::Stop, Verdict::Never);
    assert_eq!(case.kinds(), ["endOrder"]);
    let mut case = ordered(Verb::Stop);
    case.standing = Standing::Void("queen is gone".to_owned());
    let plan = case.plan();
    let Action::EndOrder { number: 3, reason } = &plan.steps[0].step.action else {
        panic!("{:?}", kinds(&plan));
    };
    assert_eq!(reason, "queen is gone");
}

#[test]
fn an_order_that_is_over_plans_nothing() {
    for state in [
        OrderState::Done,
        OrderState::Ended {
            reason: "no".to_owned(),
        },
    ] {
        let mut case = ordered(Verb::Stop);
        case.ledger.record.order.as_mut().unwrap().state = state;
        assert!(case.plan().steps.is_empty());
    }
}

#[test]
fn a_managers_stop_holds_until_the_spec_says_something_else() {
    let mut case = Case::at_rest();
    let mut stop = over(RunState::Stopped, None);
    stop.over = Some(RunState::Running);
    case.ledger.overrides.run = Some(stop);
    assert_eq!(case.kinds(), ["stop"]);
    case.spec.as_mut().unwrap().run = RunState::Paused;
    assert!(!case.kinds().contains(&"stop"), "it lapsed");
    case.ledger.overrides.run.as_mut().unwrap().over = None;
    assert_eq!(case.kinds(), ["stop"], "the operator's does not lapse");
}

#[test]
fn a_rebuild_builds_beside_what_is_there_and_ends_no_wait() {
    let mut case = Case::at_rest();
    case.ledger.record.rebuild = true;
    assert_eq!(case.kinds(), ["build"]);
    let key = case.ledger.builds.keys().next().unwrap().clone();
    let failed = BuildState::Failed {
        error: "no".to_owned(),
    };
    case.ledger.builds.insert(key, failed);
    assert_eq!(case.kinds(), ["build"], "what failed is tried again");
    case.ledger.record.rebuild = false;
    assert!(case.plan().steps.is_empty());
}

#[test]
fn a_removed_agent_is_archived_under_the_gate_of_the_order_and_of_no_other() {
    let mut case = ordered(Verb::Archive);
    case.absent();
    let order = case.ledger.record.order.as_mut().unwrap();
    (order.state, order.gate) = (OrderState::Done, Some(GateId(5)));
    assert!(!case.kinds().contains(&"archive"), "it is not removed");
    case.ledger.record.life = AgentLife::Removed { since: at(NOW) };
    let mut plan = case.plan();
    assert_eq!(kinds(&plan), ["archive"]);
    assert_eq!(plan.steps[0].step.authority, Authority::Under(GateId(5)));
    let check = |case: &Case, plan: &Plan| invariants::check(plan, &case.inventory, &case.ledger);
    assert_eq!(check(&case, &plan), []);
    plan.steps[0].step.authority = Authority::Under(GateId(6));
    let (kind, gate) = ("archive", GateId(6));
    assert_eq!(check(&case, &plan), [Violation::Unfounded { kind, gate }]);
    plan.steps[0].step.authority = Authority::Free;
    assert_eq!(check(&case, &plan), [Violation::Ungated { kind }]);
}
