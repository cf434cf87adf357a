//! The three axes of an agent's status, derived from its plan and its facts. A view, never an input to planning.

use jiff::Timestamp;
use shared::gate::Asker;
use shared::plan::{Waiting, WaitingOn};
use shared::spec::{Role, RunState};
use shared::status::{
    Activity, AgentStatus, Condition, Generations, Health, McpHealth, ModelStatus, Origin, Sync, TurnState,
};

use super::Plan;
use super::agent::Inputs;
use super::schedule::Schedule;
use crate::host::UnitState;
use crate::model::inventory::AgentInventory;
use crate::model::records::{AgentLedger, AgentLife, Override, Quarantine};
use crate::model::step::{Action, Authority, Step};

/// A value with its reason, before it is known since when it holds.
struct Finding<T>(T, &'static str, String);

fn condition<T: PartialEq + Copy>(
    finding: Finding<T>,
    previous: Option<&Condition<T>>,
    now: Timestamp,
) -> Condition<T> {
    let Finding(value, reason, message) = finding;
    let same = previous.filter(|p| p.value == value && p.reason == reason);
    Condition {
        value,
        reason: reason.to_owned(),
        message,
        since: same.map_or(now, |p| p.since),
    }
}

/// Derives the status of one agent. `applying` says that a step is being carried out.
pub fn derive(
    inputs: Inputs<'_>,
    plan: &Plan,
    schedule: &Schedule,
    previous: Option<&AgentStatus>,
    faults: Vec<String>,
) -> AgentStatus {
    let Inputs {
        spec,
        inventory,
        ledger,
        now,
        ..
    } = inputs;
    let record = &ledger.record;
    let deployed = record.deployed.as_ref();
    let harness = inventory.harness.as_ref();
    let gates = open_gates(&schedule.waiting);
    AgentStatus {
        name: record.name.clone(),
        uid: Some(record.uid),
        role: deployed.map_or_else(|| spec.map_or(Role::Worker, |s| s.role), |d| d.output.config.role),
        sync: condition(sync(plan, schedule, inventory), previous.map(|p| &p.sync), now),
        health: condition(health(plan, inputs), previous.map(|p| &p.health), now),
        activity: condition(activity(schedule), previous.map(|p| &p.activity), now),
        turn: harness.map(|h| h.report.turn),
        model: model(inventory, ledger, now),
        waiting: schedule.waiting.clone(),
        gates,
        generations: Generations {
            desired: plan.desired_system.clone(),
            deployed: deployed.map(|d| d.output.system.clone()),
            last_good: record.last_good.as_ref().map(|d| d.output.system.clone()),
            running_toplevel: match &inventory.unit {
                Ok(UnitState::Running { toplevel, .. }) => Some(toplevel.clone()),
                _ => None,
            },
            running_config: harness.and_then(|h| h.report.config.clone()),
            commit: record.main().cloned(),
            proposal: deployed.map(|d| d.proposal),
        },
        mcp: harness.map(|h| h.report.mcp.clone()).unwrap_or_default(),
        egress: None,
        inbox: ledger.inbox,
        faults,
        notices: notices(inputs, plan),
        config: deployed.map(|d| d.output.config.clone()),
        origins: origins(ledger),
    }
}

/// The operator's model goes before the config's, from the next turn on.
fn model(inventory: &AgentInventory, ledger: &AgentLedger, now: Timestamp) -> Option<ModelStatus> {
    let deployed = ledger.record.deployed.as_ref()?;
    let switched = ledger.overrides.model_at(now);
    let declared = deployed.output.config.driver.model.as_ref();
    let wanted = switched.map(|switched| &switched.value).or(declared);
    let active = inventory.harness.as_ref().and_then(|h| h.report.model.clone());
    Some(ModelStatus {
        queued: wanted.filter(|wanted| active.as_ref() != Some(wanted)).cloned(),
        active,
        switched_at: switched.map(|switched| switched.since),
        switched_by: switched.map(|switched| switched.by.clone()),
    })
}

fn origins(ledger: &AgentLedger) -> std::collections::BTreeMap<String, Origin> {
    let deployed = ledger.record.deployed.as_ref();
    deployed
        .map(|d| {
            d.output
                .origins
                .iter()
                .map(|(field, origin)| (field.as_str().to_owned(), *origin))
                .collect()
        })
        .unwrap_or_default()
}

fn open_gates(waiting: &[Waiting]) -> Vec<shared::GateId> {
    let gate = |w: &Waiting| match w.on {
        WaitingOn::Gate { gate, .. } => Some(gate),
        _ => None,
    };
    waiting.iter().filter_map(gate).collect()
}

fn notices(inputs: Inputs<'_>, plan: &Plan) -> Vec<String> {
    let Inputs {
        spec,
        inventory,
        ledger,
        now,
        ..
    } = inputs;
    let mut notices = plan.notices.clone();
    let reported = inventory.harness.iter().flat_map(|harness| &harness.report.mcp);
    for (name, state) in reported {
        match state.health {
            McpHealth::Healthy | McpHealth::Failed | McpHealth::Differs => {}
            McpHealth::Unprobed => {
                let why = state.error.as_deref().unwrap_or("this harness cannot do it yet");
                notices.push(format!("MCP server {name} is not probed: {why}"));
            }
            McpHealth::Unknown => {
                notices.push(format!(
                    "MCP server {name} is in a state that this daemon does not know"
                ));
            }
        }
    }
    if let Ok(UnitState::Running { resources, .. }) = &inventory.unit
        && let Some(kills @ 1..) = resources.oom_kills
    {
        let times = if kills == 1 {
            "once".to_owned()
        } else {
            format!("{kills} times")
        };
        notices.push(format!(
            "the kernel killed a process of it for want of memory {times} in this run"
        ));
    }
    let declared = spec.map_or_else(RunState::default, |spec| spec.run);
    if let Some(run) = ledger.overrides.run_at(declared, now) {
        let word = match run.value {
            RunState::Running => "running",
            RunState::Paused => "paused",
            RunState::Stopped => "stopped",
        };
        notices.push(overridden(&format!("kept {word}"), run));
    }
    if let Some(model) = ledger.overrides.model_at(now) {
        let config = ledger.record.deployed.as_ref().map(|d| &d.output.config.driver);
        let declared = config.and_then(|driver| driver.model.as_deref());
        let instead = declared.map_or_else(String::new, |declared| format!(" instead of {declared}"));
        notices.push(overridden(
            &format!("uses the model {}{instead}", model.value),
            model,
        ));
    }
    if let Some((system, quarantine)) = desired_quarantine(plan, ledger) {
        let short = super::view::short_system(system);
        notices.push(format!(
            "system {short} failed its probation: {}",
            quarantine.reason
        ));
    }
    notices
}

/// A line about an override: what holds, until when, by whom, why.
fn overridden<T>(what: &str, o: &Override<T>) -> String {
    let until = o.until.map_or_else(String::new, |at| {
        format!(" until {}", at.strftime("%Y-%m-%d %H:%M:%SZ"))
    });
    format!("{what}{until} by {}{}", o.by, because(&o.reason))
}

fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

/// A step that an agent asked for, or the books of a proposal.
fn is_offer(step: &Step) -> bool {
    let asked = matches!(
        step.authority,
        Authority::Class {
            asked_by: Asker::Agent | Asker::Manager,
            ..
        }
    );
    asked
        || matches!(
            step.action,
            Action::SetPhase { .. } | Action::EndOffer { .. } | Action::EndOrder { .. }
        )
}

fn sync(plan: &Plan, schedule: &Schedule, inventory: &AgentInventory) -> Finding<Sync> {
    let unknown = [
        ("runtime", inventory.unit.as_ref().err()),
        ("config repo", inventory.repo.as_ref().err()),
        ("folders", inventory.folders.as_ref().err()),
    ];
    if let Some((source, error)) = unknown.iter().find_map(|(s, e)| e.map(|e| (s, e))) {
        return Finding(
            Sync::Unknown,
            "sourceFailed",
            format!("the {source} cannot be observed: {error}"),
        );
    }
    let stale = |w: &&Waiting| matches!(w.on, WaitingOn::StaleInventory { .. });
    if let Some(waiting) = schedule.waiting.iter().find(stale) {
        return Finding(Sync::Unknown, "staleInventory", waiting.what.clone());
    }
    let resume = |w: &Waiting| matches!(w.on, WaitingOn::Suspended { .. });
    if let Some(first) = plan.held.first() {
        let what = super::view::action(&first.step.action);
        return Finding(
            Sync::OutOfSync,
            "held",
            format!("held back while it is suspended: {what}"),
        );
    }
    let drift: Vec<String> = plan
        .steps
        .iter()
        .filter(|planned| !is_offer(&planned.step))
        .map(|planned| super::view::action(&planned.step.action))
        .collect();
    if !drift.is_empty() || !plan.waiting.iter().all(resume) {
        let message = if drift.is_empty() {
            "something is awaited".to_owned()
        } else {
            drift.join("; ")
        };
        return Finding(Sync::OutOfSync, "differs", message);
    }
    let message = "what is there is what is wanted".to_owned();
    Finding(Sync::InSync, "converged", message)
}

fn health(plan: &Plan, inputs: Inputs<'_>) -> Finding<Health> {
    let Inputs {
        spec,
        inventory,
        ledger,
        now,
        ..
    } = inputs;
    if !matches!(ledger.record.life, AgentLife::Active) {
        return Finding(
            Health::Suspended,
            "notActive",
            "it is not part of the hive (yet, or any more)".to_owned(),
        );
    }
    let declared = spec.map_or_else(RunState::default, |spec| spec.run);
    let wanted = ledger.overrides.wanted_run(declared, now);
    match &inventory.unit {
        Err(error) => Finding(Health::Unknown, "sourceFailed", error.clone()),
        Ok(UnitState::Foreign { what }) => Finding(Health::Degraded, "foreign", what.clone()),
        Ok(UnitState::Absent | UnitState::Exited { .. }) if wanted == RunState::Stopped => {
            Finding(Health::Suspended, "stopped", "stopped, as wanted".to_owned())
        }
        Ok(UnitState::Absent) => Finding(Health::Missing, "notRunning", "it does not run".to_owned()),
        Ok(UnitState::Exited { cause, .. }) => Finding(Health::Missing, "exited", format!("it {cause}")),
        Ok(UnitState::Running { .. }) if wanted == RunState::Paused => {
            Finding(Health::Suspended, "paused", "paused, as wanted".to_owned())
        }
        Ok(UnitState::Running { .. }) => running_health(plan, inventory, ledger),
    }
}

/// The system that is asked for, when it failed its probation.
fn desired_quarantine<'a>(plan: &'a Plan, ledger: &'a AgentLedger) -> Option<(&'a String, &'a Quarantine)> {
    let system = plan.desired_system.as_ref()?;
    Some((system, ledger.quarantine.get(system)?))
}

