//! Started, stopped, restarted, drained.

use shared::gate::GateClass;
use shared::plan::WaitingOn;
use shared::spec::{Drain, LimitsSpec, RunState};

use super::world::*;
use crate::host::{ExitCause, Limits, UnitState};
use crate::model::records::{Failures, OutOfMemory, Override, Recovered};
use crate::model::step::{Action, Authority};

fn crashed(case: &mut Case, secs: i64) {
    case.inventory.unit = Ok(UnitState::Exited {
        toplevel: None,
        at: at(secs),
        cause: ExitCause::Code(1),
    });
    case.inventory.harness = None;
}

fn noted(count: u32, secs: i64) -> Failures {
    Failures {
        count,
        last_at: Some(at(secs)),
        last: "exited with status 1".to_owned(),
    }
}

/// A new system is deployed and written; the old one still runs.
fn restart_wanted() -> Case {
    let mut case = Case::at_rest();
    let before = case.inventory.clone();
    case.spec.as_mut().unwrap().network = shared::spec::Network::None;
    let output = case.build_candidate();
    case.deployed(output);
    case.ledger.record.deployed.as_mut().unwrap().at = at(NOW - 60);
    case.running();
    case.inventory.unit = before.unit;
    case.inventory.harness = before.harness;
    case
}

#[test]
fn an_agent_that_should_run_is_started_once_its_files_are_written() {
    let mut case = Case::at_rest();
    case.absent();
    let plan = case.plan();
    assert_eq!(kinds(&plan), ["start"]);
    assert_eq!(class(step(&plan, "start")), Some(GateClass::Start));
    case.inventory.folders = Ok(Default::default());
    assert_eq!(case.kinds(), ["activate"], "never from files of another system");
}

#[test]
fn the_operators_model_is_announced_as_long_as_it_holds_and_is_no_drift() {
    let mut case = Case::at_rest();
    let until = case.now + jiff::SignedDuration::from_secs(60);
    case.ledger.overrides.model = Some(Override {
        value: "opus".to_owned(),
        by: "unix:root".to_owned(),
        reason: "a hard week".to_owned(),
        since: case.now,
        until: Some(until),
        over: None,
    });
    let plan = case.plan();
    assert!(plan.steps.is_empty(), "{:?}", kinds(&plan));
    assert_eq!(plan.announce.unwrap().model.as_deref(), Some("opus"));
    assert_eq!(plan.wake_at, Some(until));
    case.now = until;
    let plan = case.plan();
    assert_eq!((plan.announce.unwrap().model, plan.wake_at), (None, None));
}

