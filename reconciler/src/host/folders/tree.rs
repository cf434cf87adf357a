//! The commit's tree next to the config file: copied once, complete or not there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;

use camino::Utf8Path;
use rustix::fs::{Mode, OFlags};
use shared::CommitOid;

use super::file;
use crate::host::HostError;

const PREFIX: &str = "tree-";
/// Deeper than any config repo; bounds the recursion.
const MAX_DEPTH: usize = 64;

/// The folder of a commit's tree.
pub(super) fn name(commit: &CommitOid) -> String {
    format!("{PREFIX}{commit}")
}

/// Copies `source` to `folder/name`, unless it is there.
pub(super) fn ensure(source: &Utf8Path, folder: &Utf8Path, name: &str) -> Result<(), HostError> {
    let target = folder.join(name);
    if super::is_folder(&target)? {
        return Ok(());
    }
    let partial = folder.join(partial_name(name));
    super::remove_folder(&partial)?;
    copy_folder(source, &partial, 0)?;
    fs::rename(&partial, &target).map_err(HostError::io("put in place", target.as_str()))?;
    file::sync_folder(folder)
}

/// Removes the trees of other commits, and copies that were never finished.
pub(super) fn remove_others(folder: &Utf8Path, keep: &str) -> Result<(), HostError> {
    let failed = || HostError::io("list", folder.as_str());
    for entry in folder.read_dir_utf8().map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let found = entry.file_name();
        let is_tree = found.starts_with(PREFIX) || found.starts_with(&partial_name(PREFIX));
        if is_tree && found != keep {
            super::remove_folder(entry.path())?;
        }
    }
    Ok(())
}

fn partial_name(name: &str) -> String {
    format!(".{name}")
}

fn copy_folder(source: &Utf8Path, target: &Utf8Path, depth: usize) -> Result<(), HostError> {
    if depth > MAX_DEPTH {
        return Err(HostError::refused(
            source.as_str(),
            format!("more than {MAX_DEPTH} folders deep"),
        ));
    }
    if !super::is_folder(source)? {
        return Err(HostError::failed(
            source.as_str(),
            "the system has no such folder; build it again",
        ));
    }
    file::ensure_folder(target, 0o755)?;
    let failed = || HostError::io("list", source.as_str());
    for entry in source.read_dir_utf8().map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let target = target.join(entry.file_name());
        let kind = entry.file_type().map_err(failed())?;
        if kind.is_dir() {
            copy_folder(entry.path(), &target, depth + 1)?;
        } else if kind.is_file() {
            copy_file(entry.path(), &target)
                .map_err(|error| HostError::io("copy", entry.path().as_str())(error))?;
        } else {
            return Err(HostError::refused(
                entry.path().as_str(),
                "a link or a special file cannot be part of a config",
            ));
        }
    }
    file::sync_folder(target)
}

fn copy_file(source: &Utf8Path, target: &Utf8Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut from = File::from(rustix::fs::open(source.as_std_path(), flags, Mode::empty())?);
    let metadata = from.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file any more",
        ));
    }
    let executable = metadata.permissions().mode() & 0o100 != 0;
    let mut to = File::create_new(target)?;
    io::copy(&mut from, &mut to)?;
    to.set_permissions(fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
    // Without this a power cut could leave an empty file in a tree that is never copied again.
    to.sync_all()
}
