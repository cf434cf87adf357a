//! Whether what the daemon wants is what the operator declared. Pure, but for looking at who else runs.

use camino::{Utf8Path, Utf8PathBuf};
use shared::AgentName;
use shared::spec::{AgentSpec, Spec};

use crate::host::nspawn::programs::STORE;
use crate::host::nspawn::record::{self, LaunchRecord};
use crate::host::{HostError, Launch};
use crate::model::user_range::UserRange;

/// What is declared for an agent. One that the spec does not name was spawned, and has what all spawned ones have.
pub(super) fn declared<'a>(spec: &'a Spec, agent: &AgentName) -> &'a AgentSpec {
    spec.agents.get(agent).unwrap_or(&spec.spawn_defaults)
}

/// The programs that may be shown to an agent.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    harness: Utf8PathBuf,
    claude: Option<Utf8PathBuf>,
}

impl Programs {
    /// What the spec names; the harness is by default `beside` the daemon.
    pub(super) fn of(spec: &Spec, beside: &Utf8Path) -> Self {
        Self {
            harness: spec.harness.as_deref().map_or(beside, Utf8Path::new).to_owned(),
            claude: spec.programs.claude.as_deref().map(Utf8PathBuf::from),
        }
    }
}

/// Holds a launch against what is declared. Returns the container's user ids.
pub(super) fn launch(
    agent: &AgentName,
    launch: &Launch,
    declared: &AgentSpec,
    programs: &Programs,
) -> Result<UserRange, HostError> {
    let refused = |why: String| Err(HostError::refused(format!("the start of {agent}"), why));
    if launch.agent != *agent {
        return refused(format!("its launch file is that of {}", launch.agent));
    }
    let Some(range) = launch.user_range else {
        return refused("its launch file names no user ids: it is not for a container".to_owned());
    };
    let changed = |what: &str| {
        format!(
            "its {what} are not what the spec declares now: the next deployment brings them together (hive status {agent})"
        )
    };
    if launch.binds != declared.binds {
        return refused(changed("binds"));
    }
    if launch.secrets != declared.secrets {
        return refused(changed("secrets"));
    }
    // What lies in the store every agent sees anyway, and an agent goes back to a system of before an update.
    if launch.harness != programs.harness && !launch.harness.starts_with(STORE) {
        return refused(format!(
            "{} is not the harness of this hive, {}",
            launch.harness, programs.harness
        ));
    }
    if let Some(claude) = &launch.claude
        && Some(claude) != programs.claude.as_ref()
        && !claude.starts_with(STORE)
    {
        return refused(format!(
            "{claude} is not what the spec declares as programs.claude"
        ));
    }
    Ok(range)
}

/// Whether a folder of the host may be given to the agent to write in: one that is the agent's already, or that root
/// made for it.
pub(super) fn may_write(folder: &Utf8Path, owner: u32, range: UserRange) -> Result<(), String> {
    if range.contains(owner) {
        return Ok(());
    }
    Err(format!(
        "a writable bind must belong to the agent's user on this host: chown -R {0}:{0} {folder}, or make it read-only",
        range.agent()
    ))
}

