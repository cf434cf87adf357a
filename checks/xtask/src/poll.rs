//! Waiting for something, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Long enough not to load the machine, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(20);

/// What a look showed.
#[derive(Debug)]
pub(crate) enum Look<T> {
    /// It is so.
    Done(T),
    /// It is not so yet; what was seen instead.
    NotYet(String),
}

/// Looks until it is so. An error of `look` ends the wait at once: no later look can make it good.
pub(crate) fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Look<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match look().with_context(|| format!("waiting until {what}"))? {
            Look::Done(value) => return Ok(value),
            Look::NotYet(seen) if Instant::now() >= end => {
                bail!(
                    "not within {} s: {what}; last seen: {seen}",
                    deadline.as_secs_f64()
                );
            }
            Look::NotYet(_) => thread::sleep(PAUSE),
        }
    }
}

/// Looks again and again for this long; fails at the first look that does not succeed.
pub(crate) fn steadily(length: Duration, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + length;
    loop {
        look()?;
        if Instant::now() >= end {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[test]
    fn the_value_of_the_first_good_look_is_returned() {
        let mut looks = 0;
        let value = eventually(Duration::from_secs(60), "it counts", || {
            looks += 1;
            Ok(if looks == 3 {
                Look::Done(looks)
            } else {
                Look::NotYet(format!("look {looks}"))
            })
        });
        assert_eq!(value.expect("in time"), 3);
    }

    #[test]
    fn a_missed_deadline_says_what_was_seen_last() {
        let error = eventually(Duration::ZERO, "the hive is in sync", || {
            Ok(Look::<()>::NotYet("alice is progressing".to_owned()))
        });
        let error = error.expect_err("never so").to_string();
        assert_eq!(
            error,
            "not within 0 s: the hive is in sync; last seen: alice is progressing"
        );
    }

    #[test]
    fn an_error_ends_the_wait_at_once() {
        let result: Result<()> = eventually(Duration::from_secs(60), "it answers", || bail!("it exited"));
        assert_eq!(
            format!("{:#}", result.expect_err("fails")),
            "waiting until it answers: it exited"
        );
    }

    #[test]
    fn what_changes_in_the_meantime_is_not_steady() {
        let mut looks = 0;
        let result = steadily(Duration::from_secs(60), || {
            looks += 1;
            ensure!(looks < 3, "look {looks}");
            Ok(())
        });
        assert_eq!(result.expect_err("fails").to_string(), "look 3");
        steadily(Duration::ZERO, || Ok(())).expect("looked once");
    }
}
