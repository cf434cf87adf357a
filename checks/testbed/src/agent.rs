//! An agent's machine, as the host and the kernel see it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use crate::bus::Bus;
use crate::{program, wait};

/// The uid of the agent's user inside.
pub(crate) const AGENT: u32 = 1000;

/// A machine with a private user range.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    /// The unit that it runs in.
    pub(crate) unit: String,
    /// What machined calls it.
    pub(crate) machine: String,
    /// Its root's uid outside.
    pub(crate) base: u32,
    /// What is `/state` inside.
    pub(crate) state: Utf8PathBuf,
}

impl Agent {
    /// Runs a line of shell inside, as this user; its standard output.
    pub(crate) fn run(&self, user: &str, line: &str) -> Result<String> {
        let (user, line) = (format!("--uid={user}"), plain(line));
        program::run("systemd-run", self.systemd_run(&user, &line))
    }

    /// A line of shell inside that must fail, as this user; what it said.
    pub(crate) fn cannot(&self, user: &str, line: &str) -> Result<String> {
        // That it runs at all is seen first: what cannot be started fails as well.
        self.run(user, "true")?;
        let (user, line) = (format!("--uid={user}"), plain(line));
        program::fails("systemd-run", self.systemd_run(&user, &line))
    }

    fn systemd_run<'a>(&'a self, user: &'a str, line: &'a str) -> [&'a str; 11] {
        let machine = self.machine.as_str();
        [
            "--machine",
            machine,
            "--quiet",
            "--wait",
            "--pipe",
            "--collect",
            user,
            "--",
            "/bin/sh",
            "-euc",
            line,
        ]
    }

    /// PID 1 of it, outside.
    pub(crate) fn leader(&self, bus: &Bus) -> Result<u32> {
        bus.leader(&self.machine)
    }

    /// Its ids are a range of its own: root inside is nobody outside, and a setuid file of it is of no use there.
    pub(crate) fn has_its_own_user_range(&self, bus: &Bus) -> Result<()> {
        let leader = self.leader(bus)?;
        for map in ["uid_map", "gid_map"] {
            let path = format!("/proc/{leader}/{map}");
            let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
            let words: Vec<&str> = text.split_whitespace().collect();
            ensure!(
                words == ["0", &self.base.to_string(), "65536"],
                "{path} is {text}"
            );
        }
        let escape = self.state.join("escape");
        self.run(
            "root",
            "cp /usr/bin/busybox /state/escape && chmod 6755 /state/escape && test -u /state/escape",
        )?;
        let owner = fs::metadata(&escape).with_context(|| format!("looking at {escape}"))?;
        ensure!(
            (owner.uid(), owner.gid(), owner.mode() & 0o7777) == (self.base, self.base, 0o6755),
            "a setuid file that root made inside is {}:{} {:o} outside",
            owner.uid(),
            owner.gid(),
            owner.mode()
        );
        self.run("agent", "touch /state/mine")?;
        let mine = fs::metadata(self.state.join("mine"))?.uid();
        ensure!(
            mine == self.base + AGENT,
            "what the agent writes is {mine}'s outside"
        );
        self.run("root", "rm /state/escape /state/mine")?;
        Ok(())
    }

    /// Nothing that listens on the host's loopback can be reached, and there is no other way out.
    pub(crate) fn has_no_route_out(&self, bus: &Bus) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening on loopback")?;
        let port = listener.local_addr()?.port();
        let connect = format!("exec bash -c ': </dev/tcp/127.0.0.1/{port}'");
        program::shell(&connect).context("the host itself reaches it")?;
        self.cannot("agent", &connect)?;
        self.cannot("root", &connect)?;
        let leader = self.leader(bus)?;
        let path = format!("/proc/{leader}/net/dev");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let links: Vec<&str> = text
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0.trim()))
            .collect();
        ensure!(links == ["lo"], "the guest has the links {links:?}");
        self.shares_no_namespace_with(bus, 1)
    }

    /// It and another process are apart in every respect that the kernel knows.
    pub(crate) fn shares_no_namespace_with(&self, bus: &Bus, pid: u32) -> Result<()> {
        let leader = self.leader(bus)?;
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            let of = |pid: u32| {
                let path = format!("/proc/{pid}/ns/{kind}");
                fs::read_link(&path).with_context(|| format!("reading {path}"))
            };
            ensure!(
                of(leader)? != of(pid)?,
                "{} shares {kind} with process {pid}",
                self.machine
            );
        }
        Ok(())
    }

    /// It cannot see a path of the host.
    pub(crate) fn does_not_see(&self, bus: &Bus, path: &Utf8Path) -> Result<()> {
        ensure!(path.exists(), "{path} is there to be seen");
        let inside = format!("/proc/{}/root{path}", self.leader(bus)?);
        ensure!(!fs::exists(&inside)?, "{} sees {path}", self.machine);
        Ok(())
    }

    /// No more memory than this: systemd knows it, the kernel knows it, and whoever takes more is killed.
    pub(crate) fn is_held_to_memory(&self, bus: &Bus, bytes: u64) -> Result<()> {
        let known: u64 = bus.service_property(&self.unit, "MemoryMax")?;
        ensure!(
            known == bytes,
            "MemoryMax of {} is {known}, not {bytes}",
            self.unit
        );
        let folder = Utf8PathBuf::from(format!("/sys/fs/cgroup/memory{}", bus.unit(&self.unit)?.cgroup));
        let limit = read_number(&folder.join("memory.limit_in_bytes"))?;
        ensure!(limit == bytes, "the kernel's limit is {limit}, not {bytes}");
        // The pipe's reader keeps one line, and it has no end.
        let greedy = format!("head -c {} /dev/zero | tail -n 1 | wc -c", bytes * 2);
        let left = self.run("agent", &greedy).unwrap_or_default();
        ensure!(
            left.trim() != (bytes * 2).to_string(),
            "a program took twice the memory that the agent may have"
        );
        let peak = read_number(&folder.join("memory.max_usage_in_bytes"))?;
        ensure!(peak <= bytes, "it had {peak} bytes at its peak");
        ensure!(
            peak > bytes / 2,
            "it had only {peak} bytes at its peak: nothing was tried"
        );
        Ok(())
    }

    /// How many of its processes the kernel has killed because they had no memory left.
    pub(crate) fn killed_for_memory(&self, bus: &Bus) -> Result<u64> {
        let cgroup = bus.unit(&self.unit)?.cgroup;
        let read = |path: String| fs::read_to_string(&path).with_context(|| format!("reading {path}"));
        let text = read(format!("/sys/fs/cgroup/memory{cgroup}/memory.oom_control"))
            .or_else(|_| read(format!("/sys/fs/cgroup{cgroup}/memory.events")))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.context("a count of kills")?.parse().context("a number")
    }

    /// Has the kernel kill process 1 of the guest because a program of the agent's took all memory.
    pub(crate) fn dies_of(&self, bus: &Bus, greedy: &str) -> Result<()> {
        let go = self.state.join("go");
        let line = format!(
            "rm -f /state/go; touch /state/ready; until [ -e /state/go ]; do sleep 0.1; done; {greedy}"
        );
        let user = ["--uid=agent", "--", "/bin/sh", "-euc", &line];
        let begin = ["--machine", &self.machine, "--quiet", "--collect"];
        program::run("systemd-run", begin.into_iter().chain(user))?;
        let ready = self.state.join("ready");
        wait::until("it is ready", || Ok(fs::remove_file(&ready)?), |()| true)?;
        // Whoever is started from now on would be as good a choice.
        let path = format!("/proc/{}/oom_score_adj", self.leader(bus)?);
        fs::write(&path, "1000").with_context(|| format!("writing {path}"))?;
        fs::write(&go, "").with_context(|| format!("writing {go}"))
    }

    /// No more tasks than this.
    pub(crate) fn is_held_to_tasks(&self, bus: &Bus, tasks: u64) -> Result<()> {
        let known: u64 = bus.service_property(&self.unit, "TasksMax")?;
        ensure!(
            known == tasks,
            "TasksMax of {} is {known}, not {tasks}",
            self.unit
        );
        let folder = Utf8PathBuf::from(format!("/sys/fs/cgroup/pids{}", bus.unit(&self.unit)?.cgroup));
        let limit = read_number(&folder.join("pids.max"))?;
        ensure!(limit == tasks, "the kernel's limit is {limit}, not {tasks}");
        let refused = || -> Result<u64> {
            let events = fs::read_to_string(folder.join("pids.events")).context("reading pids.events")?;
            let max = events.split_whitespace().nth(1).context("pids.events")?;
            max.parse().context("pids.events")
        };
        let before = refused()?;
        self.cannot(
            "agent",
            &format!("i=0; while [ $i -lt {tasks} ]; do sleep 30 & i=$((i+1)); done"),
        )?;
        ensure!(refused()? > before, "the kernel refused no task");
        wait::within(
            Duration::from_secs(10),
            "the tasks of that shell are gone",
            || read_number(&folder.join("pids.current")),
            |it| *it < tasks / 2,
        )?;
        Ok(())
    }
}

/// A line that the shell gets as it is: systemd would put variables of its own in.
fn plain(line: &str) -> String {
    line.replace('$', "$$")
}

fn read_number(path: &Utf8Path) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{path} holds {text:?}"))
}
