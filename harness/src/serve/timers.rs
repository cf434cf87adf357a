//! The timers of the turn loop that are set.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::turn::Timer;

/// When each of them is due.
pub(super) struct Timers {
    due: BTreeMap<Timer, Instant>,
    /// How long a minute is, of pauses after refusals; shorter in tests.
    minute: Duration,
}

impl Timers {
    /// None is set.
    pub(super) fn new(minute: Duration) -> Self {
        Self {
            due: BTreeMap::new(),
            minute,
        }
    }

    /// Sets one, anew if it is set already.
    pub(super) fn set(&mut self, timer: Timer, length: Duration) {
        let length = match timer {
            Timer::Parked | Timer::Login => length.mul_f64(self.minute.as_secs_f64() / 60.0),
            Timer::Rest | Timer::Reload | Timer::MaxTurn | Timer::StopGrace | Timer::Abandon | Timer::Nap => {
                length
            }
        };
        self.due.insert(timer, Instant::now() + length);
    }

    /// Clears one, if it is set.
    pub(super) fn clear(&mut self, timer: Timer) {
        self.due.remove(&timer);
    }

    /// Waits for the one that is due first, and clears it; for ever when none is set. Cancel-safe.
    pub(super) async fn next(&mut self) -> Timer {
        let first = self.due.iter().min_by_key(|(_, due)| **due);
        let Some((timer, due)) = first.map(|(timer, due)| (*timer, *due)) else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(due).await;
        self.clear(timer);
        timer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_due_first_comes_first_once_and_what_is_cleared_never() {
        let mut timers = Timers::new(Duration::from_secs(60));
        timers.set(Timer::Rest, Duration::from_millis(2));
        timers.set(Timer::MaxTurn, Duration::from_millis(1));
        timers.set(Timer::Nap, Duration::from_millis(1));
        timers.set(Timer::Nap, Duration::from_millis(3));
        timers.clear(Timer::MaxTurn);
        assert_eq!(timers.next().await, Timer::Rest);
        assert_eq!(timers.next().await, Timer::Nap);
        assert!(timers.due.is_empty());
    }

    #[test]
    fn only_pauses_after_refusals_keep_the_pace_of_the_minute() {
        let mut timers = Timers::new(Duration::from_secs(6));
        let begun = Instant::now();
        for (timer, seconds) in [(Timer::Parked, 6), (Timer::Login, 6), (Timer::Rest, 60)] {
            timers.set(timer, Duration::from_secs(60));
            let wait = timers.due[&timer] - begun;
            assert!(
                (seconds..seconds + 3).contains(&wait.as_secs()),
                "{timer:?}: {wait:?}"
            );
        }
    }
}
