//! Cgroups of a nest: one of its own in every hierarchy, below the caller's.
//!
//! The outer `systemd-nspawn` makes a cgroup namespace, so the systemd inside takes that cgroup for the root.

use std::fs;
use std::io;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process};

/// The name of systemd's own hierarchy, which has no controller.
const NAMED: &str = "name=systemd";

/// A mounted hierarchy, and where in it this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// The v1 controllers; empty for version 2.
    controllers: Vec<String>,
    /// The folder of the cgroup this process is in.
    own: Utf8PathBuf,
}

/// How controllers are mounted on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// Each on a v1 hierarchy of its own; version 2 may be there as well, without them.
    V1(Vec<Hierarchy>),
    /// All on version 2.
    V2(Hierarchy),
}

impl Host {
    /// Looks at this machine.
    pub(crate) fn detect() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
        Self::parse(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
    }

    fn parse(own: &str, mounts: &str) -> Result<Self> {
        let mut found = Vec::new();
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
                bail!("/proc/self/cgroup has a line that is none: {line:?}");
            };
            let controllers: Vec<String> = controllers
                .split(',')
                .filter(|it| !it.is_empty())
                .map(str::to_owned)
                .collect();
            // A hierarchy that is not mounted can be of no use to anybody.
            if let Some(mount) = mounts
                .lines()
                .find_map(|line| Mount::parse(line)?.of(&controllers))
            {
                let below = Utf8Path::new(path)
                    .strip_prefix(mount.root)
                    .unwrap_or("".as_ref());
                let own = mount.point.join(below);
                found.push(Hierarchy { controllers, own });
            }
        }
        let has = |controller: &str| {
            found
                .iter()
                .any(|it| it.controllers.iter().any(|its| its == controller))
        };
        if has("memory") && has("pids") && has(NAMED) {
            return Ok(Self::V1(found));
        }
        if found.iter().any(|it| !it.controllers.is_empty()) {
            bail!(
                "the v1 cgroups memory, pids and {NAMED} are not all mounted, and version 2 is not alone: a nest wants \
                 either all controllers on v1 (mount them below /sys/fs/cgroup) or none"
            );
        }
        match found.into_iter().next() {
            Some(hierarchy) => Ok(Self::V2(hierarchy)),
            None => bail!("no cgroups are mounted below /sys/fs/cgroup: a nest needs them"),
        }
    }
}

/// A line of mountinfo that is a cgroup hierarchy.
#[derive(Debug)]
struct Mount<'a> {
    root: &'a str,
    point: &'a Utf8Path,
    version2: bool,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let version2 = match right.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        Some(Self {
            root: left.next()?,
            point: Utf8Path::new(left.next()?),
            version2,
            options: right.nth(1).unwrap_or_default(),
        })
    }

    fn of(self, controllers: &[String]) -> Option<Self> {
        let matches = if controllers.is_empty() {
            self.version2
        } else {
            let mut options = self.options.split(',');
            !self.version2 && options.any(|option| controllers.iter().any(|it| it == option))
        };
        matches.then_some(self)
    }
}

/// Cgroups that were made for one nest. They are removed, with all that runs in them, by [`Cgroups::clear`].
#[derive(Debug)]
pub(crate) struct Cgroups {
    folders: Vec<Utf8PathBuf>,
}

impl Cgroups {
    /// Those of this name, whether they are there or not.
    pub(crate) fn named(host: &Host, name: &str) -> Self {
        let folders = match host {
            Host::V1(hierarchies) => hierarchies.iter().map(|it| it.own.join(name)).collect(),
            Host::V2(hierarchy) => vec![hierarchy.own.join(name)],
        };
        Self { folders }
    }

    /// The one in this folder.
    pub(crate) fn at(folder: Utf8PathBuf) -> Self {
        Self {
            folders: vec![folder],
        }
    }

