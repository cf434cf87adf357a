//! Gates, as pure rules: which class asks, what an approval is of, and what becomes of open gates.
//!
//! What must always hold: a step of a class is carried out only under a decision about exactly its effect digest. A
//! policy's approval is a decision too. After approval the stored step is carried out, never a recomputed one; these
//! rules only say whether it is still wanted.

use jiff::Timestamp;
use serde::Serialize;
use shared::canonical::{Encoding, NotCanonical, digest};
use shared::gate::{Asker, GateClass, GateState, Verdict};
use shared::spec::PolicySpec;
use shared::{AgentUid, Digest, GateId, HiveId};

use crate::model::gates::{GateAction, NewGate};
use crate::model::records::GateRecord;
use crate::model::step::{Action, Authority, PlannedStep, Step};
use crate::plan::Plan;

/// The default policy, before the operator's changes.
pub fn default_verdict(class: GateClass, asked_by: Asker) -> Verdict {
    use GateClass as C;
    match (class, asked_by) {
        (C::Build, _) => Verdict::Auto,
        (C::Archive | C::MirrorDelete | C::MassRemoval | C::Purge, _) => Verdict::Ask,
        (_, Asker::Spec) => Verdict::Auto,
        (C::BaseUpdate, _) => Verdict::Never,
        (C::Start | C::Stop | C::Restart | C::Rebuild, Asker::Manager) => Verdict::Auto,
        (C::Start | C::Stop | C::Restart | C::Rebuild, Asker::Agent) => Verdict::Never,
        (
            C::Spawn | C::DeployWithin | C::DeployWidens | C::ReloadWithin | C::ReloadWidens,
            Asker::Agent | Asker::Manager,
        ) => Verdict::Ask,
    }
}

/// What the policy says to a class, and the rule that says it, as in `agent.deployWithin=ask`.
pub fn verdict(policy: &PolicySpec, class: GateClass, asked_by: Asker) -> (Verdict, String) {
    let (table, side) = match asked_by {
        Asker::Spec => (&policy.spec, "spec"),
        Asker::Agent | Asker::Manager => (&policy.agent, "agent"),
    };
    let wanted = table
        .get(&class)
        .copied()
        .unwrap_or_else(|| default_verdict(class, asked_by));
    // The spec check refuses this already; a person decides these whatever a table says.
    let verdict = if class.always_asks() && wanted == Verdict::Auto {
        Verdict::Ask
    } else {
        wanted
    };
    (verdict, rule(side, class, verdict))
}

fn rule(side: &str, class: GateClass, verdict: Verdict) -> String {
    let word = match verdict {
        Verdict::Auto => "auto",
        Verdict::Ask => "ask",
        Verdict::Never => "never",
    };
    format!("{side}.{class}={word}")
}

/// What the policy says to a step; `None`: it has no class. A person agrees to hosts that the operator did not declare,
/// whatever a table says to builds.
pub fn verdict_on(policy: &PolicySpec, step: &Step) -> Option<(Verdict, String)> {
    let Authority::Class { class, asked_by } = step.authority else {
        return None;
    };
    let (verdict, named) = self::verdict(policy, class, asked_by);
    match &step.action {
        Action::Build { hosts, .. } if !hosts.is_empty() && verdict == Verdict::Auto => {
            let side = if asked_by == Asker::Spec { "spec" } else { "agent" };
            Some((Verdict::Ask, rule(side, class, Verdict::Ask)))
        }
        _ => Some((verdict, named)),
    }
}

/// Everything an approval is bound to.
#[derive(Serialize)]
struct Effect<'a> {
    hive: HiveId,
    agent: Option<AgentUid>,
    action: &'a Action,
    class: Option<GateClass>,
    asked_by: Option<Asker>,
    rule: Option<String>,
}

/// The identity of a step's approval.
///
/// # Errors
/// Only when a value has no canonical form, which means a fault in the program.
pub fn effect_digest(hive: HiveId, policy: &PolicySpec, step: &Step) -> Result<Digest, NotCanonical> {
    let (class, asked_by) = match &step.authority {
        Authority::Class { class, asked_by } => (Some(*class), Some(*asked_by)),
        Authority::Free | Authority::Under(_) => (None, None),
    };
    let rule = verdict_on(policy, step).map(|(_, rule)| rule);
    digest(
        Encoding::Effect,
        &Effect {
            hive,
            agent: step.uid,
            action: &step.action,
            class,
            asked_by,
            rule,
        },
    )
}

/// The identity of a step's tries: what is done to whom, whoever allows it.
///
/// # Errors
/// Only when a value has no canonical form, which means a fault in the program.
pub fn step_id(step: &Step) -> Result<Digest, NotCanonical> {
    digest(Encoding::Content, &(step.uid, &step.action))
}

