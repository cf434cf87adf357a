//! Faults for real: the daemon is killed in the middle of its work, its disk fills up, its files are damaged, its clock
//! jumps. Nothing accepted is lost, nothing gated happens without its approval, and the operator is told what to do.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

#[path = "faults/clock.rs"]
mod clock;
#[path = "daemon_support/contract.rs"]
#[expect(dead_code, reason = "the tests of the daemon use the rest")]
mod contract;
#[path = "daemon_support/http.rs"]
#[expect(dead_code, reason = "the tests of the daemon use the rest")]
mod http;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/ledger.rs"]
mod ledger;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/mail.rs"]
mod mail;
#[path = "faults/mounts.rs"]
mod mounts;
#[path = "daemon_support/numbers.rs"]
mod numbers;
#[path = "faults/processes.rs"]
mod processes;
#[path = "faults/repo.rs"]
mod repo;
#[path = "faults/storage.rs"]
mod storage;
#[path = "daemon_support/world.rs"]
#[expect(dead_code, reason = "the tests of the daemon use the rest")]
mod world;
