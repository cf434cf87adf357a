//! All scenarios.

mod apart;
mod bare;
mod drift;
mod life;
mod resources;
mod start;
mod way_out;

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

/// In the order they are played.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "start",
        summary: "agents of a spec come up as containers that systemd, machined, kernel and journal know",
        play: start::play,
    },
    Scenario {
        name: "way_out",
        summary: "hosts that are not listed are refused and told of; the provider's key stays outside, a secret with its agent",
        play: way_out::play,
    },
    Scenario {
        name: "endings",
        summary: "poweroff, reboot, a killed container and a killed guest are told apart, and the agent runs again",
        play: life::endings,
    },
    Scenario {
        name: "adoption",
        summary: "a daemon that is killed and comes back leaves agents alone, and its first plan is empty",
        play: life::adoption,
    },
    Scenario {
        name: "host_reboot",
        summary: "after a reboot of the host the same agents run, with their ids and their state",
        play: life::reboot,
    },
    Scenario {
        name: "removal",
        summary: "a removed agent is stopped and archived, and after a purge nothing of it is left",
        play: life::removal,
    },
    Scenario {
        name: "limits",
        summary: "memory, tasks and processor of an agent are bounded by the kernel",
        play: apart::limits,
    },
    Scenario {
        name: "agents_apart",
        summary: "agents are apart from the host, its sockets and files, and from each other",
        play: apart::agents,
    },
    Scenario {
        name: "daemon_taken_over",
        summary: "the daemon's user gets its own agents' units from systemd, and nothing else",
        play: apart::daemon,
    },
    Scenario {
        name: "drift",
        summary: "a unit started by hand is stopped; a foreign unit, a foreign machine and a missing template are named",
        play: drift::play,
    },
    Scenario {
        name: "limits_changed",
        summary: "limits that somebody changes underneath a running agent are named and put back, and it runs on",
        play: resources::changed,
    },
    Scenario {
        name: "out_of_memory",
        summary: "who is killed for want of memory is told of once, and a guest that ends by it is told from others",
        play: resources::out_of_memory,
    },
    Scenario {
        name: "start_timeout",
        summary: "a guest that does not come up in time is told apart from one that ends",
        play: drift::start_timeout,
    },
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
    Scenario {
        name: "v2_resources",
        summary: "with the second version of cgroups: limits bite, are put back, and kills are told of at once",
        play: resources::v2,
    },
];