/// Refuses user ids that another agent runs under.
pub(super) fn alone(records: &Utf8Path, agent: &AgentName, range: UserRange) -> Result<(), HostError> {
    let failed = || HostError::io("list", records.as_str());
    for entry in records.read_dir_utf8().map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let other = entry
            .file_name()
            .strip_suffix(".json")
            .and_then(|name| name.parse::<AgentName>().ok());
        let Some(other) = other.filter(|other| other != agent) else {
            continue;
        };
        let noted = record::read::<LaunchRecord>(entry.path())?;
        if noted.is_some_and(|noted| noted.range == range) {
            let why = format!(
                "its user ids, from {}, are those that {other} ran under: if {other} is gone for good, remove {}",
                range.base(),
                entry.path()
            );
            return Err(HostError::refused(format!("the start of {agent}"), why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::folders::write_atomic;

    fn name() -> AgentName {
        "alice".parse().unwrap()
    }

    fn spec() -> Spec {
        serde_json::from_str(
            r#"{ "version": 1, "hive": { "name": "h" }, "programs": { "claude": "/bin/claude" },
                 "agents": { "alice": {
                     "binds": [{ "source": "/srv/wiki", "target": "/wiki" }],
                     "secrets": { "key": { "file": "/run/key" } } } } }"#,
        )
        .unwrap()
    }

    fn wanted() -> Launch {
        let spec = spec();
        let alice = &spec.agents[&name()];
        Launch {
            agent: name(),
            uid: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap(),
            harness: "/bin/hive-harness".into(),
            claude: Some("/bin/claude".into()),
            driver: alice.driver.kind,
            network: alice.network,
            binds: alice.binds.clone(),
            limits: alice.limits.clone(),
            secrets: alice.secrets.clone(),
            user_range: UserRange::of_slot(3),
            system: Some("/nix/store/x".into()),
        }
    }

    fn judged(change: impl FnOnce(&mut Launch)) -> Result<UserRange, HostError> {
        let (spec, mut wanted) = (spec(), wanted());
        change(&mut wanted);
        let programs = Programs::of(&spec, Utf8Path::new("/bin/hive-harness"));
        launch(&name(), &wanted, declared(&spec, &name()), &programs)
    }

    #[test]
    fn what_is_declared_may_be_started() {
        assert_eq!(judged(|_| {}).unwrap(), UserRange::of_slot(3).unwrap());
    }

    #[test]
    fn programs_of_an_earlier_version_may_be_started_again_from_the_store() {
        let before = judged(|wanted| {
            wanted.harness = "/nix/store/old/bin/hive-harness".into();
            wanted.claude = Some("/nix/store/old/bin/claude".into());
        });
        assert_eq!(before.unwrap(), UserRange::of_slot(3).unwrap());
    }

    #[test]
    fn a_daemon_that_was_taken_over_gets_no_more_than_is_declared() {
        type Change = fn(&mut Launch);
        let changes: [(Change, &str); 7] = [
            (|wanted| wanted.agent = "bob".parse().unwrap(), "that of bob"),
            (|wanted| wanted.user_range = None, "user ids"),
            (|wanted| wanted.binds[0].read_only = false, "binds"),
            (|wanted| wanted.binds[0].source = "/root".to_owned(), "binds"),
            (
                |wanted| wanted.secrets.get_mut("key").unwrap().file = "/etc/shadow".to_owned(),
                "secrets",
            ),
            (|wanted| wanted.harness = "/etc/shadow".into(), "not the harness"),
            (
                |wanted| wanted.claude = Some("/etc/shadow".into()),
                "programs.claude",
            ),
        ];
        for (change, why) in changes {
            let error = judged(change).unwrap_err();
            assert!(
                error.is_terminal() && error.chain().contains(why),
                "{}",
                error.chain()
            );
        }
    }

    #[test]
    fn only_a_folder_of_the_agents_own_is_given_to_it_to_write_in() {
        let range = UserRange::of_slot(3).unwrap();
        assert!(may_write("/srv/x".into(), range.agent(), range).is_ok());
        for other in [0, 1000, UserRange::of_slot(4).unwrap().agent()] {
            let why = may_write("/srv/x".into(), other, range).unwrap_err();
            assert!(why.contains("chown -R 1879245800:1879245800 /srv/x"), "{why}");
        }
    }

    #[test]
    fn no_two_agents_run_under_the_same_user_ids() {
        let keep = tempfile::tempdir().unwrap();
        let records = Utf8Path::from_path(keep.path()).unwrap();
        let range = UserRange::of_slot(3).unwrap();
        let note = |name: &str, slot| {
            let noted = LaunchRecord {
                invocation: "aa".to_owned(),
                toplevel: shared::canonical::digest_value(shared::canonical::Encoding::Toplevel, &"x".into()),
                range: UserRange::of_slot(slot).unwrap(),
            };
            let agent = name.parse().unwrap();
            write_atomic(
                &record::record_file(records, &agent),
                &serde_json::to_vec(&noted).unwrap(),
                0o644,
            )
            .unwrap();
        };
        note("alice", 3);
        note("bob", 4);
        assert!(alone(records, &name(), range).is_ok());
        note("carol", 3);
        assert!(
            alone(records, &name(), range)
                .unwrap_err()
                .chain()
                .contains("carol")
        );
    }
}
