//! Probation.

use jiff::Timestamp;
use shared::plan::WaitingOn;
use shared::spec::RunState;
use shared::status::{McpHealth, McpServerState, TurnState};

use super::world::*;
use crate::execute::bookkeeping;
use crate::host::{ExitCause, UnitState};
use crate::model::change::Change;
use crate::model::records::{Failures, Probation};
use crate::model::step::Action;
use crate::plan::trial::{clocked, ends_at};

fn trial() -> Case {
    let mut case = Case::at_rest();
    case.on_trial();
    case
}

/// On trial, and its harness has not loaded the config.
fn sick() -> Case {
    let mut case = trial();
    case.report().config = None;
    case
}

fn health(health: McpHealth) -> McpServerState {
    McpServerState {
        error: Some("no such file".to_owned()),
        ..McpServerState::of(health)
    }
}

#[test]
fn a_deployment_that_is_reported_healthy_is_good() {
    assert_eq!(trial().kinds(), ["markGood"]);
}

#[test]
fn one_that_is_not_healthy_yet_waits_until_its_time_is_out() {
    let plan = sick().plan();
    assert!(plan.steps.is_empty());
    let until = at(NOW + 50);
    assert!(
        plan.waiting.iter().any(|w| w.on == WaitingOn::Health { until }),
        "{:?}",
        plan.waiting
    );
    assert_eq!(plan.wake_at, Some(until));
}

#[test]
fn one_that_is_out_of_time_goes_back_to_the_last_good_system() {
    let mut case = sick();
    case.now = at(NOW + 49);
    assert!(case.kinds().is_empty());
    case.now = at(NOW + 50);
    let plan = case.plan();
    let Action::Revert { to, reason, .. } = &step(&plan, "revert").step.action else {
        unreachable!()
    };
    assert_eq!(*to, Some(case.output().system));
    assert_eq!(reason, "its harness has not loaded the config");
}

