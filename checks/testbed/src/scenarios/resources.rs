//! What agents are held to, and what becomes of one that meets it.

use anyhow::{Result, ensure};
use serde_json::json;

use super::Then;
use crate::bus::Bus;
use crate::hive::{self, Hive};
use crate::{program, wait};

/// Memory, processor and tasks as systemd has them.
type Held = (u64, u64, u64);

/// As declared in these scenarios.
const DECLARED: Held = (192 << 20, 1_500_000, 90);

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
