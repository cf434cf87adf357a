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
        give_memory_back();
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

/// Has freed memory shared by all threads, and given back. Else each thread that ever looked at an agent keeps what it
/// needed most: with 1,000 agents a third of what the daemon holds.
#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "the allocator is glibc's, and this is its only way to be told"
)]
fn give_memory_back() {
    /// What may stay free at the top of the heap, in bytes.
    const KEPT: libc::c_int = 64 * 1024;
    // SAFETY: sets two of the allocator's own numbers, while there is one thread. A refusal changes nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Other allocators are left as they are.
#[cfg(not(target_env = "gnu"))]
fn give_memory_back() {}
