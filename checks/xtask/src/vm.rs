//! `cargo xtask vm`: scenarios on a real systemd, each in a nest of its own.

mod cgroups;
mod image;
mod nest;
mod qemu;
mod qemu_image;

use std::fs;
use std::num::NonZero;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use camino::Utf8Path;
use clap::Args;

use crate::{demo, interrupt, prerequisites, toolchain};
use cgroups::Host;
use image::Image;
use nest::Ground;
use qemu_image::Machine;

/// One boot of a scenario, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(180);

/// How many nests run at once unless told otherwise. They wait more than they work, so more than processors.
const JOBS: NonZero<usize> = NonZero::<usize>::MIN.saturating_add(3);

/// One measurement.
const MEASURING_LIMIT: Duration = Duration::from_secs(1_200);

/// A guest with systemd takes several inotify instances; Debian allows 128 for all of root's.
const INOTIFY_INSTANCES: u32 = 1024;
const INOTIFY_FILE: &str = "/proc/sys/fs/inotify/max_user_instances";

/// Arguments of `cargo xtask vm`.
#[derive(Debug, Args)]
pub(crate) struct VmArguments {
    /// List the scenarios and run none
    #[arg(long)]
    list: bool,
    /// Leave the nest of the one scenario running, and say how to enter it
    #[arg(long)]
    hold: bool,
    /// Take the programs as they were built last
    #[arg(long)]
    no_build: bool,
    /// How many nests run at once
    #[arg(long, value_name = "NUMBER", default_value_t = JOBS)]
    jobs: NonZero<usize>,
    /// Where Debian packages come from, when the image has to be made
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Run only scenarios whose name contains one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// How the stage is run again.
pub(crate) const COMMAND: &str = "cargo xtask vm";

/// Runs the scenarios that match.
pub(crate) fn run(arguments: &VmArguments) -> Result<ExitCode> {
    if !arguments.list {
        prerequisites::ensure(true)?;
    }
    play(arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs all scenarios.
pub(crate) fn check() -> Result<()> {
    play(&VmArguments {
        list: false,
        hold: false,
        no_build: false,
        jobs: JOBS,
        mirror: None,
        filters: Vec::new(),
    })
}

/// Has a measurement made with the programs in this folder; the lines it hands back.
pub(crate) fn measure(programs: &Utf8Path, name: &str) -> Result<Vec<String>> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "a nest has to be made by root: run `sudo -E cargo xtask bench`, or leave the group containers out"
    );
    interrupt::catch()?;
    let host = Host::detect()?;
    allow_inotify_instances()?;
    let image = Image::ensure(None)?;
    nest::sweep(&image, &host)?;
    let recipe = toolchain::workspace_root()?.join("checks/testbed");
    let ground = Ground {
        image: &image,
        host: &host,
        programs,
        recipe: &recipe,
        limit: MEASURING_LIMIT,
        hold: false,
    };
    let out = toolchain::target_folder()?.join("vm").join(name);
    let passed = nest::play(&ground, name, &out)?;
    ensure!(
        passed,
        "{name} could not be measured; the end of {out}/log:\n{}",
        nest::last_lines(&out.join("log"), 40)
    );
    let rows = out.join("rows");
    let text = fs::read_to_string(&rows).with_context(|| format!("reading {rows}"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// A scenario as `testbed list` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scenario {
    name: String,
    summary: String,
}

fn play(arguments: &VmArguments) -> Result<()> {
    if !arguments.no_build {
        demo::build(&["--quiet"])?;
    }
    let programs = toolchain::target_folder()?.join("debug");
    let scenarios = matching(scenarios(&programs.join("testbed"))?, &arguments.filters)?;
    if arguments.list {
        for scenario in &scenarios {
            println!("{:32} {}", scenario.name, scenario.summary);
        }
        return Ok(());
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "a nest has to be made by root: run `sudo -E cargo xtask vm`, or leave it out of the tests with \
         `cargo xtask test --without-vm`"
    );
    ensure!(
        !arguments.hold || scenarios.len() == 1,
        "--hold is for one scenario, and {} match",
        scenarios.len()
    );
    interrupt::catch()?;
    let host = Host::detect()?;
    allow_inotify_instances()?;
    let image = Image::ensure(arguments.mirror.as_deref())?;
    nest::sweep(&image, &host)?;
    let recipe = toolchain::workspace_root()?.join("checks/testbed");
    let ground = Ground {
        image: &image,
        host: &host,
        programs: &programs,
        recipe: &recipe,
        limit: LIMIT,
        hold: arguments.hold,
    };
    let (machines, nests): (Vec<_>, Vec<_>) = scenarios
        .into_iter()
        // A nest has the cgroups of its host: on one with the second version alone it has what is wanted.
        .partition(|it| qemu::is_wanted_by(&it.name) && matches!(host, Host::V1(_)));
    ensure!(
        !arguments.hold || machines.is_empty(),
        "--hold is for nests, and {} is played in a virtual machine",
        machines.first().map_or("nothing", |it| it.name.as_str())
    );
    if !nests.is_empty() {
        let play = |name: &str, out: &Utf8Path| nest::play(&ground, name, out);
        play_all(&play, &nests, arguments.jobs.get())?;
    }
    if !machines.is_empty() {
        let machine = Machine::ensure(&image, arguments.mirror.as_deref())?;
        let play = |name: &str, out: &Utf8Path| qemu::play(&machine, &programs, name, out);
        // One has all processors.
        play_all(&play, &machines, 1)?;
    }
    Ok(())
}

/// Plays the scenario of this name and leaves what it wrote in this folder; whether it passed.
type Player<'a> = dyn Fn(&str, &Utf8Path) -> Result<bool> + Sync + 'a;

/// Plays them, so many at once, each in the order of the list; fails if one did.
fn play_all(play: &Player<'_>, scenarios: &[Scenario], jobs: usize) -> Result<()> {
    let results = toolchain::target_folder()?.join("vm");
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..jobs.min(scenarios.len()) {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if interrupt::check().is_err() {
                        return;
                    }
                    if !play_one(play, scenario, &results.join(&scenario.name))
                        && let Ok(mut failed) = failed.lock()
                    {
                        failed.push(scenario.name.as_str());
                    }
                }
            });
        }
    });
    interrupt::check()?;
    let failed = failed
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a nest's keeper panicked"))?;
    println!(
        "{} of {} scenarios passed in {:.1} s; what they wrote is in {results}",
        scenarios.len() - failed.len(),
        scenarios.len(),
        begin.elapsed().as_secs_f64()
    );
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "scenarios failed; one alone, with its nest left running if it has one:\n  {}",
        failed
            .iter()
            .map(|name| match qemu::is_wanted_by(name) {
                true => format!("{COMMAND} {name}"),
                false => format!("{COMMAND} --hold {name}"),
            })
            .collect::<Vec<_>>()
            .join("\n  ")
    )
}

