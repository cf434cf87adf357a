//! The files of a commit: listed with every rule checked, read one by one, written to disk raw.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};

use camino::Utf8Path;
use gix::ObjectId;
use gix::objs::{Kind, TreeRefIter};

use super::names;
use super::repo::{MAX_META_BYTES, Repo, remove_dir, sync};
use crate::host::HostError;
use crate::untrusted::clean;

/// The most files and folders of a commit.
const MAX_ENTRIES: usize = 2_000;
/// The deepest a file may lie, in path components.
const MAX_DEPTH: usize = 16;
/// The longest path, in bytes; leaves room for the folder it is written below.
const MAX_PATH_BYTES: usize = 1_024;
/// The most bytes in all files of a commit together.
pub(super) const MAX_TOTAL_BYTES: u64 = 64 * 1024 * 1024;

/// A file of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct File {
    pub(super) id: ObjectId,
    pub(super) executable: bool,
    pub(super) size: u64,
}

/// Lists a commit's files by path, and refuses what is not a plain tree of plain files with plain names.
pub(super) fn list(repo: &Repo, commit: ObjectId) -> Result<BTreeMap<String, File>, HostError> {
    let mut files = BTreeMap::new();
    let mut entries = 0;
    let mut total = 0;
    let mut open = vec![(repo.commit(commit)?.tree, String::new(), 1)];
    while let Some((tree, prefix, depth)) = open.pop() {
        let data = repo.read(tree, Kind::Tree, MAX_META_BYTES)?;
        let mut folded = HashSet::new();
        for entry in TreeRefIter::from_bytes(&data, tree.kind()) {
            let entry = entry.map_err(|error| {
                repo.refused(format!(
                    "tree {tree} is malformed: {}",
                    crate::error_chain(&error)
                ))
            })?;
            let shown = || clean(&format!("{prefix}{}", String::from_utf8_lossy(entry.filename)));
            let refused = |why: &str| {
                repo.refused(format!(
                    "{:?} of commit {commit} {why}: rename or remove it",
                    shown()
                ))
            };

            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(repo.refused(format!(
                    "commit {commit} has more than {MAX_ENTRIES} files and folders: remove some"
                )));
            }
            let name = names::check(entry.filename).map_err(refused)?;
            if !folded.insert(names::folded(name)) {
                return Err(refused("differs from another name only by case or Unicode form"));
            }
            let path = format!("{prefix}{name}");
            if depth > MAX_DEPTH || path.len() > MAX_PATH_BYTES {
                return Err(refused("lies too deep"));
            }
            let id = entry.oid.to_owned();
            // By its bytes: other spellings of these modes mean other things to other readers.
            let executable = match entry.mode.as_bytes(&mut Default::default()).as_ref() as &[u8] {
                b"40000" => {
                    open.push((id, format!("{path}/"), depth + 1));
                    continue;
                }
                b"100644" => false,
                b"100755" => true,
                b"120000" => return Err(refused("is a symbolic link, which is not accepted")),
                b"160000" => return Err(refused("is a submodule, which is not accepted")),
                _ => {
                    return Err(refused(
                        "has an unusual mode (only 100644 and 100755 are accepted)",
                    ));
                }
            };
            let size = repo
                .size(id, Kind::Blob)?
                .ok_or_else(|| refused("names no blob of this repository"))?;
            total += size;
            if total > MAX_TOTAL_BYTES {
                return Err(repo.refused(format!(
                    "the files of commit {commit} have more than {MAX_TOTAL_BYTES} bytes together: remove some"
                )));
            }
            files.insert(path, File { id, executable, size });
        }
    }
    Ok(files)
}

