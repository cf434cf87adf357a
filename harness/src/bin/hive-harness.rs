//! The program inside each agent's container.

use std::process::ExitCode;

#[expect(
    clippy::print_stderr,
    reason = "the one place that reports why the program ends"
)]
fn main() -> ExitCode {
    match harness::cli::main() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("hive-harness: {error:#}");
            ExitCode::FAILURE
        }
    }
}
