//! Scenarios on a real systemd. `cargo xtask vm` boots a throw-away host (a nest) for each and this program plays it
//! there, as root.
//!
//! What is asserted is what others say: systemd and machined over D-Bus, the journal, git, the kernel. What the daemon
//! says of itself is only waited on.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "plays tests: it prints, starts programs and writes files of a host that is thrown away"
)]

mod agent;
mod bench;
mod bus;
mod guest;
mod hive;
mod nix;
mod program;
mod proposal;
mod scenarios;
mod wait;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

/// What passes between outside and inside.
const FOLDER: &str = "/t";

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("list") => {
            for scenario in scenarios::ALL {
                println!("{}\t{}", scenario.name, scenario.summary);
            }
            return ExitCode::SUCCESS;
        }
        Some("play") => play(),
        Some("init") => bench::init(),
        _ => {
            println!("usage: testbed list|play; `cargo xtask vm` calls it");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Plays what `/t/scenario` names, and ends the nest unless it is to stay.
fn play() -> Result<()> {
    let read = |name: &str| {
        fs::read_to_string(format!("{FOLDER}/{name}")).with_context(|| format!("reading {FOLDER}/{name}"))
    };
    let name = read("scenario")?;
    let boot = read("boot")?.trim().parse().context("counting boots")?;
    let mut all = scenarios::ALL.iter().chain(bench::ALL);
    let Some(scenario) = all.find(|it| it.name == name) else {
        bail!("no scenario is called {name}");
    };
    println!("{name}, boot {boot}");
    let outcome = (scenario.play)(boot);
    if let Ok(scenarios::Then::Reboot) = outcome {
        program::run("systemctl", ["--force", "reboot"])?;
        return Ok(());
    }
    let passed = outcome.is_ok();
    match outcome {
        Ok(_) => println!("passed"),
        Err(error) => println!("FAILED: {error:?}"),
    }
    fs::write(
        format!("{FOLDER}/verdict"),
        if passed { "passed" } else { "failed" },
    )?;
    if !fs::exists(format!("{FOLDER}/hold"))? {
        let status = if passed { "0" } else { "1" };
        program::run("systemctl", ["--force", "exit", status])?;
    }
    Ok(())
}
