//! One pass over one agent: observe, plan, revalidate, carry out, until there is nothing left that may be done now.

use std::sync::Arc;

use shared::AgentName;
use shared::admin_api::DiffEntry;
use shared::event::Level;
use shared::gate::GateState;

use super::drafts::{concerns_drafts, draft_rules};
use super::permits::{Permit, Permits};
use super::reconciler::{Key, PassError, Reconciler, Requeue, declared};
use super::rest::Ground;
use super::views::AgentView;
use crate::execute::{self, Moment};
use crate::gate::revalidate;
use crate::invariants;
use crate::model::change::Change;
use crate::model::gates::{GateAction, NewGate};
use crate::model::inventory::AgentInventory;
use crate::model::records::{AgentLedger, AgentLife};
use crate::model::step::{Action, Step};
use crate::observe;
use crate::plan::agent::Inputs;
use crate::plan::schedule::{Schedule, schedule};
use crate::plan::{Plan, agent as planner, refs, status, support, view};
use crate::spec::Accepted;

/// A pass that carries out more steps than this is going round in circles.
const MAX_ROUNDS: usize = 64;
/// The largest commit diff kept with a gate, in bytes.
const MAX_DIFF: usize = 64 * 1024;

impl Reconciler {
    pub(super) async fn agent_pass(&self, name: &AgentName) -> Result<Requeue, PassError> {
        let mut held: Option<Permit<'_>> = None;
        let mut others = Vec::new();
        for _ in 0..MAX_ROUNDS {
            // Afresh each round: a build takes long enough for the operator to change spec and policy meanwhile.
            // Before anything is measured against the time.
            self.heed_clock();
            let Some(accepted) = self.accepted() else {
                return Ok(Requeue::default());
            };
            let Some(facts) = self.facts(&accepted) else {
                return Ok(Requeue::default());
            };
            // Before anything is read: what is written from here on counts as news.
            let ground = Ground {
                writes: self.ledger.writes(),
                accepted: Arc::clone(&accepted),
                watched_since: facts.watched_since,
            };
            if self.is_still_at_rest(name, &ground).await {
                return Ok(Requeue { at: None, others });
            }
            let Some(ledger) = self.ledger.agent(name).await? else {
                self.views().agents.remove(name);
                self.line.note(name, false);
                // What the archive keeps, and a name that is free again, are the hive's to look after.
                others.push(Key::Hive);
                return Ok(Requeue { at: None, others });
            };
            let subject = observe::Subject::of(&ledger);
            let inventory = observe::agent(&self.host, &subject).await;
            let now = self.host.clock.now();
            let spec = declared(&accepted, &ledger.record);
            let rules = draft_rules(&accepted, name);
            let standing = self.standing(&ledger.record, rules).await?;
            let rollout = self.rollout(&ledger, spec, &facts).await?;
            let inputs = Inputs {
                facts: &facts,
                spec,
                inventory: &inventory,
                ledger: &ledger,
                standing: &standing,
                rollout: &rollout,
                now,
            };
            let plan = planner::plan(inputs)?;
            let violations = invariants::check(&plan, &inventory, &ledger);
            if let Some(violation) = violations.first() {
                return Err(PassError::Invariant(violation.to_string()));
            }
            if self.settle(&plan, &inventory, &ledger).await? {
                continue;
            }
            let actions = revalidate(&facts.policy, &plan, &ledger.gates);
            if !actions.is_empty() {
                self.sync_gates(&ledger, actions).await?;
                continue;
            }
            let scheduled = schedule(&facts.policy, &plan, &ledger.gates, &ledger.attempts, now);
            self.announce(name, &plan);
            self.line.note(name, plan.in_line);
            self.show(inputs, &plan, &scheduled, &accepted)?;
            let Some(ready) = scheduled.ready.first() else {
                if plan.is_rest() && scheduled.waiting.is_empty() && scheduled.wake_at.is_none() {
                    self.resting.note(name, ground, subject, inventory);
                }
                return Ok(Requeue {
                    at: scheduled.wake_at,
                    others,
                });
            };
            if let Some(permits) = self.permits(&ready.planned.step)
                && !held.as_ref().is_some_and(|held| held.is_of(permits))
            {
                // Whoever waits for one keeps nobody from another.
                drop(held.take());
                let permit = permits.get().await;
                let plan_holds = permit.plan_holds;
                held = Some(permit);
                if !plan_holds {
                    continue;
                }
            }
            self.record(&ledger, &plan, ready).await?;
            let moment = Moment {
                watched_since: facts.watched_since,
                rules,
            };
            execute::step(&self.host, &self.ledger, &ledger, ready, moment).await?;
            drop(held.take());
            let action = &ready.planned.step.action;
            if concerns_drafts(action) {
                others.extend(self.drafts().await?);
            }
            others.extend(self.next_in_line(&ledger, action).await?);
        }
        Err(PassError::Restless(MAX_ROUNDS))
    }

