//! Builds the test programs of the planted tree, and runs tests in them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use super::plant::SWITCH;
use crate::toolchain;

/// How often a running test program is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The test programs by suite.
#[derive(Debug)]
pub(crate) struct Programs {
    by_suite: BTreeMap<String, Program>,
    home: Utf8PathBuf,
}

#[derive(Debug)]
struct Program {
    path: Utf8PathBuf,
    /// The folder of its crate: where cargo runs its tests.
    folder: Utf8PathBuf,
}

/// What became of the tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ran {
    /// These failed; none: all passed.
    Failed(BTreeSet<String>),
    /// The watchdog ended it.
    OutOfTime,
    /// It ended in another way than a test program does.
    Otherwise(String),
}

/// What cargo says about one thing it built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<Utf8PathBuf>,
    manifest_path: Option<Utf8PathBuf>,
    profile: Option<Profile>,
    message: Option<Diagnostic>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    rendered: Option<String>,
}

impl Programs {
    /// Builds the suites of the workspace at `tree`, into a folder of its own: nothing with a mutant in it ever lies
    /// where an ordinary build looks.
    pub(crate) fn build(
        tree: &Utf8Path,
        target: &Utf8Path,
        home: &Utf8Path,
        suites: &BTreeSet<&str>,
    ) -> Result<Self> {
        let mut command = toolchain::cargo()?;
        command
            .current_dir(tree)
            .env("CARGO_TARGET_DIR", target)
            .args(["test", "--no-run", "--locked", "--message-format", "json"])
            // Nobody debugs a mutant.
            .args(["--config", "profile.dev.debug=false"])
            .arg("--lib");
        let packages: BTreeSet<&str> = suites.iter().map(|suite| split(suite).0).collect();
        for package in packages {
            command.args(["-p", package]);
        }
        for test in suites.iter().filter_map(|suite| split(suite).1) {
            command.args(["--test", test]);
        }
        command.stdout(Stdio::piped());
        let line = toolchain::command_line(&command);
        println!("$ {line}");
        let mut child = command.spawn().with_context(|| format!("starting `{line}`"))?;
        let output = child.stdout.take().context("its output is read")?;
        let mut by_suite = BTreeMap::new();
        // A library and its tests have the same errors.
        let mut told = BTreeSet::new();
        for line in BufReader::new(output).lines() {
            let line = line.context("reading what cargo says")?;
            let Ok(message) = serde_json::from_str::<Message>(&line) else {
                continue;
            };
            match message {
                Message {
                    reason,
                    target: Some(target),
                    executable: Some(path),
                    manifest_path: Some(manifest),
                    profile: Some(Profile { test: true }),
                    ..
                } if reason == "compiler-artifact" => {
                    let folder = manifest
                        .parent()
                        .context("a manifest lies in a folder")?
                        .to_owned();
                    let package = folder.file_name().unwrap_or_default();
                    let suite = if target.kind.iter().any(|kind| kind == "test") {
                        format!("{package}/{}", target.name)
                    } else {
                        package.to_owned()
                    };
                    by_suite.insert(suite, Program { path, folder });
                }
                Message {
                    message: Some(Diagnostic { level, rendered }),
                    ..
                } if level.starts_with("error") => {
                    let text = rendered.unwrap_or_default();
                    if told.insert(text.clone()) {
                        println!("{text}");
                    }
                }
                _ => {}
            }
        }
        let status = child.wait().with_context(|| format!("waiting for `{line}`"))?;
        if !status.success() {
            bail!(
                "the tree with all mutants in it does not compile: `{line}` in {tree} {}; the errors above name the \
                 file: correct `becomes` of a mutant there",
                toolchain::describe(status)
            );
        }
        for suite in suites {
            if !by_suite.contains_key(*suite) {
                bail!("cargo built no tests for the suite {suite}");
            }
        }
        let home = home.to_owned();
        Ok(Self { by_suite, home })
    }

