//! Many containers: what it costs to look at all of them when there is nothing to do.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use super::row::Row;
use super::{guest, median};
use crate::hive::{DAEMON, Hive, declared};
use crate::scenarios::Then;
use crate::wait;

const AGENTS: usize = 200;
const ROUNDS: usize = 9;
/// Ticks of the processor's clock in a second, as `/proc` counts them.
const TICK_MS: f64 = 10.0;

pub(super) fn play(_boot: u32) -> Result<Then> {
    let system = guest::install()?;
    let fleet = |run: &str| -> Result<Value> {
        let agent = declared(json!({ "system": system, "run": run }))?;
        let agents = (0..AGENTS).map(|number| (format!("agent-{number}"), agent.clone()));
        Ok(Value::Object(agents.collect::<Map<_, _>>()))
    };
    let hive = Hive::install(&fleet("stopped")?)?;
    let stopped = passes(&hive, &fleet("stopped")?)?;
    hive.declare(&fleet("running")?)?;
    let running = passes(&hive, &fleet("running")?)?;
    ensure!(hive.bus.machines()?.len() == AGENTS, "not all containers run");
    Row::new("pass over containers with nothing to do", running.0, "ms")
        .of(AGENTS)
        .beside("the same hive with all of them stopped", stopped.0)
        .note("the daemon's time on a processor after a change of the policy that concerns nobody")
        .print()?;
    Row::new("the same: bytes to disk", running.1, "bytes")
        .of(AGENTS)
        .at_most(stopped.1)
        .beside("stopped", stopped.1)
        .note("what it writes is the spec that it accepted")
        .print()?;
    Ok(Then::Done)
}

/// Has the daemon look at everything; its time on a processor, in milliseconds, and the bytes it wrote, for each time.
fn passes(hive: &Hive, agents: &Value) -> Result<(f64, f64)> {
    let (mut times, mut bytes) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let verdict = if round % 2 == 0 { "ask" } else { "never" };
        settle(hive)?;
        let (before, wrote) = used(hive)?;
        hive.declare_with(agents, &json!({ "spec": { "mirrorDelete": verdict } }))?;
        settle(hive)?;
        let (after, written) = used(hive)?;
        // The first one converges.
        if round > 0 {
            times.push(after - before);
            bytes.push(written - wrote);
        }
    }
    Ok((median(&times)?, median(&bytes)?))
}

/// Waits until all agents are as declared and the daemon has used no processor between two looks.
fn settle(hive: &Hive) -> Result<()> {
    let calm = |status: &Value| {
        let agents = status["agents"].as_array().map_or(&[][..], Vec::as_slice);
        agents.len() == AGENTS
            && agents
                .iter()
                .all(|it| it["sync"]["value"] == "inSync" && it["activity"]["value"] == "idle")
    };
    wait::within(
        wait::LONG * 10,
        "the fleet is at rest",
        || hive.ask(["status"]),
        calm,
    )?;
    let mut last = used(hive)?.0;
    let still = |now: &f64| {
        let same = (*now - last).abs() < TICK_MS / 2.0;
        last = *now;
        same
    };
    // Ten looks, ten milliseconds apart, would be one tick.
    let mut in_a_row = 0;
    let mut still = still;
    wait::within(
        wait::LONG * 2,
        "the daemon does nothing",
        || Ok(used(hive)?.0),
        |now| {
            in_a_row = if still(now) { in_a_row + 1 } else { 0 };
            in_a_row > 50
        },
    )
    .map(drop)
}

/// The daemon's time on a processor so far, in milliseconds, and the bytes it wrote.
fn used(hive: &Hive) -> Result<(f64, f64)> {
    let pid = hive.bus.unit(DAEMON)?.pid;
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    };
    let stat = read("stat")?;
    // The fields after the program's name, which is in brackets: the 12th and 13th are user's and system's ticks.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |it| it.1)
        .split_whitespace()
        .collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("a stat has 52 fields")?.parse()?) };
    let io = read("io")?;
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    let written: f64 = written.context("io names write_bytes")?.trim().parse()?;
    Ok(((ticks(11)? + ticks(12)?) * TICK_MS, written))
}
