//! Whether users, rights, user ids and the kernel's limits are as containers need them.

use shared::AgentName;

use super::{Containers, Place, Taken};
use crate::doctor::judgement::{Judgement, fail, ok, warn};
use crate::doctor::{Facts, count};
use crate::model::user_range::UserRange;

/// What a guest with systemd takes of `fs.inotify.max_user_instances`, which all containers share.
const INSTANCES_EACH: u64 = 6;
/// What the host itself takes of it.
const INSTANCES_HOST: u64 = 32;
/// What bounds an agent.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

pub(super) fn users(containers: &Containers, facts: &Facts) -> Judgement {
    let accounts = match &containers.accounts {
        Ok(accounts) => accounts,
        Err(why) => return fail(why, "look at /etc/passwd and /etc/group"),
    };
    let mut missing = Vec::new();
    if accounts.daemon.is_none() {
        missing.push("user hyperhive");
    }
    if accounts.egress.is_none() {
        missing.push("user hive-egress");
    }
    missing.extend(&accounts.missing_groups);
    if !missing.is_empty() {
        return fail(
            format!("there is no {}, which the units name", missing.join(", no ")),
            "as root: hive units --install && systemd-sysusers",
        );
    }
    let owner = facts.state.as_ref().ok().and_then(|folder| folder.owner);
    if let (Some(owner), Some(daemon), Ok(folder)) = (owner, accounts.daemon, &facts.state)
        && owner != daemon
    {
        return fail(
            format!(
                "{} belongs to user {owner}, and the daemon's is {daemon}",
                folder.path
            ),
            format!(
                "with the daemon and all agents stopped: chown hyperhive:hyperhive {0} {0}/*; agents' states are given to their \
                 user ids when they start",
                folder.path
            ),
        );
    }
    ok("hyperhive and hive-egress are there")
}

pub(super) fn polkit(containers: &Containers, _: &Facts) -> Judgement {
    match &containers.polkit {
        Err(why) => fail(
            format!("the daemon may start nothing: {why}"),
            "install polkit (polkitd), then: systemctl start polkit",
        ),
        Ok(Some(false)) => fail(
            "it does not let the user hyperhive start an agent's unit",
            "as root: hive units --install && systemctl restart polkit; then look at journalctl -u polkit",
        ),
        Ok(Some(true)) => ok("it lets the daemon start agents' units"),
        Ok(None) => {
            ok("it answers; whether it lets the daemon start agents is seen by root while the daemon runs")
        }
    }
}

pub(super) fn spec_file(containers: &Containers, _: &Facts) -> Judgement {
    let guarded = match &containers.spec_file {
        Ok(guarded) => guarded,
        Err(why) => return fail(why, "put the spec there, as a file of root's"),
    };
    for Place { path, owner, mode } in guarded.folders.iter().chain([&guarded.file]) {
        // In a folder with the sticky bit nobody can replace what is root's.
        let open = mode & 0o022 != 0 && mode & 0o1000 == 0;
        if *owner != 0 || open {
            return fail(
                format!(
                    "{path} belongs to user {owner}, mode {mode:o}: whoever can write it decides what root does for agents"
                ),
                format!(
                    "no agent is to be started from it like that: chown root:root {path} && chmod go-w {path}"
                ),
            );
        }
    }
    let Place { path, mode, .. } = &guarded.file;
    if mode & 0o044 == 0 {
        return fail(
            format!("the daemon cannot read {path} (mode {mode:o})"),
            format!("chmod a+r {path}: it names the files of secrets, and holds none"),
        );
    }
    if let Some(closed) = guarded.folders.iter().find(|folder| folder.mode & 0o011 == 0) {
        return fail(
            format!("the daemon cannot enter {} (mode {:o})", closed.path, closed.mode),
            format!("chmod a+x {}", closed.path),
        );
    }
    ok(format!("{path} is root's"))
}

pub(super) fn user_ids(containers: &Containers, _: &Facts) -> Judgement {
    let ours = pool();
    let apart = |first: u64, count: u64| first >= ours.end || first.saturating_add(count) <= ours.start;
    let mut others = Vec::new();
    match &containers.taken {
        Ok(taken) => {
            let meeting = taken.iter().filter(|taken| !apart(taken.first, taken.count));
            others.extend(meeting.map(|Taken { whose, first, count }| match count {
                1 => format!("{whose} has the id {first}"),
                _ => format!("{whose} has {count} ids from {first} on"),
            }));
        }
        Err(why) => return warn(why, "make sure that nobody else has these user ids"),
    }
    for machine in containers.machines.iter().flatten() {
        let shift = machine.shift.filter(|_| agent_of(&machine.name).is_none());
        if let Some(shift) = shift.filter(|shift| !apart((*shift).into(), UserRange::SIZE.into())) {
            others.push(format!("the machine {} has ids from {shift} on", machine.name));
        }
    }
    if others.is_empty() {
        return ok(format!(
            "{} to {} are the agents' alone",
            ours.start,
            ours.end - 1
        ));
    }
    fail(
        format!(
            "{}: these are for agents, who could have the same files",
            others.join("; ")
        ),
        format!("give them ids outside of {} to {}", ours.start, ours.end - 1),
    )
}

