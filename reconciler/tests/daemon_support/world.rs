//! One hive of a test: its folders, its spec, its daemon, its command line. Everything ends with it.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use reconciler::host::folders::write_atomic;
use reconciler::host::layout::Layout;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::{Value, json};
use shared::admin_api::EventPage;
use shared::event::Event;
use shared::gate::{Gate, GateState};
use shared::plan::WaitingOn;
use shared::status::{AgentStatus, Health, HiveStatus, Sync};
use shared::{AgentName, GateId};

use super::http::{self, Answer};

/// How long anything may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until a condition holds, and returns what it yields.
pub(crate) fn within<T>(time: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + time;
    // A receiver nobody sends to: a pause between two looks.
    let (_never, pause) = mpsc::channel::<()>();
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        if Instant::now() > until {
            return None;
        }
        let _timed_out = pause.recv_timeout(Duration::from_millis(10));
    }
}

/// The harness program: it belongs to another package, whose programs cargo does not build for these tests.
fn harness() -> &'static Utf8Path {
    static HARNESS: OnceLock<Utf8PathBuf> = OnceLock::new();
    HARNESS.get_or_init(|| {
        let hive = Utf8Path::new(env!("CARGO_BIN_EXE_hive"));
        let profile = hive.parent().unwrap();
        let mut cargo = program(env!("CARGO"));
        // With the features that a build of the whole workspace has, so that it finds its parts built already.
        cargo.args(["build", "--quiet", "--workspace", "--bin", "hive-harness"]);
        cargo.args(["--message-format", "json", "--target-dir"]);
        cargo.arg(profile.parent().unwrap());
        if profile.file_name() == Some("release") {
            cargo.arg("--release");
        }
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = cargo.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the harness cannot be built: {errors}");
        let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
        let built = messages.map(Result::unwrap).filter_map(|message| {
            let path = message.get("executable")?.as_str()?.into();
            Some(path)
        });
        built.last().expect("cargo names the program")
    })
}

#[expect(clippy::disallowed_methods, reason = "these tests start the real programs")]
pub(crate) fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    command
}

/// How a command of the command line ended, and the document it printed.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: i32,
    pub(crate) out: Value,
    pub(crate) err: String,
}

pub(crate) struct World {
    pub(crate) root: Utf8PathBuf,
    pub(crate) layout: Layout,
    daemon: Option<Child>,
    _keep: tempfile::TempDir,
}

impl World {
    /// Folders and nothing else. Their path is short, as a unix socket's must be.
    pub(crate) fn new() -> Self {
        let keep = tempfile::Builder::new().prefix("hd").tempdir_in("/tmp").unwrap();
        let root = Utf8Path::from_path(keep.path())
            .unwrap()
            .canonicalize_utf8()
            .unwrap();
        Self {
            layout: Layout::new(root.join("s"), root.join("r")),
            root,
            daemon: None,
            _keep: keep,
        }
    }

    /// A daemon with this spec.
    pub(crate) fn serving(spec: &Value) -> Self {
        let mut world = Self::new();
        world.spec(spec);
        world.start();
        world
    }

    pub(crate) fn spec_path(&self) -> Utf8PathBuf {
        self.root.join("hive.json")
    }

    /// Replaces the spec at one stroke.
    pub(crate) fn spec(&self, spec: &Value) {
        self.spec_text(&spec.to_string());
    }

    pub(crate) fn spec_text(&self, text: &str) {
        write_atomic(&self.spec_path(), text.as_bytes(), 0o644).unwrap_or_else(|e| panic!("{}", e.chain()));
    }

    /// `hive serve` on these folders.
    pub(crate) fn serve(&self) -> Command {
        let mut command = program(env!("CARGO_BIN_EXE_hive"));
        command.arg("serve");
        command.args(self.serve_args());
        command
    }

