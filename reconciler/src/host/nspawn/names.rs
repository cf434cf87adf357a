//! What an agent is called where systemd and machined see it.

use shared::{AgentName, AgentUid};

/// What the names of all agents' units begin with: the template's own name.
const PREFIX: &str = "hyperhive-agent@";
const SUFFIX: &str = ".service";

/// The template unit.
pub(super) const TEMPLATE: &str = "hyperhive-agent@.service";
/// All agents' units.
pub(super) const PATTERN: &str = "hyperhive-agent@*.service";
/// The folder of the units' objects on the bus.
pub(super) const UNITS: &str = "/org/freedesktop/systemd1/unit";

/// The agent's unit.
pub(super) fn unit(agent: &AgentName) -> String {
    format!("{PREFIX}{agent}{SUFFIX}")
}

/// The unit that deletes what is left of an agent.
pub(super) fn purge_unit(agent: &AgentName, uid: AgentUid) -> String {
    format!("hyperhive-purge@{agent}-{uid}.service")
}

/// Whose unit it is; `None`: no agent's.
pub(super) fn agent_of(unit: &str) -> Option<AgentName> {
    unit.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// The agent's machine.
pub(super) fn machine(agent: &AgentName) -> String {
    format!("hive-{agent}")
}

/// Whose unit an object of the bus is; `None`: no agent's. In its path every byte that is no letter or digit is in hex.
pub(super) fn agent_of_object(path: &str) -> Option<AgentName> {
    let mut bytes = path.strip_prefix(UNITS)?.strip_prefix('/')?.bytes();
    let mut unit = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'_' {
            unit.push(byte);
            continue;
        }
        let hex = [bytes.next()?, bytes.next()?];
        unit.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
    }
    agent_of(std::str::from_utf8(&unit).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_the_agent() {
        let agent: AgentName = "wiki-2".parse().unwrap();
        assert_eq!(agent_of(&unit(&agent)), Some(agent.clone()));
        assert_eq!(
            agent_of_object("/org/freedesktop/systemd1/unit/hyperhive_2dagent_40wiki_2d2_2eservice"),
            Some(agent)
        );
    }

    #[test]
    fn what_is_no_agents_unit_is_nobodys() {
        for unit in [
            "hyperhive.service",
            "hyperhive-agent@.service",
            "hyperhive-agent@A.service",
            "x@alice.service",
        ] {
            assert_eq!(agent_of(unit), None, "{unit}");
        }
        for path in [
            "/org/freedesktop/systemd1/unit/hyperhive_2dagent_4",
            "/org/freedesktop/systemd1/job/1",
            "",
        ] {
            assert_eq!(agent_of_object(path), None, "{path}");
        }
    }
}