fn play_one(play: &Player<'_>, scenario: &Scenario, out: &Utf8Path) -> bool {
    let begin = Instant::now();
    let outcome = play(&scenario.name, out);
    let took = begin.elapsed().as_secs_f64();
    match outcome {
        Ok(true) => println!("passed  {:5.1} s  {}", took, scenario.name),
        Ok(false) => println!(
            "FAILED  {:5.1} s  {}; the end of {out}/log (see also journal and console there):\n{}",
            took,
            scenario.name,
            nest::last_lines(&out.join("log"), 40)
        ),
        Err(ref error) => println!(
            "FAILED  {:5.1} s  {}: {error:#}\n{}",
            took,
            scenario.name,
            nest::last_lines(&out.join("log"), 40)
        ),
    }
    matches!(outcome, Ok(true))
}

/// What the scenarios' own program says there is.
fn scenarios(testbed: &Utf8Path) -> Result<Vec<Scenario>> {
    let output = Command::new(testbed)
        .arg("list")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting {testbed}"))?;
    ensure!(
        output.status.success(),
        "`testbed list` {}",
        toolchain::describe(output.status)
    );
    let text = String::from_utf8(output.stdout).context("`testbed list` is not UTF-8")?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, summary)| Scenario {
            name: name.to_owned(),
            summary: summary.to_owned(),
        })
        .collect())
}

fn matching(scenarios: Vec<Scenario>, filters: &[String]) -> Result<Vec<Scenario>> {
    let mut found = scenarios;
    found.retain(|it| filters.is_empty() || filters.iter().any(|filter| it.name.contains(filter)));
    ensure!(
        !found.is_empty(),
        "no scenario's name contains {}: see `{COMMAND} --list`",
        filters.join(" or ")
    );
    Ok(found)
}

/// A nest cannot raise it from inside, and with too few the 22nd guest hangs.
fn allow_inotify_instances() -> Result<()> {
    let text = fs::read_to_string(INOTIFY_FILE).with_context(|| format!("reading {INOTIFY_FILE}"))?;
    let allowed: u32 = text
        .trim()
        .parse()
        .with_context(|| format!("{INOTIFY_FILE} holds {text:?}"))?;
    if allowed < INOTIFY_INSTANCES {
        println!("raising {INOTIFY_FILE} from {allowed} to {INOTIFY_INSTANCES}: guests hang with too few");
        fs::write(INOTIFY_FILE, INOTIFY_INSTANCES.to_string())
            .with_context(|| format!("raising {INOTIFY_FILE}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(name: &str) -> Scenario {
        Scenario {
            name: name.to_owned(),
            summary: String::new(),
        }
    }

    #[test]
    fn filters_choose_by_parts_of_names_and_must_match_something() {
        let all = || vec![scenario("start"), scenario("restart"), scenario("limits")];
        let names = |filters: &[&str]| -> Result<Vec<String>> {
            let filters: Vec<String> = filters.iter().map(|it| (*it).to_owned()).collect();
            Ok(matching(all(), &filters)?.into_iter().map(|it| it.name).collect())
        };
        assert_eq!(names(&[]).expect("all").len(), 3);
        assert_eq!(names(&["start"]).expect("two"), ["start", "restart"]);
        assert_eq!(names(&["res", "lim"]).expect("two"), ["restart", "limits"]);
        assert!(names(&["typo"]).is_err());
    }
}
