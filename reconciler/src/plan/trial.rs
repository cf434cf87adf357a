//! Probation: a new deployment becomes the last good one, or the last good one comes back.

use jiff::Timestamp;
use shared::canonical::NotCanonical;
use shared::plan::WaitingOn;
use shared::spec::{AgentSpec, RunState};
use shared::status::{McpHealth, McpServerState, TurnState};

use super::after;
use super::agent::Planner;
use crate::host::UnitState;
use crate::model::build::BuildOutput;
use crate::model::records::{AgentOrigin, Deployed, Probation};
use crate::model::step::Action;

/// A deployment whose agent ends this often during the trial has failed it.
const MAX_FAILED_STARTS: u32 = 3;

/// Active seconds so far. Time during which nobody watched does not count: `watched_since` is when this daemon began.
fn elapsed(trial: &Probation, watched_since: Timestamp, now: Timestamp) -> i64 {
    let active_since = trial.active_since.map(|since| since.max(watched_since));
    let running = active_since.map_or(0, |since| now.duration_since(since).as_secs().max(0));
    i64::from(trial.active_secs) + running
}

/// When the trial ends if the agent stays active from now on.
pub fn ends_at(trial: &Probation, watched_since: Timestamp, now: Timestamp) -> Timestamp {
    after(
        now,
        (i64::from(trial.window_secs) - elapsed(trial, watched_since, now)).max(0),
    )
}

/// Until when others wait for the end of a trial of a new base; `None`: they do not. One whose agent does not come to
/// run the new system, because it is in a turn or stopped, keeps nobody waiting for longer than a trial lasts.
pub fn holds_until(trial: &Probation, watched_since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    if !trial.updates_base {
        return None;
    }
    let until = match trial.active_since {
        Some(_) => ends_at(trial, watched_since, now),
        None => after(trial.since, i64::from(trial.window_secs)),
    };
    // One that began in the future began before the clock was set back.
    (trial.since <= now && now < until).then_some(until)
}

/// The trial with its clock started or stopped.
pub fn clocked(trial: &Probation, active: bool, watched_since: Timestamp, now: Timestamp) -> Probation {
    let secs = u32::try_from(elapsed(trial, watched_since, now)).unwrap_or(u32::MAX);
    Probation {
        active_secs: secs,
        active_since: active.then_some(now),
        ..trial.clone()
    }
}

/// Why the deployment is not healthy yet; `None`: it is.
pub(super) fn unhealthy(planner: &Planner<'_>, deployed: &Deployed, trial: &Probation) -> Option<String> {
    let inventory = planner.inputs.inventory;
    match &inventory.unit {
        Ok(UnitState::Running { toplevel, .. }) if *toplevel == deployed.output.toplevel => {}
        Ok(UnitState::Running { .. }) => return Some("it still runs what was deployed before".to_owned()),
        Ok(UnitState::Exited { cause, .. }) => return Some(format!("it {cause}")),
        Ok(_) => return Some("it does not run".to_owned()),
        Err(error) => return Some(format!("the runtime cannot be observed: {error}")),
    }
    let Some(harness) = &inventory.harness else {
        return Some("its harness has not reported".to_owned());
    };
    if harness.report.config.as_ref() != Some(&deployed.output.config_digest) {
        let error = harness.report.config_error.as_deref();
        return Some(match error {
            Some(error) => format!("its harness cannot load the config: {error}"),
            None => "its harness has not loaded the config".to_owned(),
        });
    }
    if matches!(harness.report.turn, TurnState::NeedsLogin | TurnState::OverBudget) {
        return None;
    }
    if let Some(error) = &harness.report.config_error {
        return Some(format!("its harness cannot use the config: {error}"));
    }
    for name in &trial.watched {
        match harness.report.mcp.get(name) {
            // A server whose tools change works: what went before is no better.
            Some(McpServerState {
                health: McpHealth::Healthy | McpHealth::Unprobed | McpHealth::Differs,
                ..
            }) => {}
            Some(state) => {
                let error = state.error.as_deref().unwrap_or("no reason given");
                return Some(format!("MCP server {name} is not healthy: {error}"));
            }
            None => return Some(format!("MCP server {name} was not reported")),
        }
    }
    None
}

impl Planner<'_> {
    /// Judges the deployment on trial.
    pub(super) fn trial(&mut self, spec: &AgentSpec) -> Result<(), NotCanonical> {
        let ledger = self.inputs.ledger;
        let (Some(trial), Some(deployed)) = (&ledger.probation, &ledger.record.deployed) else {
            return Ok(());
        };
        let Some(why) = unhealthy(self, deployed, trial) else {
            return self.free(Action::MarkGood {
                system: deployed.output.system.clone(),
            });
        };
        let watched_since = self.inputs.facts.watched_since;
        let out_of_time = elapsed(trial, watched_since, self.inputs.now) >= i64::from(trial.window_secs);
        if out_of_time || trial.failed_starts >= MAX_FAILED_STARTS {
            let failed = deployed.output.system.clone();
            let good = ledger.record.last_good.as_ref().map(|good| &good.output);
            // An agent from which something was taken must not get it back by failing.
            let narrowed = |good: &BuildOutput| {
                let changes = deployed.output.capability_diff(Some(good));
                changes.iter().any(|change| !change.widens)
            };
            // A spawned agent without a last good system would come back as something that nobody agreed to.
            let is_first_of_spawned = good.is_none() && ledger.record.origin == AgentOrigin::Spawn;
            if is_first_of_spawned || trial.proposal.is_none() && good.is_some_and(narrowed) {
                return self.free(Action::Halt { failed, reason: why });
            }
            let to = good.map(|good| good.system.clone());
            return self.free(Action::Revert {
                failed,
                to,
                reason: why,
            });
        }
        let active = self.is_on_trial(spec, deployed);
        // One that began in the future would not end before the clock, which was set back, is there again.
        let began_in_future = trial.active_since.is_some_and(|since| since > self.inputs.now);
        if active != trial.active_since.is_some() || began_in_future {
            self.free(Action::ProbationClock { active })?;
        }
        if self.wanted_run(spec) != RunState::Running {
            // Deferred, and no reason to call what is as wanted anything else.
            let notice = "its deployment is on probation, which goes on when it runs".to_owned();
            self.plan.notices.push(notice);
            return Ok(());
        }
        let what = format!("probation ({why})");
        if active {
            let until = ends_at(trial, watched_since, self.inputs.now);
            self.plan.wait(what, WaitingOn::Health { until }, None);
        } else {
            let first = "the agent runs the new system between two turns".to_owned();
            self.plan.wait(what, WaitingOn::Dependency { first }, None);
        }
        Ok(())
    }

    /// Whether the clock of the trial runs: the new system is there, and the agent is free to take it up.
    fn is_on_trial(&self, spec: &AgentSpec, deployed: &Deployed) -> bool {
        let runs = matches!(&self.inputs.inventory.unit,
            Ok(UnitState::Running { toplevel, .. }) if *toplevel == deployed.output.toplevel);
        let harness = self.inputs.inventory.harness.as_ref();
        let takes_up = harness.is_none_or(|harness| {
            let loaded = harness.report.config.as_ref() == Some(&deployed.output.config_digest);
            loaded || !harness.is_busy()
        });
        runs && takes_up && self.files_are_written(deployed) && self.wanted_run(spec) == RunState::Running
    }
}
