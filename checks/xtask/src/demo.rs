//! `cargo xtask demo`: the demo from a fresh build, and its story unattended with `--check`.

mod cli;
mod daemon;
mod disk;
mod folder;
mod hive;
mod leftovers;
mod story;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use crate::{interrupt, toolchain};
use daemon::{Daemon, DaemonConfig};
use folder::ShortFolder;
use hive::Hive;

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
    // The first time it takes minutes: cargo shows how far it is.
    let hive = build(&[])?;
    // In place of this process: terminal, signals and exit status are the demo's own.
    let error = Command::new(&hive).arg("demo").args(&arguments.arguments).exec();
    Err(error).with_context(|| format!("starting {hive}"))
}

/// Runs the story in a folder of its own; whatever it started is ended, however it ends.
pub(crate) fn check() -> Result<()> {
    let program = build(&["--quiet"])?;
    interrupt::catch()?;
    let folder = ShortFolder::new()?;
    let spec = folder.path().join("hive.json");
    write_spec(&program, &spec)?;
    let config = DaemonConfig::below(folder.path(), &program, &spec);
    let mut hive = Hive::new(Daemon::start(config)?);
    story::play(&mut hive).or_else(|error| {
        // Whatever failed, it was the signal.
        interrupt::check()?;
        bail!("{error:#}\n{}", hive.last_seen())
    })
}

/// Builds all programs, with these flags of cargo's; the path of `hive`. It finds the harness beside itself.
pub(crate) fn build(flags: &[&str]) -> Result<Utf8PathBuf> {
    let mut cargo = toolchain::cargo()?;
    // The same as for the tests, so that nothing is compiled twice.
    cargo
        .args(["build", "--workspace", "--locked"])
        .args(flags)
        .args(toolchain::OPTIMISED);
    let line = toolchain::command_line(&cargo);
    let status = cargo.status().with_context(|| format!("starting `{line}`"))?;
    if !status.success() {
        bail!("`{line}` {}", toolchain::describe(status));
    }
    Ok(toolchain::target_folder()?.join("debug").join("hive"))
}

/// The story is played with the very spec of `hive demo`.
fn write_spec(program: &Utf8Path, spec: &Utf8Path) -> Result<()> {
    let output = Command::new(program)
        .args(["demo", "--print-spec"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!("`hive demo --print-spec` {}", toolchain::describe(output.status));
    }
    std::fs::write(spec, output.stdout).with_context(|| format!("writing {spec}"))
}
