//! `cargo xtask demo`: the demo from a fresh build, and its story unattended with `--check`.

mod cli;
mod daemon;
mod folder;
mod leftovers;
mod poll;

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use crate::toolchain;
use cli::Cli;
use daemon::{Daemon, DaemonConfig};
use folder::ShortFolder;

/// Arguments of `cargo xtask demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Run the story unattended and fail if it does not go as told
    #[arg(long, conflicts_with = "arguments")]
    check: bool,
    /// Passed to `hive demo`
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Runs the demo, or its story.
pub(crate) fn run(arguments: &DemoArguments) -> Result<ExitCode> {
    if arguments.check {
        check()?;
        return Ok(ExitCode::SUCCESS);
    }
    let hive = build()?;
    let mut command = std::process::Command::new(hive);
    command.arg("demo").args(&arguments.arguments);
    toolchain::run(&mut command)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the story in a folder of its own; whatever it started is ended, however it ends.
pub(crate) fn check() -> Result<()> {
    let hive = build()?;
    let folder = ShortFolder::new()?;
    story(&hive, folder.path())
}

/// Builds both programs; the path of `hive`. It finds the harness beside itself.
fn build() -> Result<Utf8PathBuf> {
    toolchain::run(toolchain::cargo()?.args(["build", "--locked", "-p", "reconciler", "-p", "harness"]))?;
    Ok(toolchain::target_folder()?.join("debug").join("hive"))
}

/// The story: a hive starts, is killed, starts again and answers as before.
fn story(hive: &Utf8Path, folder: &Utf8Path) -> Result<()> {
    let spec = folder.join("hive.json");
    std::fs::write(&spec, r#"{ "version": 1, "hive": { "name": "demo" } }"#).context("writing the spec")?;
    let config = DaemonConfig::below(folder, hive, &spec);
    let cli = Cli::new(&config);

    let mut daemon = Daemon::start(config)?;
    let before = cli.run(&["status"])?;
    ensure!(before.code == 0, "a hive without agents is in sync, but {before}");
    daemon.kill()?;
    daemon.start_again()?;
    let after = cli.run(&["status"])?;
    ensure!(
        after.code == 0,
        "the hive is as it was before it was killed, but {after}"
    );
    Ok(())
}
