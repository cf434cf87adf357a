//! From a changed spec to the first step.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::Effort;
use super::hive::{Hive, agent, agents, name, spec as text};
use super::row::{Budget, Row, median, ms, spread};

/// The last agent changes, so that all others come before it if nothing is done about it.
pub(crate) fn measure(hive: &Hive, effort: Effort) -> Result<()> {
    let count = hive.status()?.agents.len();
    let changed = name(count - 1);
    let (mut steps, mut parses) = (Vec::new(), Vec::new());
    for round in 0..effort.choose(7, 3) {
        let mut declared = agents(count, count.min(8));
        declared.insert(
            changed.clone(),
            agent(
                if count > 8 { "stopped" } else { "running" },
                &format!("Prompt {round}."),
            ),
        );
        let mut events = hive.events()?;
        hive.write_spec(&text(&declared))?;
        // The file is in place once it is written, and no sooner than that has anyone seen it.
        let started = Instant::now();
        events.until(|event| {
            event
                .agent
                .as_ref()
                .is_some_and(|agent| agent.as_str() == changed)
        })?;
        steps.push(started.elapsed());
        let started = Instant::now();
        let file = std::fs::read(&hive.spec_path)?;
        reconciler::spec::parse(&file).spec.context("a good spec")?;
        parses.push(started.elapsed());
        hive.until_converged(count)?;
    }
    let (p50, p90) = spread(&steps);
    Row::new("spec change to first step", ms(p50), "ms")
        .of(count)
        .beside("read and parse the file", ms(median(&parses)))
        .within(Budget::AtMost(100.0))
        .note(format!(
            "{} changes, each to one agent, the last; from the file's replacement to the event of the first step; p90 {:.1} ms",
            steps.len(),
            ms(p90)
        ))
        .print()
}
