//! The user ids of an agent's container.

use serde::{Deserialize, Serialize};

/// 65,536 user ids that belong to one agent alone. The ledger gives them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct UserRange {
    base: u32,
}

/// Above what systemd-nspawn picks from by itself (524288 to 1879048191), so that no other container gets the same ids.
const FIRST: u32 = 0x7000_0000;

/// A number that is the first of no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no agent's user ids begin with {0}")]
pub struct NoRange(pub u32);

impl TryFrom<u32> for UserRange {
    type Error = NoRange;

    fn try_from(base: u32) -> Result<Self, NoRange> {
        Self::of_base(base).ok_or(NoRange(base))
    }
}

impl From<UserRange> for u32 {
    fn from(range: UserRange) -> Self {
        range.base
    }
}

impl UserRange {
    /// Ids in a range.
    pub const SIZE: u32 = 0x1_0000;
    /// How many ranges there are: up to what systemd keeps for images of others (2147352576).
    pub const COUNT: u32 = 4094;
    /// The user and the group that an agent's harness runs under, as seen inside.
    pub const AGENT: u32 = 1000;

    /// The range of a slot of the ledger.
    pub fn of_slot(slot: u64) -> Option<Self> {
        let slot = u32::try_from(slot).ok().filter(|slot| *slot < Self::COUNT)?;
        Some(Self {
            base: FIRST + slot * Self::SIZE,
        })
    }

    /// The range that begins with this id, if one does.
    pub fn of_base(base: u32) -> Option<Self> {
        let slot = base.checked_sub(FIRST)? / Self::SIZE;
        Self::of_slot(slot.into()).filter(|range| range.base == base)
    }

    /// The id on the host that is root inside.
    pub fn base(self) -> u32 {
        self.base
    }

    /// The id on the host of the user and the group that the harness runs under.
    pub fn agent(self) -> u32 {
        self.base + Self::AGENT
    }

    /// Whether an id of the host is one of these.
    pub fn contains(self, id: u32) -> bool {
        id.checked_sub(self.base)
            .is_some_and(|offset| offset < Self::SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_meet_each_other_or_what_systemd_gives_out() {
        let first = UserRange::of_slot(0).unwrap();
        let second = UserRange::of_slot(1).unwrap();
        let last = UserRange::of_slot((UserRange::COUNT - 1).into()).unwrap();
        assert_eq!(UserRange::of_slot(UserRange::COUNT.into()), None);
        assert!(first.base() > 1_878_982_656 + 65_535);
        assert!(last.base() + 65_535 < 2_147_352_576);
        assert!(first.contains(first.base() + 65_535) && !first.contains(second.base()));
        assert!(!second.contains(first.agent()) && second.contains(second.agent()));
    }

    #[test]
    fn only_the_first_id_of_a_range_names_it() {
        let range = UserRange::of_slot(7).unwrap();
        assert_eq!(UserRange::of_base(range.base()), Some(range));
        for base in [0, 1000, range.base() + 1, range.agent(), u32::MAX] {
            assert_eq!(UserRange::of_base(base), None, "{base}");
        }
    }
}
