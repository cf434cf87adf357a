//! A hive on this host: its spec, its units, its daemon, and its own command line.

use std::fs;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::bus::{Bus, Unit};
use crate::{guest, nix, program, wait};

/// The program, where the product is installed in a nest.
pub(crate) const HIVE: &str = "/nix/store/00000000000000000000000000000000-hyperhive/bin/hive";
/// The daemon's unit.
pub(crate) const DAEMON: &str = "hyperhive.service";
/// The daemon's user.
pub(crate) const USER: &str = "hyperhive";
/// What must survive a reboot.
pub(crate) const STATE: &str = "/var/lib/hyperhive";
/// Sockets.
pub(crate) const RUN: &str = "/run/hyperhive";

const SPEC: &str = "/etc/hyperhive/hive.json";

/// The pool that user ranges are taken from, and the size of one.
const POOL: u32 = 0x7000_0000;
const RANGE: u32 = 0x1_0000;

/// A hive whose daemon runs.
#[derive(Debug)]
pub(crate) struct Hive {
    /// The host's bus.
    pub(crate) bus: Bus,
    /// What its spec says of the builder.
    builder: Value,
}

/// An agent as most scenarios want it: it runs, a script drives it, and its network is its own loopback. `more` is added.
pub(crate) fn declared(more: Value) -> Result<Value> {
    let mut agent = json!({
        "run": "running",
        "system": guest::system()?,
        "network": "none",
        "driver": { "kind": "scripted", "script": [
            { "on": "hello", "do": [{ "send": { "to": "operator", "body": "hello yourself" } }] },
        ] },
    });
    if let (Some(agent), Value::Object(more)) = (agent.as_object_mut(), more) {
        agent.extend(more);
    }
    Ok(agent)
}

/// [`declared`], but for its system: Nix builds it, and boots it as the bed's guests boot.
pub(crate) fn built(more: Value) -> Result<Value> {
    let mut agent = declared(json!({ "modules": [nix::module()] }))?;
    if let (Some(agent), Value::Object(more)) = (agent.as_object_mut(), more) {
        agent.remove("system");
        agent.extend(more);
    }
    Ok(agent)
}

impl Hive {
    /// Installs a hive with these agents as `hive units` does it, and starts its daemon.
    pub(crate) fn install(agents: &Value) -> Result<Self> {
        Self::install_on(Self::new()?, agents)
    }

    /// [`Self::install`], with agents whose systems Nix builds.
    pub(crate) fn install_with_nix(agents: &Value) -> Result<Self> {
        let builder = nix::builder()?;
        Self::install_on(
            Self {
                builder,
                ..Self::new()?
            },
            agents,
        )
    }

    fn new() -> Result<Self> {
        Ok(Self {
            bus: Bus::connect()?,
            builder: json!({ "kind": "plain" }),
        })
    }

    fn install_on(hive: Self, agents: &Value) -> Result<Self> {
        hive.declare(agents)?;
        program::run(HIVE, ["units", "--install"])?;
        program::run("systemd-sysusers", [])?;
        program::run("systemd-tmpfiles", ["--create", "hyperhive.conf"])?;
        hive.bus.reload()?;
        if hive.builder["kind"] == "nix" {
            nix::set_up(&hive.bus)?;
        }
        program::run("systemctl", ["enable", "--quiet", DAEMON])?;
        hive.start()?;
        Ok(hive)
    }

    /// The hive that an earlier boot installed, whose daemon was started with the host.
    pub(crate) fn installed() -> Result<Self> {
        let hive = Self::new()?;
        hive.start()?;
        Ok(hive)
    }

    /// Writes the spec as NixOS would: root's, whole, by a rename.
    pub(crate) fn declare(&self, agents: &Value) -> Result<()> {
        self.declare_with(agents, &json!({}))
    }

