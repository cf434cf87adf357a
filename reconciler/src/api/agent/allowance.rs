//! How much one agent may write into the ledger. What it writes is kept for a while whoever reads it, so bounds on
//! what waits unread are not enough: two agents that play ball, or one that talks to the operator, would fill the disk.

use jiff::Timestamp;

/// What may be written at once.
const BURST: u64 = 32 * 1024 * 1024;
/// What comes back each second.
const PER_SECOND: u64 = 16 * 1024;
/// What a message costs besides its text.
const ROW: u64 = 1024;
/// The same for one to the operator: it is kept as an event too, and read by a person.
const OPERATOR_ROW: u64 = 64 * 1024;

/// What is left of an agent's allowance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    used: u64,
    at: Timestamp,
}

impl Allowance {
    /// All of it.
    pub(super) fn new(now: Timestamp) -> Self {
        Self { used: 0, at: now }
    }

    /// Takes the cost of a message of this many bytes.
    ///
    /// # Errors
    /// When that is more than is left: how many seconds it takes until it is there.
    #[cfg(test)]
    fn take(&mut self, bytes: usize, to_operator: bool, now: Timestamp) -> Result<(), u64> {
        self.take_all(bytes, 1, to_operator, now)
    }

    /// Takes the cost of so many messages of this many bytes, or of one that is kept so many times.
    ///
    /// # Errors
    /// When that is more than is left: how many seconds it takes until it is there.
    pub(super) fn take_all(
        &mut self,
        bytes: usize,
        copies: usize,
        to_operator: bool,
        now: Timestamp,
    ) -> Result<(), u64> {
        // A clock that was set back gives nothing back.
        let passed = u64::try_from(now.duration_since(self.at).as_secs()).unwrap_or(0);
        if passed > 0 {
            self.used = self.used.saturating_sub(passed.saturating_mul(PER_SECOND));
            self.at = now;
        }
        let row = bytes as u64 + if to_operator { OPERATOR_ROW } else { ROW };
        let cost = row.saturating_mul(copies as u64);
        let surplus = (self.used + cost).saturating_sub(BURST);
        if surplus > 0 {
            return Err(surplus.div_ceil(PER_SECOND));
        }
        self.used += cost;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + secs).unwrap()
    }

    /// How many messages are let through.
    fn sent(allowance: &mut Allowance, bytes: usize, to_operator: bool, now: Timestamp) -> u32 {
        let mut count = 0;
        while allowance.take(bytes, to_operator, now).is_ok() {
            count += 1;
        }
        count
    }

    #[test]
    fn a_flood_ends_and_time_gives_back_what_it_took() {
        let mut allowance = Allowance::new(at(0));
        let first = sent(&mut allowance, 1024, false, at(0));
        assert_eq!(u64::from(first), BURST / (1024 + ROW));
        assert_eq!(allowance.take(1024, false, at(0)), Err(1));
        assert_eq!(sent(&mut allowance, 1024, false, at(1)), 8);
        assert_eq!(sent(&mut allowance, 1024, false, at(1_000_000)), first);
    }

    #[test]
    fn the_operator_is_spared_sooner_than_an_agent() {
        let mut allowance = Allowance::new(at(0));
        assert_eq!(sent(&mut allowance, 0, true, at(0)), 512);
        assert_eq!(allowance.take(0, true, at(0)), Err(4));
    }

    #[test]
    fn a_clock_that_is_set_back_gives_nothing_back() {
        let mut allowance = Allowance::new(at(1000));
        sent(&mut allowance, 0, true, at(1000));
        assert!(allowance.take(0, true, at(0)).is_err());
        assert!(allowance.take(0, true, at(1000)).is_err());
        assert!(allowance.take(0, true, at(1004)).is_ok());
    }
}
