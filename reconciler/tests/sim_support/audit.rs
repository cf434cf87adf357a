//! Asks the ledger, at the moment of each effect, whether anything allows it. Written apart from the planner.

use futures_util::FutureExt as _;
use reconciler::host::UnitState;
use reconciler::host::fake::{Effect, State};
use reconciler::ledger::Ledger;
use reconciler::model::order::{OrderState, Verb};
use reconciler::model::records::{AgentLedger, AgentLife, GateRecord};
use reconciler::model::step::Action;
use shared::GateId;
use shared::agent_api::ProposalPhase;
use shared::gate::{Asker, GateClass, GateState};
use shared::spec::{RunState, Spec};

/// A ledger in memory answers at once.
fn now<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().unwrap()
}

/// Why this effect must not happen.
pub(super) fn check(ledger: &Ledger, state: &State, effect: &Effect) -> Result<(), String> {
    if effect.kind == "purge" {
        let gates = now(ledger.hive_gates()).unwrap();
        return begun(
            &gates,
            GateClass::Purge,
            |action| matches!(action, Action::Purge { agent, .. } if *agent == effect.agent),
        );
    }
    let Some(agent) = now(ledger.agent(&effect.agent)).unwrap() else {
        return Err("the ledger knows no such agent".to_owned());
    };
    obeyed(ledger, &agent)?;
    let gates = &agent.gates;
    match effect.kind {
        "makeRepo" if agent.record.life == AgentLife::Draft => Ok(()),
        // Nothing points at it.
        "commit" => Ok(()),
        "prepare" | "layDown" if agent.record.life == AgentLife::Draft => spawning(gates),
        "discard" | "deleteRepo" if matches!(agent.record.life, AgentLife::GivenUp { .. }) => Ok(()),
        "prepare" | "makeRepo" => begun(gates, GateClass::Spawn, |action| *action == Action::Spawn),
        "build" => begun(
            gates,
            GateClass::Build,
            |action| matches!(action, Action::Build { request, .. } if request.commit.to_string() == effect.detail),
        ),
        "archive" => match agent.record.archived_under() {
            Some(gate) => archive_ordered(ledger, gate),
            None => begun(gates, GateClass::Archive, |action| *action == Action::Archive),
        },
        "restore" if matches!(agent.record.life, AgentLife::Restoring { .. }) => Ok(()),
        "activate" => deployed(ledger, &agent, |system, _| system == effect.detail),
        "start" => deployed(ledger, &agent, |_, toplevel| toplevel == effect.detail),
        "limit" => limited(&agent, &effect.detail),
        "stop" => may_stop(ledger, &agent, &state.unit(&effect.agent)),
        "updateRef" => may_move(ledger, &agent, &effect.detail),
        _ => Err("nothing allows it".to_owned()),
    }
}

/// What a manager ordered is in force only under a gate that was approved for it, and used up.
fn obeyed(ledger: &Ledger, agent: &AgentLedger) -> Result<(), String> {
    let overridden = agent.overrides.run.as_ref().is_some_and(|run| run.over.is_some());
    let order = agent.record.order.as_deref();
    let done = order.is_some_and(|order| order.state == OrderState::Done);
    if !overridden && !done {
        return Ok(());
    }
    let asked = now(ledger.gates(true)).unwrap().complete().unwrap();
    let of_this = |gate: &&shared::gate::Gate| {
        gate.uid == Some(agent.record.uid) && gate.asked_by == Asker::Manager && gate.consumed_at.is_some()
    };
    let covers = |gate: &shared::gate::Gate| {
        let record = now(ledger.gate(gate.id)).unwrap().unwrap();
        let is_it = match &record.step.action {
            Action::Obey { number, verb, .. } if done => {
                order.is_some_and(|order| order.number == *number && order.verb == *verb)
            }
            Action::Obey { verb, .. } => verb.run().is_some(),
            _ => false,
        };
        is_it && approved(&record).is_ok()
    };
    if asked.iter().filter(of_this).any(covers) {
        Ok(())
    } else {
        Err("a manager's order is in force that nobody agreed to".to_owned())
    }
}

/// Whether this gate allowed a manager's order to archive, and was used up.
fn archive_ordered(ledger: &Ledger, gate: GateId) -> Result<(), String> {
    let record = now(ledger.gate(gate)).unwrap().unwrap();
    let is_it = matches!(
        record.step.action,
        Action::Obey {
            verb: Verb::Archive,
            ..
        }
    );
    if !is_it || record.gate.class != GateClass::Archive || record.gate.consumed_at.is_none() {
        return Err(format!("gate {gate} did not allow the archiving"));
    }
    approved(&record)
}

/// Whether a draft is becoming an agent. Its gate is of the stricter of two classes.
fn spawning(gates: &[GateRecord]) -> Result<(), String> {
    let is_spawn = |action: &Action| matches!(action, Action::SpawnDraft { .. });
    begun(gates, GateClass::Spawn, is_spawn).or_else(|_| begun(gates, GateClass::DeployWidens, is_spawn))
}

