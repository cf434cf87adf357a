//! `cargo xtask sim`: the world simulation.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::toolchain;

/// Arguments of `cargo xtask sim`.
#[derive(Debug, Args)]
pub(crate) struct SimArguments {
    /// Where the random walks start; printed by a failing run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many steps a random walk takes
    #[arg(long, value_name = "M")]
    steps: Option<u64>,
}

/// Runs the simulation; its output is shown as it comes.
pub(crate) fn run(arguments: &SimArguments) -> Result<ExitCode> {
    let mut command = toolchain::cargo()?;
    command.args([
        "test",
        "--locked",
        "-p",
        "reconciler",
        "--test",
        "sim",
        "--",
        "--nocapture",
    ]);
    for (variable, value) in [
        ("HIVE_SIM_SEED", arguments.seed),
        ("HIVE_SIM_STEPS", arguments.steps),
    ] {
        if let Some(value) = value {
            println!("{variable}={value}");
            command.env(variable, value.to_string());
        }
    }
    toolchain::run(&mut command)?;
    Ok(ExitCode::SUCCESS)
}
