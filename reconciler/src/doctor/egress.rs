//! What the way out of agents needs of a host.

use shared::AgentName;
use shared::status::TurnState;

use super::containers::Unit;
use super::judgement::{Judgement, fail, ok, warn};
use super::{Facts, Folder};
use crate::model::inventory::Known;

/// What is looked at where agents have a way out of their own.
#[derive(Debug, Clone)]
pub struct Egress {
    /// The declared agents that have one.
    pub agents: Vec<AgentName>,
    /// Those of them that talk to the model provider, and whose programs have no key of their own.
    pub keyless: Vec<AgentName>,
    /// Where the provider's key is; `None`: there is none.
    pub key: Known<Option<String>>,
    /// The service's folder, where systemd runs the service.
    pub folder: Option<Known<Folder>>,
    /// The sockets that are there, each with whether it answers.
    pub doors: Known<Vec<(AgentName, Known<()>)>>,
}

/// A check: what it is called, and how it judges.
pub(super) type Check = (&'static str, fn(&Egress, &Facts) -> Judgement);

/// All checks, in the order in which they are shown.
pub(super) const CHECKS: [Check; 3] = [
    ("egress service", service),
    ("egress doors", doors),
    ("provider's key", key),
];

/// The unit of the service; absent where the daemon runs it itself.
fn unit(facts: &Facts) -> Option<&Unit> {
    let systemd = facts.containers.as_ref()?.systemd.as_ref().ok()?;
    Some(&systemd.egress)
}

fn service(egress: &Egress, facts: &Facts) -> Judgement {
    let waiting = || match &egress.agents[..] {
        [one] => format!("{one} has no way out"),
        [first, others @ ..] => format!(
            "{first} and {} have no way out",
            super::count(others.len(), "other")
        ),
        [] => "agents have no way out".to_owned(),
    };
    let Some(folder) = &egress.folder else {
        return ok("the daemon runs it");
    };
    match unit(facts) {
        None => return ok("not looked at: see systemd"),
        Some(unit) if unit.load != "loaded" => {
            return fail(
                format!("there is no unit hyperhive-egress.service: {}", waiting()),
                "as root: hive units --install && systemctl daemon-reload",
            );
        }
        Some(unit) if unit.active != "active" => {
            return fail(
                format!("it is {}: {}", unit.active, waiting()),
                "systemctl enable --now hyperhive-egress; then journalctl -u hyperhive-egress",
            );
        }
        Some(_) => {}
    }
    if let Ok(run) = &facts.run
        && run.owner.is_some()
        && run.mode & 0o005 != 0o005
    {
        return fail(
            format!(
                "it cannot read {}/egress.json, where the daemon says what is allowed (mode {:o})",
                run.path, run.mode
            ),
            format!("chmod 755 {}", run.path),
        );
    }
    match folder {
        Ok(folder) if folder.owner.is_some() && folder.mode & 0o077 != 0 => fail(
            format!(
                "{} is open to others (mode {:o}), who reach each agent's way out there",
                folder.path, folder.mode
            ),
            format!("chmod 700 {}", folder.path),
        ),
        Ok(folder) => ok(format!("it runs, its sockets are in {}", folder.path)),
        Err(why) => warn(why, "look at that folder"),
    }
}

fn doors(egress: &Egress, _: &Facts) -> Judgement {
    let doors = match &egress.doors {
        Ok(doors) => doors,
        Err(why) => return ok(format!("not looked at: {why}")),
    };
    let shut: Vec<String> = doors
        .iter()
        .filter_map(|(agent, answers)| Some(format!("{agent}: {}", answers.as_ref().err()?)))
        .collect();
    if shut.is_empty() {
        return ok(format!("{} answer", super::count(doors.len(), "socket")));
    }
    fail(
        shut.join("; "),
        "journalctl -u hyperhive-egress (without systemd: the daemon's log), then restart it",
    )
}

fn key(egress: &Egress, facts: &Facts) -> Judgement {
    let put = match &egress.folder {
        Some(_) => {
            "put one into /etc/credstore/hyperhive-api-key, root's alone, then systemctl restart hyperhive-egress; or give the \
             agent a key in secretEnv"
        }
        None => "name a file in egress.apiKeyFile; or give the agent a key in secretEnv",
    };
    match &egress.key {
        Ok(Some(place)) => return ok(format!("in {place}")),
        Err(why) => return fail(why, put),
        Ok(None) => {}
    }
    if egress.keyless.is_empty() {
        return ok("none is needed: no agent counts on it");
    }
    let names = |agents: &[&AgentName]| {
        agents
            .iter()
            .map(|name| name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let Ok(status) = &facts.daemon else {
        let all: Vec<_> = egress.keyless.iter().collect();
        return warn(
            format!("there is none: {} need logins of their own", names(&all)),
            put,
        );
    };
    let without: Vec<&AgentName> = egress
        .keyless
        .iter()
        .filter(|name| {
            let mut agents = status.agents.iter();
            agents.any(|agent| agent.name == **name && agent.turn == Some(TurnState::NeedsLogin))
        })
        .collect();
    if without.is_empty() {
        return ok("there is none, and no agent says that it needs a login");
    }
    fail(
        format!("there is none, and {} cannot reach the model", names(&without)),
        format!("{put}; or hive login AGENT"),
    )
}
