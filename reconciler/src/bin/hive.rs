//! The hyperhive daemon and its command line.

use std::process::ExitCode;

use reconciler::cli::{self, Cli};
use tokio::runtime::Builder;

fn main() -> anyhow::Result<ExitCode> {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(exit) => return Ok(exit),
    };
    // Becoming an agent's sandbox replaces this process, so it must come before there are threads.
    if let Some(exit) = cli.launch() {
        return Ok(exit);
    }
    let mut runtime = if cli.is_daemon() {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    Ok(runtime.enable_all().build()?.block_on(cli::run(cli)))
}