    pub(crate) fn serve_args(&self) -> Vec<String> {
        let paths = [
            ("--spec", self.spec_path()),
            ("--state", self.layout.state().to_owned()),
            ("--run", self.layout.run().to_owned()),
            ("--harness", harness().to_owned()),
        ];
        let words = paths
            .iter()
            .flat_map(|(option, path)| [(*option).to_owned(), path.to_string()]);
        words.collect()
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn start(&mut self) {
        let command = self.serve();
        self.start_as(command);
    }

    pub(crate) fn start_as(&mut self, command: Command) {
        self.launch(command);
        self.up();
    }

    /// Starts the daemon and waits for nothing.
    pub(crate) fn launch(&mut self, mut command: Command) {
        assert!(self.daemon.is_none(), "one daemon at a time");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        self.daemon = Some(command.stderr(log).spawn().unwrap());
    }

    pub(crate) fn up(&mut self) {
        let mut ended = None;
        let up = within(DEADLINE, || {
            ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            let status = http::get(&self.socket(), "/v1/status").ok();
            (ended.is_some() || status.is_some()).then_some(())
        });
        assert!(up.is_some() && ended.is_none(), "{ended:?}: {}", self.log());
    }

    /// Starts a daemon that is expected to end at once; gives the status and what it said.
    pub(crate) fn refuses(&self, mut command: Command) -> (ExitStatus, String) {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let ended = within(DEADLINE, || child.try_wait().unwrap());
        if ended.is_none() {
            child.kill().unwrap();
        }
        let said = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        (ended.unwrap_or_else(|| panic!("it runs: {said}")), said)
    }

    fn log_path(&self) -> Utf8PathBuf {
        self.root.join("log")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// SIGKILL, and not a word of goodbye.
    pub(crate) fn kill(&mut self) {
        let mut child = self.daemon.take().unwrap();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(
            status.signal(),
            Some(9),
            "it ended before: {status}; {}",
            self.log()
        );
    }

    /// SIGTERM, and a clean end.
    pub(crate) fn end(&mut self) {
        let mut child = self.daemon.take().unwrap();
        signal(i32::try_from(child.id()).unwrap(), Signal::TERM);
        let ended = within(DEADLINE, || child.try_wait().unwrap());
        if ended.is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(ended.and_then(|status| status.code()), Some(0), "{}", self.log());
    }

    pub(crate) fn socket(&self) -> Utf8PathBuf {
        self.layout.admin_socket()
    }

    pub(crate) fn door(&self, agent: &str) -> Utf8PathBuf {
        self.layout.agent_socket(&name(agent))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        http::get(&self.socket(), path).unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        http::post(&self.socket(), path, body).unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }

    /// A request on an agent's own socket.
    pub(crate) fn ask(&self, agent: &str, path: &str, body: &Value) -> Answer {
        http::post(&self.door(agent), path, body).unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }

    /// Runs the command line with `--json`.
    pub(crate) fn hive(&self, args: &[&str]) -> Told {
        let mut command = program(env!("CARGO_BIN_EXE_hive"));
        let output = command
            .arg("--socket")
            .arg(self.socket())
            .arg("--json")
            .args(args)
            .output()
            .unwrap();
        Told {
            code: output.status.code().expect("an exit status"),
            out: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that must succeed.
    pub(crate) fn does(&self, args: &[&str]) -> Value {
        let told = self.hive(args);
        assert_eq!(told.code, 0, "{args:?}: {} {}", told.err, told.out);
        told.out
    }

    pub(crate) fn status(&self) -> HiveStatus {
        self.get("/v1/status").ok()
    }

    pub(crate) fn agent(&self, agent: &str) -> Option<AgentStatus> {
        let answer = self.get(&format!("/v1/agents/{agent}"));
        (answer.status == 200).then(|| answer.ok())
    }

    /// Waits until something is so; when it never is, shows what is instead.
    pub(crate) fn until<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        within(DEADLINE, condition).unwrap_or_else(|| {
            let status = http::get(&self.socket(), "/v1/status").map(|answer| answer.text());
            let events = http::get(&self.socket(), "/v1/events").map(|answer| answer.text());
            panic!(
                "waited in vain for {what}\nstatus: {status:?}\nevents: {events:?}\nlog: {}",
                self.log()
            )
        })
    }

    /// Waits until an agent is like this.
    pub(crate) fn until_agent(
        &self,
        agent: &str,
        what: &str,
        like: impl Fn(&AgentStatus) -> bool,
    ) -> AgentStatus {
        self.until(&format!("{agent}: {what}"), || {
            self.agent(agent).filter(|status| like(status))
        })
    }

    /// Waits until an agent runs as declared.
    pub(crate) fn until_healthy(&self, agent: &str) -> AgentStatus {
        self.until_agent(agent, "healthy and in sync", |status| {
            status.sync.value == Sync::InSync && status.health.value == Health::Healthy
        })
    }

    /// Waits until an agent that should not run has all but a process. One that never ran is still on probation.
    pub(crate) fn until_stopped(&self, agent: &str) -> AgentStatus {
        self.until_agent(agent, "stopped, with all it needs", |status| {
            let generations = &status.generations;
            status.health.reason == "stopped"
                && generations.deployed.is_some()
                && generations.deployed == generations.desired
                && status
                    .waiting
                    .iter()
                    .all(|waiting| matches!(waiting.on, WaitingOn::Dependency { .. }))
                && self.door(agent).exists()
        })
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let page: EventPage = self.get("/v1/events").ok();
        page.events
    }

    pub(crate) fn until_event(&self, what: &str, like: impl Fn(&Event) -> bool) -> Event {
        self.until(what, || self.events().into_iter().find(|event| like(event)))
    }

    pub(crate) fn until_kind(&self, kind: &str) -> Event {
        self.until_event(kind, |event| event.kind == kind)
    }

    /// What agents said to the operator, in order.
    pub(crate) fn said(&self) -> Vec<String> {
        let events = self.events().into_iter();
        let said = events.filter(|event| event.kind == "messageToOperator");
        said.map(|event| event.message).collect()
    }

    pub(crate) fn gate(&self, id: GateId) -> Gate {
        self.get(&format!("/v1/gates/{id}")).ok()
    }

    /// Waits for an open gate of this class.
    pub(crate) fn until_gate(&self, class: &str) -> Gate {
        self.until(&format!("an open gate {class}"), || {
            let gates: Vec<Gate> = self.get("/v1/gates").ok();
            let mut open = gates.into_iter();
            open.find(|gate| gate.state == GateState::Open && gate.class.as_str() == class)
        })
    }

    /// Rows of the ledger, which no API shows: how messages fared. The columns are joined by spaces.
    pub(crate) fn messages(&self, sql: &str) -> Vec<String> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let db = rusqlite::Connection::open_with_flags(self.layout.ledger(), flags).unwrap();
        let mut statement = db.prepare(sql).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let column = |index| {
                row.get::<_, rusqlite::types::Value>(index)
                    .map(|value| match value {
                        rusqlite::types::Value::Integer(number) => number.to_string(),
                        rusqlite::types::Value::Text(text) => text,
                        other => format!("{other:?}"),
                    })
            };
            let columns: rusqlite::Result<Vec<String>> = (0..columns).map(column).collect();
            columns.map(|columns| columns.join(" "))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// The process id of an agent's sandbox, as the runtime noted it.
    pub(crate) fn run_pid(&self, agent: &str) -> Option<i32> {
        let record = fs::read(self.layout.launch(&name(agent)).join("run.json")).ok()?;
        let record: Value = serde_json::from_slice(&record).ok()?;
        i32::try_from(record.get("pid")?.as_i64()?).ok()
    }

    /// The process id of an agent's harness.
    pub(crate) fn harness_pid(&self, agent: &str) -> Option<i32> {
        harness_pid(&self.layout.launch(&name(agent)))
    }
}

fn harness_pid(launch: &Utf8Path) -> Option<i32> {
    let account = fs::read(launch.join("run.lock")).ok()?;
    let mut lines = serde_json::Deserializer::from_slice(&account).into_iter::<Value>();
    i32::try_from(lines.next()?.ok()?.get("child-pid")?.as_i64()?).ok()
}

/// Ends the daemon, and the agents that outlive it, by their records.
impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ended = daemon.kill();
            let _reaped = daemon.wait();
        }
        let Ok(agents) = self.layout.agents().read_dir_utf8() else {
            return;
        };
        for agent in agents.flatten() {
            let launch = agent.path().join("launch");
            let record = fs::read(launch.join("run.json")).unwrap_or_default();
            let record: Value = serde_json::from_slice(&record).unwrap_or_default();
            let outer = record.get("pid").and_then(Value::as_i64);
            let outer = outer.and_then(|pid| i32::try_from(pid).ok());
            for pid in [harness_pid(&launch), outer].into_iter().flatten() {
                let Some(handle) = handle(pid) else { continue };
                // Only a process that lives in our folders is ours: the number may have been given away.
                if is_ours(pid, &self.root) {
                    let _ended = rustix::process::pidfd_send_signal(&handle, Signal::KILL);
                }
            }
        }
    }
}

