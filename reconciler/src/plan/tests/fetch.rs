//! Builds that want hosts which the operator did not declare.

use std::collections::BTreeSet;

use shared::gate::{Asker, GateClass, GateState, Verdict};
use shared::spec::PolicySpec;

use super::world::*;
use crate::gate::{Permission, default_verdict, permission, revalidate};
use crate::model::build::GrantMode;
use crate::model::gates::GateAction;
use crate::model::records::BuildState;
use crate::model::step::Action;

fn hosts(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The build of what the spec asks for wants these.
fn wanting(names: &[&str]) -> Case {
    let mut case = Case::spawned();
    let state = BuildState::Wants { hosts: hosts(names) };
    case.ledger.builds.insert(case.candidate().key().unwrap(), state);
    case
}

#[test]
fn they_are_asked_about_by_name_although_builds_ask_nobody() {
    assert_eq!(default_verdict(GateClass::Build, Asker::Spec), Verdict::Auto);
    let case = wanting(&["x.example", "y.example"]);
    let plan = case.plan();
    let planned = step(&plan, "build");
    let Action::Build { hosts: asked, .. } = &planned.step.action else {
        panic!("{planned:?}");
    };
    assert_eq!(*asked, hosts(&["x.example", "y.example"]));
    assert!(
        planned
            .view
            .summary
            .ends_with("fetching from x.example, y.example"),
        "{}",
        planned.view.summary
    );
    let policy = PolicySpec::default();
    assert_eq!(permission(&policy, planned, &[]), Permission::NoGate);
    let actions = revalidate(&policy, &plan, &[]);
    let [GateAction::Open(gate)] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(
        (gate.class, &gate.auto),
        (GateClass::Build, &None),
        "a person decides"
    );
    assert!(!case.kinds().contains(&"deploy"));
}

#[test]
fn a_policy_that_lets_nothing_be_built_still_holds() {
    let mut case = wanting(&["x.example"]);
    case.facts.policy.spec.insert(GateClass::Build, Verdict::Never);
    let plan = case.plan();
    let verdict = permission(&case.facts.policy, step(&plan, "build"), &[]);
    assert_eq!(verdict, Permission::Never("spec.build=never".to_owned()));
}

#[test]
fn an_approval_is_of_exactly_these_hosts() {
    let (few, more) = (
        wanting(&["x.example"]).plan(),
        wanting(&["x.example", "y.example"]).plan(),
    );
    let policy = PolicySpec::default();
    let approved = gate_record(shared::GateId(1), step(&few, "build"), GateState::Approved);
    let gates = [approved];
    assert!(matches!(
        permission(&policy, step(&few, "build"), &gates),
        Permission::Granted(Some(_))
    ));
    assert_eq!(
        permission(&policy, step(&more, "build"), &gates),
        Permission::NoGate
    );
    let ended = revalidate(&policy, &more, &gates);
    assert!(
        ended
            .iter()
            .any(|action| matches!(action, GateAction::End { .. })),
        "{ended:?}"
    );
}

#[test]
fn a_proposal_waits_for_its_hosts_and_is_not_failed() {
    let mut case = Case::at_rest();
    let commit = case.propose(1).commit.clone();
    let key = case.request(&commit, GrantMode::Asked).key().unwrap();
    let state = BuildState::Wants {
        hosts: hosts(&["x.example"]),
    };
    case.ledger.builds.insert(key, state);
    let plan = case.plan();
    assert_eq!(kinds(&plan), ["build"]);
    let planned = step(&plan, "build");
    assert_eq!(planned.view.title.as_deref(), Some("a title"));
    assert_eq!(planned.view.reason.as_deref(), Some("a reason"));
    assert!(
        planned.view.summary.contains("proposal 1"),
        "{}",
        planned.view.summary
    );
}

#[test]
fn a_rebuild_finds_out_anew_what_is_wanted() {
    let mut case = wanting(&["x.example"]);
    case.ledger.record.rebuild = true;
    let plan = case.plan();
    let Action::Build { hosts, .. } = &step(&plan, "build").step.action else {
        panic!("{:?}", kinds(&plan));
    };
    assert!(hosts.is_empty());
}