#[test]
fn a_paused_agent_runs_and_is_told_to_take_no_turns() {
    let mut case = Case::at_rest_with(r#"{ "run": "paused" }"#);
    let plan = case.plan();
    assert!(plan.steps.is_empty());
    assert_eq!(
        plan.announce,
        Some(announcement(case.output().config_digest, true))
    );
    case.absent();
    assert_eq!(case.kinds(), ["start"]);
}

#[test]
fn a_stopped_agent_stays_stopped() {
    let mut case = Case::at_rest_with(r#"{ "run": "stopped" }"#);
    assert_eq!(case.kinds(), ["stop"]);
    case.absent();
    assert!(case.plan().steps.is_empty());
}

#[test]
fn an_agent_that_only_ends_is_tried_once_an_hour_and_called_stalled() {
    let mut case = Case::at_rest();
    crashed(&mut case, NOW - 1);
    case.ledger.failures = noted(11, NOW - 1);
    assert!(matches!(case.waits()[..], [WaitingOn::Backoff { .. }]));
    case.ledger.failures = noted(12, NOW - 1);
    let plan = case.plan();
    let WaitingOn::Breaker { until, why } = &plan.waiting[0].on else {
        panic!("{:?}", plan.waiting);
    };
    assert_eq!(*until, at(NOW - 1 + 3_600));
    assert!(why.contains("12 times in a row"), "{why}");
    assert_eq!(plan.waiting[0].hint.as_deref(), Some("hive retry alice"));
    assert_eq!(plan.wake_at, Some(*until));
    case.now = *until;
    assert_eq!(case.kinds(), ["start"], "it closes by itself");
}

#[test]
fn a_crash_is_noted_once_and_then_backed_off_from() {
    let mut case = Case::at_rest();
    crashed(&mut case, NOW - 1);
    assert_eq!(case.kinds(), ["noteFailure"]);
    case.ledger.failures = noted(5, NOW - 1);
    let plan = case.plan();
    assert!(plan.steps.is_empty());
    let WaitingOn::Backoff {
        until, attempts: 5, ..
    } = &plan.waiting[0].on
    else {
        panic!("{:?}", plan.waiting);
    };
    assert_eq!(plan.wake_at, Some(*until));
    case.now = *until;
    assert_eq!(case.kinds(), ["start"]);
}

#[test]
fn a_clean_exit_is_no_failure() {
    let mut case = Case::at_rest();
    case.absent();
    case.inventory.unit = Ok(UnitState::Exited {
        toplevel: None,
        at: at(NOW - 1),
        cause: ExitCause::Clean,
    });
    assert_eq!(case.kinds(), ["start"]);
}

#[test]
fn failures_are_forgotten_after_a_minute_of_running_well() {
    let mut case = Case::at_rest();
    case.ledger.failures = noted(3, 150);
    case.now = at(259);
    let plan = case.plan();
    assert!(plan.steps.is_empty());
    assert_eq!(plan.wake_at, Some(at(260)));
    case.now = at(260);
    assert_eq!(case.kinds(), ["clearFailures"]);
    case.inventory.harness = None;
    assert!(
        case.kinds().is_empty(),
        "an agent that does not report does not run well"
    );
}

#[test]
fn something_else_under_the_agents_name_is_left_alone() {
    let mut case = Case::at_rest();
    case.inventory.unit = Ok(UnitState::Foreign {
        what: "pid 7".to_owned(),
    });
    assert!(case.plan().steps.is_empty());
    assert!(matches!(&case.waits()[..], [WaitingOn::Terminal { error }] if error.contains("pid 7")));
}

#[test]
fn a_restart_follows_from_the_gate_of_its_deployment() {
    let case = restart_wanted();
    let plan = case.plan();
    let planned = step(&plan, "restart");
    assert_eq!(
        planned.step.authority,
        Authority::Under(case.ledger.record.deployed.as_ref().unwrap().gate)
    );
    assert!(matches!(&planned.step.action, Action::Restart { run, .. } if run == "run-1"));
}

#[test]
fn a_restart_waits_for_the_turn_until_the_longest_turn_is_over() {
    let mut case = restart_wanted();
    case.busy();
    let deadline = at(NOW - 60 + 3_600);
    let plan = case.plan();
    assert!(plan.steps.is_empty());
    assert_eq!(plan.waiting[0].on, WaitingOn::TurnBoundary { deadline });
    assert_eq!(plan.wake_at, Some(deadline));
    case.now = deadline;
    assert_eq!(case.kinds(), ["restart"]);
}

#[test]
fn a_lease_is_a_turn_too() {
    let mut case = restart_wanted();
    case.report().lease = Some("00000000-0000-0000-0000-000000000001".parse().unwrap());
    assert!(case.kinds().is_empty());
}

#[test]
fn an_immediate_drain_waits_for_nothing() {
    let mut case = restart_wanted();
    case.busy();
    case.spec.as_mut().unwrap().drain = Drain::Immediate;
    assert_eq!(case.kinds(), ["restart"]);
}

/// At rest, and held to other limits than declared.
fn held_to(memory: u64) -> Case {
    let mut case = Case::at_rest();
    let Ok(UnitState::Running { resources, .. }) = &mut case.inventory.unit else {
        panic!("it runs");
    };
    let declared = Limits::of(&LimitsSpec::default()).unwrap();
    resources.limits = Some(Limits { memory, ..declared });
    case
}

#[test]
fn limits_that_were_changed_are_put_back_without_an_end_of_the_run() {
    let case = held_to(64 << 20);
    assert_eq!(case.kinds(), ["limit"]);
    let plan = case.plan();
    let planned = step(&plan, "limit");
    assert_eq!(planned.step.authority, Authority::Free);
    assert!(matches!(&planned.step.action, Action::Limit { limits, found }
            if *limits == LimitsSpec::default() && found == "memory is 64M and not unlimited"));
}

#[test]
fn limits_that_are_as_declared_or_not_known_ask_for_nothing() {
    assert!(held_to(u64::MAX).kinds().is_empty());
    let mut case = held_to(64 << 20);
    if let Ok(UnitState::Running { resources, .. }) = &mut case.inventory.unit {
        resources.limits = None;
    }
    assert!(case.kinds().is_empty());
}

#[test]
fn limits_of_a_run_that_is_to_be_restarted_are_left_to_the_restart() {
    let mut case = held_to(64 << 20);
    let other = case.output().config_digest;
    if let Ok(UnitState::Running { toplevel, .. }) = &mut case.inventory.unit {
        *toplevel = other;
    }
    assert_eq!(case.kinds(), ["restart"]);
}

/// At rest, and with so many processes killed in this run.
fn killed(kills: u64) -> Case {
    let mut case = Case::at_rest();
    let Ok(UnitState::Running { resources, .. }) = &mut case.inventory.unit else {
        panic!("it runs");
    };
    resources.oom_kills = Some(kills);
    case
}

#[test]
fn kills_for_want_of_memory_are_told_of_at_first_and_whenever_their_number_has_doubled() {
    let told = |run: &str, kills| {
        Some(OutOfMemory {
            run: run.to_owned(),
            kills,
        })
    };
    for (kills, before, is_told) in [
        (0, None, false),
        (1, None, true),
        (1, told("run-1", 1), false),
        (2, told("run-1", 1), true),
        (3, told("run-1", 2), false),
        (7, told("run-1", 3), true),
        (7, told("run-1", 4), false),
        (1, told("run-0", 900), true),
        (0, told("run-1", 4), false),
    ] {
        let mut case = killed(kills);
        case.ledger.record.out_of_memory = before.clone();
        let expected: &[&str] = if is_told { &["noteOutOfMemory"] } else { &[] };
        assert_eq!(case.kinds(), expected, "{kills} after {before:?}");
    }
}

#[test]
fn an_end_for_want_of_memory_is_noted_as_one() {
    for (cause, expected) in [(ExitCause::OutOfMemory, true), (ExitCause::Signal(9), false)] {
        let mut case = Case::at_rest();
        crashed(&mut case, NOW - 1);
        if let Ok(UnitState::Exited { cause: of, .. }) = &mut case.inventory.unit {
            *of = cause;
        }
        let plan = case.plan();
        let planned = step(&plan, "noteFailure");
        assert!(
            matches!(planned.step.action, Action::NoteFailure { out_of_memory, .. } if out_of_memory == expected)
        );
    }
}

#[test]
fn a_restart_never_begins_from_files_of_another_system() {
    let mut case = restart_wanted();
    case.inventory.folders = Ok(Default::default());
    assert_eq!(case.kinds(), ["activate"]);
}

#[test]
fn a_requested_restart_ends_the_runs_that_began_before_and_no_other() {
    let mut case = Case::at_rest();
    case.ledger.record.restart_before = Some(at(200));
    assert!(case.kinds().is_empty(), "this run began at that very time");
    case.ledger.record.restart_before = Some(at(201));
    let plan = case.plan();
    assert_eq!(step(&plan, "restart").step.authority, Authority::Free);
}

#[test]
fn an_operators_override_beats_the_spec_needs_no_gate_and_expires() {
    let mut case = Case::at_rest();
    case.ledger.overrides.run = Some(over(RunState::Stopped, Some(at(NOW + 60))));
    let plan = case.plan();
    assert_eq!(step(&plan, "stop").step.authority, Authority::Free);
    assert_eq!(
        plan.wake_at,
        Some(at(NOW + 60)),
        "it is looked at again when the override ends"
    );
    case.absent();
    assert!(case.kinds().is_empty());
    case.now = at(NOW + 60);
    let plan = case.plan();
    assert_eq!(class(step(&plan, "start")), Some(GateClass::Start));
}

#[test]
fn an_override_runs_what_the_spec_has_stopped() {
    let mut case = Case::at_rest_with(r#"{ "run": "stopped" }"#);
    case.absent();
    case.ledger.overrides.run = Some(over(RunState::Running, None));
    let plan = case.plan();
    assert_eq!(step(&plan, "start").step.authority, Authority::Free);
}

#[test]
fn a_stop_waits_for_the_turn_too() {
    let mut case = Case::at_rest();
    case.busy();
    case.ledger.overrides.run = Some(over(RunState::Stopped, None));
    let deadline = at(NOW - 60 + 3_600);
    assert_eq!(case.waits(), [WaitingOn::TurnBoundary { deadline }]);
    case.now = deadline;
    assert_eq!(case.kinds(), ["stop"]);
}

#[test]
fn a_stop_that_the_spec_asks_for_gives_the_turn_that_is_under_way_its_whole_time() {
    let mut case = Case::at_rest_with(r#"{ "run": "stopped", "maxTurnMinutes": 1 }"#);
    case.busy();
    let deadline = at(NOW - 10 + 60);
    assert_eq!(case.waits(), [WaitingOn::TurnBoundary { deadline }]);
    case.now = deadline;
    assert_eq!(case.kinds(), ["stop"]);
}

#[test]
fn an_override_that_has_expired_says_nothing_about_since_when_a_stop_is_wanted() {
    let mut case = Case::at_rest_with(r#"{ "run": "stopped", "maxTurnMinutes": 1 }"#);
    case.busy();
    case.ledger.overrides.run = Some(over(RunState::Running, Some(at(NOW))));
    let deadline = at(NOW - 10 + 60);
    assert_eq!(case.waits(), [WaitingOn::TurnBoundary { deadline }]);
}

#[test]
fn an_agent_that_runs_without_anything_deployed_is_stopped() {
    let mut case = Case::at_rest();
    case.ledger.record.deployed = None;
    assert!(case.kinds().contains(&"stop"));
    assert!(!case.kinds().contains(&"start"));
}

#[test]
fn a_harness_that_has_not_called_or_has_another_config_is_waited_for() {
    let mut case = Case::at_rest();
    case.report().config = None;
    assert!(matches!(case.waits()[..], [WaitingOn::Dependency { .. }]));
    case.inventory.harness = None;
    let plan = case.plan();
    assert!(
        matches!(&plan.waiting[0].on, WaitingOn::StaleInventory { source, error: None } if source == "harness")
    );
}

#[test]
fn a_config_that_is_not_written_is_not_announced() {
    let mut case = Case::at_rest();
    case.inventory.folders = Ok(Default::default());
    assert_eq!(case.plan().announce, None);
}

/// Its record was lost while it ran, and made anew from its repo: nothing is known to be deployed.
fn recovered_while_running() -> Case {
    let mut case = Case::at_rest();
    let record = &mut case.ledger.record;
    let main = record.main().cloned();
    record.deployed = None;
    record.last_good = None;
    record.recovered = Some(Recovered {
        at: at(NOW),
        main,
        adopts: true,
    });
    case
}

#[test]
fn a_run_found_with_a_lost_record_goes_on_until_it_is_known_what_should_run() {
    let mut case = recovered_while_running();
    let plan = case.plan();
    assert_eq!(
        kinds(&plan),
        ["deploy"],
        "built again, and asked about; not stopped"
    );
    assert!(
        plan.waiting.iter().any(|wait| wait.what == "adopting what runs"),
        "{:?}",
        plan.waiting
    );
    case.spec.as_mut().unwrap().run = RunState::Stopped;
    assert_eq!(
        case.kinds(),
        ["deploy", "stop"],
        "unless it should not run at all"
    );
}

#[test]
fn what_a_failed_first_deployment_leaves_running_is_stopped_however_its_record_came_to_be() {
    let mut case = recovered_while_running();
    case.ledger.record.recovered.as_mut().unwrap().adopts = false;
    assert_eq!(case.kinds(), ["deploy", "stop"]);
}

#[test]
fn main_stays_where_it_was_found_when_what_is_deployed_is_not_known() {
    let mut case = recovered_while_running();
    let found = crate::host::fake::oid("later");
    case.ledger.record.recovered.as_mut().unwrap().main = Some(found.clone());
    case.inventory.repo.as_mut().unwrap().as_mut().unwrap().main = Some(found.clone());
    assert_eq!(case.ledger.record.main(), Some(&found));
    assert_eq!(case.kinds(), ["build"], "main is not moved back to the seed");
}

#[test]
fn an_agent_whose_deployed_system_failed_its_probation_does_not_run() {
    let mut case = Case::at_rest();
    let quarantine = crate::model::records::Quarantine {
        reason: "it crashed".to_owned(),
        since: at(0),
    };
    case.ledger.quarantine.insert(case.output().system, quarantine);
    // Not even when the operator says so: the way out is a retry.
    case.ledger.overrides.run = Some(over(RunState::Running, None));
    let plan = case.plan();
    assert_eq!(kinds(&plan), ["stop"]);
    assert!(matches!(plan.steps[0].step.authority, Authority::Under(_)));
    assert!(
        plan.waiting
            .iter()
            .any(|waiting| matches!(waiting.on, WaitingOn::Terminal { .. }))
    );
    case.absent();
    assert!(case.kinds().is_empty(), "nor is it started");
}
