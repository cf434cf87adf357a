//! The cgroups of agents' units. systemd sends no signal when a unit's limits are changed, but it writes them to files in
//! the unit's cgroup: these are watched, so that a change is heard at once and nothing is asked in the meantime. There the
//! kernel also counts whom it killed for want of memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, Weak};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use shared::AgentName;
use tokio::io::unix::AsyncFd;

use super::verdict::Kills;
use super::{Inner, locked};
use crate::host::HostError;
use crate::host::blocking::blocking;
use crate::host::folders::read_bounded;
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

/// The file of version 2 that counts what met a limit of memory. Of version 1 no such file tells of itself.
const MEMORY_EVENTS: &str = "memory.events";

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

    /// The file that counts kills for want of memory.
    fn kills_file(self, cgroup: &str) -> Utf8PathBuf {
        let below = cgroup.trim_start_matches('/');
        let mount = Utf8Path::new(MOUNT);
        match self {
            Self::One => mount.join("memory").join(below).join("memory.oom_control"),
            Self::Two => mount.join(below).join(MEMORY_EVENTS),
        }
    }

    /// How many processes in a cgroup were killed for want of memory; `None`: the kernel does not say.
    fn oom_kills(self, cgroup: &str) -> Result<Option<u64>, HostError> {
        let file = self.kills_file(cgroup);
        match read_bounded(&file, MAX_FILE) {
            // The cgroup is removed while it is looked at.
            Err(HostError::Io { source, .. })
                if source.raw_os_error() == Some(Errno::NODEV.raw_os_error()) =>
            {
                Ok(None)
            }
            text => Ok(text?.and_then(|text| count("oom_kill", std::str::from_utf8(&text).ok()?))),
        }
    }

    /// The cgroup of a unit, as a process of it sees its own.
    fn of_unit(self, own: &str) -> Option<&str> {
        let hierarchy = match self {
            Self::One => ":name=systemd:",
            Self::Two => "0::",
        };
        let own = own.lines().find_map(|line| Some(line.split_once(hierarchy)?.1))?;
        // Where systemd puts what it runs for a unit beside its main process.
        Some(own.strip_suffix("/.control").unwrap_or(own))
    }
}

/// No file of a cgroup that is read here is larger.
const MAX_FILE: u64 = 4096;

/// A line of a file that counts things.
fn count(what: &str, text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == what)?.1.trim().parse().ok()
}

/// How many processes of the unit that this process belongs to were killed for want of memory.
///
/// # Errors
/// When the kernel's files cannot be read.
pub(super) fn own_oom_kills() -> Result<Option<u64>, HostError> {
    let version = Version::here();
    let own = read_bounded(Utf8Path::new("/proc/self/cgroup"), MAX_FILE)?.unwrap_or_default();
    let own = String::from_utf8_lossy(&own);
    version
        .of_unit(&own)
        .map_or(Ok(None), |cgroup| version.oom_kills(cgroup))
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
    watches: HashMap<i32, Watch>,
    /// The latest run of each agent.
    runs: HashMap<AgentName, String>,
}

#[derive(Debug)]
struct Watch {
    agent: AgentName,
    run: String,
    cgroup: String,
}

/// What was written to cgroups.
#[derive(Debug, Default)]
struct Changes {
    /// Limits of these agents.
    limits: BTreeSet<AgentName>,
    /// What met a limit of memory in these agents' cgroups: more often than not nothing was killed.
    memory: BTreeMap<AgentName, String>,
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
                Ok(watch) => {
                    let of = Watch {
                        agent: agent.clone(),
                        run: run.to_owned(),
                        cgroup: cgroup.to_owned(),
                    };
                    watched.watches.insert(watch, of);
                }
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

    /// How many processes in a cgroup were killed for want of memory; `None`: the kernel does not say.
    pub(super) async fn oom_kills(&self, agent: &AgentName, cgroup: &str) -> Result<Option<u64>, HostError> {
        let (version, cgroup) = (self.version, cgroup.to_owned());
        blocking(agent.as_str(), move || version.oom_kills(&cgroup)).await
    }

    /// Waits until something was written to cgroups of agents.
    async fn changed(&self) -> std::io::Result<Changes> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let changed = self.read()?;
            ready.clear_ready();
            if !(changed.limits.is_empty() && changed.memory.is_empty()) {
                return Ok(changed);
            }
        }
    }

    /// Reads all that waits to be read.
    fn read(&self) -> std::io::Result<Changes> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut changed = Changes::default();
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return Ok(changed),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut watched = locked(&self.watched);
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                changed.limits.extend(watched.runs.keys().cloned());
            } else if event.events().contains(ReadFlags::IGNORED) {
                watched.ended(event.wd());
            } else if let (Some(watch), Some(name)) = (watched.watches.get(&event.wd()), event.file_name()) {
                let name = name.to_bytes();
                if LIMITS.iter().any(|known| known.as_bytes() == name) {
                    changed.limits.insert(watch.agent.clone());
                } else if name == MEMORY_EVENTS.as_bytes() {
                    changed.memory.insert(watch.agent.clone(), watch.cgroup.clone());
                }
            }
        }
    }
}

impl Watched {
    /// The cgroup is gone, and the watch with it.
    fn ended(&mut self, watch: i32) {
        if let Some(over) = self.watches.remove(&watch)
            && self.runs.get(&over.agent) == Some(&over.run)
        {
            self.runs.remove(&over.agent);
        }
    }
}

/// Hears of changes until the runtime is gone.
pub(super) async fn listen(cgroups: Arc<Cgroups>, runtime: Weak<Inner>) {
    loop {
        let changed = cgroups.changed().await;
        let Some(inner) = runtime.upgrade() else { return };
        match changed {
            Ok(Changes { limits, memory }) => {
                for agent in limits {
                    inner.view.forget(&agent);
                    (inner.options.notify)(agent);
                }
                for (agent, cgroup) in memory {
                    let count = cgroups.oom_kills(&agent, &cgroup).await;
                    let known = locked(&inner.kills).get(&agent).map(Kills::count);
                    if count.is_ok_and(|count| count.is_some() && count != known) {
                        (inner.options.notify)(agent);
                    }
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
    fn kills_are_counted_by_the_kernel_of_either_version() {
        let one = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        let two = "low 0\nhigh 0\nmax 9\noom 4\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(count("oom_kill", one), Some(3));
        assert_eq!(count("oom_kill", two), Some(2));
        assert_eq!(count("oom_kill", "oom_kill x\n"), None);
        assert_eq!(count("oom_kill", ""), None);
        assert_eq!(
            Version::One.kills_file("/a/b.service"),
            "/sys/fs/cgroup/memory/a/b.service/memory.oom_control"
        );
        assert_eq!(
            Version::Two.kills_file("/a/b.service"),
            "/sys/fs/cgroup/a/b.service/memory.events"
        );
    }

    #[test]
    fn what_cleans_up_after_a_unit_knows_the_units_cgroup() {
        let one = "4:memory:/x\n1:name=systemd:/a/b.service/.control\n0::/c\n";
        assert_eq!(Version::One.of_unit(one), Some("/a/b.service"));
        assert_eq!(
            Version::Two.of_unit("0::/a/b.service/.control\n"),
            Some("/a/b.service")
        );
        assert_eq!(Version::Two.of_unit("0::/a/b.service\n"), Some("/a/b.service"));
        assert_eq!(Version::Two.of_unit(""), None);
    }

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
