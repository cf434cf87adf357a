//! Since when the daemon watches without a break: from its start, or from the last jump of the clock.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A smaller difference is how clocks are, and how long it takes to read two of them.
const JUMP: SignedDuration = SignedDuration::from_secs(2);

/// The wall clock beside one that never jumps.
#[derive(Debug, Clone)]
pub(super) struct Watching {
    /// Since when, by the wall clock as it is now.
    pub(super) since: Timestamp,
    wall: Timestamp,
    steady: Duration,
}

impl Watching {
    pub(super) fn begin(wall: Timestamp, steady: Duration) -> Self {
        Self {
            since: wall,
            wall,
            steady,
        }
    }

    /// Compares the clocks; by how much the wall clock jumped since the last look, if it did.
    pub(super) fn look(&mut self, wall: Timestamp, steady: Duration) -> Option<SignedDuration> {
        let passed = steady.saturating_sub(self.steady);
        let passed = SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX);
        let jump = wall.duration_since(self.wall).saturating_sub(passed);
        (self.wall, self.steady) = (wall, steady);
        (jump.abs() > JUMP).then(|| {
            self.since = wall;
            jump
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_seen_once_in_either_direction_and_passing_time_is_none() {
        let start = Timestamp::from_second(1_000_000).expect("a time");
        let at = |wall: i64| start + SignedDuration::from_secs(wall);
        let mut watching = Watching::begin(at(0), Duration::from_secs(50));
        assert_eq!(watching.look(at(600), Duration::from_secs(650)), None);
        assert_eq!(watching.since, at(0));
        let day = SignedDuration::from_hours(24);
        assert_eq!(watching.look(at(601) + day, Duration::from_secs(651)), Some(day));
        assert_eq!(watching.since, at(601) + day);
        assert_eq!(watching.look(at(602) + day, Duration::from_secs(652)), None);
        assert_eq!(watching.look(at(603), Duration::from_secs(653)), Some(-day));
        assert_eq!(watching.since, at(603));
    }
}
