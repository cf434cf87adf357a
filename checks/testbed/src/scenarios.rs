//! All scenarios.

mod apart;
mod bare;
mod doctor;
mod drift;
mod faulty;
mod killed;
mod life;
mod memory;
mod proposal;
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
    // These two take long, most of it waiting: others are played meanwhile.
    Scenario {
        name: "reverted",
        summary: "a system whose harness does not come up goes back to the last good one, and both sides are told",
        play: proposal::reverted,
    },
    Scenario {
        name: "memory_killed",
        summary: "a harness and a guest that the kernel kills for memory come back, the guest after waits that grow",
        play: memory::play,
    },
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
        name: "proposal",
        summary: "a commit that changes an agent's system is built by Nix, asked about, and deployed by one restart",
        play: proposal::play,
    },
    Scenario {
        name: "reload",
        summary: "a commit that only adds an MCP server, and a new prompt, are taken up without any restart",
        play: proposal::reloaded,
    },
    Scenario {
        name: "turn_boundary",
        summary: "a restart into what was approved waits for the end of the turn",
        play: proposal::at_turn_boundary,
    },
    Scenario {
        name: "given_up",
        summary: "a system that ends as soon as it is started is given up after three tries",
        play: proposal::given_up,
    },
    Scenario {
        name: "deploy_rebooted",
        summary: "a probation goes on after the host has rebooted",
        play: proposal::rebooted,
    },
    Scenario {
        name: "deploy_killed",
        summary: "a daemon killed at each step of a deployment leads to one gate, one deployment, one restart",
        play: killed::play,
    },
    Scenario {
        name: "eval_killed",
        summary: "a daemon killed while a commit is evaluated has it evaluated again, and leaves no evaluator behind",
        play: killed::evaluating,
    },
    Scenario {
        name: "bad_commits",
        summary: "a commit that cannot be evaluated or built opens no gate, and both sides are told why",
        play: faulty::commits,
    },
    Scenario {
        name: "nix_away",
        summary: "a commit whose build lost Nix's daemon, or found none, is built when it is there again",
        play: faulty::nix_away,
    },
    Scenario {
        name: "vanished_system",
        summary: "a system that vanished from the store is built again",
        play: faulty::vanished,
    },
    Scenario {
        name: "full_disk",
        summary: "with no room for its state the daemon refuses, says so, and goes on when there is room again",
        play: faulty::full,
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
        name: "fetches",
        summary: "a build that wants the network waits for a gate that names the host, and is deployed under one of its own",
        play: faulty::fetches,
    },
    Scenario {
        name: "doctor_nix",
        summary: "a host that builds with Nix has no finding; a daemon, folder or input that is not right is named",
        play: doctor::nix,
    },
    Scenario {
        name: "doctor",
        summary: "a host as it should be has no finding; what is changed, removed or too little is named",
        play: doctor::play,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_scenarios_have_a_name_in_common() {
        let mut names: Vec<&str> = ALL.iter().chain(crate::bench::ALL).map(|it| it.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
