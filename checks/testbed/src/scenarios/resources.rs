//! What agents are held to, and what becomes of one that meets it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Then;
use crate::agent::Agent;
use crate::bus::Bus;
use crate::hive::{self, Hive};
use crate::{program, wait};

/// Memory, processor and tasks as systemd has them.
type Held = (u64, u64, u64);

/// As declared in these scenarios.
const DECLARED: Held = (192 << 20, 1_500_000, 90);

/// A program that fills twice the memory that is declared.
const GREEDY: &str = "dd if=/dev/zero of=/dev/null bs=384M count=1 status=none";

fn limited() -> Result<serde_json::Value> {
    hive::declared(json!({ "limits": { "memory": "192M", "tasks": 90, "cpu": "150%" } }))
}

fn held(bus: &Bus, unit: &str) -> Result<Held> {
    Ok((
        bus.service_property(unit, "MemoryMax")?,
        bus.service_property(unit, "CPUQuotaPerSecUSec")?,
        bus.service_property(unit, "TasksMax")?,
    ))
}

/// Limits that are changed by hand are named and put back, and the agent runs on: while the daemon is there, while it is not,
/// and when systemd reads them from files of its own again.
pub(crate) fn changed(_boot: u32) -> Result<Then> {
    let hive = Hive::install(&json!({ "alice": limited()? }))?;
    hive.rests(&["alice"])?;
    let unit = hive::unit_of("alice");
    let before = hive.bus.unit(&unit)?;
    let are_back = || {
        wait::until(
            "the limits are back",
            || held(&hive.bus, &unit),
            |it| *it == DECLARED,
        )
    };
    let set = |words: &[&str]| {
        let words = ["set-property"].iter().chain(words).copied();
        program::run("systemctl", words).map(drop)
    };

    set(&["--runtime", &unit, "MemoryMax=300M"])?;
    are_back()?;
    hive.tells("memory is 300M and not 192M")?;
    set(&["--runtime", &unit, "CPUQuota=", "TasksMax=infinity"])?;
    are_back()?;
    hive.tells("cpu is unlimited and not 150%, tasks is unlimited and not 90")?;
    hive.rests(&["alice"])?;

    hive.bus.stop(hive::DAEMON)?;
    wait::until(
        "the daemon is gone",
        || hive.bus.unit(hive::DAEMON),
        |it| it.active == "inactive",
    )?;
    set(&["--runtime", &unit, "MemoryMax=100M"])?;
    hive.start()?;
    are_back()?;
    hive.tells("memory is 100M and not 192M")?;

    // What is set for good comes back whenever systemd reads its files.
    set(&[&unit, "TasksMax=77"])?;
    are_back()?;
    hive.bus.reload()?;
    are_back()?;
    hive.rests(&["alice"])?;
    let after = hive.bus.unit(&unit)?;
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(Then::Done)
}

/// The kernel kills who wants too much: the agent goes on and it is told of, once; and the guest, when it is PID 1 that is
/// killed, has run out of memory.
pub(crate) fn out_of_memory(_boot: u32) -> Result<Then> {
    let hive = Hive::install(&json!({ "alice": limited()? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let before = hive.bus.unit(&alice.unit)?;
    let told = || -> Result<usize> {
        let events = hive.events()?;
        Ok(events.iter().filter(|it| it["kind"] == "outOfMemory").count())
    };

    alice.cannot("agent", GREEDY)?;
    // Whatever makes the daemon look.
    program::run(hive::HIVE, ["send", "alice", "hello"])?;
    hive.tells("the kernel killed a process of alice for want of memory (1 so far in this run; limits.memory is 192M)")?;
    hive.tells("hello yourself")?;
    hive.rests(&["alice"])?;
    let after = hive.bus.unit(&alice.unit)?;
    ensure!(before == after, "{before:?} became {after:?}");
    hive.until("status says so", ["status", "alice"], |it| {
        it.to_string().contains("for want of memory once in this run")
    })?;

    hive.kill()?;
    hive.rests(&["alice"])?;
    ensure!(told()? == 1, "it was told {} times", told()?);

    kill_the_guest(&hive, &alice)?;
    hive.tells("alice ran out of memory (time 1 in a row)")?;
    hive.runs_again("alice", &before)?;
    hive.rests(&["alice"])?;
    Ok(Then::Done)
}

/// Has the kernel kill PID 1 of a guest for want of memory that somebody else takes.
fn kill_the_guest(hive: &Hive, agent: &Agent) -> Result<()> {
    let waiting = format!("until test -e /state/go; do sleep 0.1; done; {GREEDY}");
    let words = [
        "--machine",
        &agent.machine,
        "--quiet",
        "--uid=agent",
        "--",
        "/bin/sh",
        "-c",
        &waiting,
    ];
    program::run("systemd-run", words)?;
    // What it starts from now on would be as likely to be killed, and larger.
    let score = format!("/proc/{}/oom_score_adj", agent.leader(&hive.bus)?);
    fs::write(&score, "1000").with_context(|| format!("writing {score}"))?;
    let go = agent.state.join("go");
    fs::write(&go, "").with_context(|| format!("making {go}"))
}

/// The same where cgroups are of the second version: limits, their changes and kills are the kernel's word, and a kill is told
/// of at once, without anything else that happens.
pub(crate) fn v2(_boot: u32) -> Result<Then> {
    let hive = Hive::install(&json!({ "alice": limited()? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let before = hive.bus.unit(&alice.unit)?;
    let folder = format!("/sys/fs/cgroup{}", before.cgroup);
    let read = |name: &str| {
        let path = format!("{folder}/{name}");
        fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    };
    let is = |name: &str, text: &str| -> Result<()> {
        let found = read(name)?;
        ensure!(found.trim() == text, "{name} is {found}");
        Ok(())
    };
    let memory = DECLARED.0.to_string();
    for (name, text) in [
        ("memory.max", memory.as_str()),
        ("cpu.max", "150000 100000"),
        ("pids.max", "90"),
    ] {
        is(name, text)?;
    }
    let used = read("cpu.stat")?;
    let used = used.split_whitespace().nth(1).context("cpu.stat")?;
    ensure!(used.parse::<u64>()? > 0, "no processor time is counted: {used}");

    program::run(
        "systemctl",
        ["set-property", "--runtime", &alice.unit, "MemoryMax=300M"],
    )?;
    hive.tells("memory is 300M and not 192M")?;
    is("memory.max", &memory)?;

    alice.cannot("agent", GREEDY)?;
    ensure!(
        read("memory.events")?.contains("oom_kill 1\n"),
        "{}",
        read("memory.events")?
    );
    hive.tells("the kernel killed a process of alice for want of memory (1 so far in this run")?;
    let after = hive.bus.unit(&alice.unit)?;
    ensure!(before == after, "{before:?} became {after:?}");

    kill_the_guest(&hive, &alice)?;
    hive.tells("alice ran out of memory (time 1 in a row)")?;
    Ok(Then::Done)
}