#[test]
fn an_agent_from_which_something_was_taken_does_not_get_it_back_by_failing() {
    let mut case = Case::at_rest_with(r#"{ "network": "host" }"#);
    case.spec = Some(agent_spec(r#"{ "network": "none" }"#));
    let narrower = case.build_candidate();
    case.deployed(narrower);
    case.running();
    case.on_trial();
    case.report().config = None;
    case.now = at(NOW + 50);
    let plan = case.plan();
    assert!(
        matches!(&step(&plan, "halt").step.action, Action::Halt { failed, .. } if *failed == case.output().system)
    );
    assert!(!kinds(&plan).contains(&"revert"));

    // What a proposal narrowed, the operator never took away.
    case.on_trial().proposal = Some(shared::ProposalNumber(1));
    assert!(case.kinds().contains(&"revert"));
}

#[test]
fn without_a_last_good_system_there_is_nothing_to_go_back_to() {
    let mut case = sick();
    case.ledger.record.last_good = None;
    case.now = at(NOW + 50);
    let plan = case.plan();
    assert!(matches!(
        &step(&plan, "revert").step.action,
        Action::Revert { to: None, .. }
    ));
}

#[test]
fn three_failed_starts_are_enough() {
    let mut case = sick();
    case.on_trial().failed_starts = 2;
    assert!(!case.kinds().contains(&"revert"));
    case.on_trial().failed_starts = 3;
    assert!(case.kinds().contains(&"revert"));
}

#[test]
fn the_end_of_a_run_from_before_the_deployment_is_no_failed_start_of_it() {
    let case = sick();
    let starts = |ended: Timestamp, now: Timestamp| {
        let what = "did not come up".to_owned();
        let action = Action::NoteFailure {
            at: ended,
            what,
            out_of_memory: false,
        };
        let changes = bookkeeping::changes(&action, &case.ledger, at(0), now).expect("bookkeeping");
        changes.into_iter().find_map(|change| match change {
            Change::Probation { probation, .. } => probation.map(|trial| trial.failed_starts),
            _ => None,
        })
    };
    let deployed = case.ledger.record.deployed.as_ref().unwrap().at;
    let (before, after) = (shifted(deployed, -1), shifted(deployed, 1));
    assert_eq!(starts(before, after), None);
    assert_eq!(starts(deployed, after), Some(1));
    assert_eq!(starts(after, after), Some(1));
    assert_eq!(starts(before, before), Some(1), "the clock was set back");
}

fn shifted(at: Timestamp, secs: i64) -> Timestamp {
    at + jiff::SignedDuration::from_secs(secs)
}

#[test]
fn only_the_servers_that_it_changed_must_be_healthy() {
    let mut case = trial();
    case.on_trial().watched.insert("wiki".parse().unwrap());
    assert!(case.kinds().is_empty(), "it was not reported");
    let report = case.report();
    report
        .mcp
        .insert("wiki".parse().unwrap(), health(McpHealth::Failed));
    let plan = case.plan();
    assert!(
        plan.waiting
            .iter()
            .any(|w| w.what.contains("wiki") && w.what.contains("no such file"))
    );

    for good in [McpHealth::Healthy, McpHealth::Unprobed, McpHealth::Differs] {
        let report = case.report();
        report.mcp.insert("wiki".parse().unwrap(), health(good));
        report
            .mcp
            .insert("other".parse().unwrap(), health(McpHealth::Failed));
        assert_eq!(case.kinds(), ["markGood"], "{good:?}");
    }
}

#[test]
fn an_agent_that_cannot_take_turns_passes_by_its_digest() {
    for turn in [TurnState::NeedsLogin, TurnState::OverBudget] {
        let mut case = trial();
        case.on_trial().watched.insert("wiki".parse().unwrap());
        case.report().turn = turn;
        assert_eq!(case.kinds(), ["markGood"], "{turn:?}");
        case.report().config = None;
        assert!(!case.kinds().contains(&"markGood"), "{turn:?}: another digest");
    }
}

#[test]
fn a_config_that_cannot_be_used_is_named() {
    let mut case = trial();
    case.report().config_error = Some("no such model".to_owned());
    assert!(case.plan().waiting[0].what.contains("no such model"));
}

#[test]
fn the_clock_stands_while_the_agent_is_stopped_or_paused() {
    for run in [RunState::Stopped, RunState::Paused] {
        let mut case = sick();
        case.spec.as_mut().unwrap().run = run;
        assert!(case.kinds().contains(&"probationClock"), "{run:?}");
        *case.on_trial() = Probation {
            active_since: None,
            active_secs: 10,
            ..case.on_trial().clone()
        };
        case.now = at(NOW + 100_000);
        let plan = case.plan();
        assert!(!kinds(&plan).contains(&"revert"), "{run:?}: {:?}", kinds(&plan));
        assert!(
            plan.notices.iter().any(|notice| notice.contains("on probation")),
            "{run:?}"
        );
        assert!(
            plan.waiting.is_empty(),
            "what is stopped as wanted is in sync: {:?}",
            plan.waiting
        );
    }
}

#[test]
fn the_clock_stands_while_a_turn_keeps_the_old_config() {
    let mut case = sick();
    case.busy();
    assert_eq!(case.kinds(), ["probationClock"]);
}

#[test]
fn the_clock_stands_while_the_old_system_runs_and_while_nothing_is_known() {
    let mut case = sick();
    let other = crate::host::UnitState::Running {
        toplevel: case.output().config_digest,
        since: at(200),
        run: "run-0".to_owned(),
        resources: crate::host::Resources::default(),
    };
    case.busy();
    case.inventory.unit = Ok(other);
    assert!(case.kinds().contains(&"probationClock"));
    case.inventory.unit = Err("no answer".to_owned());
    assert!(case.kinds().contains(&"probationClock"));
}

#[test]
fn time_while_nobody_watched_does_not_count() {
    let mut case = sick();
    case.now = at(NOW + 5_000);
    case.facts.watched_since = at(NOW + 4_990);
    let plan = case.plan();
    assert!(!kinds(&plan).contains(&"revert"));
    assert_eq!(plan.wake_at, Some(at(NOW + 5_000 + 50)));
}

#[test]
fn the_clock_adds_up_what_was_active() {
    let running = Probation {
        active_secs: 20,
        active_since: Some(at(100)),
        ..sick().on_trial().clone()
    };
    let stopped = clocked(&running, false, at(0), at(115));
    assert_eq!((stopped.active_secs, stopped.active_since), (35, None));
    let again = clocked(&stopped, true, at(0), at(500));
    assert_eq!((again.active_secs, again.active_since), (35, Some(at(500))));
    assert_eq!(ends_at(&again, at(0), at(510)), at(525));
    assert_eq!(ends_at(&again, at(0), at(9_000)), at(9_000), "never in the past");
}

#[test]
fn a_clock_that_went_backwards_adds_nothing() {
    let running = sick().on_trial().clone();
    let stopped = clocked(&running, false, at(0), at(5));
    assert_eq!(stopped.active_secs, 0);
}

#[test]
fn an_end_that_was_not_noted_is_noted_before_the_next_start() {
    let mut case = sick();
    case.inventory.unit = Ok(UnitState::Exited {
        toplevel: None,
        at: at(NOW - 1),
        cause: ExitCause::OutOfMemory,
    });
    case.inventory.harness = None;
    let plan = case.plan();
    assert!(kinds(&plan).contains(&"noteFailure") && !kinds(&plan).contains(&"start"));
    case.ledger.failures = Failures {
        count: 1,
        last_at: Some(at(NOW - 1)),
        last: String::new(),
    };
    assert!(!case.kinds().contains(&"noteFailure"));
}
