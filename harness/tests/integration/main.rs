//! The real program against a daemon that lives in the test.
#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests start programs and write files, and a failure in them is a failure of the test"
)]

mod budget;
mod configs;
mod daemon;
mod events;
#[path = "../support/git.rs"]
mod git;
#[path = "../support/in_memory.rs"]
mod in_memory;
mod instructions;
mod mcp;
mod process;
mod proposals;
mod turns;
mod world;
