//! Waiting for something, with a deadline.

use std::fmt::Debug;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Long enough for anything here on a machine that has much else to do.
pub(crate) const LONG: Duration = Duration::from_secs(40);

/// How many times longer everything takes here than in a nest.
pub(crate) fn slowness() -> u32 {
    // An emulated machine says so.
    if Path::new("/t/slow").exists() { 4 } else { 1 }
}

const PAUSE: Duration = Duration::from_millis(10);

/// Looks until what is seen is right. An error of `look` is one more thing that is not right yet.
pub(crate) fn until<T: Debug>(
    what: &str,
    look: impl FnMut() -> Result<T>,
    right: impl FnMut(&T) -> bool,
) -> Result<T> {
    within(LONG * slowness(), what, look, right)
}

/// [`until`], in this time.
pub(crate) fn within<T: Debug>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T>,
    mut right: impl FnMut(&T) -> bool,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let seen = look();
        match seen {
            Ok(value) if right(&value) => return Ok(value),
            Ok(value) if Instant::now() >= end => {
                bail!(
                    "not within {} s: {what}; last seen: {value:?}",
                    limit.as_secs_f64()
                )
            }
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("not within {} s: {what}", limit.as_secs_f64()));
            }
            _ => thread::sleep(PAUSE),
        }
    }
}
