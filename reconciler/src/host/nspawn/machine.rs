//! What machined has of an agent: the name of its container, in a file.
//!
//! machined hears of an end after systemd says it, so for a moment the name of a container that has ended is still
//! taken. A start in that moment fails in nspawn, for no fault of the agent: it waits.

use std::fs;
use std::time::Duration;

use camino::Utf8Path;
use shared::AgentName;

use super::names;
use crate::host::HostError;
use crate::host::blocking::blocking;

/// Where machined has a file for each container.
const MACHINES: &str = "/run/systemd/machines";

/// How often machined is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often at most, before a start is given up.
const LOOKS: u32 = 500;

/// The machine of an agent whose container runs here.
pub fn machine(agent: &AgentName) -> Option<String> {
    let machine = names::machine(agent);
    Utf8Path::new(MACHINES).join(&machine).exists().then_some(machine)
}

/// Returns once the agent's name is free for its next container, whose unit is down.
///
/// # Errors
/// When another container has it, or machined does not let go of the last one.
pub(super) async fn is_free(agent: &AgentName) -> Result<(), HostError> {
    let file = Utf8Path::new(MACHINES).join(names::machine(agent));
    let look = || {
        let file = file.clone();
        blocking(agent.to_string(), move || holder(&file))
    };
    until_free(agent, LOOKS, look).await
}

/// [`is_free`], with what says which unit has the name.
async fn until_free<Look>(
    agent: &AgentName,
    looks: u32,
    mut look: impl FnMut() -> Look,
) -> Result<(), HostError>
where
    Look: Future<Output = Result<Option<String>, HostError>>,
{
    let machine = names::machine(agent);
    let failed = |why| Err(HostError::failed(format!("the start of {agent}"), why));
    for _ in 0..looks {
        let Some(holder) = look().await? else {
            return Ok(());
        };
        if holder != names::unit(agent) {
            return failed(format!(
                "another container is called {machine}: see machinectl status {machine}"
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    failed(format!(
        "machined still has the container that ended: see machinectl status {machine}"
    ))
}

/// The unit of the container that a file is for (empty where the file does not say); `None`: there is no such container.
fn holder(file: &Utf8Path) -> Result<Option<String>, HostError> {
    match fs::read_to_string(file) {
        // Of containers in units of any kind machined says "scope".
        Ok(text) => {
            let unit = text.lines().find_map(|line| line.strip_prefix("SCOPE="));
            Ok(Some(unit.unwrap_or_default().to_owned()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HostError::io("read", file.as_str())(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::folders::write_atomic;

    const OURS: &str = "hyperhive-agent@alice.service";

    /// Waits at most this many looks while machined says that these units have the name, one after the other; how often
    /// it was looked.
    async fn wait(looks: u32, holders: &[Option<&str>]) -> (Result<(), HostError>, usize) {
        let mut seen = holders.iter();
        let look = || std::future::ready(Ok(seen.next().unwrap().map(str::to_owned)));
        let end = until_free(&"alice".parse().unwrap(), looks, look).await;
        (end, holders.len() - seen.len())
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_is_free_at_once() {
        let (end, looks) = wait(9, &[None]).await;
        end.unwrap();
        assert_eq!(looks, 1);
    }

    #[tokio::test]
    async fn a_start_waits_until_machined_lets_go_of_the_last_container() {
        let (end, looks) = wait(9, &[Some(OURS), Some(OURS), None]).await;
        end.unwrap();
        assert_eq!(looks, 3);
    }

    #[tokio::test]
    async fn a_start_does_not_wait_for_ever() {
        let (end, _) = wait(2, &[Some(OURS); 3]).await;
        let error = end.unwrap_err().to_string();
        assert!(
            error.contains("machined still has the container that ended"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_container_of_somebody_else_is_named_at_once() {
        for unit in [
            "machine-hive\\x2dalice.scope",
            "hyperhive-agent@alice2.service",
            "",
        ] {
            let (end, looks) = wait(9, &[Some(unit)]).await;
            let error = end.unwrap_err().to_string();
            assert!(
                error.contains("another container is called hive-alice"),
                "{unit}: {error}"
            );
            assert_eq!(looks, 1);
        }
    }

    #[test]
    fn machined_says_which_unit_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = Utf8Path::from_path(folder.path()).unwrap().join("hive-alice");
        assert_eq!(holder(&file).unwrap(), None);
        let text = format!("# This is private\nNAME=hive-alice\nSCOPE={OURS}\nCLASS=container\n");
        write_atomic(&file, text.as_bytes(), 0o644).unwrap();
        assert_eq!(holder(&file).unwrap().as_deref(), Some(OURS));
        write_atomic(&file, b"", 0o644).unwrap();
        assert_eq!(holder(&file).unwrap().as_deref(), Some(""));
    }
}