/// Whether a step may be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// Yes; under this gate, when the step has a class.
    Granted(Option<GateId>),
    /// Not yet: the gate waits for a decision.
    Waits(GateId),
    /// No: this very effect was denied.
    Denied(GateId),
    /// No: the policy says never.
    Never(String),
    /// Not yet: no gate is open for it.
    NoGate,
}

/// Says whether `planned` may be carried out, given the gates that can still matter.
pub fn permission(policy: &PolicySpec, planned: &PlannedStep, gates: &[GateRecord]) -> Permission {
    let Some((verdict, rule)) = verdict_on(policy, &planned.step) else {
        return Permission::Granted(None);
    };
    let of_this_effect = || {
        gates
            .iter()
            .filter(|record| record.gate.digest == planned.effect_digest)
    };
    let live = of_this_effect().find(|record| is_live(record));
    match live.map(|record| (record.gate.id, record.gate.state)) {
        Some((id, GateState::Approved | GateState::Consumed)) => Permission::Granted(Some(id)),
        Some((id, _)) => Permission::Waits(id),
        None => {
            if let Some(denied) = of_this_effect().find(|record| record.gate.state == GateState::Denied) {
                return Permission::Denied(denied.gate.id);
            }
            match verdict {
                Verdict::Never => Permission::Never(rule),
                Verdict::Auto | Verdict::Ask => Permission::NoGate,
            }
        }
    }
}

/// A gate that can still lead to its effect: open, approved, or consumed by a try whose outcome is not known.
fn is_live(record: &GateRecord) -> bool {
    match record.gate.state {
        GateState::Open | GateState::Approved => true,
        GateState::Consumed => record.gate.completed_at.is_none(),
        GateState::Denied | GateState::Superseded | GateState::Expired => false,
    }
}

/// What is to be done about gates, so that they fit what is planned now.
///
/// A gate whose effect is still planned stays as it is, and with it any decision; one whose effect is not planned any
/// more ends; a planned step without a gate gets one. A gate that was consumed is never ended here: its effect has
/// begun, and only its outcome ends it. A partial plan ends no gate: an approval must not evaporate because something
/// could not be looked at for a moment.
pub fn revalidate(policy: &PolicySpec, plan: &Plan, gates: &[GateRecord]) -> Vec<GateAction> {
    let mut actions = Vec::new();
    let planned = &plan.steps;
    for record in gates {
        let wanted = planned.iter().any(|step| {
            matches!(step.step.authority, Authority::Class { .. }) && step.effect_digest == record.gate.digest
        });
        let wanted = wanted || plan.later.contains(&record.gate.digest);
        let undone = matches!(record.gate.state, GateState::Open | GateState::Approved);
        if undone && !wanted && !plan.partial {
            actions.push(GateAction::End {
                gate: record.gate.id,
                reason: plan.ended_because.clone(),
            });
        }
    }
    for step in planned {
        let Authority::Class { class, asked_by } = step.step.authority else {
            continue;
        };
        if permission(policy, step, gates) != Permission::NoGate {
            continue;
        }
        let Some((verdict, rule)) = verdict_on(policy, &step.step) else {
            continue;
        };
        actions.push(GateAction::Open(Box::new(new_gate(
            step, class, asked_by, verdict, rule,
        ))));
    }
    actions
}

fn new_gate(
    planned: &PlannedStep,
    class: GateClass,
    asked_by: Asker,
    verdict: Verdict,
    rule: String,
) -> NewGate {
    let (proposal, commit, system) = match &planned.step.action {
        Action::Deploy {
            proposal,
            commit,
            system,
            ..
        } => (*proposal, Some(commit.clone()), Some(system.clone())),
        Action::Build {
            request, proposal, ..
        } => (*proposal, Some(request.commit.clone()), None),
        Action::SpawnDraft { commit, system, .. } => (None, Some(commit.clone()), Some(system.clone())),
        _ => (None, None, None),
    };
    NewGate {
        agent: planned.step.agent.clone(),
        uid: planned.step.uid,
        class,
        asked_by,
        digest: planned.effect_digest.clone(),
        proposal,
        commit,
        system,
        view: planned.view.clone(),
        step: planned.step.clone(),
        auto: (verdict == Verdict::Auto).then_some(rule),
    }
}

/// How long a failed step waits before its next try: 1 s doubling to 5 min, spread by up to a quarter.
pub fn backoff(failed_tries: u32, jitter: f64, now: Timestamp) -> Timestamp {
    let doubled = 1_000_i64 << failed_tries.saturating_sub(1).min(9);
    let capped = doubled.min(300_000);
    let spread = (jitter.clamp(0.0, 1.0) * 250.0).round();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "between 0 and 250 by construction"
    )]
    let millis = capped + capped * (spread as i64) / 1_000;
    now.checked_add(jiff::SignedDuration::from_millis(millis))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