fn running_health(plan: &Plan, inventory: &AgentInventory, ledger: &AgentLedger) -> Finding<Health> {
    if ledger.probation.is_some() {
        return Finding(
            Health::Progressing,
            "probation",
            "a new deployment is on probation".to_owned(),
        );
    }
    let Some(harness) = &inventory.harness else {
        return Finding(
            Health::Progressing,
            "noReport",
            "its harness has not reported yet".to_owned(),
        );
    };
    if let Some(error) = &harness.report.config_error {
        return Finding(Health::Degraded, "configError", error.clone());
    }
    for (health, reason) in [
        (McpHealth::Failed, "mcpServerFailed"),
        (McpHealth::Differs, "mcpServerDiffers"),
    ] {
        if let Some((name, state)) = harness
            .report
            .mcp
            .iter()
            .find(|(_, state)| state.health == health)
        {
            let error = state.error.as_deref().unwrap_or("no reason given");
            return Finding(Health::Degraded, reason, format!("MCP server {name}: {error}"));
        }
    }
    if harness.report.turn == TurnState::NeedsLogin {
        return Finding(
            Health::Degraded,
            "needsLogin",
            harness
                .report
                .turn_error
                .clone()
                .unwrap_or_else(|| "its driver has no valid login".to_owned()),
        );
    }
    if desired_quarantine(plan, ledger).is_some() {
        return Finding(
            Health::Degraded,
            "reverted",
            "it runs the last good system: a newer one failed".to_owned(),
        );
    }
    if let Some(error) = &harness.report.turn_error {
        return Finding(Health::Degraded, "turnFailed", error.clone());
    }
    if let Some(error) = &harness.report.events_error {
        return Finding(Health::Degraded, "eventsNotKept", error.clone());
    }
    Finding(
        Health::Healthy,
        "reporting",
        harness.report.turn.as_str().to_owned(),
    )
}

