//! The real daemon: `hive serve` as a process, its sockets, its command line, real harnesses in real sandboxes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

#[path = "daemon/api.rs"]
mod api;
#[path = "daemon/bad_input.rs"]
mod bad_input;
#[path = "daemon/config_repo.rs"]
mod config_repo;
#[path = "daemon/crashes.rs"]
mod crashes;
#[path = "daemon/doors.rs"]
mod doors;
#[path = "daemon/http.rs"]
mod http;
#[path = "daemon/life.rs"]
mod life;
#[path = "daemon/quiet.rs"]
mod quiet;
#[path = "daemon/removal.rs"]
mod removal;
#[path = "daemon/world.rs"]
mod world;
