//! `hive wipe`: deletes, as root, what containers leave behind.
//!
//! Files of a container belong to its user ids, so the daemon cannot delete them. What it may have deleted is little: the
//! tree of a container that is down, and the state of an agent whose archive was put aside for that.

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{AtFlags, FileType};
use shared::{AgentName, AgentUid};

use super::cgroup;
use super::record::{self, EndRecord};
use super::tree::{self, range_of};
use crate::host::HostError;
use crate::host::folders::{remove_folder, write_atomic};
use crate::host::layout::Layout;

/// Where systemd keeps limits that were set at run time.
const CONTROL: &str = "/run/systemd/system.control";
/// The length of a uid as text.
const UID: usize = 36;

/// What to delete. Written into units by whoever installed them.
#[derive(Debug, Clone, clap::Args)]
pub struct WipeArgs {
    /// The daemon's state folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hyperhive")]
    pub state: Utf8PathBuf,
    /// The folder in which containers get their trees; root's alone
    #[arg(long, value_name = "DIR", default_value = super::ROOTS)]
    pub roots: Utf8PathBuf,
    /// The tree of this agent's container, which is down
    #[arg(
        long,
        value_name = "AGENT",
        required_unless_present = "archive",
        conflicts_with = "archive"
    )]
    pub tree: Option<AgentName>,
    /// systemd's id of the run that is over, to note how it ended
    #[arg(long, value_name = "ID", requires = "tree")]
    pub invocation: Option<String>,
    /// All that is left of the agent whose archive this is: its name, a dash, its uid
    #[arg(long, value_name = "AGENT-UID", value_parser = parse_archive)]
    pub archive: Option<(AgentName, AgentUid)>,
}

fn parse_archive(text: &str) -> Result<(AgentName, AgentUid), String> {
    let split = text
        .len()
        .checked_sub(UID)
        .filter(|at| text.is_char_boundary(*at));
    let parts = split.map(|at| text.split_at(at));
    let parsed = parts.and_then(|(name, uid)| {
        let name = name.strip_suffix('-')?.parse().ok()?;
        Some((name, uid.parse().ok()?))
    });
    parsed.ok_or_else(|| "write the agent's name, a dash and its uid".to_owned())
}