/// Whether a process has to do with the hive in this folder.
pub(crate) fn is_ours(pid: i32, root: &Utf8Path) -> bool {
    let text = |file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    text("cmdline").contains(root.as_str()) || text("mountinfo").contains(root.file_name().unwrap())
}

pub(crate) fn handle(pid: i32) -> Option<OwnedFd> {
    rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    let handle = handle(pid).expect("the process is there");
    rustix::process::pidfd_send_signal(&handle, signal).unwrap();
}

/// Whether a process is there and not a zombie.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub(crate) fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

/// A spec with these agents.
pub(crate) fn spec(agents: &Value) -> Value {
    json!({ "version": 1, "hive": { "name": "home" }, "agents": agents })
}

/// An agent that follows these rules.
pub(crate) fn scripted(rules: &Value) -> Value {
    json!({ "driver": { "kind": "scripted", "script": rules } })
}

/// An agent that is declared but does not run: the test can speak on its door.
pub(crate) fn silent() -> Value {
    json!({ "run": "stopped", "driver": { "kind": "scripted" } })
}

/// `agent` with these fields changed.
pub(crate) fn with(mut agent: Value, fields: &Value) -> Value {
    for (field, value) in fields.as_object().unwrap() {
        agent[field] = value.clone();
    }
    agent
}
