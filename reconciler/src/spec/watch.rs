//! Notices that the spec's file may say something else.
//!
//! inotify watches inodes, and on NixOS neither the file nor the folders above it keep theirs: a deployment swaps
//! links (`/etc/hyperhive/hive.json` -> `/etc/static/…` -> `/nix/store/…`). So what is watched is every folder that
//! an entry of the way lies in, and the way is walked anew after each event that concerns it. A part that is
//! missing is waited for in the last folder that exists.
//!
//! The `notify` crate asks the kernel for `IN_OPEN` and `IN_MODIFY` too (8.2): in `/etc` that is several events for
//! every program started on the machine. Here a machine that changes nothing causes no event.
//!
//! One thread per watcher. It calls `notify` and nothing else; a full pass from time to time remains the caller's
//! duty, because some file systems report no events.

mod chain;
mod debounce;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use chain::Chain;
use debounce::Debounce;

/// An event in such a short time after another belongs to the same change.
const QUIET: Duration = Duration::from_millis(50);
/// A file that never comes to rest is looked at this often.
const MAX_DELAY: Duration = Duration::from_millis(500);
/// How often the way may change under the walk before what was seen last must do; the next event corrects it.
const MAX_WALKS: usize = 16;

/// Why a spec cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The path has no absolute form.
    #[error("cannot watch the spec {path}: the working folder is unknown; give an absolute path")]
    Relative {
        /// The path.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel has no more watchers or watches for this user.
    #[error(
        "cannot watch the spec {0}: this user's inotify watches are used up; raise fs.inotify.max_user_instances \
         and fs.inotify.max_user_watches (sysctl)"
    )]
    Exhausted(Utf8PathBuf),
    /// None of the folders on the way may be read.
    #[error("cannot watch the spec {0}: no folder on the way to it can be read by this user")]
    Denied(Utf8PathBuf),
    /// Setting it up failed.
    #[error("cannot watch the spec {path}")]
    Io {
        /// The path.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A running watch; dropping it ends it.
#[derive(Debug)]
pub struct SpecWatcher {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for SpecWatcher {
    fn drop(&mut self) {
        // An eventfd refuses only when its counter is full: then it is readable, which is what is wanted.
        let _told = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            // `notify` itself may hold the last handle.
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::warn!("the spec watcher had panicked");
        }
    }
}

/// Calls `notify` when the file at `path` may have changed: appeared, vanished, been rewritten or replaced, or come
/// to be reached by other links. It must only enqueue. When this returns, no later change is missed.
pub fn watch(
    path: Utf8PathBuf,
    notify: impl Fn() + Send + Sync + 'static,
) -> Result<SpecWatcher, WatchError> {
    let absolute = std::path::absolute(&path).map_err(|source| WatchError::Relative {
        path: path.clone(),
        source,
    })?;
    let failed = |errno: Errno| match errno {
        Errno::MFILE | Errno::NOSPC => WatchError::Exhausted(path.clone()),
        errno => WatchError::Io {
            path: path.clone(),
            source: errno.into(),
        },
    };
    let mut armed = Armed::new(absolute).map_err(failed)?;
    if armed.watches.is_empty() {
        return Err(WatchError::Denied(path));
    }
    let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?);
    let stopped = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name("spec-watch".to_owned())
        .spawn(move || {
            if let Err(errno) = run(&mut armed, &stopped, &notify) {
                tracing::error!(
                    error = %io::Error::from(errno),
                    "the spec is no longer watched: changes are seen at the next full pass only"
                );
            }
        })
        .map_err(|source| WatchError::Io { path, source })?;
    Ok(SpecWatcher {
        stop,
        thread: Some(thread),
    })
}

fn run(armed: &mut Armed, stop: &OwnedFd, notify: &impl Fn()) -> Result<(), Errno> {
    let mut debounce = Debounce::new(QUIET, MAX_DELAY);
    loop {
        let timeout = debounce
            .deadline()
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let (stopped, ready) = wait(armed, stop, timeout)?;
        if stopped {
            return Ok(());
        }
        let mut due = false;
        if ready && armed.concerns_us()? {
            // Before the call: what changes from here on is an event again.
            if let Err(errno) = armed.arm() {
                tracing::warn!(
                    path = %armed.path.display(),
                    error = %io::Error::from(errno),
                    "not all folders of the spec are watched: a change may be seen at the next full pass only"
                );
            }
            due |= debounce.event(Instant::now());
        }
        due |= debounce.expire(Instant::now());
        if due {
            notify();
        }
    }
}

/// Waits for an event, the end or the deadline: (ended, events to read).
fn wait(armed: &Armed, stop: &OwnedFd, timeout: Option<Duration>) -> Result<(bool, bool), Errno> {
    let timeout = timeout.map(|timeout| Timespec {
        // Never more than the longest delay, which fits.
        tv_sec: timeout.as_secs().try_into().unwrap_or(1),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let mut fds = [
        PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(armed.inotify.as_fd(), PollFlags::IN),
    ];
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok((false, false)),
        Err(errno) => return Err(errno),
    }
    let [stopped, ready] = fds.map(|fd| !fd.revents().is_empty());
    Ok((stopped, ready))
}

/// The watches that cover the way to the file.
struct Armed {
    inotify: OwnedFd,
    path: PathBuf,
    /// The entries that matter in each watched folder.
    watches: BTreeMap<i32, BTreeSet<OsString>>,
}

impl Armed {
    fn new(path: PathBuf) -> Result<Self, Errno> {
        let mut armed = Self {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            path,
            watches: BTreeMap::new(),
        };
        armed.arm()?;
        Ok(armed)
    }

    /// Watches the way as it is now.
    fn arm(&mut self) -> Result<(), Errno> {
        let mut before: Option<(Chain, BTreeMap<i32, BTreeSet<OsString>>)> = None;
        let mut set: BTreeSet<i32> = self.watches.keys().copied().collect();
        for _ in 0..MAX_WALKS {
            let chain = Chain::walk(&self.path);
            let mut watches: BTreeMap<i32, BTreeSet<OsString>> = BTreeMap::new();
            for (folder, name) in chain.entries() {
                if let Some(watch) = self.watch_folder(folder)? {
                    watches.entry(watch).or_default().insert(name.to_owned());
                }
            }
            set.extend(watches.keys());
            // Two equal walks, with the watches set in between: nothing moved before it was watched.
            let seen = Some((chain, watches));
            if before == seen {
                break;
            }
            before = seen;
        }
        let watches = before.map(|(_, watches)| watches).unwrap_or_default();
        for old in set.into_iter().filter(|watch| !watches.contains_key(watch)) {
            // The kernel removes the watch of a deleted folder by itself.
            let _gone = inotify::remove_watch(&self.inotify, old);
        }
        self.watches = watches;
        Ok(())
    }

    /// Watches one folder; `None` when it cannot be: it went away, or is not ours to read.
    fn watch_folder(&self, folder: &Path) -> Result<Option<i32>, Errno> {
        // No IN_MODIFY: a file that is being written is looked at when its writer closes it.
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        match inotify::add_watch(&self.inotify, folder, flags) {
            Ok(watch) => Ok(Some(watch)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Reads all waiting events: whether one of them is about the way.
    fn concerns_us(&self) -> Result<bool, Errno> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut concerned = false;
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(concerned),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let Some(names) = self.watches.get(&event.wd()) else {
                concerned |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                continue;
            };
            concerned |= match event.file_name() {
                Some(name) => names.contains(OsStr::from_bytes(name.to_bytes())),
                // The folder itself moved, went or changed its rights.
                None => true,
            };
        }
    }
}

#[cfg(test)]
mod tests;
