//! A hive to measure: the real programs in folders of their own. Everything ends with it.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use reconciler::host::folders::write_atomic;
use reconciler::host::layout::Layout;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Map, Value, json};
use shared::AgentName;
use shared::status::{AgentStatus, Health, HiveStatus, Sync};

use super::http::{Client, Events};

/// How long a hive of a thousand agents may take to converge.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_hive");

/// A hive.
pub(crate) struct Hive {
    pub(crate) layout: Layout,
    pub(crate) spec_path: Utf8PathBuf,
    daemon: Option<Child>,
    log: Utf8PathBuf,
    /// On the disk that builds use: where `/tmp` is memory, nothing would be written at all.
    _state: tempfile::TempDir,
    /// Sockets have short paths.
    _run: tempfile::TempDir,
}

/// Pauses between two looks.
pub(crate) fn pause(time: Duration) {
    let (_never, nothing) = mpsc::channel::<()>();
    let _timed_out = nothing.recv_timeout(time);
}

/// Looks until something is there.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    let mut last = None;
    while started.elapsed() < PATIENCE {
        match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        pause(Duration::from_millis(20));
    }
    match last {
        Some(error) => Err(error.context(format!("waited in vain for {what}"))),
        None => bail!("waited in vain for {what}"),
    }
}

/// The agent of this number.
pub(crate) fn name(number: usize) -> String {
    format!("a{number:04}")
}

/// An agent as an operator would declare it.
pub(crate) fn agent(run: &str, prompt: &str) -> Value {
    json!({
        "run": run,
        "prompt": prompt,
        "driver": { "kind": "scripted", "script": [ { "on": "never said", "do": [] } ] },
        "tools": { "allow": ["Read", "Grep", "Bash(git *)"] },
        "limits": { "cpu": "200%", "memory": "4G", "tasks": 4096 }
    })
}

/// So many agents, of which the first few run.
pub(crate) fn agents(count: usize, running: usize) -> Map<String, Value> {
    let one = |number: usize| {
        let run = if number < running { "running" } else { "stopped" };
        let prompt = format!(
            "You look after part {number} of the wiki. {}",
            "Keep it tidy. ".repeat(30)
        );
        (name(number), agent(run, &prompt))
    };
    (0..count).map(one).collect()
}

/// The text of a spec with these agents.
pub(crate) fn spec(agents: &Map<String, Value>) -> Vec<u8> {
    let spec = json!({
        "version": 1,
        "hive": { "name": "bench" },
        "maxAgents": agents.len().max(1),
        "agents": agents
    });
    spec.to_string().into_bytes()
}

impl Hive {
    /// A daemon with these agents.
    pub(crate) fn serving(agents: Map<String, Value>) -> Result<Self> {
        let state = tempfile::Builder::new()
            .prefix("bench")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let run = tempfile::Builder::new().prefix("hb").tempdir_in("/tmp")?;
        let folder = |dir: &tempfile::TempDir| -> Result<Utf8PathBuf> {
            let path = Utf8Path::from_path(dir.path()).context("a path that is UTF-8")?;
            Ok(path.canonicalize_utf8()?)
        };
        let root = folder(&state)?;
        let mut hive = Self {
            layout: Layout::new(root.join("s"), folder(&run)?.join("r")),
            spec_path: root.join("hive.json"),
            log: root.join("log"),
            daemon: None,
            _state: state,
            _run: run,
        };
        hive.declare(&agents)?;
        hive.start()?;
        Ok(hive)
    }

    /// A daemon with so many agents, of which the first few run, when all is as declared.
    pub(crate) fn converged(count: usize, running: usize) -> Result<Self> {
        let started = Instant::now();
        let hive = Self::serving(agents(count, running))?;
        hive.until_converged(count)?;
        eprintln!(
            "  {count} agents, {running} of them running, after {:.1} s",
            started.elapsed().as_secs_f64()
        );
        Ok(hive)
    }

    /// Replaces the spec at one stroke.
    pub(crate) fn declare(&self, agents: &Map<String, Value>) -> Result<()> {
        self.write_spec(&spec(agents))
    }

