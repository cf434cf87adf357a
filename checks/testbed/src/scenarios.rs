//! All scenarios.

mod bare;

use anyhow::Result;

/// What is to happen after a scenario, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is over.
    Done,
    /// The host reboots, and the scenario is played again with the next number.
    Reboot,
}

/// One scenario, with a host of its own.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// What it is chosen by.
    pub(crate) name: &'static str,
    /// What it shows, in a line.
    pub(crate) summary: &'static str,
    /// Plays it; told how often the host has booted.
    pub(crate) play: fn(u32) -> Result<Then>,
}

/// In the order they are played: the longest first.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "bare_guest",
        summary: "the guest's system from the store boots in a private user range, is healthy and stops at once",
        play: bare::guest,
    },
    Scenario {
        name: "bare_isolation",
        summary: "its ids, its network, its memory and its tasks are bounded by the kernel",
        play: bare::isolation,
    },
    Scenario {
        name: "bare_endings",
        summary: "poweroff, reboot, a killed container and a killed guest are told apart by systemd",
        play: bare::endings,
    },
    Scenario {
        name: "bare_reboot",
        summary: "what a host writes outlives its reboot, what it starts does not",
        play: bare::reboot,
    },
];