/// Whether a gate about this action is approved, used up and not complete.
fn begun(gates: &[GateRecord], class: GateClass, is_it: impl Fn(&Action) -> bool) -> Result<(), String> {
    let covers = |record: &&GateRecord| {
        let gate = &record.gate;
        gate.class == class
            && gate.state == GateState::Consumed
            && gate.completed_at.is_none()
            && is_it(&record.step.action)
    };
    let Some(record) = gates.iter().find(covers) else {
        return Err(format!("no gate of class {class} is used up for it"));
    };
    approved(record)
}

/// Whether somebody who may approved exactly what this gate asks for.
fn approved(record: &GateRecord) -> Result<(), String> {
    let gate = &record.gate;
    let Some(decision) = &gate.decision else {
        return Err(format!("gate {} was not decided", gate.id));
    };
    if !decision.approve || decision.digest != gate.digest {
        return Err(format!("gate {} was not approved as it is", gate.id));
    }
    if gate.class.always_asks() && decision.by.starts_with("policy:") {
        return Err(format!("a policy approved gate {}", gate.id));
    }
    Ok(())
}

/// Whether what is deployed is this, and was allowed.
fn deployed(ledger: &Ledger, agent: &AgentLedger, is_it: impl Fn(&str, &str) -> bool) -> Result<(), String> {
    let Some(deployed) = &agent.record.deployed else {
        return Err("nothing is deployed".to_owned());
    };
    if !is_it(&deployed.output.system, &deployed.output.toplevel.to_string()) {
        return Err("something else is deployed".to_owned());
    }
    allowed(ledger, deployed.gate, &deployed.output.system)
}

/// Whether an agent is held to what it was deployed with.
fn limited(agent: &AgentLedger, limits: &str) -> Result<(), String> {
    let deployed = agent.record.deployed.as_ref();
    let declared = deployed.map(|deployed| serde_json::to_string(&deployed.output.launch.limits).unwrap());
    if declared.as_deref() == Some(limits) {
        Ok(())
    } else {
        Err("these are not the limits of what is deployed".to_owned())
    }
}

fn allowed(ledger: &Ledger, gate: GateId, system: &str) -> Result<(), String> {
    let Some(record) = now(ledger.gate(gate)).unwrap() else {
        return Err(format!("there is no gate {gate} that allowed the deployment"));
    };
    let is_it = match &record.step.action {
        Action::Deploy { system: asked, .. } | Action::SpawnDraft { system: asked, .. } => asked == system,
        _ => false,
    };
    if !is_it || record.gate.state != GateState::Consumed || record.gate.completed_at.is_none() {
        return Err(format!("gate {gate} did not allow the deployment"));
    }
    approved(&record)
}

/// A container is stopped when its agent is not to run, or not like this.
fn may_stop(ledger: &Ledger, agent: &AgentLedger, unit: &UnitState) -> Result<(), String> {
    let record = &agent.record;
    let spec: Spec = match now(ledger.spec()).unwrap() {
        Some(stored) => serde_json::from_str(&stored.text).unwrap(),
        None => return Err("there was never a spec".to_owned()),
    };
    if matches!(record.life, AgentLife::Removed { .. }) {
        let all = now(ledger.gates(true)).unwrap().complete().unwrap();
        let by_a_person = |gate: &shared::gate::Gate| {
            let decision = gate.decision.as_ref();
            let person = decision.is_some_and(|d| d.approve && !d.by.starts_with("policy:"));
            gate.class == GateClass::MassRemoval && gate.consumed_at.is_some() && person
        };
        if spec.agents.is_empty() && !all.iter().any(by_a_person) {
            return Err("everybody is removed and nobody agreed".to_owned());
        }
        return Ok(());
    }
    let declared = spec.agents.get(&record.name);
    let UnitState::Running { toplevel, .. } = unit else {
        return Ok(());
    };
    let current = record.deployed.as_ref();
    let as_deployed = current.is_some_and(|deployed| deployed.output.toplevel == *toplevel);
    let quarantined = current.is_some_and(|d| agent.quarantine.contains_key(&d.output.system));
    let ordered = agent.overrides.run.is_some() || record.restart_before.is_some();
    let to_run = declared.is_none_or(|declared| declared.run == RunState::Running);
    if as_deployed && !quarantined && !ordered && to_run {
        return Err("it runs what is deployed, as it should".to_owned());
    }
    Ok(())
}

/// A ref shows what the ledger says, and nothing else.
fn may_move(ledger: &Ledger, agent: &AgentLedger, detail: &str) -> Result<(), String> {
    let record = &agent.record;
    if let Some(to) = detail.strip_prefix("main ") {
        if record.main().is_none_or(|main| main.to_string() != to) {
            return Err("main belongs elsewhere".to_owned());
        }
        return match &record.deployed {
            Some(deployed) => allowed(ledger, deployed.gate, &deployed.output.system),
            None => Ok(()),
        };
    }
    let Some((phase, number)) = detail.strip_prefix("tag ").and_then(|tag| tag.split_once('/')) else {
        return Ok(());
    };
    let proposal = agent
        .proposals
        .iter()
        .find(|proposal| proposal.number.to_string() == number);
    let reached = proposal.is_some_and(|proposal| {
        let marks = || proposal.marks.keys().map(|mark: &ProposalPhase| mark.as_str());
        phase == "building" || marks().any(|mark| mark == phase)
    });
    if reached {
        Ok(())
    } else {
        Err("the proposal did not come that far".to_owned())
    }
}