    /// [`Hive::declare`], with a policy.
    pub(crate) fn declare_with(&self, agents: &Value, policy: &Value) -> Result<()> {
        let spec = json!({
            "version": 1,
            "hive": { "name": "bed" },
            "runtime": { "kind": "nspawn" },
            "builder": self.builder,
            "policy": policy,
            "maxAgents": agents.as_object().map_or(0, serde_json::Map::len).max(64),
            "agents": agents,
        });
        let new = format!("{SPEC}.new");
        fs::write(&new, spec.to_string()).context("writing the spec")?;
        fs::rename(&new, SPEC).context("putting the spec in its place")
    }

    /// Starts the daemon, and waits until it answers.
    pub(crate) fn start(&self) -> Result<()> {
        self.bus.start(DAEMON)?;
        let settled = |it: &Unit| it.active != "activating" && it.active != "inactive";
        let unit = wait::until("the daemon is up", || self.bus.unit(DAEMON), settled)?;
        ensure!(
            unit.active == "active",
            "the daemon is not up, {unit:?}; it said:\n{}",
            self.log()?
        );
        wait::until(
            "the daemon listens",
            || Ok(UnixStream::connect(format!("{RUN}/admin.sock"))?),
            |_| true,
        )?;
        Ok(())
    }

    /// Kills the daemon and all that it started; systemd starts another.
    pub(crate) fn kill(&self) -> Result<()> {
        self.kill_of("all")
    }

    /// Kills the daemon alone, as the kernel does when it is at fault; systemd starts another.
    pub(crate) fn kill_only(&self) -> Result<()> {
        self.kill_of("main")
    }

    fn kill_of(&self, whom: &str) -> Result<()> {
        let before = self.bus.unit(DAEMON)?;
        self.bus.kill(DAEMON, whom, 9)?;
        wait::until(
            "another daemon is up",
            || self.bus.unit(DAEMON),
            |it| it.active == "active" && it.invocation != before.invocation,
        )?;
        self.start()
    }

    /// What the daemon logged.
    pub(crate) fn log(&self) -> Result<String> {
        program::run("journalctl", ["-u", DAEMON, "--no-pager", "--output=cat"])
    }

    /// The document of `hive --json ARGUMENTS`, whatever its exit status says about the hive.
    pub(crate) fn ask<const N: usize>(&self, arguments: [&str; N]) -> Result<Value> {
        let words = std::iter::once("--json").chain(arguments);
        let text = program::any(HIVE, words)?;
        serde_json::from_str(&text)
            .with_context(|| format!("`hive {}` printed {text:?}", arguments.join(" ")))
    }

    /// Waits until a document shows what is wanted.
    pub(crate) fn until<const N: usize>(
        &self,
        what: &str,
        arguments: [&str; N],
        shows: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        wait::until(what, || self.ask(arguments), shows)
    }

    /// Waits until all these agents are as declared and nothing is under way.
    pub(crate) fn rests(&self, names: &[&str]) -> Result<()> {
        let is = |agent: &Value, axis: &str, value: &str| agent[axis]["value"] == value;
        let at_rest = |agent: &Value| {
            is(agent, "sync", "inSync") && is(agent, "health", "healthy") && is(agent, "activity", "idle")
        };
        let all = |status: &Value| {
            let agents = status["agents"].as_array().map_or(&[][..], Vec::as_slice);
            agents.len() == names.len() && agents.iter().all(at_rest)
        };
        self.until(&format!("{names:?} are at rest"), ["status"], all)
            .map(drop)
    }

    /// The open gates of this agent. A purge is asked for by the hive: its agent is gone.
    pub(crate) fn open_gates(&self, name: &str) -> Result<Vec<Value>> {
        let gates = self.ask(["gate", "list"])?;
        let gates = gates.as_array().context("a list of gates")?.iter();
        let open =
            gates.filter(|it| it["state"] == "open" && (it["agent"] == name || it["class"] == "purge"));
        Ok(open.cloned().collect())
    }

