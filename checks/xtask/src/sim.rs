//! `cargo xtask sim`: the world simulation.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use camino::Utf8PathBuf;
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
    /// Play one script again, as a failing run printed it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "steps"])]
    script: Option<Utf8PathBuf>,
}

/// Runs the simulation; its output is shown as it comes.
pub(crate) fn run(arguments: &SimArguments) -> Result<ExitCode> {
    let mut command = toolchain::cargo()?;
    command
        .args(["test", "--workspace", "--locked", "--test", "sim"])
        .args(toolchain::OPTIMISED)
        .args(["--", "--nocapture"]);
    if let Some(file) = &arguments.script {
        let script =
            std::fs::read_to_string(file).with_context(|| format!("cannot read the script {file}"))?;
        command.env("HIVE_SIM_SCRIPT", script);
        command.arg("a_script_that_is_written_down_can_be_played_again");
    }
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
