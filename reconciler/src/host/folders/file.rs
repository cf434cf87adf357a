//! Single files and folders: replaced atomically, read within bounds, never through a link.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use camino::Utf8Path;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::host::HostError;

/// Replaces a file as a whole: after a crash at any point it holds the old bytes or the new ones.
///
/// The new file has exactly `mode`, whatever the umask. A link at `path` is replaced, never followed.
///
/// # Errors
/// When the folder is not there or the file system refuses; the old file is then untouched.
pub fn write_atomic(path: &Utf8Path, bytes: &[u8], mode: u32) -> Result<(), HostError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(HostError::refused(path.as_str(), "not the path of a file"));
    };
    let folder = open(folder, OFlags::empty())?;
    // The process id keeps daemon and launcher apart, the counter the threads of one process.
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = format!(".{name}.{}-{number}.tmp", std::process::id());

    let outcome = write_new(&folder, &temporary, bytes, mode)
        .and_then(|()| Ok(rustix::fs::renameat(&folder, &temporary, &folder, name)?))
        .and_then(|()| Ok(rustix::fs::fsync(&folder)?));
    if outcome.is_err() {
        // What stays behind all the same is swept by the next activation.
        rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty()).ok();
    }
    outcome.map_err(HostError::io("write", path.as_str()))
}

fn write_new(folder: &OwnedFd, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    // Left by a process of the same id before a reboot.
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    file.sync_all()
}

/// Removes what writers of `folder/name` that crashed left behind. Only for whoever alone writes that file.
pub(crate) fn remove_leftovers(folder: &Utf8Path, name: &str) -> Result<(), HostError> {
    let prefix = format!(".{name}.");
    let failed = || HostError::io("sweep", folder.as_str());
    for entry in std::fs::read_dir(folder).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let found = entry.file_name();
        if found
            .to_str()
            .is_some_and(|found| found.starts_with(&prefix) && found.ends_with(".tmp"))
        {
            std::fs::remove_file(entry.path()).map_err(failed())?;
        }
    }
    Ok(())
}

/// Reads a regular file of at most `max` bytes. Whatever else lies there counts as nothing.
pub(crate) fn read_bounded(path: &Utf8Path, max: u64) -> Result<Option<Vec<u8>>, HostError> {
    let failed = || HostError::io("read", path.as_str());
    // Without NONBLOCK, opening a pipe in the file's place would hang.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path.as_std_path(), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(failed()(errno.into())),
    };
    if !file.metadata().map_err(failed())?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed())?;
    Ok((bytes.len() as u64 <= max).then_some(bytes))
}

/// Makes a folder with exactly this mode, or gives the one that is there this mode. A link is refused.
pub(super) fn ensure_folder(path: &Utf8Path, mode: u32) -> Result<(), HostError> {
    let mode = Mode::from_raw_mode(mode);
    let made = match rustix::fs::mkdir(path.as_std_path(), mode) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(HostError::io("make the folder", path.as_str())(errno.into())),
    };
    if !made && is_given_away(path)? {
        return Ok(());
    }
    let folder = open(path, OFlags::NOFOLLOW)?;
    let there = rustix::fs::fstat(&folder).map_err(|e| HostError::io("look at", path.as_str())(e.into()))?;
    // The set-group-ID bit is not the daemon's: the launcher gives folders of sockets to a container's group by it.
    if Mode::from_raw_mode(there.st_mode) & Mode::from_raw_mode(0o1777) != mode {
        rustix::fs::fchmod(&folder, mode)
            .map_err(|e| HostError::io("set the mode of", path.as_str())(e.into()))?;
    }
    if made && let Some(parent) = path.parent() {
        sync_folder(parent)?;
    }
    Ok(())
}

/// Whether a folder belongs to another user: the launcher, which is root, gave it to the user ids of a container.
fn is_given_away(path: &Utf8Path) -> Result<bool, HostError> {
    let there = rustix::fs::lstat(path.as_std_path());
    let there = there.map_err(|e| HostError::io("look at", path.as_str())(e.into()))?;
    let own = rustix::process::geteuid();
    let is_folder = FileType::from_raw_mode(there.st_mode) == FileType::Directory;
    Ok(is_folder && !own.is_root() && there.st_uid != own.as_raw())
}

/// Makes renames in a folder durable.
pub(super) fn sync_folder(path: &Utf8Path) -> Result<(), HostError> {
    let folder = open(path, OFlags::empty())?;
    rustix::fs::fsync(&folder).map_err(|e| HostError::io("sync", path.as_str())(e.into()))
}

fn open(path: &Utf8Path, extra: OFlags) -> Result<OwnedFd, HostError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | extra;
    match rustix::fs::open(path.as_std_path(), flags, Mode::empty()) {
        Ok(folder) => Ok(folder),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(HostError::refused(
            path.as_str(),
            "not a folder, or a link to one; move it away",
        )),
        Err(errno) => Err(HostError::io("open", path.as_str())(errno.into())),
    }
}
