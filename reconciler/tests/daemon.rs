//! The real daemon: `hive serve` as a process, its sockets, its command line, real harnesses in real sandboxes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

#[path = "daemon/agent_events.rs"]
mod agent_events;
#[path = "daemon/api.rs"]
mod api;
#[path = "daemon/attacks.rs"]
mod attacks;
#[path = "daemon/bad_input.rs"]
mod bad_input;
#[path = "daemon/config_repo.rs"]
mod config_repo;
#[path = "daemon_support/contract.rs"]
mod contract;
#[path = "daemon/crashes.rs"]
mod crashes;
#[path = "daemon/deadlines.rs"]
mod deadlines;
#[path = "daemon/documents.rs"]
mod documents;
#[path = "daemon/doors.rs"]
mod doors;
#[path = "daemon_support/http.rs"]
mod http;
#[path = "daemon/life.rs"]
mod life;
#[path = "daemon/lifecycle.rs"]
mod lifecycle;
#[path = "daemon/look.rs"]
mod look;
#[path = "daemon/managers.rs"]
mod managers;
#[path = "daemon_support/numbers.rs"]
mod numbers;
#[path = "daemon/quiet.rs"]
mod quiet;
#[path = "daemon/recover.rs"]
mod recover;
#[path = "daemon/removal.rs"]
mod removal;
#[path = "daemon/spawn.rs"]
mod spawn;
#[path = "daemon_support/world.rs"]
mod world;