    /// Makes them.
    pub(crate) fn make(&self) -> Result<()> {
        for folder in &self.folders {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("making the cgroup {folder}"));
                }
                _ => {}
            }
            // A v1 cpuset takes no process before it is told which processors and memory it may use.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = folder.with_file_name(file);
                if folder.join(file).exists()
                    && let Ok(value) = fs::read(&above)
                {
                    fs::write(folder.join(file), value)
                        .with_context(|| format!("setting {folder}/{file}"))?;
                }
            }
        }
        Ok(())
    }

    /// Makes one on version 2 whose children may have limits.
    pub(crate) fn make_delegated(&self) -> Result<()> {
        self.make()?;
        let Some(folder) = self.folders.first() else {
            return Ok(());
        };
        let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
        for needed in ["memory", "pids"] {
            if !controllers.split_whitespace().any(|it| it == needed) {
                bail!(
                    "no cgroup below {} has the controller {needed}, so no limit could be tried: run this under a \
                     systemd, or enable it in that cgroup.subtree_control",
                    folder.parent().unwrap_or(folder)
                );
            }
        }
        Ok(())
    }

    /// Where a process has to be written to be in all of them.
    pub(crate) fn folders(&self) -> &[Utf8PathBuf] {
        &self.folders
    }

    /// Kills what runs in them and removes them. Whether nothing is left; to be called until it is so.
    pub(crate) fn clear(&self) -> Result<bool> {
        let mut gone = true;
        for folder in &self.folders {
            gone &= clear(folder).with_context(|| format!("removing the cgroup {folder}"))?;
        }
        Ok(gone)
    }
}

fn clear(folder: &Utf8Path) -> io::Result<bool> {
    let entries = match folder.read_dir_utf8() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let mut gone = true;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            gone &= clear(entry.path())?;
        }
    }
    for line in fs::read_to_string(folder.join("cgroup.procs"))?.lines() {
        gone = false;
        // Nobody else is put there, and one that has gone meanwhile is no error.
        if let Some(pid) = line.parse().ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::KILL).unwrap_or_default();
        }
    }
    if !gone {
        return Ok(false);
    }
    match fs::remove_dir(folder) {
        Ok(()) => Ok(true),
        // What was killed has not left yet.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "\
24 20 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
25 24 0:22 / /sys/fs/cgroup/memory rw,relatime shared:4 - cgroup cgroup rw,memory
26 24 0:23 /a /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
27 24 0:24 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
28 24 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
29 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn every_v1_hierarchy_that_is_mounted_has_a_place_below_ones_own() {
        let own = "9:name=systemd:/\n8:pids:/p\n4:memory:/m/n\n3:cpu,cpuacct:/a/b\n2:rdma:/\n0::/\n";
        let host = Host::parse(own, V1_MOUNTS).expect("v1");
        let folders = Cgroups::named(&host, "x").folders;
        assert_eq!(
            folders,
            [
                "/sys/fs/cgroup/systemd/x",
                "/sys/fs/cgroup/pids/p/x",
                "/sys/fs/cgroup/memory/m/n/x",
                // That mount shows the hierarchy from /a on.
                "/sys/fs/cgroup/cpu,cpuacct/b/x",
                "/sys/fs/cgroup/unified/x",
            ]
        );
    }

    #[test]
    fn version_two_alone_is_told_from_a_mixture_that_cannot_work() {
        let v2 = "30 24 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let host = Host::parse("0::/user.slice/a.scope\n", v2).expect("v2");
        assert_eq!(
            Cgroups::named(&host, "x").folders,
            ["/sys/fs/cgroup/user.slice/a.scope/x"]
        );
        let some = "28 24 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        let error = Host::parse("1:name=systemd:/\n0::/\n", &format!("{v2}{some}")).expect_err("a mixture");
        assert!(error.to_string().contains("memory, pids"), "{error}");
        assert!(Host::parse("", "").is_err());
    }

    #[test]
    fn clearing_what_was_never_made_is_done_at_once() {
        let cgroups = Cgroups {
            folders: vec!["/nonexistent/x".into()],
        };
        assert!(cgroups.clear().expect("nothing to do"));
    }
}
