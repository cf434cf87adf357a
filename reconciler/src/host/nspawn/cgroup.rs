//! The cgroups of agents' units. systemd sends no signal when a unit's limits are changed, but it writes them to files in
//! the unit's cgroup: these are watched, so that a change is heard at once and nothing is asked in the meantime.

use std::collections::{BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, Weak};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use shared::AgentName;
use tokio::io::unix::AsyncFd;

use super::{Inner, locked};
use crate::host::HostError;
use crate::host::readable::readable;

const MOUNT: &str = "/sys/fs/cgroup";

/// Where a cgroup with all controllers is, and in which of the old hierarchies a unit has one for its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The hierarchies of version 1 that hold limits.
const HIERARCHIES: [&str; 3] = ["memory", "cpu", "pids"];

/// The files that hold limits, of either version.
const LIMITS: [&str; 5] = [
    "memory.max",
    "memory.limit_in_bytes",
    "cpu.max",
    "cpu.cfs_quota_us",
    "pids.max",
];

impl Version {
    fn here() -> Self {
        if Utf8Path::new(MOUNT).join("cgroup.controllers").exists() {
            Self::Two
        } else {
            Self::One
        }
    }

    /// The folders of a cgroup that systemd calls this.
    fn folders(self, cgroup: &str) -> Vec<Utf8PathBuf> {
        let below = cgroup.trim_start_matches('/');
        let mount = Utf8Path::new(MOUNT);
        match self {
            Self::One => HIERARCHIES
                .iter()
                .map(|hierarchy| mount.join(hierarchy).join(below))
                .collect(),
            Self::Two => vec![mount.join(below)],
        }
    }
}

/// Watches the cgroups of runs.
#[derive(Debug)]
pub(super) struct Cgroups {
    version: Version,
    inotify: AsyncFd<OwnedFd>,
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    /// Whose cgroup a watch is of, and of which run.
    watches: HashMap<i32, (AgentName, String)>,
    /// The latest run of each agent.
    runs: HashMap<AgentName, String>,
}

impl Cgroups {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// When the kernel gives no more inotify instances to this user.
    pub(super) fn new() -> Result<Self, HostError> {
        let made = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(std::io::Error::from)
            .and_then(readable);
        Ok(Self {
            version: Version::here(),
            inotify: made.map_err(HostError::io("watch", MOUNT))?,
            watched: Mutex::default(),
        })
    }

    /// Watches the cgroup of a run, unless it does. Whether it has just begun to: what was read before may be old.
    pub(super) fn watch(&self, agent: &AgentName, run: &str, cgroup: &str) -> bool {
        if cgroup.is_empty() {
            return false;
        }
        let mut watched = locked(&self.watched);
        if watched.runs.get(agent).is_some_and(|known| known == run) {
            return false;
        }
        for folder in self.version.folders(cgroup) {
            match inotify::add_watch(
                &self.inotify,
                folder.as_str(),
                WatchFlags::MODIFY | WatchFlags::ONLYDIR,
            ) {
                Ok(watch) => drop(watched.watches.insert(watch, (agent.clone(), run.to_owned()))),
                // A controller that is not there limits nothing, and a run that is over needs no watching.
                Err(Errno::NOENT) => {}
                Err(error) => tracing::warn!(
                    agent = %agent,
                    folder = %folder,
                    error = %std::io::Error::from(error),
                    "changes of its limits are not heard"
                ),
            }
        }
        watched.runs.insert(agent.clone(), run.to_owned());
        true
    }

    /// Waits until something was written to cgroups of agents.
    async fn changed(&self) -> std::io::Result<BTreeSet<AgentName>> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let changed = self.read()?;
            ready.clear_ready();
            if !changed.is_empty() {
                return Ok(changed);
            }
        }
    }

    /// Reads all that waits to be read.
    fn read(&self) -> std::io::Result<BTreeSet<AgentName>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut changed = BTreeSet::new();
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return Ok(changed),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut watched = locked(&self.watched);
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                changed.extend(watched.runs.keys().cloned());
            } else if event.events().contains(ReadFlags::IGNORED) {
                watched.ended(event.wd());
            } else if let Some((agent, _)) = watched.watches.get(&event.wd())
                && event
                    .file_name()
                    .is_some_and(|name| LIMITS.iter().any(|known| known.as_bytes() == name.to_bytes()))
            {
                changed.insert(agent.clone());
            }
        }
    }
}

impl Watched {
    /// The cgroup is gone, and the watch with it.
    fn ended(&mut self, watch: i32) {
        if let Some((agent, run)) = self.watches.remove(&watch)
            && self.runs.get(&agent) == Some(&run)
        {
            self.runs.remove(&agent);
        }
    }
}

/// Hears of changes until the runtime is gone.
pub(super) async fn listen(cgroups: Arc<Cgroups>, runtime: Weak<Inner>) {
    loop {
        let changed = cgroups.changed().await;
        let Some(inner) = runtime.upgrade() else { return };
        match changed {
            Ok(agents) => {
                for agent in agents {
                    inner.view.forget(&agent);
                    (inner.options.notify)(agent);
                }
            }
            Err(error) => {
                tracing::error!(%error, "changes of limits are not heard any more");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_one_cgroup_or_one_in_each_old_hierarchy() {
        let cgroup = "/hyperhive.slice/hyperhive-agent@alice.service";
        assert_eq!(
            Version::Two.folders(cgroup),
            ["/sys/fs/cgroup/hyperhive.slice/hyperhive-agent@alice.service"]
        );
        assert_eq!(
            Version::One.folders(cgroup),
            [
                "/sys/fs/cgroup/memory/hyperhive.slice/hyperhive-agent@alice.service",
                "/sys/fs/cgroup/cpu/hyperhive.slice/hyperhive-agent@alice.service",
                "/sys/fs/cgroup/pids/hyperhive.slice/hyperhive-agent@alice.service",
            ]
        );
    }
}