    pub(crate) fn write_spec(&self, text: &[u8]) -> Result<()> {
        write_atomic(&self.spec_path, text, 0o644).map_err(|error| anyhow::anyhow!(error.chain()))
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(PROGRAM)
            .args(["serve", "--log", "warn"])
            .args(["--spec", self.spec_path.as_str()])
            .args(["--state", self.layout.state().as_str()])
            .args(["--run", self.layout.run().as_str()])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.daemon = Some(child);
        until("the daemon", || {
            if let Some(status) = self
                .daemon
                .as_mut()
                .and_then(|child| child.try_wait().transpose())
            {
                bail!(
                    "the daemon ended: {}: {}",
                    status?,
                    fs::read_to_string(&self.log)?
                );
            }
            Ok(self.status().ok())
        })?;
        Ok(())
    }

    /// Ends the daemon; its agents go on.
    pub(crate) fn end(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            rustix::process::kill_process(Pid::from_child(&daemon), Signal::TERM)?;
            daemon.wait()?;
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> Result<u32> {
        self.daemon.as_ref().map(Child::id).context("no daemon")
    }

    pub(crate) fn admin(&self) -> Result<Client> {
        Client::new(&self.layout.admin_socket())
    }

    pub(crate) fn door(&self, agent: &str) -> Result<Client> {
        Client::new(&self.layout.agent_socket(&agent.parse()?))
    }

    pub(crate) fn status(&self) -> Result<HiveStatus> {
        self.admin()?.get("/v1/status")
    }

    /// The events from here on.
    pub(crate) fn events(&self) -> Result<Events> {
        Events::after(&self.layout.admin_socket(), self.status()?.seq)
    }

    /// Waits until so many agents are as declared, and nothing waits to be looked at.
    pub(crate) fn until_converged(&self, count: usize) -> Result<()> {
        let mut last = None;
        until("a hive that is as declared", || {
            let status = self.status()?;
            if !status.spec.faults.is_empty() {
                bail!("the spec has faults: {:?}", status.spec.faults);
            }
            let done = status.queue_depth == 0
                && status.agents.len() == count
                && status.agents.iter().all(settled)
                && last == Some(status.seq);
            last = Some(status.seq);
            // The last run of a harness is settled a moment after all is well.
            pause(Duration::from_millis(if done { 2000 } else { 300 }));
            Ok((done && self.status()?.seq == status.seq).then_some(()))
        })
    }

    /// The process ids of an agent: its sandbox and, in it, its harness.
    pub(crate) fn processes(&self, agent: &str) -> Result<Vec<u32>> {
        let name: AgentName = agent.parse()?;
        Ok(processes(&self.layout.launch(&name)))
    }
}

fn settled(agent: &AgentStatus) -> bool {
    let generations = &agent.generations;
    let built = generations.deployed.is_some() && generations.deployed == generations.desired;
    let stopped = agent.health.reason == "stopped";
    built && agent.sync.value == Sync::InSync && (stopped || agent.health.value == Health::Healthy)
}

fn processes(launch: &Utf8Path) -> Vec<u32> {
    let number = |value: Option<&Value>| {
        value
            .and_then(Value::as_u64)
            .and_then(|pid| u32::try_from(pid).ok())
    };
    let record: Value = fs::read(launch.join("run.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let account = fs::read(launch.join("run.lock")).unwrap_or_default();
    let mut lines = serde_json::Deserializer::from_slice(&account).into_iter::<Value>();
    let inner = lines.next().and_then(std::result::Result::ok).unwrap_or_default();
    [number(record.get("pid")), number(inner.get("child-pid"))]
        .into_iter()
        .flatten()
        .collect()
}

/// A handle on a process.
pub(crate) fn handle(pid: u32) -> Result<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a process id")?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Ends the daemon, and the agents that outlive it, by their records.
impl Drop for Hive {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ended = daemon.kill();
            let _reaped = daemon.wait();
        }
        let Ok(agents) = self.layout.agents().read_dir_utf8() else {
            return;
        };
        for agent in agents.flatten() {
            for pid in processes(&agent.path().join("launch")) {
                let Ok(handle) = handle(pid) else { continue };
                // Only a process that lives in our folders is ours: the number may have been given away.
                let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let folder = self
                    .spec_path
                    .parent()
                    .and_then(Utf8Path::file_name)
                    .unwrap_or("/");
                if mounts.contains(folder) || String::from_utf8_lossy(&command).contains(folder) {
                    let _ended = pidfd_send_signal(&handle, Signal::KILL);
                }
            }
        }
    }
}