    /// Waits for the one open gate of this agent.
    pub(crate) fn gate(&self, name: &str) -> Result<Value> {
        let gates = wait::until(
            &format!("a gate of {name} is open"),
            || self.open_gates(name),
            |it| !it.is_empty(),
        )?;
        ensure!(gates.len() == 1, "{name} has more than one gate: {gates:?}");
        gates.into_iter().next().context("one gate")
    }

    /// Approves the one open gate of this agent, as an operator who read it.
    pub(crate) fn approve(&self, name: &str) -> Result<()> {
        let gate = self.gate(name)?;
        let digest = gate["digest"].as_str().unwrap_or_default();
        program::run(
            HIVE,
            ["gate", "approve", &gate["id"].to_string(), "--digest", digest],
        )?;
        Ok(())
    }

    /// How often systemd has started the agent's unit, by its journal.
    pub(crate) fn starts(&self, name: &str) -> Result<usize> {
        let unit = format!("UNIT={}", unit_of(name));
        let fields = ["_PID=1", &unit, "JOB_TYPE=start", "JOB_RESULT=done"];
        let said = program::run(
            "journalctl",
            fields
                .into_iter()
                .chain(["--output=cat", "--no-pager", "--quiet"]),
        )?;
        Ok(said.lines().count())
    }

    /// The agent's container was started from this system: the command line of its manager, which is root's, says so.
    pub(crate) fn runs(&self, name: &str, system: &Utf8Path) -> Result<()> {
        let path = format!("/proc/{}/cmdline", self.bus.unit(&unit_of(name))?.pid);
        let words = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let init = system.join("init");
        ensure!(
            words.split('\0').any(|word| word == init),
            "{name} was started by {words:?}, not from {system}"
        );
        Ok(())
    }

    /// All events so far.
    pub(crate) fn events(&self) -> Result<Vec<Value>> {
        let text = program::run(HIVE, ["--json", "events", "--all", "--after", "0"])?;
        serde_json::Deserializer::from_str(&text)
            .into_iter()
            .collect::<Result<_, _>>()
            .context("reading events")
    }

    /// How many events say this.
    pub(crate) fn told(&self, text: &str) -> Result<usize> {
        let says = |it: &&Value| it.to_string().contains(text);
        Ok(self.events()?.iter().filter(says).count())
    }

    /// Waits until an event says this.
    pub(crate) fn tells(&self, text: &str) -> Result<()> {
        self.tells_times(1, text)
    }

    /// Waits until so many events say this.
    pub(crate) fn tells_times(&self, times: usize, text: &str) -> Result<()> {
        let what = format!("{times} events tell {text:?}");
        wait::until(&what, || self.told(text), |it| *it >= times).map(drop)
    }

    /// The agent's machine, which must run: its ids are the kernel's word, and must be of the pool.
    pub(crate) fn agent(&self, name: &str) -> Result<Agent> {
        let mut agent = Agent {
            unit: unit_of(name),
            machine: format!("hive-{name}"),
            base: 0,
            state: Utf8PathBuf::from(format!("{STATE}/agents/{name}/state")),
        };
        let path = format!("/proc/{}/uid_map", agent.leader(&self.bus)?);
        let map = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let base = map.split_whitespace().nth(1).context("a uid map has a base")?;
        agent.base = base.parse().with_context(|| format!("{path} is {map}"))?;
        ensure!(
            agent.base >= POOL && (agent.base - POOL).is_multiple_of(RANGE),
            "{name} has the ids from {base} on, which are not of the pool"
        );
        Ok(agent)
    }

    /// Waits until the agent's unit is up, in another run than this one.
    pub(crate) fn runs_again(&self, name: &str, before: &Unit) -> Result<Unit> {
        wait::until(
            &format!("{name} runs again"),
            || self.bus.unit(&unit_of(name)),
            |it| it.active == "active" && it.invocation != before.invocation,
        )
    }
}

/// The unit of an agent.
pub(crate) fn unit_of(name: &str) -> String {
    format!("hyperhive-agent@{name}.service")
}
