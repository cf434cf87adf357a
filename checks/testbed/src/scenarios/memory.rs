//! No memory left in an agent's container.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Then;
use crate::hive::{self, Hive};
use crate::{program, wait};

/// What the container may have; whoever is greedy takes twice as much.
const MEMORY: &str = "192M";
const GREEDY: &str = "head -c 400000000 /dev/zero | tail -n 1 | wc -c";

/// The kernel kills the harness in mid-turn: the guest starts it again, and its message is delivered again. It kills the
/// guest's own process 1: the daemon starts the agent again, and waits longer each time.
pub(crate) fn play(_boot: u32) -> Result<Then> {
    let hive = Hive::install(&json!({ "alice": hive::declared(json!({
        "limits": { "memory": MEMORY },
        "driver": { "kind": "scripted", "script": [
            { "on": "work", "do": [{ "sleep": 4000 }, { "send": { "to": "operator", "body": "worked" } }] },
        ] },
    }))? }))?;
    hive.rests(&["alice"])?;
    let alice = hive.agent("alice")?;
    let before = hive.bus.unit(&alice.unit)?;

    program::run(hive::HIVE, ["send", "alice", "work"])?;
    let turns = || {
        let journal = program::run("journalctl", ["-u", &alice.unit, "--output=cat", "--no-pager"])?;
        Ok(journal.matches("turn started").count())
    };
    wait::until("alice is at work", turns, |it| *it == 1)?;
    alice.run(
        "root",
        "echo 1000 > /proc/$(systemctl show --value -p MainPID hive-harness)/oom_score_adj",
    )?;
    let killed = alice.killed_for_memory(&hive.bus)?;
    drop(alice.run("agent", GREEDY));
    ensure!(
        alice.killed_for_memory(&hive.bus)? >= killed + 2,
        "the kernel killed nobody"
    );
    wait::until("alice is at work again", turns, |it| *it == 2)?;
    hive.tells("worked")?;
    let restarts = [
        "-M",
        &alice.machine,
        "show",
        "--value",
        "-p",
        "NRestarts",
        "hive-harness.service",
    ];
    ensure!(
        program::run("systemctl", restarts)?.trim() == "1",
        "the harness was started again once"
    );
    ensure!(hive.bus.unit(&alice.unit)? == before, "the container goes on");

    for (time, wait) in [(1, 1), (2, 2), (3, 4)] {
        let before = hive.bus.unit(&alice.unit)?;
        wait::until("it can be entered", || alice.run("agent", "true"), |_| true)?;
        alice.dies_of(&hive.bus, GREEDY)?;
        hive.tells(&format!("(time {time} in a row)"))?;
        if time == 3 {
            // Long enough to be met.
            hive.until("the wait is named", ["status", "alice"], |it| {
                waits_after(it, time)
            })?;
        }
        hive.runs_again("alice", &before)?;
        let rested = hive.bus.rested(&alice.unit)?;
        ensure!(
            rested >= Duration::from_secs(wait) && rested < Duration::from_secs(2 * wait + 3),
            "after end {time} it was started again in {rested:?}"
        );
    }
    ensure!(
        hive.bus.unit(&alice.unit)?.restarts == 0,
        "systemd starts nobody by itself"
    );
    ensure!(hive.starts("alice")? == 4);
    program::any(hive::HIVE, ["retry", "alice"])?;
    hive.rests(&["alice"])?;
    Ok(Then::Done)
}

/// Whether the status of an agent says that it waits after so many tries.
fn waits_after(status: &Value, attempts: u64) -> bool {
    let waits = status["waiting"].as_array().map_or(&[][..], Vec::as_slice);
    waits.iter().any(|it| it["on"]["attempts"] == attempts)
}
