//! The hyperhive daemon and its command line.

use std::process::ExitCode;

use reconciler::cli::{self, Cli};
use tokio::runtime::Builder;

/// Threads for work that blocks: files, repos, what agents' sandboxes say. None of it waits for other such work, so a few
/// are enough; with hundreds, what each holds while it works adds up when a whole hive is looked at at once.
const BLOCKING_THREADS: usize = 16;

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
    let runtime = runtime
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    Ok(runtime.block_on(cli::run(cli)))
}
