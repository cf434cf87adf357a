//! `cargo xtask test`: what the tests need, then every check and test.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use camino::Utf8Path;
use clap::Args;

use crate::stages::Stage;
use crate::{demo, inspector, mutants, npm, prerequisites, references, stages, toolchain, tree, vm};

/// What all mutants together may take, their build included: several times what two busy cores need.
const MUTANTS_BUDGET: Duration = Duration::from_secs(1_800);

/// Arguments of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    /// Never install anything; stop with the command to run if something is missing
    #[arg(long)]
    no_install: bool,
    /// Leave out the scenarios on a real systemd, which only root can play
    #[arg(long)]
    without_vm: bool,
    /// Run only tests whose name contains one of these, and no other stage
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// Runs the stages.
pub(crate) fn run(arguments: &TestArguments) -> Result<ExitCode> {
    let home = tempfile::Builder::new()
        .prefix("xtask-home-")
        .tempdir()
        .context("making an empty home")?;
    let home = Utf8Path::from_path(home.path()).context("the temporary folder's path is UTF-8")?;

    let filters = &arguments.filters;
    let test_rerun = match filters.as_slice() {
        [] => "cargo test --workspace --locked".to_owned(),
        filters => format!("cargo xtask test {}", filters.join(" ")),
    };
    let tools = Stage::new("tools", "cargo xtask test", || {
        prerequisites::ensure(!arguments.no_install)?;
        npm::ensure(npm::OPENAPI, !arguments.no_install)?;
        npm::ensure(npm::CLAUDE, !arguments.no_install)?;
        npm::ensure(npm::ACP, !arguments.no_install)?;
        npm::ensure(npm::MCP, !arguments.no_install)
    });
    let tests = Stage::new("tests", test_rerun, || run_tests(home, filters));

    let without_vm = arguments.without_vm;
    let vm = Stage::new("vm", vm::COMMAND, || {
        if without_vm {
            println!("left out, as told by --without-vm");
            return Ok(());
        }
        vm::check()
    });

    let all = if filters.is_empty() {
        vec![
            tools,
            Stage::new("format", "cargo fmt --all --check", || {
                toolchain::run(toolchain::cargo()?.args(["fmt", "--all", "--check"]))
            }),
            Stage::new("tree", "cargo xtask check-tree", tree::check),
            Stage::new(
                "clippy",
                "cargo clippy --workspace --all-targets --locked -- -D warnings",
                || {
                    let arguments = [
                        "clippy",
                        "--workspace",
                        "--all-targets",
                        "--locked",
                        "--",
                        "-D",
                        "warnings",
                    ];
                    toolchain::run(toolchain::cargo()?.args(arguments))
                },
            ),
            Stage::new(
                "doc",
                "RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked",
                || {
                    let mut cargo = toolchain::cargo()?;
                    cargo
                        .args(["doc", "--workspace", "--no-deps", "--locked"])
                        .env("RUSTDOCFLAGS", "-D warnings");
                    toolchain::run(&mut cargo)
                },
            ),
            Stage::new("openapi", references::LINT_COMMAND, references::lint),
            Stage::new("mcp", inspector::COMMAND, inspector::check),
            tests,
            Stage::new("demo", "cargo xtask demo --check", demo::check),
            vm,
            Stage::new("mutants", "cargo xtask mutants", || {
                mutants::check(&[], Some(MUTANTS_BUDGET))
            }),
        ]
    } else {
        println!(
            "only tests that match {}; format, tree, clippy, doc, openapi, mcp, demo, vm and mutants are left out",
            filters.join(" or ")
        );
        vec![tools, tests]
    };
    Ok(if stages::run(all) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the tests with an empty home and no git identity.
///
/// Tests inside a library are compiled together with all of it, and nothing else uses the outcome: compiling that for
/// speed takes minutes and saves seconds.
fn run_tests(home: &Utf8Path, filters: &[String]) -> Result<()> {
    let optimised = toolchain::OPTIMISED.as_slice();
    let inside: (&[&str], _) = (&["--lib"], &[][..]);
    let around: (&[&str], _) = (&["--bins", "--test", "*"], optimised);
    let documentation: (&[&str], _) = (&["--doc"], optimised);
    for (targets, options) in [inside, around, documentation] {
        let mut command = toolchain::cargo()?;
        command
            .args(["test", "--workspace", "--locked"])
            .args(targets)
            .args(options);
        if !filters.is_empty() {
            command.arg("--").args(filters);
        }
        toolchain::isolate(&mut command, home);
        toolchain::run(&mut command)?;
    }
    Ok(())
}