/// The ids that agents' ranges are taken from.
fn pool() -> std::ops::Range<u64> {
    let base = |slot: u32| UserRange::of_slot(slot.into()).map_or(0, |range| u64::from(range.base()));
    base(0)..base(UserRange::COUNT - 1) + u64::from(UserRange::SIZE)
}

pub(super) fn inotify_instances(containers: &Containers, _: &Facts) -> Judgement {
    let there = match &containers.inotify_instances {
        Ok(there) => *there,
        Err(why) => return warn(why, "sysctl fs.inotify.max_user_instances"),
    };
    let agents = u64::try_from(containers.agents).unwrap_or(u64::MAX);
    let needed = agents.saturating_mul(INSTANCES_EACH);
    let wanted = needed.saturating_add(INSTANCES_HOST);
    let found = format!("{there} of them, and {agents} containers take up to {needed}");
    let more = wanted.next_power_of_two().max(1024);
    let todo = format!(
        "sysctl fs.inotify.max_user_instances={more}, and put the same into a file in /etc/sysctl.d; without, starts hang"
    );
    if needed > there {
        fail(found, todo)
    } else if wanted > there {
        warn(found, todo)
    } else {
        ok(found)
    }
}

pub(super) fn control_groups(containers: &Containers, _: &Facts) -> Judgement {
    let todo = "have the kernel and systemd give them to services: see cgroup_disable= in /proc/cmdline";
    let cgroups = match &containers.cgroups {
        Ok(cgroups) => cgroups,
        Err(why) => return fail(why, todo),
    };
    let missing: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|controller| !cgroups.controllers.contains(*controller))
        .collect();
    if missing.is_empty() {
        return ok(format!(
            "version {}, with {}",
            cgroups.version,
            CONTROLLERS.join(", ")
        ));
    }
    let found = format!("version {}, without {}", cgroups.version, missing.join(", "));
    let unbound = containers
        .limited
        .iter()
        .find(|(controller, _)| missing.contains(controller));
    match unbound {
        Some((controller, agent)) => fail(
            format!("{found}: the limit of {agent} that needs {controller} does not hold"),
            todo,
        ),
        None => warn(format!("{found}: such limits would not hold"), todo),
    }
}

pub(super) fn running(containers: &Containers, facts: &Facts) -> Judgement {
    let machines = match &containers.machines {
        Ok(machines) => machines,
        Err(why) => {
            return fail(
                format!("machined does not answer: {why}"),
                "install systemd-container, then: systemctl status systemd-machined",
            );
        }
    };
    let roots = match &containers.roots {
        Ok(roots) => roots,
        Err(why) => return fail(why, "look at that folder"),
    };
    let path = &roots.path;
    if roots.read_only {
        return fail(
            format!("{path} cannot be written, and containers get their trees there"),
            "mount it for writing, or name another folder: hive units --help",
        );
    }
    if roots.owner.is_some_and(|owner| owner != 0) || roots.mode & 0o077 != 0 {
        return fail(
            format!("{path} is not root's alone (mode {:o})", roots.mode),
            format!("chown root:root {path} && chmod 700 {path}"),
        );
    }
    if roots.is_remote() {
        return fail(
            format!(
                "{path} is on {}, where files cannot be given to the ids of a container",
                roots.file_system
            ),
            "put it on a local disk, or name another folder: hive units --help",
        );
    }
    let ours: Vec<AgentName> = machines.iter().filter_map(|it| agent_of(&it.name)).collect();
    if let Ok(ledger) = &facts.ledger
        && !ledger.missing
        && ledger.damage.is_none()
        && let Some(stray) = ours.iter().find(|name| !ledger.live.contains(*name))
    {
        return warn(
            format!("the container hive-{stray} runs, and no row of the ledger knows {stray}"),
            format!("machinectl status hive-{stray}; if the ledger is lost: hive recover"),
        );
    }
    ok(format!("{}, in {path}", count(ours.len(), "container")))
}

/// The agent that a machine is named for.
fn agent_of(machine: &str) -> Option<AgentName> {
    machine.strip_prefix("hive-")?.parse().ok()
}
