//! What passes between the daemon and a container: a death is seen, an order is carried out, an approval goes live.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::median;
use super::row::Row;
use crate::hive::{HIVE, Hive, declared, unit_of};
use crate::{program, wait};

const ROUNDS: usize = 7;
const SIGKILL: i32 = 9;

/// The live stream of events, as a program follows it.
struct Stream {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Stream {
    fn open() -> Result<Self> {
        let mut child = Command::new(HIVE)
            .args(["--json", "events", "--follow"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("following events")?;
        let output = child.stdout.take().context("its output")?;
        Ok(Self {
            child,
            lines: BufReader::new(output).lines(),
        })
    }

    /// Reads until an event of this kind about this agent, later than this one; when it came, in milliseconds of the clock.
    fn until(&mut self, kind: &str, agent: &str, after: u64) -> Result<f64> {
        loop {
            let line = self.lines.next().context("the stream of events ended")??;
            let event: Value = serde_json::from_str(&line).with_context(|| format!("reading {line}"))?;
            let is_later = event["seq"].as_u64().is_some_and(|seq| seq > after);
            if is_later && event["kind"] == kind && event["agent"] == agent {
                return Ok(now());
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // It may have ended with its daemon.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The latest event so far.
fn latest(hive: &Hive) -> Result<u64> {
    let events = hive.events()?;
    let seq = events.last().and_then(|event| event["seq"].as_u64());
    seq.context("there are events")
}

/// From the death of a container to the event that tells of it.
pub(super) fn death(hive: &Hive, agent: &str) -> Result<()> {
    let unit = unit_of(agent);
    let (mut told, mut known) = (Vec::new(), Vec::new());
    let mut stream = Stream::open()?;
    for _ in 0..ROUNDS {
        let before = wait::until(
            "the agent runs",
            || hive.bus.unit(&unit),
            |it| it.active == "active",
        )?;
        let last = latest(hive)?;
        let killed = now();
        hive.bus.kill(&unit, "main", SIGKILL)?;
        told.push(stream.until("ended", agent, last)? - killed);
        known.push(hive.bus.times(&unit)?.inactive_enter - killed);
        program::run(HIVE, ["retry", agent])?;
        hive.runs_again(agent, &before)?;
    }
    Row::new("death of a container to visible event", median(&told)?, "ms")
        .beside("until systemd is done with the unit", median(&known)?)
        .at_most(100.0)
        .note("SIGKILL to systemd-nspawn; the event as a line of `hive events --follow`")
        .print()
}

/// What is ours in a start: from the order to systemd's beginning.
pub(super) fn by_the_operator(hive: &Hive, agent: &str) -> Result<()> {
    let unit = unit_of(agent);
    hive.rests(&[agent])?;
    let mut ordered = Vec::new();
    for _ in 0..ROUNDS {
        program::run(HIVE, ["stop", agent])?;
        wait::until(
            "the agent is stopped",
            || hive.bus.unit(&unit),
            |it| it.active == "inactive",
        )?;
        let begin = now();
        program::run(HIVE, ["start", agent])?;
        wait::until(
            "the agent runs",
            || hive.bus.unit(&unit),
            |it| it.active == "active",
        )?;
        ordered.push(hive.bus.times(&unit)?.inactive_exit - begin);
    }
    let mut nothing = Vec::new();
    for _ in 0..ROUNDS {
        let begin = now();
        program::run(HIVE, ["gate", "list"])?;
        nothing.push(now() - begin);
    }
    Row::new("order to start: until systemd begins", median(&ordered)?, "ms")
        .beside("a command that leads to nothing", median(&nothing)?)
        .note("`hive start`, with the start of that program itself")
        .print()
}

/// From the operator's decision to the end of the trial.
pub(super) fn approvals(hive: &Hive, agent: &str) -> Result<()> {
    let spec = |more: Value| -> Result<Value> {
        let mut all = json!({ "system": super::guest::SYSTEM });
        if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
            all.extend(more);
        }
        Ok(json!({ agent: declared(all)? }))
    };
    let policy = json!({ "spec": { "deployWithin": "ask", "deployWidens": "ask" } });
    let mut stream = Stream::open()?;
    let (mut reloads, mut restarts) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        hive.declare_with(&spec(json!({ "prompt": format!("round {round}") }))?, &policy)?;
        reloads.push(approve(hive, agent, &mut stream)?);
        let limits = json!({ "tasks": 200 + round });
        hive.declare_with(
            &spec(json!({ "prompt": format!("round {round}"), "limits": limits }))?,
            &policy,
        )?;
        restarts.push(approve(hive, agent, &mut stream)?);
    }
    Row::new(
        "approve to new config live, container goes on",
        median(&reloads)?,
        "ms",
    )
    .at_most(500.0)
    .note("`hive gate approve` until the harness has loaded the config and reports it")
    .print()?;
    Row::new(
        "approve to new system live, container restarts",
        median(&restarts)?,
        "ms",
    )
    .at_most(500.0)
    .note("the same with other limits: stop, start, first report")
    .print()
}

fn approve(hive: &Hive, agent: &str, stream: &mut Stream) -> Result<f64> {
    // A build's gate, which the policy decides about, is there for a moment before it.
    let deployment = |gates: &Value| {
        let mut gates = gates.as_array()?.iter();
        gates.find(|gate| {
            gate["class"]
                .as_str()
                .is_some_and(|class| class.starts_with("deploy"))
        })?["id"]
            .as_u64()
    };
    let gates = hive.until("a gate is open", ["gate", "list"], |gates| {
        deployment(gates).is_some()
    })?;
    let number = deployment(&gates).context("a gate has a number")?.to_string();
    let last = latest(hive)?;
    let begin = now();
    program::run(HIVE, ["gate", "approve", &number])?;
    Ok(stream.until("passedProbation", agent, last)? - begin)
}

/// Milliseconds of the clock that systemd's notes are in.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64() * 1e3
}
