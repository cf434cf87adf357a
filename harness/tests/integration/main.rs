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
#[path = "../support/door.rs"]
mod door;
mod events;
#[path = "../support/git.rs"]
mod git;
mod instructions;
mod mcp;
mod process;
mod proposals;
mod turns;
mod world;
