//! The drivers `claude` and `acp`: with real programs and a made-up provider, and with made-up programs that misbehave.
#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "helpers of tests start programs and write files, a failure in them is a failure of the test, and not \
              all of those shared with the other tests are used here"
)]

mod acp;
mod bee;
#[path = "../integration/daemon.rs"]
mod daemon;
mod fake;
#[path = "../support/in_memory.rs"]
mod in_memory;
mod real;
mod secrets;
mod servers;
#[path = "../integration/world.rs"]
mod world;
