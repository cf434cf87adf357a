//! Measures the budgets of `docs/benchmarks.md` and prints one JSON object a line; `cargo xtask bench` makes a table of it.
//!
//! Each number stands beside an anchor: the raw cost of what cannot be avoided, measured by the same program in the
//! same run, turn and turn about. So a ratio means the same on a busy machine and on a fast one. What the daemon
//! writes and starts is counted by the kernel.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it starts the real programs, prints what it measured, and says on standard error what it does"
)]

mod change;
mod egress;
mod hive;
mod http;
mod idle;
mod kernel;
mod live;
mod memory;
mod messages;
mod pass;
mod planning;
mod raw;
mod rivals;
mod row;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Effort {
    quick: bool,
}

impl Effort {
    /// Hives of these sizes.
    fn sizes(self) -> &'static [usize] {
        if self.quick { &[10, 100] } else { &[10, 100, 1000] }
    }

    /// One or the other.
    fn choose<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Measures the budgets of hyperhive
#[derive(Debug, Parser)]
struct Arguments {
    /// A short run: smaller hives, fewer rounds
    #[arg(long)]
    quick: bool,
    /// Only these: egress, hive, idle, live, messages, memory
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

type Group = fn(Effort) -> Result<()>;

const GROUPS: [(&str, Group); 6] = [
    ("messages", messages::measure),
    ("live", live::measure),
    ("egress", egress::measure),
    ("idle", idle::measure),
    ("hive", measure_hives),
    ("memory", memory::measure),
];

fn main() -> ExitCode {
    let Arguments {
        quick,
        groups,
        bench: _,
    } = Arguments::parse();
    let mut failed = false;
    for (name, measure) in GROUPS {
        if !groups.is_empty() && !groups.iter().any(|wanted| wanted == name) {
            continue;
        }
        eprintln!("measuring {name}");
        if let Err(error) = measure(Effort { quick }) {
            eprintln!("error: {name}: {error:#}");
            failed = true;
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Everything that depends on the number of agents, in hives of each size.
fn measure_hives(effort: Effort) -> Result<()> {
    for &agents in effort.sizes() {
        let mut hive = hive::Hive::converged(agents, agents.min(8)).context("making the hive")?;
        change::measure(&hive, effort)?;
        idle::measure_size(&mut hive, effort)?;
        hive.end()?;
        pass::measure(&hive, effort)?;
        planning::measure(&hive, effort)?;
    }
    Ok(())
}
