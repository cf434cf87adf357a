//! The three axes.

use shared::gate::GateState;
use shared::spec::RunState;
use shared::status::{Activity, AgentStatus, Health, McpHealth, McpServerState, Sync, TurnState};

use super::world::*;
use crate::host::{ExitCause, UnitState};
use crate::model::records::{AgentLife, Attempt, Quarantine};
use crate::plan::status::derive;

fn status(case: &Case) -> AgentStatus {
    status_after(case, None)
}

fn status_after(case: &Case, previous: Option<&AgentStatus>) -> AgentStatus {
    let plan = case.plan();
    derive(case.inputs(), &plan, &case.scheduled(&plan), previous, Vec::new())
}

fn axes(case: &Case) -> (Sync, Health, Activity) {
    let status = status(case);
    (status.sync.value, status.health.value, status.activity.value)
}

#[test]
fn at_rest_all_is_well() {
    assert_eq!(
        axes(&Case::at_rest()),
        (Sync::InSync, Health::Healthy, Activity::Idle)
    );
}

#[test]
fn each_blind_source_makes_sync_unknown_and_only_the_runtime_makes_health_unknown() {
    let mut case = Case::at_rest();
    case.inventory.unit = Err("no answer".to_owned());
    assert_eq!((axes(&case).0, axes(&case).1), (Sync::Unknown, Health::Unknown));
    let mut case = Case::at_rest();
    case.inventory.repo = Err("no answer".to_owned());
    assert_eq!((axes(&case).0, axes(&case).1), (Sync::Unknown, Health::Healthy));
    let mut case = Case::at_rest();
    case.inventory.folders = Err("no answer".to_owned());
    assert_eq!((axes(&case).0, axes(&case).1), (Sync::Unknown, Health::Healthy));
}

