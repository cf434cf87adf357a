//! `cargo xtask mutants`: plants the faults of `checks/mutants.toml` and demands that the tests find each.
//!
//! All of them are planted at once in a copy of the tree, each behind a switch; one build then holds them all, and a
//! run of a test program wakes one. See `docs/decisions/0018-all-mutants-in-one-build.md`.

pub(crate) mod list;
pub(crate) mod page;
mod plant;
mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use crate::{toolchain, tree};
use list::{LIST, List, Mutant};
use suite::{Programs, Ran};

/// What one run of tests may take before the watchdog ends it. A quiet machine needs a few seconds.
const RUN_LIMIT: Duration = Duration::from_secs(300);
/// The same for one that is meant to hang.
const HANG_LIMIT: Duration = Duration::from_secs(60);

/// Arguments of `cargo xtask mutants`.
#[derive(Debug, Args)]
pub(crate) struct MutantsArguments {
    /// Fail when this many seconds were not enough, the build included
    #[arg(long, value_name = "BUDGET")]
    seconds: Option<u64>,
    /// Write the page of the list, docs/mutants.md, and plant nothing
    #[arg(long, conflicts_with_all = ["seconds", "names"])]
    page: bool,
    /// Wake only these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Runs `cargo xtask mutants`.
pub(crate) fn run(arguments: &MutantsArguments) -> Result<ExitCode> {
    if arguments.page {
        let root = toolchain::workspace_root()?;
        let list = read(&root)?;
        fs::write(root.join(page::PAGE), page::render(&list))
            .with_context(|| format!("writing {}", page::PAGE))?;
        println!("{} is written", page::PAGE);
    } else {
        check(&arguments.names, arguments.seconds.map(Duration::from_secs))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(root: &Utf8Path) -> Result<List> {
    let text = fs::read_to_string(root.join(LIST)).with_context(|| format!("reading {LIST}"))?;
    List::parse(&text)
}

/// What became of one mutant.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Every test that should have found it did.
    Killed,
    /// These tests did not find it.
    Survived(Vec<String>),
    /// Its tests did not run as tests do.
    Broken(String),
    /// The budget was used up before it was woken.
    NotRun,
}

/// Plants the mutants and wakes those named, or all; fails unless each is killed within the budget.
pub(crate) fn check(names: &[String], budget: Option<Duration>) -> Result<()> {
    let begin = Instant::now();
    let root = toolchain::workspace_root()?;
    let list = read(&root)?;
    let faults = list.faults(|path| fs::read_to_string(root.join(path)).ok());
    if !faults.is_empty() {
        bail!("{LIST} does not fit the tree:\n  {}", faults.join("\n  "));
    }
    let chosen = choose(&list, names)?;

    let scratch = toolchain::target_folder()?.join("mutants");
    let copy = scratch.join("tree");
    write_tree(&root, &copy, &list)?;
    let home = tempfile::Builder::new()
        .prefix("xtask-home-")
        .tempdir()
        .context("making an empty home")?;
    let home = Utf8Path::from_path(home.path()).context("the temporary folder's path is UTF-8")?;
    let suites: BTreeSet<&str> = list
        .mutants()
        .flat_map(|mutant| mutant.kills().map(|kill| kill.suite))
        .collect();
    let programs = Programs::build(&copy, &scratch.join("build"), home, &suites)?;
    println!("built after {:.0} s", begin.elapsed().as_secs_f64());

    asleep(&programs, &chosen)?;
    println!("asleep, all mutants pass: {:.0} s", begin.elapsed().as_secs_f64());
    let left = || budget.is_none_or(|budget| begin.elapsed() < budget);
    let fates = wake(&programs, &chosen, &left);

    let killed = fates.values().filter(|fate| **fate == Fate::Killed).count();
    println!(
        "{killed} of {} mutants killed in {:.0} s",
        chosen.len(),
        begin.elapsed().as_secs_f64()
    );
    let bad: Vec<String> = fates
        .iter()
        .filter_map(|(name, fate)| complaint(name, fate))
        .collect();
    if !bad.is_empty() {
        bail!("{}", bad.join("\n"));
    }
    Ok(())
}

fn complaint(name: &str, fate: &Fate) -> Option<String> {
    match fate {
        Fate::Killed => None,
        Fate::Survived(tests) => Some(format!("{name} survives: not found by {}", tests.join(", "))),
        Fate::Broken(how) => Some(format!("{name}: its tests did not end as tests do: {how}")),
        Fate::NotRun => Some(format!("{name} was not woken: the time was used up")),
    }
}

fn choose<'a>(list: &'a List, names: &[String]) -> Result<Vec<&'a Mutant>> {
    if names.is_empty() {
        return Ok(list.mutants().collect());
    }
    let find = |name: &String| {
        let mut found = list.mutants().filter(|mutant| mutant.name == *name);
        found
            .next()
            .with_context(|| format!("no mutant is called {name}; {} lists them", page::PAGE))
    };
    names.iter().map(find).collect()
}

