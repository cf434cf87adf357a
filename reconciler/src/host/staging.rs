//! The bytes of staged files: kept where no agent sees them, laid down in `/state` when the operator agrees.
//!
//! ```text
//! staged/<uid>/<sha256>    one file's bytes, written whole, named by what they are
//! ```
//!
//! Laying down goes from folder to folder by descriptor and never through a link; a file that is there already is left
//! as it is, and when it is another one the whole is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use async_trait::async_trait;
use camino::Utf8Path;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use shared::canonical::digest_file;
use shared::draft::{MAX_FILE_BYTES, StagedFile, StatePath};
use shared::{AgentName, AgentUid, Digest};

use super::folders::{ensure_private, read_bounded, remove_folder, write_atomic};
use super::layout::Layout;
use super::{HostError, Staging};

/// The name of a file that is being laid down. No staged path has a part that begins with a dot.
const LAYING: &str = ".laying-down.tmp";
/// Nothing outside the folder, and no link on the way.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// Staged files below a [`Layout`].
#[derive(Debug, Clone)]
pub struct StagedFiles {
    layout: Layout,
}

impl StagedFiles {
    /// The staged files of this layout.
    pub fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// Runs blocking work on the pool made for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Layout) -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, HostError> {
        let layout = self.layout.clone();
        tokio::task::spawn_blocking(move || work(&layout))
            .await
            .unwrap_or_else(|error| Err(HostError::failed("staged files", error.to_string())))
    }
}

#[async_trait]
impl Staging for StagedFiles {
    async fn stage(&self, uid: AgentUid, bytes: Vec<u8>) -> Result<Digest, HostError> {
        self.blocking(move |layout| stage(layout, uid, &bytes)).await
    }

    async fn read(&self, uid: AgentUid, digest: &Digest) -> Result<Option<Vec<u8>>, HostError> {
        let digest = digest.clone();
        self.blocking(move |layout| content(&layout.staged_by(uid).join(digest.hex()), &digest))
            .await
    }

    async fn keep(&self, uid: AgentUid, keep: BTreeSet<Digest>) -> Result<(), HostError> {
        self.blocking(move |layout| drop_others(&layout.staged_by(uid), &keep))
            .await
    }

    async fn keep_drafts(&self, drafts: BTreeSet<AgentUid>) -> Result<(), HostError> {
        self.blocking(move |layout| sweep(layout, &drafts)).await
    }

    async fn lay_down(
        &self,
        agent: &AgentName,
        uid: AgentUid,
        files: &BTreeMap<StatePath, StagedFile>,
    ) -> Result<(), HostError> {
        let (agent, files) = (agent.clone(), files.clone());
        self.blocking(move |layout| lay_down(layout, &agent, uid, &files))
            .await
    }

    async fn discard(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
        let agent = agent.clone();
        self.blocking(move |layout| discard(layout, &agent, uid)).await
    }
}

fn stage(layout: &Layout, uid: AgentUid, bytes: &[u8]) -> Result<Digest, HostError> {
    let digest = digest_file(bytes);
    let folder = layout.staged_by(uid);
    ensure_private(&layout.staged())?;
    ensure_private(&folder)?;
    let path = folder.join(digest.hex());
    if content(&path, &digest)?.is_none() {
        write_atomic(&path, bytes, 0o600)?;
    }
    Ok(digest)
}

/// The bytes of a staged file, if they are what they should be.
fn content(path: &Utf8Path, digest: &Digest) -> Result<Option<Vec<u8>>, HostError> {
    let bytes = read_bounded(path, MAX_FILE_BYTES as u64)?;
    Ok(bytes.filter(|bytes| digest_file(bytes) == *digest))
}

/// Deletes what nothing refers to, what a writer that crashed left behind, and a folder that is empty then.
fn drop_others(folder: &Utf8Path, keep: &BTreeSet<Digest>) -> Result<(), HostError> {
    let failed = || HostError::io("sweep", folder.as_str());
    let entries = match folder.read_dir_utf8() {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed()(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed())?;
        if !keep.iter().any(|digest| digest.hex() == entry.file_name()) {
            std::fs::remove_file(entry.path()).map_err(failed())?;
        }
    }
    if keep.is_empty() {
        std::fs::remove_dir(folder).map_err(failed())?;
    }
    Ok(())
}

