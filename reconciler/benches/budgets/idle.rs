//! A hive that has nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Effort;
use super::hive::{Hive, name, pause};
use super::kernel::{Deeds, resident};
use super::row::{Budget, Row, number};

/// Agents of the idle hive.
const AGENTS: usize = 50;

/// The memory of the daemon after it has made and converged a hive of this size, and after a restart.
pub(crate) fn measure_size(hive: &mut Hive, effort: Effort) -> Result<()> {
    let count = hive.status()?.agents.len();
    let rest = Duration::from_secs(effort.choose(15, 3));
    pause(rest);
    let after_work = resident(hive.pid()?)?;
    hive.end()?;
    hive.start()?;
    hive.until_converged(count)?;
    pause(rest);
    let after_start = resident(hive.pid()?)?;
    Row::new("memory of the idle daemon", after_work.max(after_start), "MB")
        .of(count)
        .within(Budget::AtMost(60.0))
        .note(format!(
            "VmRSS; {after_work:.1} after converging all from nothing and changing some, {after_start:.1} after a restart"
        ))
        .print()
}

pub(crate) fn measure(effort: Effort) -> Result<()> {
    let hive = Hive::converged(AGENTS, AGENTS)?;
    let daemon = hive.pid()?;
    let mut harnesses = Vec::new();
    let mut all = vec![daemon];
    for number in 0..AGENTS {
        let processes = hive.processes(&name(number))?;
        harnesses.extend(processes.last());
        all.extend(processes);
    }
    let window = Duration::from_secs(effort.choose(60, 10));
    let deeds = || all.iter().map(|pid| Deeds::of(*pid)).collect::<Result<Vec<_>>>();
    let before = deeds()?;
    let started = Instant::now();
    pause(window);
    let after = deeds().context("a process of the idle hive has ended")?;
    let window = started.elapsed();
    let pairs = || after.iter().zip(&before);
    let to_disk: u64 = pairs()
        .map(|(after, before)| after.to_disk - before.to_disk)
        .sum();
    let cpu: Duration = pairs().map(|(after, before)| after.on_cpu(before)).sum();
    let seconds = window.as_secs();
    let processes = all.len();
    Row::new("idle hive: bytes to disk", number(to_disk), "B")
        .of(AGENTS)
        .within(Budget::AtMost(0.0))
        .note(format!(
            "write_bytes of the daemon, sandboxes and harnesses, {processes} processes, over {seconds} s"
        ))
        .print()?;
    Row::new(
        "idle hive: processor",
        cpu.as_secs_f64() / window.as_secs_f64() * 100.0,
        "%",
    )
    .of(AGENTS)
    .within(Budget::AtMost(0.5))
    .note(format!(
        "of one core, the same processes, over {seconds} s; the kernel counts in steps of 10 ms"
    ))
    .print()?;
    let mut largest: f64 = 0.0;
    for pid in harnesses {
        largest = largest.max(resident(pid)?);
    }
    Row::new("memory of an idle harness", largest, "MB")
        .within(Budget::AtMost(12.0))
        .note(format!("VmRSS, the largest of {AGENTS}"))
        .print()
}
