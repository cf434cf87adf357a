//! An update of what all agents are built upon.

use shared::gate::{Asker, GateClass, GateState, Verdict};
use shared::plan::WaitingOn;
use shared::spec::RunState;

use super::world::*;
use crate::host::UnitState;
use crate::model::base::Rollout;
use crate::model::build::NixInputs;
use crate::model::step::Action;
use crate::plan::base::is_outdated;
use crate::plan::trial::holds_until;

const UPDATE: &str = "the update of what all agents are built upon";

/// The operator rebuilt the host with another nixpkgs, and with it the system of the agent.
fn update(case: &mut Case, nixpkgs: &str) {
    case.spec.as_mut().unwrap().system = Some(format!("{nixpkgs}-system"));
    case.facts.nix = Some(NixInputs {
        nixpkgs: nixpkgs.to_owned(),
        guest_module: "/nix/store/guest".to_owned(),
        inputs: Default::default(),
        hosts: Default::default(),
    });
}

/// At rest upon the old nixpkgs; what is built upon another is another system.
fn up_to_date() -> Case {
    let mut case = Case::spawned();
    update(&mut case, "/nix/store/old");
    let output = case.build_candidate();
    case.deployed(output);
    case.ledger.record.last_good = case.ledger.record.deployed.clone();
    case.running();
    assert!(case.kinds().is_empty());
    case
}

/// The same, with the update built ahead.
fn outdated() -> Case {
    let mut case = up_to_date();
    update(&mut case, "/nix/store/new");
    case.build_candidate();
    case
}

/// Others are on trial with it.
fn others_first(case: &mut Case, names: &[&str]) {
    let until = at(NOW + 30);
    case.rollout = Rollout {
        at_once: 1,
        on_trial: names.iter().map(|name| (name.parse().unwrap(), until)).collect(),
    };
}