    /// Whether the agent was at rest and nothing has changed since. See [`super::rest`].
    async fn is_still_at_rest(&self, name: &AgentName, ground: &Ground) -> bool {
        let heard = self.host.harness.state(name);
        // What a harness says changes most often and costs nothing to ask: no look is wasted on it.
        let Some(rest) = self
            .resting
            .take(name, ground)
            .filter(|rest| rest.heard(heard.as_ref()))
        else {
            return false;
        };
        let inventory = observe::agent(&self.host, rest.subject()).await;
        let still = rest.saw(&inventory) && self.ledger.writes() == ground.writes;
        if still {
            self.resting.put_back(name, rest);
        }
        still
    }

    /// Ends tries and gates whose effect is there although their outcome was never noted: a crash came between.
    ///
    /// Only a complete observation can tell: what is merely unknown is not done.
    async fn settle(
        &self,
        plan: &Plan,
        inventory: &AgentInventory,
        ledger: &AgentLedger,
    ) -> Result<bool, PassError> {
        let AgentInventory {
            unit,
            repo,
            descends,
            folders,
            systems,
            collected_at: _,
            harness: _,
        } = inventory;
        let complete = unit.is_ok() && repo.is_ok() && descends.is_ok() && folders.is_ok() && systems.is_ok();
        if !complete || plan.partial {
            return Ok(false);
        }
        let planned = |id: &shared::Digest| plan.steps.iter().any(|step| step.id == *id);
        let effects = || plan.steps.iter().map(|step| &step.effect_digest);
        let wanted = |effect: &shared::Digest| effects().chain(&plan.later).any(|planned| planned == effect);
        let begun = ledger.gates.iter().find(|record| {
            record.gate.state == GateState::Consumed
                && record.gate.completed_at.is_none()
                && !wanted(&record.gate.digest)
        });
        let stale = ledger.attempts.keys().find(|id| !planned(id)).cloned();
        let (id, gate) = match (begun, stale) {
            (Some(record), _) => (crate::gate::step_id(&record.step)?, Some(record.gate.id)),
            (None, Some(id)) => (id, None),
            (None, None) => return Ok(false),
        };
        let now = self.host.clock.now();
        let uid = Some(ledger.record.uid);
        self.ledger.complete(uid, id, gate, Vec::new(), now).await?;
        Ok(true)
    }

    /// Opens and ends gates. A gate about a commit is opened with its diff, so that what is decided about is stored.
    async fn sync_gates(&self, ledger: &AgentLedger, mut actions: Vec<GateAction>) -> Result<(), PassError> {
        for action in &mut actions {
            if let GateAction::Open(gate) = action {
                self.fill_diff(ledger, gate).await;
            }
        }
        let now = self.host.clock.now();
        self.ledger.sync_gates(actions, now).await?;
        Ok(())
    }

    async fn fill_diff(&self, ledger: &AgentLedger, gate: &mut NewGate) {
        let (main, commit, systems) = match &gate.step.action {
            Action::Deploy {
                main,
                commit,
                from,
                system,
                ..
            } => (main, commit, Some((from.as_deref(), system))),
            Action::SpawnDraft {
                seed, commit, system, ..
            } => (seed, commit, Some((None, system))),
            // Who is asked about hosts sees who wants them.
            Action::Build { request, hosts, .. } if !hosts.is_empty() => match ledger.record.main() {
                Some(main) => (main, &request.commit, None),
                None => return,
            },
            _ => return,
        };
        if let Some((from, system)) = systems {
            match self.host.builder.difference(from, system).await {
                Ok(lines) => gate.view.closure_diff.extend(lines),
                Err(error) => {
                    let line = format!("(how the systems differ cannot be shown: {})", error.chain());
                    gate.view.closure_diff.push(line);
                }
            }
        }
        if main == commit {
            return;
        }
        gate.view.commit_diff = match self
            .host
            .repos
            .diff(&ledger.record.name, main, commit, MAX_DIFF)
            .await
        {
            Ok(diff) => diff,
            Err(error) => format!("(the diff cannot be shown: {})", error.chain()),
        };
    }

    fn announce(&self, name: &AgentName, plan: &Plan) {
        if let Some(announcement) = &plan.announce {
            self.host.harness.announce(name, announcement.clone());
        }
    }

    /// Records a plan once, when its first step with an effect outside is about to be carried out.
    async fn record(
        &self,
        ledger: &AgentLedger,
        plan: &Plan,
        ready: &crate::plan::schedule::Ready,
    ) -> Result<(), PassError> {
        let action = &ready.planned.step.action;
        if action.is_bookkeeping() || matches!(action, Action::ProjectRef(_) | Action::Activate { .. }) {
            return Ok(());
        }
        let now = self.host.clock.now();
        let record = &ledger.record;
        let doc = serde_json::to_value(plan.view(Vec::new())?).unwrap_or_default();
        let (uid, name) = (Some(record.uid), Some(record.name.clone()));
        self.ledger
            .record_plan(uid, name, plan.digest()?, plan.summary(), doc, now)
            .await?;
        Ok(())
    }

