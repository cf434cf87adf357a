//! Developer commands, run as `cargo xtask COMMAND`.
//!
//! - `test` installs what the tests need and runs all of them; it is what `.ci/run` runs.
//! - `check-tree` checks rules of the tree itself that no compiler knows.
//! - `demo` runs the demo from a fresh build, `demo --check` its story unattended.
//! - `sim` runs the world simulation with a seed.
//!
//! Nothing here depends on `HOME`, on a git identity or on the umask.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a developer tool: it prints, starts programs, reads its environment and writes scratch files"
)]

mod demo;
mod prerequisites;
mod sim;
mod stages;
mod test;
mod toolchain;
mod tree;

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
    /// Run the world simulation
    Sim(sim::SimArguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Test(arguments) => test::run(&arguments),
        Command::CheckTree => tree::run(),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
