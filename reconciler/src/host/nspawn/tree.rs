//! Folders that the launcher, which is root, makes or gives away. What lies in them was written by others: nothing is
//! followed, and everything is judged and changed through the same open descriptor.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use camino::Utf8Path;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use crate::host::HostError;
use crate::host::folders::remove_folder;
use crate::model::user_range::UserRange;

fn failed(op: &'static str, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> HostError {
    let path = shown(path.as_ref());
    move |errno| HostError::io(op, path)(errno.into())
}

/// An agent may have given its files any name.
fn shown(path: &Path) -> String {
    crate::untrusted::line(&path.to_string_lossy(), 500)
}

/// A folder below `base`, reached through no link.
pub(super) fn open_below(base: &Utf8Path, path: &Utf8Path) -> Result<OwnedFd, HostError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base_folder =
        rustix::fs::open(base.as_std_path(), flags, Mode::empty()).map_err(failed("open", base))?;
    let relative = path
        .strip_prefix(base)
        .map_err(|_| HostError::refused(path.as_str(), format!("it is not below {base}")))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(base_folder, relative.as_std_path(), flags, Mode::empty(), resolve)
        .map_err(failed("open", path))
}

/// Makes the tree that a container has to itself, empty but for what every system needs to begin with.
pub(super) fn make_root(roots: &Utf8Path, root: &Utf8Path) -> Result<(), HostError> {
    ensure(roots, 0o700)?;
    remove_folder(root)?;
    for (folder, mode) in [
        ("", 0o755),
        ("etc", 0o755),
        ("usr", 0o755),
        ("var", 0o755),
        ("var/lib", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
    ] {
        ensure(&root.join(folder), mode)?;
    }
    for file in ["etc/os-release", "etc/machine-id"] {
        let path = root.join(file);
        std::fs::File::create(&path).map_err(HostError::io("make", path.as_str()))?;
    }
    Ok(())
}

/// Makes a folder of root's with this mode. Its parent must be root's too.
pub(super) fn ensure(folder: &Utf8Path, mode: u32) -> Result<(), HostError> {
    match rustix::fs::mkdir(folder.as_std_path(), Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed("make the folder", folder)(errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open =
        rustix::fs::open(folder.as_std_path(), flags, Mode::empty()).map_err(failed("open", folder))?;
    rustix::fs::fchmod(&open, Mode::from_raw_mode(mode)).map_err(failed("set the mode of", folder))
}

/// Gives a folder's sockets to the agent's group: those that are there, and, by the set-group-ID bit, those to come.
pub(super) fn share_sockets(folder: &OwnedFd, path: &Utf8Path, range: UserRange) -> Result<(), HostError> {
    let group = Some(Gid::from_raw(range.agent()));
    rustix::fs::fchown(folder, None, group).map_err(failed("give away", path))?;
    rustix::fs::fchmod(folder, Mode::from_raw_mode(0o2755)).map_err(failed("set the mode of", path))?;
    for name in entries(folder, path.as_std_path())? {
        let Some(entry) = look(folder, &name, path.as_std_path())? else {
            continue;
        };
        if FileType::from_raw_mode(entry.stat.st_mode) == FileType::Socket {
            rustix::fs::chownat(&entry.fd, "", None, group, AtFlags::EMPTY_PATH)
                .map_err(failed("give away", path.as_std_path().join(name)))?;
        }
    }
    Ok(())
}

/// Gives a state folder with all that is in it to its agent, unless it is the agent's already. Interrupted, it is carried on:
/// the folder itself comes last. Ids of another agent's range keep their place in the range.
pub(super) fn give(folder: &OwnedFd, path: &Utf8Path, range: UserRange) -> Result<(), HostError> {
    let stat = rustix::fs::fstat(folder).map_err(failed("look at", path))?;
    if stat.st_uid == range.agent() && stat.st_gid == range.agent() {
        return Ok(());
    }
    let mut waiting = vec![PathBuf::new()];
    while let Some(relative) = waiting.pop() {
        let place = path.as_std_path().join(&relative);
        let inner = if relative.as_os_str().is_empty() {
            rustix::io::fcntl_dupfd_cloexec(folder, 0).map_err(failed("open", path))?
        } else {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            rustix::fs::openat2(folder, &relative, flags, Mode::empty(), resolve)
                .map_err(failed("open", &place))?
        };
        for name in entries(&inner, &place)? {
            let Some(entry) = look(&inner, &name, &place)? else {
                continue;
            };
            give_entry(&entry, &place.join(&name), range)?;
            if FileType::from_raw_mode(entry.stat.st_mode) == FileType::Directory {
                waiting.push(relative.join(&name));
            }
        }
    }
    let agent = range.agent();
    rustix::fs::fchown(folder, Some(Uid::from_raw(agent)), Some(Gid::from_raw(agent)))
        .map_err(failed("give away", path))?;
    rustix::fs::fchmod(folder, Mode::from_raw_mode(0o700)).map_err(failed("set the mode of", path))
}

fn give_entry(entry: &Entry, path: &Path, range: UserRange) -> Result<(), HostError> {
    let stat = &entry.stat;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory | FileType::Symlink | FileType::Fifo | FileType::Socket => {}
        FileType::RegularFile if stat.st_nlink == 1 => {}
        // Another name of it may be a file of the host.
        FileType::RegularFile if range_of(stat.st_uid).is_some() => {}
        FileType::RegularFile => {
            let why = format!(
                "it has {} names and belongs to user {}, so giving it to the agent could give away a file of the host: \
                 replace it by a copy",
                stat.st_nlink, stat.st_uid
            );
            return Err(HostError::refused(shown(path), why));
        }
        _ => {
            let why = "it is a device, which no agent may have: remove it";
            return Err(HostError::refused(shown(path), why));
        }
    }
    let (uid, gid) = (moved(stat.st_uid, range), moved(stat.st_gid, range));
    if (stat.st_uid, stat.st_gid) == (uid, gid) {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(&entry.fd, "", uid, gid, AtFlags::EMPTY_PATH).map_err(failed("give away", path))
}

/// The range that an id of the host belongs to.
pub(super) fn range_of(id: u32) -> Option<UserRange> {
    UserRange::of_base(id - id % UserRange::SIZE)
}

/// What an id becomes in a range.
fn moved(id: u32, range: UserRange) -> u32 {
    match range_of(id) {
        Some(_) => range.base() + id % UserRange::SIZE,
        None => range.agent(),
    }
}

/// Something in a folder, open without having been followed or read.
struct Entry {
    fd: OwnedFd,
    stat: Stat,
}

fn look(folder: &impl AsFd, name: &OsStr, path: &Path) -> Result<Option<Entry>, HostError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("look at", path.join(name))(errno)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(failed("look at", path.join(name)))?;
    Ok(Some(Entry { fd, stat }))
}

fn entries(folder: &impl AsFd, path: &Path) -> Result<Vec<OsString>, HostError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use camino::Utf8PathBuf;

    use super::*;
    use crate::host::folders::write_atomic;

    fn range(slot: u64) -> UserRange {
        UserRange::of_slot(slot).unwrap()
    }

    #[test]
    fn an_id_keeps_its_place_when_its_range_changes_and_any_other_becomes_the_agents() {
        let (old, new) = (range(3), range(9));
        assert_eq!(moved(old.base() + 33, new), new.base() + 33);
        assert_eq!(moved(new.agent(), new), new.agent());
        for id in [0, 1000, 65_534, 524_288] {
            assert_eq!(moved(id, new), new.agent(), "{id}");
        }
    }

    fn state() -> (tempfile::TempDir, Utf8PathBuf) {
        let keep = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(keep.path()).unwrap().join("state");
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        write_atomic(&path.join("a/b/file"), b"x", 0o644).unwrap();
        (keep, path)
    }

    fn open(path: &Utf8Path) -> OwnedFd {
        rustix::fs::open(
            path.as_std_path(),
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .unwrap()
    }

    fn owner(path: &Utf8Path) -> (u32, u32) {
        let stat = std::fs::symlink_metadata(path).unwrap();
        (stat.uid(), stat.gid())
    }

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    #[test]
    fn a_state_folder_becomes_the_agents_and_what_a_link_leads_to_does_not() {
        assert!(
            is_root(),
            "only root gives files away: run the tests as root, as CI does"
        );
        let (keep, path) = state();
        let outside = Utf8Path::from_path(keep.path()).unwrap().join("outside");
        write_atomic(&outside, b"x", 0o644).unwrap();
        symlink(&outside, path.join("a/link")).unwrap();
        give(&open(&path), &path, range(2)).unwrap();
        let agent = (range(2).agent(), range(2).agent());
        for given in ["", "a", "a/b", "a/b/file", "a/link"] {
            assert_eq!(owner(&path.join(given)), agent, "{given}");
        }
        assert_eq!(owner(&outside), (0, 0));

        // Restored under another range, and interrupted half way.
        std::os::unix::fs::lchown(
            path.join("a/b/file"),
            Some(range(2).base() + 7),
            Some(range(2).base() + 7),
        )
        .unwrap();
        give(&open(&path), &path, range(5)).unwrap();
        assert_eq!(
            owner(&path.join("a/b/file")),
            (range(5).base() + 7, range(5).base() + 7)
        );
        assert_eq!(owner(&path), (range(5).agent(), range(5).agent()));
    }

    #[test]
    fn what_might_be_a_file_of_the_host_is_not_given_away_and_nothing_is_called_done() {
        assert!(
            is_root(),
            "only root gives files away: run the tests as root, as CI does"
        );
        let (keep, path) = state();
        let host = Utf8Path::from_path(keep.path()).unwrap().join("shadow");
        write_atomic(&host, b"x", 0o644).unwrap();
        std::fs::hard_link(&host, path.join("a/shadow")).unwrap();
        let error = give(&open(&path), &path, range(2)).unwrap_err();
        assert!(
            error.is_terminal() && error.chain().contains("a/shadow"),
            "{}",
            error.chain()
        );
        assert_eq!(owner(&host), (0, 0));
        assert_ne!(owner(&path).0, range(2).agent());
    }

    #[test]
    fn no_link_leads_out_of_the_daemons_folder() {
        let (keep, path) = state();
        let base = Utf8Path::from_path(keep.path()).unwrap();
        symlink("/etc", path.join("etc")).unwrap();
        assert!(open_below(base, &path.join("a")).is_ok());
        assert!(open_below(base, &path.join("etc")).is_err());
        assert!(open_below(base, &path.join("../../etc")).is_err());
        assert!(open_below(base, Utf8Path::new("/etc")).is_err());
    }
}
