//! Turns a burst of events into two calls: one at once, one when it is over. Pure.

use std::time::{Duration, Instant};

/// The state between events.
#[derive(Debug)]
pub(super) struct Debounce {
    quiet: Duration,
    max_delay: Duration,
    /// The last event or call.
    last: Option<Instant>,
    /// When the first event came that no call has followed yet.
    pending_since: Option<Instant>,
}

impl Debounce {
    pub(super) fn new(quiet: Duration, max_delay: Duration) -> Self {
        Self {
            quiet,
            max_delay,
            last: None,
            pending_since: None,
        }
    }

    /// Takes an event: whether to call now.
    pub(super) fn event(&mut self, now: Instant) -> bool {
        let in_burst = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < self.quiet);
        self.last = Some(now);
        if self.pending_since.is_none() && !in_burst {
            return true;
        }
        self.pending_since.get_or_insert(now);
        false
    }

    /// When the next call is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.pending_since?;
        let rest = self.last.unwrap_or(since) + self.quiet;
        Some(rest.min(since + self.max_delay))
    }

    /// Whether a call is due now; it counts as made.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let due = self.deadline().is_some_and(|deadline| deadline <= now);
        if due {
            self.pending_since = None;
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays events at these milliseconds, looking every millisecond until `end`: when calls are made.
    fn calls(events: &[u64], end: u64) -> Vec<u64> {
        let mut debounce = Debounce::new(Duration::from_millis(50), Duration::from_millis(500));
        let start = Instant::now();
        (0..end)
            .filter(|at| {
                let now = start + Duration::from_millis(*at);
                let mut due = false;
                for _ in events.iter().filter(|event| *event == at) {
                    due |= debounce.event(now);
                }
                due | debounce.expire(now)
            })
            .collect()
    }

    #[test]
    fn a_single_event_is_one_call_at_once() {
        assert_eq!(calls(&[10], 1000), [10]);
    }

    #[test]
    fn a_burst_is_one_call_at_once_and_one_when_it_is_over() {
        assert_eq!(calls(&[10, 11, 12, 40], 1000), [10, 90]);
    }

    #[test]
    fn two_events_at_the_same_time_are_two_calls_at_most() {
        assert_eq!(calls(&[10, 10], 1000), [10, 60]);
    }

    #[test]
    fn events_far_apart_are_calls_of_their_own() {
        assert_eq!(calls(&[10, 300, 600], 1000), [10, 300, 600]);
    }

    #[test]
    fn a_burst_without_end_is_looked_at_in_between() {
        let events: Vec<u64> = (0..200).map(|i| i * 10).collect();
        assert_eq!(calls(&events, 2000), [0, 510, 1020, 1530]);
    }

    #[test]
    fn the_last_event_is_always_followed_by_a_call() {
        for gap in 1..120 {
            let events: Vec<u64> = (0..9).map(|i| i * gap).collect();
            let last = events.last().copied();
            assert!(calls(&events, 2000).last().copied() >= last, "gap {gap}");
        }
    }

    #[test]
    fn nothing_is_due_without_events() {
        assert_eq!(
            Debounce::new(Duration::from_millis(50), Duration::from_millis(500)).deadline(),
            None
        );
        assert_eq!(calls(&[], 1000), [0_u64; 0]);
    }
}
