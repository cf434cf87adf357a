//! The logs of builds: one folder for each, and a link to the newest of each agent.

use std::io::ErrorKind;
use std::os::unix::fs::symlink;

use camino::{Utf8Path, Utf8PathBuf};
use shared::AgentUid;

use crate::host::process::read_end;
use crate::host::{HostError, Output};

/// How many builds' logs are kept.
const KEPT_LOGS: usize = 200;

/// Makes the folder of a build, and says that it is the newest of its agent. Old ones are deleted.
pub(super) fn begin(builds: &Utf8Path, folder: &Utf8Path, uid: AgentUid) -> Result<(), HostError> {
    std::fs::create_dir_all(folder).map_err(HostError::io("make", folder.as_str()))?;
    let link = latest(builds, uid);
    let failed = || HostError::io("link", link.as_str());
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed()(error)),
        _ => {}
    }
    symlink(folder.file_name().unwrap_or_default(), &link).map_err(failed())?;
    forget_logs(builds, folder)
}

/// At most the last `max` bytes of what an agent's newest build said.
pub(super) fn read(builds: &Utf8Path, uid: AgentUid, max: u64) -> Result<Output, HostError> {
    read_end(&latest(builds, uid).join("log"), max)
}

fn latest(builds: &Utf8Path, uid: AgentUid) -> Utf8PathBuf {
    builds.join(format!(".latest-{uid}"))
}

/// Deletes the oldest builds' folders when there are too many.
fn forget_logs(builds: &Utf8Path, current: &Utf8Path) -> Result<(), HostError> {
    let failed = || HostError::io("list", builds.as_str());
    let mut found = Vec::new();
    for entry in builds.read_dir_utf8().map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let changed = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .map_err(failed())?;
        if entry.path() != current && !entry.file_name().starts_with('.') {
            found.push((changed, entry.path().to_owned()));
        }
    }
    found.sort();
    let too_many = (found.len() + 1).saturating_sub(KEPT_LOGS);
    for (_, folder) in found.into_iter().take(too_many) {
        std::fs::remove_dir_all(&folder).map_err(HostError::io("remove", folder.as_str()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::folders::write_atomic;

    #[test]
    fn the_newest_log_of_an_agent_is_found_and_the_oldest_are_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let builds = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("UTF-8");
        let uid = AgentUid(uuid::Uuid::from_u128(1));
        assert_eq!(
            read(&builds, uid, 10).expect("read"),
            Output::default(),
            "nothing was built"
        );
        for number in 0..KEPT_LOGS + 5 {
            let folder = builds.join(format!("build1-{number}"));
            begin(&builds, &folder, uid).expect("begun");
            write_atomic(&folder.join("log"), number.to_string().as_bytes(), 0o600).expect("written");
        }
        assert_eq!(
            read(&builds, uid, 10).expect("read").end,
            (KEPT_LOGS + 4).to_string().as_bytes()
        );
        let left = builds.read_dir_utf8().expect("listed").count();
        assert_eq!(left, KEPT_LOGS + 1, "with the link");
    }
}
