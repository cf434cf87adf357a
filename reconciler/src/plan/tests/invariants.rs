//! For each invariant, a plan that breaks it.

use shared::Digest;
use shared::gate::{Asker, GateClass};

use super::world::*;
use crate::host::RefUpdate;
use crate::host::fake::oid;
use crate::invariants::{Violation, check};
use crate::model::records::{AgentLife, Quarantine};
use crate::model::step::{Action, Authority};
use crate::plan::Plan;

fn broken(case: &Case, plan: &Plan) -> Vec<Violation> {
    check(plan, &case.inventory, &case.ledger)
}

/// The plan with these steps besides.
fn with(case: &Case, actions: impl IntoIterator<Item = Action>) -> Plan {
    let mut plan = case.plan();
    for action in actions {
        let step = crate::plan::free(action, &case.ledger.record.name, case.ledger.record.uid);
        plan.push(&case.facts, step, Default::default()).unwrap();
    }
    plan
}

fn toplevel(case: &Case) -> Digest {
    case.output().toplevel
}

fn stop() -> Action {
    Action::Stop {
        run: "run-1".to_owned(),
    }
}

#[test]
fn nothing_is_stopped_restarted_or_archived_while_the_runtime_is_unknown() {
    let mut case = Case::at_rest();
    case.inventory.unit = Err("no answer".to_owned());
    let restart = Action::Restart {
        toplevel: toplevel(&case),
        run: "run-1".to_owned(),
    };
    for action in [stop(), restart] {
        let kind = action.kind();
        let source_name = "runtime";
        assert_eq!(
            broken(&case, &with(&case, [action])),
            [Violation::DestructiveOnUnknown { kind, source_name }]
        );
    }
}

#[test]
fn no_ref_is_moved_while_the_repo_is_unknown() {
    let mut case = Case::at_rest();
    case.inventory.repo = Err("no answer".to_owned());
    let update = RefUpdate::Main {
        from: None,
        to: oid("x"),
    };
    let (kind, source_name) = ("projectRef", "config repo");
    assert_eq!(
        broken(&case, &with(&case, [Action::ProjectRef(update)])),
        [Violation::DestructiveOnUnknown { kind, source_name }]
    );
}

#[test]
fn what_needs_a_decision_is_never_planned_without_asking() {
    let mut case = Case::at_rest();
    case.propose(1);
    let build = case.plan();
    case.build_proposal(r#"{ "network": "none" }"#);
    let deploy = case.plan();
    for (kind, plan) in [
        ("build", build),
        ("deploy", deploy),
        ("spawn", Case::declared().plan()),
    ] {
        let mut plan = plan;
        for planned in &mut plan.steps {
            planned.step.authority = Authority::Free;
        }
        assert_eq!(broken(&case, &plan), [Violation::Ungated { kind }]);
    }
}

#[test]
fn steps_that_undo_each_other_are_not_planned_together() {
    let case = Case::at_rest();
    let start = || Action::Start {
        toplevel: toplevel(&case),
    };
    let restart = || Action::Restart {
        toplevel: toplevel(&case),
        run: "run-1".to_owned(),
    };
    let system = case.output().system;
    let good = Action::MarkGood {
        system: system.clone(),
    };
    let revert = Action::Revert {
        failed: system,
        to: None,
        reason: String::new(),
    };
    for (one, other) in [
        (start(), stop()),
        (start(), restart()),
        (stop(), restart()),
        (good, revert),
    ] {
        let (first, second) = (one.kind(), other.kind());
        assert_eq!(
            broken(&case, &with(&case, [one, other])),
            [Violation::Contradiction { first, second }]
        );
    }
}

#[test]
fn a_quarantined_system_is_not_deployed() {
    let mut case = Case::at_rest();
    case.spec.as_mut().unwrap().prompt = "new".to_owned();
    let system = case.build_candidate().system;
    let plan = case.plan();
    let quarantine = Quarantine {
        reason: String::new(),
        since: at(0),
    };
    case.ledger.quarantine.insert(system.clone(), quarantine);
    assert_eq!(broken(&case, &plan), [Violation::Quarantined { system }]);
}

#[test]
fn an_agent_that_runs_or_is_declared_is_not_archived() {
    let mut case = Case::at_rest();
    case.absent();
    case.ledger.record.life = AgentLife::Removed { since: at(0) };
    let plan = case.plan();
    assert_eq!(kinds(&plan), ["archive"]);
    assert_eq!(broken(&case, &plan), []);
    let mut declared = case.clone();
    declared.ledger.record.life = AgentLife::Active;
    assert_eq!(broken(&declared, &plan), [Violation::ArchivedAlive]);
    case.inventory.unit = Case::at_rest().inventory.unit;
    assert_eq!(broken(&case, &plan), [Violation::ArchivedAlive]);
}

#[test]
fn the_spec_asks_for_one_deployment_at_a_time() {
    let mut case = Case::at_rest();
    case.spec.as_mut().unwrap().prompt = "new".to_owned();
    case.build_candidate();
    let mut plan = case.plan();
    let again = plan.steps[0].clone();
    assert_eq!(
        again.step.authority,
        Authority::Class {
            class: GateClass::DeployWidens,
            asked_by: Asker::Spec
        }
    );
    plan.steps.push(again);
    assert_eq!(broken(&case, &plan), [Violation::TwoDeployments]);
}

#[test]
fn nothing_but_its_own_steps_is_planned_for_a_draft_and_those_for_nobody_else() {
    let mut draft = Case::spawned();
    draft.ledger.record.life = AgentLife::Draft;
    let outside = |kind| Violation::OutOfLife { kind };
    assert!(broken(&draft, &with(&draft, [stop()])).contains(&outside("stop")));
    assert!(broken(&draft, &with(&draft, [Action::DropDraft])).contains(&outside("dropDraft")));
    assert!(broken(&draft, &with(&draft, [Action::DropStaged])).contains(&outside("dropStaged")));
    let rest = Case::at_rest();
    for action in [
        Action::DropDraft,
        Action::MakeDraft {
            overlay: None,
            at: at(0),
        },
    ] {
        let kind = action.kind();
        assert!(
            broken(&rest, &with(&rest, [action])).contains(&outside(kind)),
            "{kind}"
        );
    }
    let mut given_up = Case::at_rest();
    given_up.ledger.record.life = AgentLife::GivenUp { since: at(0) };
    let found = broken(&given_up, &with(&given_up, [Action::DropDraft]));
    assert!(
        found.contains(&outside("dropDraft")),
        "it has something deployed: {found:?}"
    );
}

#[test]
fn what_follows_from_a_gate_follows_from_the_one_that_allowed_the_deployment() {
    let mut case = Case::at_rest();
    case.spec.as_mut().unwrap().network = shared::spec::Network::None;
    case.build_candidate();
    let plan = case.plan();
    let mut restart = plan.steps[0].clone();
    let deployed = case.ledger.record.deployed.clone().unwrap();
    restart.step.action = Action::Restart {
        toplevel: deployed.output.toplevel.clone(),
        run: "1".to_owned(),
    };
    restart.step.authority = Authority::Under(deployed.gate);
    let mut plan = plan;
    plan.steps = vec![restart];
    assert_eq!(broken(&case, &plan), []);
    let gate = shared::GateId(deployed.gate.0 + 1);
    plan.steps[0].step.authority = Authority::Under(gate);
    let kind = "restart";
    assert_eq!(broken(&case, &plan), [Violation::Unfounded { kind, gate }]);
}
