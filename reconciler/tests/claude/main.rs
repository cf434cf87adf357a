//! Real Claude Code agents under the real daemon: `hive serve`, the process runtime's sandbox, and a made-up model provider on
//! loopback. Nothing leaves the machine.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod changes;
#[path = "../daemon_support/contract.rs"]
#[expect(dead_code, reason = "the tests of the daemon use the rest")]
mod contract;
mod crashes;
mod demo;
mod egress;
mod hive;
#[path = "../daemon_support/http.rs"]
#[expect(dead_code, reason = "the tests of the daemon use the rest")]
mod http;
mod login;
mod secrets;
mod talk;
#[path = "../daemon_support/world.rs"]
#[expect(dead_code, reason = "the tests of the daemon use the rest")]
mod world;