/// Makes `copy` the tree with all mutants planted. What is right already is left as it is, so that nothing is built
/// again for it.
fn write_tree(root: &Utf8Path, copy: &Utf8Path, list: &List) -> Result<()> {
    let planted = list
        .plant(|path| fs::read_to_string(root.join(path)).ok())
        .map_err(|faults| anyhow::anyhow!(faults.join("\n")))?;
    let paths = tree::paths(root)?;
    for path in &paths {
        let Ok(original) = fs::read(root.join(path)) else {
            continue;
        };
        let wanted = planted
            .get(path.as_str())
            .map_or(original, |text| text.clone().into_bytes());
        let place = copy.join(path);
        if fs::read(&place).is_ok_and(|there| there == wanted) {
            continue;
        }
        let folder = place.parent().context("a file lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
        fs::write(&place, wanted).with_context(|| format!("writing {place}"))?;
        let mode = fs::metadata(root.join(path)).with_context(|| format!("looking at {path}"))?;
        fs::set_permissions(&place, mode.permissions()).with_context(|| format!("writing {place}"))?;
    }
    let known: BTreeSet<&Utf8PathBuf> = paths.iter().collect();
    for path in tree::walk(copy)? {
        if path != ".git" && !known.contains(&path) {
            fs::remove_file(copy.join(&path)).with_context(|| format!("removing {path} from {copy}"))?;
        }
    }
    Ok(())
}

/// The tests of these mutants, by suite.
fn tests_of<'a>(mutants: &[&'a Mutant]) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut suites: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for kill in mutants.iter().flat_map(|mutant| mutant.kills()) {
        suites.entry(kill.suite).or_default().insert(kill.test);
    }
    suites
}

/// All tests exist, and pass while every mutant sleeps.
fn asleep(programs: &Programs, mutants: &[&Mutant]) -> Result<()> {
    for (suite, tests) in tests_of(mutants) {
        let there = programs.tests(suite)?;
        let missing: Vec<&str> = tests
            .iter()
            .copied()
            .filter(|test| !there.contains(*test))
            .collect();
        if !missing.is_empty() {
            bail!("{LIST}: the suite {suite} has no test {}", missing.join(", "));
        }
        match programs.run(suite, &tests, None, RUN_LIMIT)? {
            Ran::Failed(failed) if failed.is_empty() => {}
            other => bail!("the tests of {suite} do not pass even without a mutant: {other:?}"),
        }
    }
    Ok(())
}

/// Wakes the mutants one at a time in each of a few processes.
fn wake<'a>(
    programs: &Programs,
    mutants: &[&'a Mutant],
    left: &(impl Fn() -> bool + Sync),
) -> BTreeMap<&'a str, Fate> {
    let next = AtomicUsize::new(0);
    let fates = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begin = Instant::now();
                    let fate = if left() {
                        fate(programs, mutant)
                    } else {
                        Fate::NotRun
                    };
                    let word = if fate == Fate::Killed {
                        "killed"
                    } else {
                        "NOT KILLED"
                    };
                    println!(
                        "{word:10} {:6.1} s  {}",
                        begin.elapsed().as_secs_f64(),
                        mutant.name
                    );
                    if let Ok(mut fates) = fates.lock() {
                        fates.insert(mutant.name.as_str(), fate);
                    }
                }
            });
        }
    });
    fates.into_inner().unwrap_or_default()
}

fn fate(programs: &Programs, mutant: &Mutant) -> Fate {
    let limit = if mutant.hangs { HANG_LIMIT } else { RUN_LIMIT };
    let mut survived = Vec::new();
    for (suite, tests) in tests_of(&[mutant]) {
        match programs.run(suite, &tests, Some(&mutant.name), limit) {
            Ok(Ran::Failed(failed)) => {
                let blind = tests.iter().filter(|test| !failed.contains(**test));
                survived.extend(blind.map(|test| format!("{suite} {test}")));
            }
            Ok(Ran::OutOfTime) if mutant.hangs => {}
            Ok(Ran::OutOfTime) => return Fate::Broken(format!("no end after {} s", limit.as_secs())),
            Ok(Ran::Otherwise(how)) => return Fate::Broken(how),
            Err(error) => return Fate::Broken(format!("{error:#}")),
        }
    }
    if survived.is_empty() {
        Fate::Killed
    } else {
        Fate::Survived(survived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_killed_mutant_is_nothing_to_complain_about() {
        assert_eq!(complaint("odd", &Fate::Killed), None);
        let survived = complaint("odd", &Fate::Survived(vec!["reconciler a::b".to_owned()]));
        assert_eq!(
            survived.as_deref(),
            Some("odd survives: not found by reconciler a::b")
        );
        for fate in [Fate::NotRun, Fate::Broken("signal 9".to_owned())] {
            assert!(complaint("odd", &fate).is_some_and(|text| text.contains("odd")));
        }
    }
}
