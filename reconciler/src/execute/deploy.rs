//! Deploying: one ledger transaction. `main`, tags, folders and the process follow from it.
//!
//! Everything the step expected is checked here, under the agent's lock, right before that transaction. If anything
//! moved, nothing is executed and nothing recomputed: the gate is withdrawn and both sides are told.

use jiff::Timestamp;
use serde_json::json;
use shared::agent_api::ProposalPhase;
use shared::event::Level;
use shared::topic::Topic;
use shared::{GateId, ProposalNumber};

use super::{Effect, event, told};
use crate::host::{Host, HostError};
use crate::model::build::BuildOutput;
use crate::model::change::Change;
use crate::model::records::{AgentLedger, BuildState, Deployed, Mark, Probation};
use crate::model::step::Action;
use crate::plan::schedule::Ready;

/// How long a deployment may take to become healthy, in seconds of active time.
pub const PROBATION_SECS: u32 = 60;

pub(super) async fn carry_out(
    host: &Host,
    agent: &AgentLedger,
    ready: &Ready,
    action: &Action,
) -> Result<Effect, HostError> {
    let Action::Deploy {
        build,
        system,
        from,
        commit,
        main,
        proposal,
        grants,
        watched,
        interrupts: _,
    } = action
    else {
        return Ok(Effect::Gone("it is no deployment".to_owned()));
    };
    let record = &agent.record;
    let Some(gate) = ready.gate else {
        return Ok(Effect::Gone("no gate allows it".to_owned()));
    };
    if record.deployed.as_ref().map(|d| &d.output.system) != from.as_ref() {
        return Ok(Effect::Gone("another system was deployed meanwhile".to_owned()));
    }
    if record.main() != Some(main) || !host.repos.is_ancestor(&record.name, main, commit).await? {
        return Ok(Effect::Gone("main moved meanwhile".to_owned()));
    }
    let output = match agent.builds.get(build) {
        Some(BuildState::Built(output)) if output.system == *system && output.grants == *grants => output,
        _ => {
            return Ok(Effect::Gone(
                "the approved system is not the one that was built".to_owned(),
            ));
        }
    };
    let present = host.builder.present(std::slice::from_ref(system)).await?;
    if present.get(system) != Some(&true) {
        return Err(HostError::failed(
            system.clone(),
            "the approved system is gone; it will be built again",
        ));
    }
    let now = host.clock.now();
    let deployed = Deployed {
        output: (**output).clone(),
        proposal: proposal
            .unwrap_or_else(|| record.deployed.as_ref().map_or(ProposalNumber(0), |d| d.proposal)),
        gate,
        at: now,
    };
    let probation = Probation {
        system: system.clone(),
        since: now,
        window_secs: PROBATION_SECS,
        active_secs: 0,
        active_since: None,
        failed_starts: 0,
        watched: watched.clone(),
        gate,
        proposal: *proposal,
        updates_base: ready.planned.step.updates_base(),
    };
    Ok(Effect::Done(changes(
        agent, deployed, probation, output, gate, now,
    )))
}

fn changes(
    agent: &AgentLedger,
    deployed: Deployed,
    probation: Probation,
    output: &BuildOutput,
    gate: GateId,
    now: Timestamp,
) -> Vec<Change> {
    let record = &agent.record;
    let (uid, name) = (record.uid, &record.name);
    let proposal = probation.proposal;
    let mut changes = vec![
        Change::Deployed {
            uid,
            deployed: Some(Box::new(deployed)),
        },
        Change::Probation {
            uid,
            probation: Some(probation),
        },
    ];
    let short = crate::plan::view::short_system(&output.system);
    let message = match proposal {
        Some(number) => format!("proposal {number} of {name} is deployed (system {short}, gate {gate})"),
        None => format!("{name} is deployed as the spec says (system {short})"),
    };
    changes.push(Change::Event {
        agent: Some(name.clone()),
        level: Level::Info,
        kind: "deployed",
        message: message.clone(),
        data: json!({ "system": output.system, "commit": output.commit, "gate": gate, "proposal": proposal }),
        at: now,
    });
    if let Some(number) = proposal {
        let decision = agent
            .gates
            .iter()
            .find(|r| r.gate.id == gate)
            .and_then(|r| r.gate.decision.clone());
        let mark = Mark {
            at: now,
            gate: Some(gate),
            digest: decision.as_ref().map(|d| d.digest.clone()),
            by: decision.as_ref().map(|d| d.by.clone()),
            reason: decision.map(|d| d.reason).unwrap_or_default(),
        };
        changes.push(Change::Phase {
            uid,
            number,
            phase: ProposalPhase::Deployed,
            mark,
        });
        changes.extend(told(
            agent,
            Topic::Deployed,
            &message,
            &format!("proposal:{number}:deployed"),
            now,
        ));
    }
    changes
}

/// The changes that stop an agent that must not go back: a narrowed one, or a spawned one whose first system failed.
/// What is deployed stays what was agreed to.
pub(super) fn halt(agent: &AgentLedger, failed: &str, reason: &str, now: Timestamp) -> Vec<Change> {
    let (uid, name) = (agent.record.uid, &agent.record.name);
    let short = crate::plan::view::short_system(failed);
    let why = if agent.record.last_good.is_some() {
        "the one before may do more than the spec allows"
    } else {
        "there is none before it"
    };
    let message =
        format!("{name}: system {short} failed its probation: {reason}; {why}, so {name} is stopped");
    let quarantine = crate::model::records::Quarantine {
        reason: reason.to_owned(),
        since: now,
    };
    let mut changes = vec![
        Change::Probation { uid, probation: None },
        Change::Quarantine {
            uid,
            system: failed.to_owned(),
            quarantine,
        },
        event(name, Level::Alert, "halted", message.clone(), now),
    ];
    changes.extend(told(
        agent,
        Topic::Halted,
        &message,
        &format!("halted:{failed}"),
        now,
    ));
    changes
}

/// The changes that go back to the last good system.
pub(super) fn revert(agent: &AgentLedger, failed: &str, reason: &str, now: Timestamp) -> Vec<Change> {
    let record = &agent.record;
    let (uid, name) = (record.uid, &record.name);
    let short = crate::plan::view::short_system(failed);
    let outcome = match &record.last_good {
        Some(good) => {
            format!(
                "{name} goes back to system {}",
                crate::plan::view::short_system(&good.output.system)
            )
        }
        None => format!("{name} has no earlier system and is stopped"),
    };
    let message = format!("{name}: system {short} failed its probation: {reason}; {outcome}");
    let quarantine = crate::model::records::Quarantine {
        reason: reason.to_owned(),
        since: now,
    };
    let mut changes = vec![
        Change::Deployed {
            uid,
            deployed: record.last_good.clone().map(Box::new),
        },
        Change::Probation { uid, probation: None },
        Change::Quarantine {
            uid,
            system: failed.to_owned(),
            quarantine,
        },
        event(name, Level::Alert, "reverted", message.clone(), now),
    ];
    changes.extend(told(
        agent,
        Topic::Reverted,
        &message,
        &format!("reverted:{failed}"),
        now,
    ));
    if let Some(number) = agent.probation.as_ref().and_then(|trial| trial.proposal) {
        let mark = super::plain_mark(now, &format!("failed its probation: {reason}"));
        changes.push(Change::Phase {
            uid,
            number,
            phase: ProposalPhase::Failed,
            mark,
        });
    }
    changes
}