fn sweep(layout: &Layout, drafts: &BTreeSet<AgentUid>) -> Result<(), HostError> {
    let folder = layout.staged();
    let failed = || HostError::io("sweep", folder.as_str());
    let entries = match folder.read_dir_utf8() {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed()(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed())?;
        let uid: Option<AgentUid> = entry.file_name().parse().ok();
        if uid.is_some_and(|uid| !drafts.contains(&uid)) {
            remove_folder(entry.path())?;
        }
    }
    Ok(())
}

fn lay_down(
    layout: &Layout,
    agent: &AgentName,
    uid: AgentUid,
    files: &BTreeMap<StatePath, StagedFile>,
) -> Result<(), HostError> {
    let root = layout.agent_state(agent);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let state = rustix::fs::open(root.as_std_path(), flags, Mode::empty())
        .map_err(|errno| HostError::io("open", root.as_str())(errno.into()))?;
    for (path, file) in files {
        let bytes = content(&layout.staged_by(uid).join(file.digest.hex()), &file.digest)?;
        let bytes = bytes.ok_or_else(|| {
            let lost = "its staged bytes are lost or damaged: the draft is to be given up and made anew";
            HostError::refused(path.as_str(), lost)
        })?;
        let at = root.join(path.as_str());
        lay(&state, path, &bytes).map_err(|error| {
            if is_in_the_way(&error) {
                let found = "something else is there already, and nothing is overwritten: the draft is to be given \
                             up and made anew";
                HostError::refused(at.as_str(), found)
            } else {
                HostError::io("lay down", at.as_str())(error)
            }
        })?;
    }
    rustix::fs::fsync(&state).map_err(|errno| HostError::io("sync", root.as_str())(errno.into()))
}

/// Something that is no folder, a link, or another file.
fn is_in_the_way(error: &std::io::Error) -> bool {
    let found = Errno::from_io_error(error);
    error.kind() == ErrorKind::AlreadyExists
        || matches!(
            found,
            Some(Errno::EXIST | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::XDEV)
        )
}

/// Puts one file below `state`.
fn lay(state: &OwnedFd, path: &StatePath, bytes: &[u8]) -> std::io::Result<()> {
    let mut parts: Vec<&str> = path.parts().collect();
    let Some(name) = parts.pop() else {
        return Ok(());
    };
    let mut folders: Vec<OwnedFd> = Vec::new();
    for part in parts {
        let above = folders.last().map_or(state.as_fd(), AsFd::as_fd);
        let folder = folder(above, part)?;
        folders.push(folder);
    }
    let folder = folders.last().map_or(state.as_fd(), AsFd::as_fd);
    put(folder, name, bytes)
}

/// A folder in a folder, made when it is missing.
fn folder(above: BorrowedFd<'_>, name: &str) -> std::io::Result<OwnedFd> {
    let made = match rustix::fs::mkdirat(above, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno.into()),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat2(above, name, flags, Mode::empty(), INSIDE)?;
    if made {
        // Whatever the umask.
        rustix::fs::fchmod(&folder, Mode::RWXU)?;
        rustix::fs::fsync(above)?;
    }
    Ok(folder)
}

fn put(folder: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    if is_there(folder, name, bytes)? {
        return Ok(());
    }
    // Left by a try that crashed.
    match rustix::fs::unlinkat(folder, LAYING, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(rustix::fs::openat(folder, LAYING, flags, mode)?);
    file.write_all(bytes)?;
    rustix::fs::fchmod(&file, mode)?;
    file.sync_all()?;
    let put = rustix::fs::renameat_with(folder, LAYING, folder, name, RenameFlags::NOREPLACE);
    if put.is_err() {
        // What stays behind all the same is removed by the next try.
        rustix::fs::unlinkat(folder, LAYING, AtFlags::empty()).ok();
    }
    put?;
    Ok(rustix::fs::fsync(folder)?)
}

/// Whether this very file is there. Anything else in its place is an error.
fn is_there(folder: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> std::io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat2(folder, name, flags, Mode::empty(), INSIDE) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    let mut found = Vec::new();
    if file.metadata()?.is_file() {
        file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut found)?;
        if found == bytes {
            return Ok(true);
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn discard(layout: &Layout, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
    // What was started from a launch file is no draft, whatever the ledger says.
    let launch = layout.launch_file(agent);
    let never = std::fs::symlink_metadata(&launch).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if !never {
        return Err(HostError::refused(
            launch.as_str(),
            "an agent was started from it, so nothing beside it is deleted; look at it, and move it away by hand",
        ));
    }
    let sock = layout.sock(agent);
    remove_folder(sock.parent().unwrap_or(&sock))?;
    remove_folder(&layout.agent(agent))?;
    remove_folder(&layout.staged_by(uid))
}

#[cfg(test)]
mod tests;
