//! Developer commands, run as `cargo xtask COMMAND`.
//!
//! - `test` installs what the tests need and runs all of them; it is what `.ci/run` runs.
//! - `check-tree` checks rules of the tree itself that no compiler knows.
//! - `demo` runs the demo from a fresh build, `demo --check` its story unattended.
//! - `vm` runs scenarios on a real systemd, each on a throw-away host.
//! - `sim` runs the world simulation with a seed.
//! - `bench` measures the budgets of `docs/benchmarks.md`.
//! - `fuzz` runs the fuzz targets for a while.
//! - `mutants` plants faults and demands that the tests find them.
//! - `inspect-mcp` looks at the MCP server of the harness with the MCP inspector.
//! - `references` writes the generated references of the documentation anew.
//!
//! Nothing here depends on `HOME`, on a git identity or on the umask.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a developer tool: it prints, starts programs, reads its environment and writes scratch files"
)]

mod bench;
mod demo;
mod fuzz;
mod inspector;
mod interrupt;
mod mutants;
mod npm;
mod poll;
mod prerequisites;
mod references;
mod sim;
mod stages;
mod test;
mod toolchain;
mod tree;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of hyperhive
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what the tests need, then run every check and test
    Test(test::TestArguments),
    /// Check the rules of the tree itself: layers, versions, licences, links, file sizes
    CheckTree,
    /// Build and run the demo
    Demo(demo::DemoArguments),
    /// Run scenarios on a real systemd, each on a throw-away host; wants root
    Vm(vm::VmArguments),
    /// Run the world simulation
    Sim(sim::SimArguments),
    /// Measure the budgets beside their raw anchors, with release builds
    Bench(bench::BenchArguments),
    /// Run the fuzz targets
    Fuzz(fuzz::FuzzArguments),
    /// Plant the faults of checks/mutants.toml, one at a time, and demand that the tests find each
    Mutants(mutants::MutantsArguments),
    /// Look at the harness's MCP server with the MCP inspector
    InspectMcp,
    /// Write docs/reference anew: both OpenAPI documents, the command line and the MCP tools
    References,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Test(arguments) => test::run(&arguments),
        Command::CheckTree => tree::run(),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Vm(arguments) => vm::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Mutants(arguments) => mutants::run(&arguments),
        Command::InspectMcp => inspector::run(),
        Command::References => references::run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