fn activity(schedule: &Schedule) -> Finding<Activity> {
    if let Some(ready) = schedule.ready.first() {
        return Finding(
            Activity::Applying,
            "step",
            super::view::action(&ready.planned.step.action),
        );
    }
    // The most telling wait first: what the operator can act on, then what passes by itself, then what is stuck.
    let rank = |on: &WaitingOn| match on {
        WaitingOn::Gate { .. } => 0,
        WaitingOn::Terminal { .. } | WaitingOn::Breaker { .. } => 1,
        WaitingOn::Backoff { .. } => 2,
        WaitingOn::TurnBoundary { .. } => 3,
        WaitingOn::Health { .. } => 4,
        WaitingOn::StaleInventory { .. } | WaitingOn::Dependency { .. } => 5,
        WaitingOn::Suspended { .. } => 6,
    };
    let Some(waiting) = schedule.waiting.iter().min_by_key(|w| rank(&w.on)) else {
        return Finding(Activity::Idle, "converged", "nothing to do".to_owned());
    };
    let what = waiting.what.clone();
    match &waiting.on {
        WaitingOn::Gate { gate, class } => Finding(
            Activity::AwaitingGate,
            "gateOpen",
            format!("gate {gate} ({class}): {what}"),
        ),
        WaitingOn::TurnBoundary { .. } => Finding(Activity::WaitingForTurn, "turnBoundary", what),
        WaitingOn::Backoff { error, attempts, .. } => Finding(
            Activity::BackingOff,
            "backoff",
            format!("{what}: {error} (try {attempts})"),
        ),
        WaitingOn::Terminal { error } => Finding(Activity::Stalled, "terminal", format!("{what}: {error}")),
        WaitingOn::Breaker { why, .. } => Finding(Activity::Stalled, "breaker", format!("{what}: {why}")),
        WaitingOn::Health { .. } => Finding(Activity::Applying, "health", what),
        WaitingOn::StaleInventory { source, .. } => Finding(
            Activity::Applying,
            "staleInventory",
            format!("{what}: waits for the {source}"),
        ),
        WaitingOn::Dependency { first } => Finding(
            Activity::Applying,
            "dependency",
            format!("{what}: waits until {first}"),
        ),
        WaitingOn::Suspended { by, reason, .. } => Finding(
            Activity::Idle,
            "suspended",
            format!("suspended by {by}{}", because(reason)),
        ),
    }
}
