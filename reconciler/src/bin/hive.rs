//! `hive`: the daemon, and the command line that talks to it.

use std::process::ExitCode;

use clap::Parser;
use reconciler::host::process::launch::{self, LaunchArgs};

#[derive(Parser)]
enum Cli {
    /// Become an agent's sandbox
    #[command(hide = true)]
    LaunchProcess(LaunchArgs),
}

#[expect(clippy::print_stderr, reason = "the daemon reads the reason from stderr")]
fn main() -> ExitCode {
    let Cli::LaunchProcess(args) = Cli::parse();
    match launch::run(&args) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("{}", reconciler::error_chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}