    /// The permits that a step needs one of.
    fn permits(&self, step: &Step) -> Option<&Permits> {
        match &step.action {
            Action::Build { .. } => Some(&self.builds),
            Action::Start { .. } | Action::Stop { .. } | Action::Restart { .. } => Some(&self.transitions),
            Action::SpawnDraft { .. } => Some(&self.spawns),
            _ if step.updates_base() => Some(&self.updates),
            _ => None,
        }
    }

    fn show(
        &self,
        inputs: Inputs<'_>,
        plan: &Plan,
        scheduled: &Schedule,
        accepted: &Arc<Accepted>,
    ) -> Result<(), PassError> {
        let name = &inputs.ledger.record.name;
        let faults = accepted.agent_faults.get(name);
        let faults = faults
            .map(|f| f.iter().map(ToString::to_string).collect())
            .unwrap_or_default();
        let mut views = self.views();
        if inputs.ledger.record.life.is_over() {
            views.agents.remove(name);
            return Ok(());
        }
        let previous = views.agents.get(name).map(|view| &view.status);
        let mut status = status::derive(inputs, plan, scheduled, previous, faults);
        if let Some(why) = self.host.runtime.unsandboxed() {
            status.notices.push(format!("it runs without a sandbox: {why}"));
        }
        status.notices.extend(
            inputs
                .spec
                .map(|spec| support::of_agent(spec, inputs.facts.runtime))
                .unwrap_or_default(),
        );
        let builder = self.host.builder.kind();
        let of_build = inputs.spec.map(|spec| support::of_build(spec, builder));
        status.notices.extend(of_build.unwrap_or_default());
        let plan_view = plan.view(scheduled.waiting.clone())?;
        let diff = diff(inputs, plan);
        views.agents.insert(
            name.clone(),
            AgentView {
                status,
                plan: plan_view,
                diff,
            },
        );
        Ok(())
    }
}

/// Facts that are not as wanted.
fn diff(inputs: Inputs<'_>, plan: &Plan) -> Vec<DiffEntry> {
    let Inputs {
        inventory, ledger, ..
    } = inputs;
    let record = &ledger.record;
    let agent = Some(record.name.clone());
    let mut entries = Vec::new();
    let mut fact = |fact: &str, desired: Option<String>, observed: Option<String>, known: bool| {
        if let Some(desired) = desired.filter(|desired| observed.as_ref() != Some(desired)) {
            entries.push(DiffEntry {
                agent: agent.clone(),
                fact: fact.to_owned(),
                desired,
                observed,
                known,
            });
        }
    };
    let deployed = record.deployed.as_ref().map(|d| &d.output);
    fact(
        "system",
        plan.desired_system.clone(),
        deployed.map(|d| d.system.clone()),
        true,
    );
    let repo = inventory.repo.as_ref().ok().and_then(Option::as_ref);
    if matches!(record.life, AgentLife::Active) {
        let main = repo.and_then(|repo| repo.main.as_ref()).map(ToString::to_string);
        fact(
            "main",
            record.main().map(ToString::to_string),
            main,
            inventory.repo.is_ok(),
        );
        for (name, tag) in refs::wanted_tags(&ledger.proposals) {
            let seen = repo
                .and_then(|repo| repo.tags.get(&name))
                .map(|tag| tag.commit.to_string());
            fact(
                &format!("tag {name}"),
                Some(tag.commit.to_string()),
                seen,
                inventory.repo.is_ok(),
            );
        }
    }
    let unit = inventory.unit.as_ref();
    let running = match unit {
        Ok(crate::host::UnitState::Running { toplevel, .. }) => Some(toplevel.to_string()),
        _ => None,
    };
    let wants_run = plan
        .steps
        .iter()
        .any(|s| matches!(s.step.action, Action::Start { .. } | Action::Restart { .. }));
    if running.is_some() || wants_run {
        fact(
            "toplevel",
            deployed.map(|d| d.toplevel.to_string()),
            running,
            unit.is_ok(),
        );
    }
    let limits = plan.steps.iter().find_map(|s| match &s.step.action {
        Action::Limit { found, .. } => Some(found.clone()),
        _ => None,
    });
    fact(
        "limits",
        limits.as_ref().map(|_| "as declared".to_owned()),
        limits,
        unit.is_ok(),
    );
    let stops = plan
        .steps
        .iter()
        .find(|s| matches!(s.step.action, Action::Stop { .. }));
    fact(
        "run state",
        stops.map(|_| "stopped".to_owned()),
        Some("running".to_owned()),
        unit.is_ok(),
    );
    if let Some(harness) = &inventory.harness {
        let config = harness.report.config.as_ref().map(ToString::to_string);
        fact(
            "config",
            deployed.map(|d| d.config_digest.to_string()),
            config,
            true,
        );
    }
    for planned in plan
        .steps
        .iter()
        .filter(|s| matches!(s.step.action, Action::Spawn | Action::Archive | Action::Restore))
    {
        fact("life", Some(view::action(&planned.step.action)), None, true);
    }
    entries
}

/// The alarm of a key that runs too often.
pub(super) fn hot_alarm(name: &AgentName, at: jiff::Timestamp) -> Change {
    let message = format!("{name} is looked at unusually often: something keeps changing underneath it");
    execute::event(name, Level::Warning, "hotObject", message, at)
}