/// An agent's proposal is built, and its deployment is asked about.
fn asked_about(case: &mut Case) {
    case.propose(1);
    case.build_proposal(r#"{ "prompt": "tend the garden" }"#);
    let planned = step(&case.plan(), "deploy").clone();
    case.gate(&planned, GateState::Open);
}

fn waits_for_update(case: &Case) -> Option<WaitingOn> {
    let waiting = case.plan().waiting.into_iter();
    waiting.filter(|w| w.what == UPDATE).map(|w| w.on).next()
}

#[test]
fn what_is_new_about_the_host_alone_is_a_base_update() {
    let case = outdated();
    let planned = step(&case.plan(), "deploy").clone();
    assert_eq!(class(&planned), Some(GateClass::BaseUpdate));
    assert!(
        planned
            .view
            .summary
            .contains("an update of what all agents are built upon"),
        "{}",
        planned.view.summary
    );
}

#[test]
fn a_new_system_of_the_hosts_own_build_is_a_base_update_too() {
    let mut case = up_to_date();
    case.spec.as_mut().unwrap().system = Some("/nix/store/prebuilt".to_owned());
    case.build_candidate();
    assert_eq!(class(step(&case.plan(), "deploy")), Some(GateClass::BaseUpdate));
}

#[test]
fn what_is_declared_anew_with_it_needs_more_than_the_permission_for_an_update() {
    let mut case = up_to_date();
    update(&mut case, "/nix/store/new");
    case.spec.as_mut().unwrap().prompt = "tend the garden".to_owned();
    case.build_candidate();
    assert_eq!(class(step(&case.plan(), "deploy")), Some(GateClass::DeployWidens));
}

#[test]
fn a_system_of_which_nobody_knows_what_it_was_made_from_is_deployed_as_before() {
    let mut case = outdated();
    case.ledger.record.deployed.as_mut().unwrap().output.made_from = None;
    assert_ne!(class(step(&case.plan(), "deploy")), Some(GateClass::BaseUpdate));
    let (spec, record) = (case.spec.as_ref().unwrap(), &case.ledger.record);
    assert!(!is_outdated(record, spec, &case.facts));
}

#[test]
fn an_update_waits_for_its_turn_with_what_it_is_built_from_at_hand() {
    let mut case = up_to_date();
    update(&mut case, "/nix/store/new");
    others_first(&mut case, &["bob"]);
    assert_eq!(case.kinds(), ["build"], "it is built ahead");
    case.build_candidate();
    let plan = case.plan();
    assert!(plan.steps.is_empty(), "{:?}", kinds(&plan));
    assert!(plan.in_line);
    assert_eq!(
        plan.wake_at,
        Some(at(NOW + 30)),
        "and is looked at though nobody calls it"
    );
    let first = "the probation of bob with the same update".to_owned();
    assert_eq!(waits_for_update(&case), Some(WaitingOn::Dependency { first }));
    case.rollout = Rollout::default();
    let plan = case.plan();
    assert!(!plan.in_line);
    assert_eq!(kinds(&plan), ["deploy"]);
}

#[test]
fn a_large_hive_lets_one_in_ten_go_at_once() {
    let mut rollout = Rollout::among(29);
    assert_eq!(rollout.ahead(), None);
    rollout.on_trial.insert("bob".parse().unwrap(), at(9));
    assert_eq!(rollout.ahead(), None, "two may");
    rollout.on_trial.insert("carol".parse().unwrap(), at(5));
    let ahead = rollout.ahead().unwrap();
    assert_eq!((ahead.agents.len(), ahead.until), (2, at(5)));
    assert_eq!(Rollout::among(3).at_once, 1);
}

#[test]
fn an_update_that_the_operator_decides_about_agent_by_agent_takes_no_turns() {
    let mut case = outdated();
    others_first(&mut case, &["bob"]);
    case.facts.policy.spec.insert(GateClass::BaseUpdate, Verdict::Ask);
    assert_eq!(case.kinds(), ["deploy"]);
}

#[test]
fn an_agent_that_should_not_run_takes_an_update_without_waiting() {
    let mut case = outdated();
    others_first(&mut case, &["bob"]);
    case.spec.as_mut().unwrap().run = RunState::Stopped;
    case.inventory.unit = Ok(UnitState::Absent);
    assert_eq!(case.kinds(), ["deploy"]);
}

#[test]
fn an_update_yields_to_a_proposal_that_the_operator_was_asked_about() {
    let mut case = up_to_date();
    asked_about(&mut case);
    let gate = case.ledger.gates[0].gate.clone();
    update(&mut case, "/nix/store/new");
    let plan = case.plan();
    let planned = step(&plan, "deploy");
    assert_eq!(
        planned.effect_digest, gate.digest,
        "the very effect that is asked about"
    );
    let on = WaitingOn::Gate {
        gate: gate.id,
        class: gate.class,
    };
    assert_eq!(waits_for_update(&case), Some(on));
    for over in [GateState::Denied, GateState::Superseded] {
        case.ledger.gates[0].gate.state = over;
        assert_eq!(case.kinds(), ["build"], "then the update is built");
    }
}

#[test]
fn an_update_yields_no_more_once_the_proposal_would_have_to_be_built_again() {
    let mut case = up_to_date();
    asked_about(&mut case);
    update(&mut case, "/nix/store/new");
    let built = case.ledger.gates[0].step.action.clone();
    let Action::Deploy { system, .. } = built else {
        unreachable!()
    };
    case.inventory.systems.as_mut().unwrap().insert(system, false);
    assert_eq!(waits_for_update(&case), None);
}

#[test]
fn a_change_of_the_declared_agent_yields_to_no_proposal() {
    let mut case = up_to_date();
    asked_about(&mut case);
    case.spec.as_mut().unwrap().prompt = "something else".to_owned();
    assert_eq!(waits_for_update(&case), None);
    assert_eq!(case.kinds(), ["build"]);
}

#[test]
fn an_update_of_programs_yields_unless_no_host_would_start_the_old_ones() {
    for (old, yields) in [
        ("/nix/store/old/bin/hive-harness", true),
        ("/opt/hive-harness", false),
    ] {
        let mut case = Case::spawned();
        case.facts.harness = old.into();
        let output = case.build_candidate();
        case.deployed(output);
        case.running();
        asked_about(&mut case);
        case.facts.harness = "/nix/store/new/bin/hive-harness".into();
        assert_eq!(waits_for_update(&case).is_some(), yields, "{old}");
        assert_eq!(case.kinds(), [if yields { "deploy" } else { "build" }], "{old}");
    }
}

#[test]
fn an_update_lets_what_an_agent_proposed_pass_its_trial_first() {
    let mut case = outdated();
    let trial = case.on_trial();
    trial.proposal = Some(shared::ProposalNumber(1));
    case.report().config = None;
    assert!(case.kinds().is_empty(), "{:?}", case.kinds());
    assert!(waits_for_update(&case).is_some());
    // One that cures a bad update is not held up by it.
    case.ledger.probation.as_mut().unwrap().proposal = None;
    assert_eq!(case.kinds(), ["deploy"]);
}

#[test]
fn others_wait_for_a_trial_of_an_update_no_longer_than_it_lasts() {
    let mut case = up_to_date();
    let now = at(NOW);
    let mut trial = case.on_trial().clone();
    assert_eq!(holds_until(&trial, at(0), now), None, "it is of no update");
    trial.updates_base = true;
    assert_eq!(holds_until(&trial, at(0), now), Some(at(NOW + 50)));
    trial.active_secs = 50;
    assert_eq!(
        holds_until(&trial, at(0), now),
        None,
        "it is over, and only to be judged"
    );
    trial.active_since = None;
    assert_eq!(
        holds_until(&trial, at(0), now),
        Some(at(NOW + 50)),
        "in the middle of a turn it may still begin"
    );
    trial.since = at(NOW - 60);
    assert_eq!(holds_until(&trial, at(0), now), None, "a long turn holds nobody");
    trial.since = at(NOW + 1);
    assert_eq!(holds_until(&trial, at(0), now), None, "the clock was set back");
}

#[test]
fn no_agent_may_ask_for_an_update_itself() {
    let (verdict, _) = crate::gate::verdict(&facts().policy, GateClass::BaseUpdate, Asker::Manager);
    assert_eq!(verdict, Verdict::Never);
}

#[test]
fn other_hosts_to_fetch_from_are_no_update() {
    let mut case = up_to_date();
    let nix = case.facts.nix.as_mut().unwrap();
    nix.hosts.insert("cache.example".to_owned());
    let (spec, record) = (case.spec.as_ref().unwrap(), &case.ledger.record);
    assert!(!is_outdated(record, spec, &case.facts));
}
