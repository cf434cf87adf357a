//! One agent that runs: its death, and a change to its config.

use std::time::Instant;

use anyhow::Result;
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::{Map, Value, json};
use shared::gate::{Gate, GateState};

use super::Effort;
use super::hive::{Hive, handle, name, until};
use super::raw::{Commits, death};
use super::row::{Budget, Row, median, ms, spread};

pub(crate) fn measure(effort: Effort) -> Result<()> {
    deaths(effort.choose(10, 4))?;
    approvals(effort.choose(10, 3))
}

fn deaths(count: usize) -> Result<()> {
    let hive = Hive::converged(count, count)?;
    let (mut seen, mut raw) = (Vec::new(), Vec::new());
    for number in 0..count {
        let dies = name(number);
        let processes = hive.processes(&dies)?;
        let handles = processes
            .iter()
            .map(|pid| handle(*pid))
            .collect::<Result<Vec<_>>>()?;
        let mut events = hive.events()?;
        let started = Instant::now();
        for handle in &handles {
            pidfd_send_signal(handle, Signal::KILL)?;
        }
        events.until(|event| {
            event.kind == "ended" && event.agent.as_ref().is_some_and(|a| a.as_str() == dies)
        })?;
        seen.push(started.elapsed());
        raw.push(death()?);
    }
    let (p50, p90) = spread(&seen);
    Row::new("death of an agent to visible event", ms(p50), "ms")
        .beside("a pidfd of a killed child", ms(median(&raw)))
        .within(Budget::AtMost(100.0))
        .note(format!(
            "{count} agents, SIGKILL to the event on a live stream; p90 {:.1} ms",
            ms(p90)
        ))
        .print()
}

/// An agent that offers another prompt whenever it is told to.
pub(crate) fn proposer(rounds: usize) -> Value {
    let rule = |round: usize| {
        let title = format!("Change {round}");
        let set = json!({ "prompt": format!("You look after part {round}.") });
        json!({ "on": format!("propose {round}!"), "do": [ { "propose": { "title": title, "reason": "Asked to.", "set": set } } ] })
    };
    let rules: Vec<Value> = (0..rounds).map(rule).collect();
    json!({ "prompt": "You look after it all.", "driver": { "kind": "scripted", "script": rules } })
}

/// Has the agent propose, and waits for the gate.
pub(crate) fn proposed(hive: &Hive, agent: &str, round: usize) -> Result<Gate> {
    let path = format!("/v1/agents/{agent}/messages");
    let _sent: Value = hive
        .admin()?
        .post(&path, &json!({ "body": format!("propose {round}!") }))?;
    until("a gate", || {
        let gates: Vec<Gate> = hive.admin()?.get("/v1/gates")?;
        Ok(gates.into_iter().find(|gate| gate.state == GateState::Open))
    })
}

/// Approves, and waits until the harness has taken the config up and the trial is passed.
pub(crate) fn approved(hive: &Hive, gate: &Gate) -> Result<()> {
    let mut events = hive.events()?;
    let path = format!("/v1/gates/{}/decision", gate.id);
    let _gate: Gate = hive.admin()?.post(
        &path,
        &json!({ "approve": true, "digest": gate.digest, "reason": "" }),
    )?;
    events.until(|event| event.kind == "passedProbation")?;
    Ok(())
}

fn approvals(rounds: usize) -> Result<()> {
    let agents: Map<String, Value> = [(name(0), proposer(rounds))].into_iter().collect();
    let hive = Hive::serving(agents)?;
    hive.until_converged(1)?;
    let commits = Commits::beside(&hive.layout.ledger())?;
    let (mut times, mut raw) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let gate = proposed(&hive, &name(0), round)?;
        raw.push(commits.one()?);
        let started = Instant::now();
        approved(&hive, &gate)?;
        times.push(started.elapsed());
    }
    let (p50, p90) = spread(&times);
    Row::new("approve to new config live", ms(p50), "ms")
        .beside("one FULL commit", ms(median(&raw)))
        .within(Budget::AtMost(300.0))
        .note(format!(
            "{rounds} proposals, built before they are approved; until the harness has loaded the config and the trial \
             is passed; p90 {:.1} ms",
            ms(p90)
        ))
        .print()
}