#[test]
fn an_open_gate_is_awaited_and_the_agent_stays_healthy() {
    let mut case = Case::at_rest();
    case.propose(1);
    case.build_proposal(r#"{ "network": "none" }"#);
    let plan = case.plan();
    let gate = case.gate(&plan.steps[0], GateState::Open);
    assert_eq!(
        axes(&case),
        (Sync::InSync, Health::Healthy, Activity::AwaitingGate)
    );
    assert_eq!(status(&case).gates, [gate]);
}

#[test]
fn stopped_and_paused_as_wanted_are_in_sync_and_suspended() {
    let mut case = Case::at_rest_with(r#"{ "run": "stopped" }"#);
    case.absent();
    assert_eq!(axes(&case), (Sync::InSync, Health::Suspended, Activity::Idle));
    let case = Case::at_rest_with(r#"{ "run": "paused" }"#);
    assert_eq!(axes(&case), (Sync::InSync, Health::Suspended, Activity::Idle));
}

#[test]
fn an_override_is_shown_and_is_no_drift() {
    let mut case = Case::at_rest();
    case.ledger.overrides.run = Some(over(RunState::Paused, None));
    let status = status(&case);
    assert_eq!(
        (status.sync.value, status.health.value),
        (Sync::InSync, Health::Suspended)
    );
    assert_eq!(status.notices, ["kept paused by unix:root: for a reason"]);
}

#[test]
fn the_model_of_the_next_turn_is_shown_beside_that_of_the_latest() {
    let mut case = Case::at_rest();
    let model = |case: &Case| status(case).model.expect("something is deployed");
    let harness = case.inventory.harness.as_mut().expect("it reports");
    harness.report.model = Some("haiku".into());
    case.ledger.overrides.model = Some(over("opus".to_owned(), None));
    let shown = model(&case);
    assert_eq!(
        (shown.active.as_deref(), shown.queued.as_deref()),
        (Some("haiku"), Some("opus"))
    );
    assert_eq!(shown.switched_by.as_deref(), Some("unix:root"));
    assert!(shown.switched_at.is_some());
    case.inventory.harness.as_mut().expect("it reports").report.model = Some("opus".into());
    assert_eq!(model(&case).queued, None, "it has taken effect");
}

#[test]
fn an_agent_that_ended_is_missing_and_backs_off() {
    let mut case = Case::at_rest();
    case.absent();
    assert_eq!(axes(&case).1, Health::Missing);
    case.inventory.unit = Ok(UnitState::Exited {
        toplevel: None,
        at: at(NOW - 1),
        cause: ExitCause::OutOfMemory,
    });
    case.ledger.failures.count = 9;
    case.ledger.failures.last_at = Some(at(NOW - 1));
    let status = status(&case);
    assert_eq!(
        (status.health.value, status.activity.value),
        (Health::Missing, Activity::BackingOff)
    );
    assert!(status.health.message.contains("memory"));
}

#[test]
fn what_ails_a_running_agent_is_named() {
    let degraded = |change: fn(&mut Case)| {
        let mut case = Case::at_rest();
        change(&mut case);
        let health = status(&case).health;
        assert_eq!(health.value, Health::Degraded, "{health:?}");
        health.reason
    };
    assert_eq!(
        degraded(|case| case.report().turn = TurnState::NeedsLogin),
        "needsLogin"
    );
    assert_eq!(
        degraded(|case| case.report().config_error = Some("no".to_owned())),
        "configError"
    );
    assert_eq!(
        degraded(|case| case.report().turn_error = Some("the last turn was cut short".to_owned())),
        "turnFailed"
    );
    assert_eq!(
        degraded(|case| case.report().events_error = Some("the disk is full".to_owned())),
        "eventsNotKept"
    );
    let server_failed = |case: &mut Case| {
        let failed = McpServerState::of(McpHealth::Failed);
        case.report().mcp.insert("wiki".parse().unwrap(), failed);
    };
    assert_eq!(degraded(server_failed), "mcpServerFailed");
    let server_differs = |case: &mut Case| {
        let differs = McpServerState::of(McpHealth::Differs);
        case.report().mcp.insert("wiki".parse().unwrap(), differs);
    };
    assert_eq!(degraded(server_differs), "mcpServerDiffers");
    // One that does not work at all is the worse news.
    assert_eq!(
        degraded(|case| {
            for (name, health) in [("wiki", McpHealth::Differs), ("zoo", McpHealth::Failed)] {
                let state = McpServerState::of(health);
                case.report().mcp.insert(name.parse().unwrap(), state);
            }
        }),
        "mcpServerFailed"
    );
    assert_eq!(
        degraded(|case| case.inventory.unit = Ok(UnitState::Foreign { what: "x".to_owned() })),
        "foreign"
    );
    let reverted = |case: &mut Case| {
        case.spec.as_mut().unwrap().prompt = "explode".to_owned();
        let system = case.build_candidate().system;
        let quarantine = Quarantine {
            reason: "it crashed".to_owned(),
            since: at(0),
        };
        case.ledger.quarantine.insert(system, quarantine);
    };
    assert_eq!(degraded(reverted), "reverted");
}

#[test]
fn a_broken_server_blocks_nothing() {
    let mut case = Case::at_rest();
    let failed = McpServerState {
        error: Some("no such file".to_owned()),
        ..McpServerState::of(McpHealth::Failed)
    };
    case.report().mcp.insert("wiki".parse().unwrap(), failed);
    assert_eq!(axes(&case), (Sync::InSync, Health::Degraded, Activity::Idle));
}

#[test]
fn a_trial_and_a_silent_harness_are_progress() {
    let mut case = Case::at_rest();
    case.on_trial();
    assert_eq!(axes(&case).1, Health::Progressing);
    let mut case = Case::at_rest();
    case.inventory.harness = None;
    assert_eq!(
        (axes(&case).0, axes(&case).1),
        (Sync::Unknown, Health::Progressing)
    );
}

#[test]
fn an_agent_outside_its_active_life_is_suspended() {
    for life in [AgentLife::Declared, AgentLife::Removed { since: at(0) }] {
        let mut case = Case::at_rest();
        case.ledger.record.life = life;
        assert_eq!(axes(&case).1, Health::Suspended);
    }
}

#[test]
fn a_turn_that_is_waited_for_shows_as_such() {
    let mut case = Case::at_rest_with(r#"{ "run": "stopped" }"#);
    case.busy();
    assert_eq!(axes(&case).2, Activity::WaitingForTurn);
}

#[test]
fn a_step_that_cannot_work_is_stalled() {
    let mut case = Case::at_rest();
    case.absent();
    let plan = case.plan();
    case.gate(&plan.steps[0], GateState::Approved);
    assert_eq!(axes(&case).2, Activity::Applying);
    let attempt = Attempt {
        count: 1,
        first_at: at(0),
        last_at: at(0),
        next_at: at(0),
        in_flight: false,
        terminal: true,
        error: "refused".to_owned(),
    };
    case.ledger.attempts.insert(plan.steps[0].id.clone(), attempt);
    assert_eq!(axes(&case).2, Activity::Stalled);
}

#[test]
fn a_suspension_is_idle_and_names_who_and_why() {
    let mut case = Case::at_rest();
    case.ledger.overrides.suspended = Some(over((), None));
    let activity = status(&case).activity;
    assert_eq!(
        (activity.value, activity.reason.as_str()),
        (Activity::Idle, "suspended")
    );
    assert!(activity.message.contains("unix:root: for a reason"));
}

#[test]
fn since_moves_only_when_the_value_or_its_reason_does() {
    let mut case = Case::at_rest();
    let first = status(&case);
    case.now = at(NOW + 100);
    let second = status_after(&case, Some(&first));
    assert_eq!(second.health.since, at(NOW));
    case.report().turn = TurnState::NeedsLogin;
    let third = status_after(&case, Some(&second));
    assert_eq!((third.health.since, third.sync.since), (at(NOW + 100), at(NOW)));
}

#[test]
fn desired_deployed_and_running_stand_side_by_side() {
    let mut case = Case::at_rest();
    let deployed = case.output();
    case.spec.as_mut().unwrap().prompt = "new".to_owned();
    let desired = case.build_candidate();
    let generations = status(&case).generations;
    assert_eq!(generations.desired, Some(desired.system));
    assert_eq!(generations.deployed, Some(deployed.system));
    assert_eq!(generations.running_toplevel, Some(deployed.toplevel));
    assert_eq!(generations.running_config, Some(deployed.config_digest));
}
