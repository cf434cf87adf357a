//! `cargo xtask bench`: measures the budgets with release builds and prints them beside their anchors.

mod machine;
mod table;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use serde::Deserialize;

use crate::{toolchain, vm};
use machine::Machine;
use table::{Row, Verdict};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// A short run: smaller hives, fewer rounds
    #[arg(long)]
    quick: bool,
    /// Print one JSON document instead of the table
    #[arg(long)]
    json: bool,
    /// Fail when a budget is not kept
    #[arg(long)]
    check: bool,
    /// Measure only these: messages, live, egress, idle, hive, memory, containers
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
}

/// Builds, measures, prints. Whether a budget is kept matters to the exit status only with `--check`.
pub(crate) fn run(arguments: &BenchArguments) -> Result<ExitCode> {
    let program = build()?;
    let machine = Machine::before()?;
    let mut rows = Vec::new();
    let mut groups = arguments.groups.clone();
    let named = groups
        .iter()
        .position(|group| group == CONTAINERS)
        .map(|at| groups.remove(at));
    if named.is_none() || !groups.is_empty() {
        rows.extend(measure(&program, arguments.quick, &groups)?);
    }
    if named.is_some() || groups.is_empty() && may_make_nests() {
        rows.extend(containers(&program)?);
    }
    let machine = machine.after()?;
    if arguments.json {
        let document = serde_json::json!({ "machine": machine, "rows": table::judged(&rows) });
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        print!("\n{machine}\n\n{}", table::render(&rows));
    }
    let broken = rows.iter().any(|row| row.verdict() == Verdict::Broken);
    Ok(if arguments.check && broken {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Builds both programs and the benchmarks as they are released; the path of the benchmarks, which know where the
/// programs lie.
fn build() -> Result<Utf8PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<Utf8PathBuf>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let mut cargo = toolchain::cargo()?;
    cargo.args([
        "build",
        "--release",
        "--locked",
        "-p",
        "reconciler",
        "-p",
        "harness",
    ]);
    cargo.args(["-p", "testbed", "--bin", "testbed"]);
    cargo.args(["--bin", "hive", "--bin", "hive-harness", "--bench", "budgets"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let line = toolchain::command_line(&cargo);
    eprintln!("$ {line}");
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` {}", toolchain::describe(output.status));
    }
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Message>();
    let mut built = messages.filter_map(|message| {
        let Message { executable, target } = message.ok()?;
        let Target { name, kind } = target?;
        let ours = name == "budgets" && kind.iter().any(|kind| kind == "bench");
        executable.filter(|_| ours)
    });
    built
        .next()
        .with_context(|| format!("`{line}` did not say where it put the benchmarks"))
}

/// What is measured on a real systemd, and not by the benchmarks' own program.
const CONTAINERS: &str = "containers";

fn may_make_nests() -> bool {
    let may = rustix::process::geteuid().is_root();
    if !may {
        eprintln!("{CONTAINERS}: left out, because only root can make a nest");
    }
    may
}

/// Measures in nests, with the programs that were built with `program`.
fn containers(program: &Utf8Path) -> Result<Vec<Row>> {
    // <target>/release/deps/budgets-…
    let programs = program
        .parent()
        .and_then(Utf8Path::parent)
        .with_context(|| format!("{program} is in no target folder"))?;
    let mut rows = Vec::new();
    for name in ["bench_containers", "bench_fleet"] {
        eprintln!("{name}");
        for line in vm::measure(programs, name)? {
            rows.push(read(&line)?);
        }
    }
    Ok(rows)
}

fn read(line: &str) -> Result<Row> {
    let row: Row = serde_json::from_str(line).with_context(|| format!("reading {line}"))?;
    eprintln!("  {}", row.short());
    Ok(row)
}

/// Runs the benchmarks, which say on standard error what they do.
fn measure(program: &Utf8PathBuf, quick: bool, groups: &[String]) -> Result<Vec<Row>> {
    let mut command = Command::new(program);
    if quick {
        command.arg("--quick");
    }
    command.args(groups);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
    let output = child.stdout.take().context("its output")?;
    let mut rows = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.context("reading what was measured")?;
        rows.push(read(&line)?);
    }
    let status = child.wait().with_context(|| format!("waiting for {program}"))?;
    if !status.success() {
        print!("\n{}", table::render(&rows));
        bail!(
            "not everything could be measured: the benchmarks {}",
            toolchain::describe(status)
        );
    }
    Ok(rows)
}
