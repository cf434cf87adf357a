//! `cargo xtask fuzz`: every fuzz target for a while.
//!
//! The targets are a workspace of their own in `checks/fuzz`. They are built with the ordinary compiler: coverage needs no
//! nightly, only sanitizers do, and without `unsafe` code of our own those have little to find.

use std::fs;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use crate::toolchain;

/// The version of cargo-fuzz that is used.
const CARGO_FUZZ: &str = "0.13.2";
/// One input that takes longer is a finding.
const TIMEOUT_SECS: u32 = 20;
/// So is one that takes more memory.
const MEMORY_MB: u32 = 2048;
/// The longest input that is made up.
const MAX_INPUT: u32 = 16 * 1024;
/// How much of a failed target's output is shown.
const SHOWN_LINES: usize = 40;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub(crate) struct FuzzArguments {
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Never install anything; stop with the command to run if something is missing
    #[arg(long)]
    no_install: bool,
    /// Run one input that was found before, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seconds", "targets"])]
    replay: Option<Utf8PathBuf>,
    /// Run only these targets
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// Where things lie.
struct Places {
    fuzz: Utf8PathBuf,
    tools: Utf8PathBuf,
    work: Utf8PathBuf,
}

impl Places {
    fn find() -> Result<Self> {
        let target = toolchain::target_folder()?;
        Ok(Self {
            fuzz: toolchain::workspace_root()?.join("checks/fuzz"),
            tools: target.join("tools"),
            work: target.join("fuzz"),
        })
    }

    /// The folder that cargo builds in.
    fn build(&self) -> Utf8PathBuf {
        self.work.join("build")
    }

    /// A target's program. cargo-fuzz always names the platform.
    fn program(&self, target: &str) -> Result<Utf8PathBuf> {
        let name = Utf8Path::new("release").join(target);
        let mut folders = self.build().read_dir_utf8().context("listing what was built")?;
        folders
            .find_map(|folder| Some(folder.ok()?.path().join(&name)).filter(|program| program.is_file()))
            .with_context(|| format!("{target} was not built"))
    }

    fn artifacts(&self, target: &str) -> Utf8PathBuf {
        self.fuzz.join("artifacts").join(target)
    }

    /// The names of all targets, sorted.
    fn targets(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for file in self.fuzz.join("fuzz_targets").read_dir_utf8()? {
            names.extend(file?.path().file_stem().map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }
}

/// Builds the targets and runs them.
pub(crate) fn run(arguments: &FuzzArguments) -> Result<ExitCode> {
    let places = Places::find()?;
    let all = places.targets()?;
    if let Some(input) = &arguments.replay {
        let target = input.parent().and_then(Utf8Path::file_name).unwrap_or_default();
        if !all.iter().any(|known| known == target) {
            bail!(
                "{input} does not lie in a folder named after a target: {}",
                all.join(", ")
            );
        }
        ensure_cargo_fuzz(&places, !arguments.no_install)?;
        build(&places, Some(target))?;
        toolchain::run(Command::new(places.program(target)?).arg(input))?;
        println!("{input} finds nothing any more");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = arguments.targets.iter().find(|name| !all.contains(name)) {
        bail!(
            "there is no fuzz target {unknown}: the targets are {}",
            all.join(", ")
        );
    }
    let chosen = if arguments.targets.is_empty() {
        &all
    } else {
        &arguments.targets
    };
    ensure_cargo_fuzz(&places, !arguments.no_install)?;
    match arguments.targets.as_slice() {
        // All in one go: what they share is then compiled side by side.
        [] => build(&places, None)?,
        targets => targets
            .iter()
            .try_for_each(|target| build(&places, Some(target)))?,
    }
    let mut found = false;
    for target in chosen {
        found |= !fuzz(&places, target, arguments.seconds)?;
    }
    Ok(if found {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Makes sure that the right cargo-fuzz is there, and a compiler for libFuzzer.
fn ensure_cargo_fuzz(places: &Places, install: bool) -> Result<()> {
    if Command::new("c++").arg("--version").output().is_err() {
        bail!(
            "libFuzzer needs a C++ compiler: on Debian it is\n  apt-get install -y --no-install-recommends g++"
        );
    }
    let program = places.tools.join("bin/cargo-fuzz");
    let version = Command::new(&program).args(["fuzz", "--version"]).output();
    if version.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .ends_with(CARGO_FUZZ)
    }) {
        return Ok(());
    }
    let mut command = toolchain::cargo()?;
    command.args(["install", "cargo-fuzz", "--locked", "--version"]);
    command.args([&format!("={CARGO_FUZZ}"), "--root", places.tools.as_str()]);
    if !install {
        bail!(
            "cargo-fuzz {CARGO_FUZZ} is missing: install it, then run this again:\n  {}",
            toolchain::command_line(&command)
        );
    }
    toolchain::run(&mut command)
}

fn build(places: &Places, target: Option<&str>) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = toolchain::cargo()?;
    command
        .args(["fuzz", "build", "--sanitizer", "none", "--codegen-units", "16"])
        .args(["--fuzz-dir", places.fuzz.as_str()])
        .args(["--target-dir", places.build().as_str()])
        .args(target)
        .env("PATH", format!("{}:{path}", places.tools.join("bin")));
    toolchain::run(&mut command)
}

/// Runs one target; whether it found nothing.
fn fuzz(places: &Places, target: &str, seconds: u32) -> Result<bool> {
    let corpus = places.work.join("corpus").join(target);
    let artifacts = places.artifacts(target);
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
    }
    let mut command = Command::new(places.program(target)?);
    command
        .arg(&corpus)
        .arg(places.fuzz.join("seeds").join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={TIMEOUT_SECS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MB}"))
        .arg(format!("-max_len={MAX_INPUT}"))
        .arg(format!("-artifact_prefix={artifacts}/"))
        .current_dir(&places.work)
        .stdin(Stdio::null());
    let line = toolchain::command_line(&command);
    println!("$ {line}");
    let output = command.output().with_context(|| format!("starting `{line}`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let log = places.work.join(format!("{target}.log"));
    fs::write(&log, said.as_bytes()).with_context(|| format!("writing {log}"))?;
    if output.status.success() {
        println!("{target}: {}", summary(&said));
        return Ok(true);
    }
    let lines: Vec<&str> = said.lines().collect();
    for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
        println!("  {line}");
    }
    println!(
        "{target}: FAILED, {}; all it said is in {log}",
        toolchain::describe(output.status)
    );
    match artifact(&said) {
        Some(file) => println!("run the input again with:\n  cargo xtask fuzz --replay {file}"),
        None => println!("it kept no input: run it again with:\n  cargo xtask fuzz {target}"),
    }
    Ok(false)
}

/// What a run that found nothing did, from libFuzzer's last line of numbers.
fn summary(said: &str) -> String {
    let done = said
        .lines()
        .rev()
        .find(|line| line.split_whitespace().nth(1) == Some("DONE"));
    let words: Vec<&str> = done.unwrap_or_default().split_whitespace().collect();
    let after = |label: &str| {
        let at = words.iter().position(|word| *word == label)?;
        words.get(at + 1).copied()
    };
    let executions = words.first().map_or("?", |first| first.trim_start_matches('#'));
    format!(
        "{executions} executions, {} places reached, {} inputs kept, nothing found",
        after("cov:").unwrap_or("?"),
        after("corp:").unwrap_or("?"),
    )
}

/// The file that libFuzzer kept the input in.
fn artifact(said: &str) -> Option<&str> {
    said.lines()
        .find_map(|line| line.split_once("Test unit written to "))
        .map(|(_, file)| file.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_run_are_found() {
        let said = "#2\tINITED cov: 28 ft: 29 corp: 1/1b exec/s: 0 rss: 27Mb\n\
                    #7051437\tDONE   cov: 49 ft: 55 corp: 16/169b lim: 4096 exec/s: 440714 rss: 27Mb\n\
                    Done 7051437 runs in 16 second(s)\n";
        assert_eq!(
            summary(said),
            "7051437 executions, 49 places reached, 16/169b inputs kept, nothing found"
        );
        assert_eq!(
            summary(""),
            "? executions, ? places reached, ? inputs kept, nothing found"
        );
    }

    #[test]
    fn the_input_of_a_crash_is_named() {
        let said = "==1== ERROR: libFuzzer: deadly signal\n\
                    artifact_prefix='/x/spec/'; Test unit written to /x/spec/crash-0a1b\nBase64: AA==\n";
        assert_eq!(artifact(said), Some("/x/spec/crash-0a1b"));
        assert_eq!(artifact("Done 1 runs\n"), None);
    }

    #[test]
    fn every_target_is_declared_and_has_seeds() {
        let places = Places::find().expect("a workspace");
        let manifest = fs::read_to_string(places.fuzz.join("Cargo.toml")).expect("a manifest");
        let targets = places.targets().expect("targets");
        assert!(targets.len() >= 5, "{targets:?}");
        for target in targets {
            assert!(
                manifest.contains(&format!("name = \"{target}\"")),
                "{target} is not declared"
            );
            let seeds = places.fuzz.join("seeds").join(&target);
            assert!(
                seeds
                    .read_dir_utf8()
                    .is_ok_and(|mut seeds| seeds.next().is_some()),
                "{seeds} is empty"
            );
        }
    }
}
