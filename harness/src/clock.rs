//! The wall clock: for what is told to others. Everything that waits uses lengths of time.

use std::time::Duration;

use jiff::Timestamp;

/// What time it is.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the harness that reads the wall clock"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// How long it is until then; nothing when it is past.
pub fn until(then: Timestamp) -> Duration {
    then.duration_since(now()).try_into().unwrap_or_default()
}