    /// The names of a suite's tests.
    pub(crate) fn tests(&self, suite: &str) -> Result<BTreeSet<String>> {
        let mut command = self.command(suite)?;
        command.args(["--list", "--format", "terse"]);
        let output = command
            .output()
            .with_context(|| format!("listing the tests of {suite}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }

    /// Runs tests of a suite with this mutant awake, or with none. After `limit` they are ended.
    pub(crate) fn run(
        &self,
        suite: &str,
        tests: &BTreeSet<&str>,
        awake: Option<&str>,
        limit: Duration,
    ) -> Result<Ran> {
        let scratch = tempfile::Builder::new()
            .prefix("mutant-")
            .tempdir_in(&self.home)
            .context("making a folder for what the tests say")?;
        let said = scratch.path().join("output");
        let output = std::fs::File::create(&said).context("making a file for what the tests say")?;
        let mut command = self.command(suite)?;
        command
            .arg("--exact")
            .args(tests)
            .stdout(output.try_clone().context("two streams go into one file")?)
            .stderr(output)
            // One that is about to be killed need not be minimal.
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("INSTA_UPDATE", "no")
            .process_group(0);
        if let Some(name) = awake {
            command.env(SWITCH, name);
        }
        let child = command
            .spawn()
            .with_context(|| format!("starting the tests of {suite}"))?;
        let Some(status) = wait(child, limit)? else {
            return Ok(Ran::OutOfTime);
        };
        let text = String::from_utf8_lossy(&std::fs::read(&said).context("reading what the tests said")?)
            .into_owned();
        Ok(match status.code() {
            Some(0) => Ran::Failed(BTreeSet::new()),
            Some(101) if !failures(&text).is_empty() => Ran::Failed(failures(&text)),
            _ => {
                let from = text.char_indices().rev().nth(2_000).map_or(0, |(at, _)| at);
                Ran::Otherwise(format!("{}: {}", toolchain::describe(status), &text[from..]))
            }
        })
    }

    fn command(&self, suite: &str) -> Result<Command> {
        let program = self
            .by_suite
            .get(suite)
            .with_context(|| format!("there is no suite {suite}"))?;
        let mut command = Command::new(&program.path);
        command
            .current_dir(&program.folder)
            .env("CARGO_MANIFEST_DIR", &program.folder)
            .env_remove(SWITCH)
            .stdin(Stdio::null());
        toolchain::isolate(&mut command, &self.home);
        Ok(command)
    }
}

/// `CRATE` or `CRATE/TEST`.
fn split(suite: &str) -> (&str, Option<&str>) {
    match suite.split_once('/') {
        Some((package, test)) => (package, Some(test)),
        None => (suite, None),
    }
}

/// Waits for a child that leads its own process group; `None`: it took too long and was killed with all it started.
fn wait(mut child: Child, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("looking at the tests")? {
            return Ok(Some(status));
        }
        if begin.elapsed() >= limit {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // It may have ended in this very moment.
                let _gone = kill_process_group(group, Signal::KILL);
            }
            child.wait().context("waiting for the killed tests")?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// The tests that a test program names at its end as failed.
fn failures(output: &str) -> BTreeSet<String> {
    let Some((_, list)) = output.rsplit_once("\nfailures:\n") else {
        return BTreeSet::new();
    };
    list.lines()
        .map_while(|line| line.strip_prefix("    "))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failed_tests_are_those_of_the_last_list() {
        let output = "running 2 tests\ntest a::b ... FAILED\ntest c ... ok\n\nfailures:\n\n---- a::b stdout ----\n\
                      assertion failed\n\n\nfailures:\n    a::b\n\ntest result: FAILED. 1 passed; 1 failed\n";
        assert_eq!(failures(output), BTreeSet::from(["a::b".to_owned()]));
        assert_eq!(failures("test result: ok. 2 passed\n"), BTreeSet::new());
    }

    #[test]
    fn the_watchdog_kills_what_does_not_end_and_all_it_started() {
        let child = Command::new("sh")
            .args(["-c", "sleep 1000 & wait"])
            .process_group(0)
            .spawn()
            .expect("sh runs");
        let group = Pid::from_raw(i32::try_from(child.id()).expect("a small number")).expect("a process");
        assert!(wait(child, Duration::ZERO).expect("it is killed").is_none());
        // What was orphaned may still be waiting for its reaper; nobody else is in that group.
        while rustix::process::test_kill_process_group(group).is_ok() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_ends_in_time_has_its_status() {
        let child = Command::new("sh")
            .args(["-c", "exit 7"])
            .process_group(0)
            .spawn()
            .expect("sh runs");
        let status = wait(child, Duration::from_secs(600))
            .expect("it ends")
            .expect("in time");
        assert_eq!(status.code(), Some(7));
    }
}