/// Reads one file of at most `max` bytes; `None` when the commit has none of that name.
pub(super) fn read_file(
    repo: &Repo,
    commit: ObjectId,
    path: &str,
    max: u64,
) -> Result<Option<Vec<u8>>, HostError> {
    let mut id = repo.commit(commit)?.tree;
    let mut parts = path.split('/').take(MAX_DEPTH + 1).peekable();
    while let Some(part) = parts.next() {
        let data = repo.read(id, Kind::Tree, MAX_META_BYTES)?;
        let mut found = None;
        for entry in TreeRefIter::from_bytes(&data, id.kind()) {
            let entry = entry.map_err(|error| {
                repo.refused(format!("tree {id} is malformed: {}", crate::error_chain(&error)))
            })?;
            if entry.filename == part.as_bytes() {
                found = Some((entry.mode.value(), entry.oid.to_owned()));
                break;
            }
        }
        let is_last = parts.peek().is_none();
        match found {
            None => return Ok(None),
            Some((0o040_000, tree)) if !is_last => id = tree,
            Some((0o100_644 | 0o100_755, _)) if !is_last => return Ok(None),
            Some((0o100_644 | 0o100_755, blob)) => {
                let size = repo.size(blob, Kind::Blob)?.unwrap_or_default();
                if size > max {
                    return Err(repo.refused(format!(
                        "{path:?} of commit {commit} has {size} bytes, at most {max} are accepted: make it smaller"
                    )));
                }
                return repo.read(blob, Kind::Blob, max).map(Some);
            }
            Some(_) => {
                return Err(repo.refused(format!(
                    "{path:?} of commit {commit} is not a plain file: make it one"
                )));
            }
        }
    }
    Ok(None)
}

/// Writes the raw blobs below `target`, which appears whole or not at all.
pub(super) fn write(repo: &Repo, commit: ObjectId, target: &Utf8Path) -> Result<(), HostError> {
    let files = list(repo, commit)?;
    let exists = || HostError::failed(target.as_str(), "it exists already: remove it first");
    match fs::symlink_metadata(target) {
        Ok(_) => return Err(exists()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(HostError::io("look at", target.as_str())(error)),
    }
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(HostError::failed(
            target.as_str(),
            "it is not a path that can be made",
        ));
    };
    let scratch = parent.join(format!(".{name}.partial"));
    remove_dir(&scratch)?;
    let written = write_files(repo, &files, &scratch).and_then(|()| {
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            scratch.as_std_path(),
            rustix::fs::CWD,
            target.as_std_path(),
            rustix::fs::RenameFlags::NOREPLACE,
        )
        .map_err(|error| match error {
            rustix::io::Errno::EXIST => exists(),
            error => HostError::io("put in place", target.as_str())(error.into()),
        })
    });
    if written.is_err() {
        // The first error is the one to tell; what cannot be removed now is removed by the next attempt.
        remove_dir(&scratch).ok();
        return written;
    }
    sync(parent)
}

fn write_files(repo: &Repo, files: &BTreeMap<String, File>, root: &Utf8Path) -> Result<(), HostError> {
    make_dir(root)?;
    let mut folders = BTreeSet::from([root.to_owned()]);
    for (path, file) in files {
        let mut folder = root.to_owned();
        if let Some((above, _)) = path.rsplit_once('/') {
            for part in above.split('/') {
                folder.push(part);
                if folders.insert(folder.clone()) {
                    make_dir(&folder)?;
                }
            }
        }
        let data = repo.read(file.id, Kind::Blob, file.size)?;
        let mode = if file.executable { 0o755 } else { 0o644 };
        let path = root.join(path);
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .and_then(|mut out| {
                // Whatever the umask.
                out.set_permissions(fs::Permissions::from_mode(mode))?;
                out.write_all(&data)?;
                out.sync_all()
            })
            .map_err(HostError::io("write", path.as_str()))?;
    }
    folders.iter().rev().try_for_each(|folder| sync(folder))
}

fn make_dir(path: &Utf8Path) -> Result<(), HostError> {
    fs::DirBuilder::new()
        .mode(0o755)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(HostError::io("make", path.as_str()))
}