/// Deletes it.
///
/// # Errors
/// When something is in the way; what is left is deleted by the next try.
pub fn run(args: &WipeArgs) -> Result<(), HostError> {
    if let Some(agent) = &args.tree {
        // Whatever becomes of the note, the tree has to go.
        let noted = args
            .invocation
            .as_ref()
            .map_or(Ok(()), |run| note_end(agent, run));
        remove_folder(&args.roots.join(agent.as_str()))?;
        return noted;
    }
    let Some((agent, uid)) = &args.archive else {
        return Ok(());
    };
    let state = args
        .state
        .canonicalize_utf8()
        .map_err(HostError::io("find", args.state.as_str()))?;
    let layout = Layout::new(state, "/nonexistent".into());
    wipe_state(&layout, agent, *uid)?;
    if layout.agent(agent).symlink_metadata().is_ok() {
        // Somebody else has the name by now.
        return Ok(());
    }
    remove_folder(&args.roots.join(agent.as_str()))?;
    remove_folder(&Utf8Path::new(CONTROL).join(format!("{}.d", super::names::unit(agent))))?;
    for file in [
        record::record_file(super::records(), agent),
        record::failure_file(super::records(), agent),
        record::end_file(super::records(), agent),
    ] {
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(HostError::io("remove", file.as_str())(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Notes what only the unit's cgroup knows, which is gone after us.
fn note_end(agent: &AgentName, invocation: &str) -> Result<(), HostError> {
    let Some(oom_kills) = cgroup::own_oom_kills()? else {
        return Ok(());
    };
    let end = EndRecord {
        invocation: invocation.to_owned(),
        oom_kills,
    };
    let path = record::end_file(super::records(), agent);
    let bytes =
        serde_json::to_vec(&end).map_err(|error| HostError::failed(path.as_str(), error.to_string()))?;
    write_atomic(&path, &bytes, 0o644)
}

/// Deletes the state that lies in an archive that was put aside, if it belongs to a container.
fn wipe_state(layout: &Layout, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
    let folder = layout.doomed(agent, uid).join("agent");
    if folder.symlink_metadata().is_err() {
        return Ok(());
    }
    let open = tree::open_below(layout.state(), &folder)?;
    let failed = || HostError::io("look at the state in", folder.as_str());
    let state = match rustix::fs::statat(&open, "state", AtFlags::SYMLINK_NOFOLLOW) {
        Ok(state) => state,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed()(errno.into())),
    };
    if FileType::from_raw_mode(state.st_mode) != FileType::Directory || range_of(state.st_uid).is_none() {
        // The daemon's own: it deletes that itself.
        return Ok(());
    }
    // Through the open folder: no name on the way to it can be exchanged, and nothing below is followed.
    let state = Utf8PathBuf::from(format!(
        "/proc/self/fd/{}/state",
        std::os::fd::AsRawFd::as_raw_fd(&open)
    ));
    remove_folder(&state)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;
    use crate::model::user_range::UserRange;

    const UID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    #[test]
    fn the_units_words_are_understood() {
        #[derive(clap::Parser)]
        struct Words {
            #[command(flatten)]
            args: WipeArgs,
        }
        let read = |words: &[&str]| {
            let paths = ["wipe", "--state", "/s", "--roots", "/r"];
            <Words as clap::Parser>::try_parse_from(paths.iter().chain(words)).map(|words| words.args)
        };
        assert!(read(&["--tree", "alice"]).unwrap().archive.is_none());
        assert!(
            read(&["--archive", &format!("alice-{UID}")])
                .unwrap()
                .tree
                .is_none()
        );
        assert!(read(&[]).is_err());
        assert!(read(&["--tree", "alice", "--archive", &format!("alice-{UID}")]).is_err());
    }

    #[test]
    fn an_archive_is_named_by_name_and_uid() {
        let (name, uid) = parse_archive(&format!("wiki-2-{UID}")).unwrap();
        assert_eq!((name.as_str(), uid.to_string().as_str()), ("wiki-2", UID));
        for bad in [
            "",
            "alice",
            UID,
            &format!("-{UID}"),
            &format!("../x-{UID}"),
            &format!("alice{UID}"),
            "ä-1",
        ] {
            assert!(parse_archive(bad).is_err(), "{bad}");
        }
    }

    struct World {
        layout: Layout,
        agent: AgentName,
        uid: AgentUid,
        keep: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let keep = tempfile::tempdir().unwrap();
            let root = Utf8Path::from_path(keep.path())
                .unwrap()
                .canonicalize_utf8()
                .unwrap();
            Self {
                layout: Layout::new(root.join("state"), root.join("run")),
                agent: "alice".parse().unwrap(),
                uid: UID.parse().unwrap(),
                keep,
            }
        }

        /// The state in the archive that was put aside.
        fn state(&self) -> Utf8PathBuf {
            self.layout.doomed(&self.agent, self.uid).join("agent/state")
        }

        fn wipe(&self) -> Result<(), HostError> {
            wipe_state(&self.layout, &self.agent, self.uid)
        }
    }

    #[test]
    fn state_of_a_container_is_deleted_and_what_its_links_lead_to_is_not() {
        let world = World::new();
        let outside = Utf8Path::from_path(world.keep.path()).unwrap().join("outside");
        write_atomic(&outside, b"x", 0o644).unwrap();
        let state = world.state();
        std::fs::create_dir_all(state.join("deep/er")).unwrap();
        symlink(&outside, state.join("deep/link")).unwrap();
        let range = UserRange::of_slot(2).unwrap();
        chown(&state, Some(range.agent()), Some(range.agent())).expect("run the tests as root, as CI does");
        world.wipe().unwrap();
        assert!(!state.exists() && outside.exists());
        world.wipe().unwrap();
    }

    #[test]
    fn what_does_not_belong_to_a_container_is_left_alone() {
        let world = World::new();
        std::fs::create_dir_all(world.state()).unwrap();
        world.wipe().unwrap();
        assert!(world.state().exists());

        let other = World::new();
        let folder = other.layout.doomed(&other.agent, other.uid);
        std::fs::create_dir_all(&folder).unwrap();
        symlink("/etc", folder.join("agent")).unwrap();
        assert!(other.wipe().is_err());
    }
}
