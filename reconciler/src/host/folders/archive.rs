//! What is kept of removed agents: moved there whole, moved back whole, or deleted for good.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use shared::{AgentName, AgentUid};

use super::{PRIVATE, exists, file, is_folder, read_bounded, remove_folder, write_json};
use crate::host::layout::Layout;
use crate::host::{ArchiveState, HostError};

/// The file that says whose archive a folder is.
const MARK: &str = "archive.json";
/// A mark is small.
const MAX_MARK: u64 = 64 * 1024;

/// Our mark: only a folder that holds it is ever deleted.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    version: u32,
    agent: AgentName,
    uid: AgentUid,
}

impl Mark {
    fn of(agent: &AgentName, uid: AgentUid) -> Self {
        Self {
            version: 1,
            agent: agent.clone(),
            uid,
        }
    }
}

/// Where a live agent's folders lie, and where its archive keeps them.
fn places(layout: &Layout, agent: &AgentName, uid: AgentUid) -> [(Utf8PathBuf, Utf8PathBuf); 2] {
    let kept = layout.archive(agent, uid);
    [
        (layout.agent(agent), kept.join("agent")),
        (layout.repo(agent), kept.join("repo.git")),
    ]
}

pub(super) fn archive(layout: &Layout, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
    let target = layout.archive(agent, uid);
    let places = places(layout, agent, uid);
    let mut present = false;
    for (live, _) in &places {
        present |= exists(live)?;
    }
    if present {
        file::ensure_folder(&layout.archives(), PRIVATE)?;
        file::ensure_folder(&target, PRIVATE)?;
        write_json(&target.join(MARK), &Mark::of(agent, uid), 0o600)?;
    }
    // Each rename is atomic, and what has moved is not there any more: a second try carries on where the first ended.
    for (live, kept) in &places {
        if exists(live)? {
            move_once(live, kept, "archived")?;
        }
    }
    remove_folder(&layout.egress_of(agent))?;
    let sock = layout.sock(agent);
    remove_folder(sock.parent().unwrap_or(&sock))
}

pub(super) fn look(layout: &Layout, agent: &AgentName, uid: AgentUid) -> Result<ArchiveState, HostError> {
    if exists(&layout.doomed(agent, uid))? {
        return Ok(ArchiveState::Ours);
    }
    let folder = layout.archive(agent, uid);
    if !exists(&folder)? {
        return Ok(ArchiveState::Absent);
    }
    let ours = is_folder(&folder)? && mark_of(&folder)? == Some((agent.clone(), uid));
    Ok(if ours {
        ArchiveState::Ours
    } else {
        ArchiveState::Foreign
    })
}

/// Whose archive a folder says it is.
pub(super) fn mark_of(folder: &Utf8Path) -> Result<Option<(AgentName, AgentUid)>, HostError> {
    let mark = read_bounded(&folder.join(MARK), MAX_MARK)?;
    let mark: Option<Mark> = mark.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(mark
        .filter(|mark| mark.version == 1)
        .map(|mark| (mark.agent, mark.uid)))
}

pub(super) fn restore(layout: &Layout, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
    let folder = layout.archive(agent, uid);
    let places = places(layout, agent, uid);
    let mut found = false;
    for (live, kept) in &places {
        found |= exists(live)? || exists(kept)?;
    }
    if !found {
        return Err(HostError::refused(
            folder.as_str(),
            format!("the archive keeps nothing of {agent}; put its folder back from a backup"),
        ));
    }
    for parent in [layout.agents(), layout.repos()] {
        file::ensure_folder(&parent, PRIVATE)?;
    }
    for (live, kept) in &places {
        if exists(kept)? {
            move_once(kept, live, "restored")?;
        }
    }
    // Empty but for the mark; whatever else somebody put there keeps it.
    let emptied = match std::fs::remove_file(folder.join(MARK)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => std::fs::remove_dir(&folder),
    };
    match emptied {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
            Err(HostError::io("remove", folder.as_str())(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn purge(layout: &Layout, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
    let Some(doomed) = doom(layout, agent, uid)? else {
        return Ok(());
    };
    delete(&doomed)?;
    file::sync_folder(&layout.archives())
}

/// Puts an archive aside. Returns where; `None`: there is none.
pub(super) fn doom(
    layout: &Layout,
    agent: &AgentName,
    uid: AgentUid,
) -> Result<Option<Utf8PathBuf>, HostError> {
    let (folder, doomed) = (layout.archive(agent, uid), layout.doomed(agent, uid));
    match look(layout, agent, uid)? {
        ArchiveState::Absent => return Ok(None),
        ArchiveState::Foreign => {
            return Err(HostError::refused(
                folder.as_str(),
                format!(
                    "it does not bear the mark that it is the archive of {agent}; look at it, and delete it by hand"
                ),
            ));
        }
        ArchiveState::Ours => {}
    }
    // From here on nothing of it can be restored half.
    if !exists(&doomed)? {
        move_once(&folder, &doomed, "purged")?;
    }
    Ok(Some(doomed))
}

/// Deletes a folder that an agent filled. Links are deleted and never followed.
fn delete(folder: &Utf8Path) -> Result<(), HostError> {
    match remove_folder(folder) {
        Err(HostError::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
            // The agent may have closed folders of its own.
            open_up(folder)?;
            remove_folder(folder)
        }
        outcome => outcome,
    }
}

/// Makes every folder below accessible to its owner.
fn open_up(root: &Utf8Path) -> Result<(), HostError> {
    let failed = || HostError::io("open up", root.as_str());
    let mut pending = vec![root.as_std_path().to_owned()];
    while let Some(folder) = pending.pop() {
        let private = std::fs::Permissions::from_mode(PRIVATE);
        std::fs::set_permissions(&folder, private).map_err(failed())?;
        for entry in std::fs::read_dir(&folder).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            if entry.file_type().map_err(failed())?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Moves a folder to where nothing is yet.
fn move_once(source: &Utf8Path, target: &Utf8Path, what: &str) -> Result<(), HostError> {
    match renameat_with(
        rustix::fs::CWD,
        source.as_std_path(),
        rustix::fs::CWD,
        target.as_std_path(),
        RenameFlags::NOREPLACE,
    ) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => {
            return Err(HostError::refused(
                source.as_str(),
                format!("cannot be {what}, because {target} is there already; move one of them away by hand"),
            ));
        }
        Err(errno) => return Err(HostError::io("move", source.as_str())(errno.into())),
    }
    for folder in [source.parent(), target.parent()].into_iter().flatten() {
        file::sync_folder(folder)?;
    }
    Ok(())
}
