//! The real `hive-harness mcp`, spoken to as MCP clients do, against a daemon that lives in the test.
#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests start programs and write files, and a failure in them is a failure of the test"
)]

mod config;
mod daemon;
mod faults;
#[path = "../support/git.rs"]
mod git;
#[path = "../support/in_memory.rs"]
mod in_memory;
mod messages;
mod nest;
mod others;
mod protocol;
mod spawning;
