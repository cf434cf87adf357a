//! The process runtime with real processes and a real sandbox.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod lifecycle;
mod sandboxing;
mod secrets;
mod survival;
mod world;
