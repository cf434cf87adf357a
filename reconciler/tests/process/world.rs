//! One hive's folders with agents whose harness is a shell script, and runtimes over them.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use reconciler::host::clock::SystemClock;
use reconciler::host::folders::{AgentFolders, write_atomic};
use reconciler::host::layout::Layout;
use reconciler::host::process::{ProcessOptions, ProcessRuntime, Sandbox};
use reconciler::host::{Folders as _, Launch, LaunchFile, Runtime as _, UnitState};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::Value;
use shared::AgentName;
use shared::canonical::{self, Encoding};
use shared::spec::{DriverKind, LimitsSpec, Network};
use tokio::sync::mpsc;

/// How long anything may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) root: Utf8PathBuf,
    pub(crate) layout: Layout,
    _keep: tempfile::TempDir,
}

/// A runtime, and the agents it said have ended.
pub(crate) struct Daemon {
    pub(crate) runtime: ProcessRuntime,
    pub(crate) ended: mpsc::UnboundedReceiver<AgentName>,
}

pub(crate) fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

/// The sandbox of this machine, as the daemon would find it.
pub(crate) async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::probe("/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin".as_ref()).await;
    assert!(
        matches!(sandbox, Sandbox::Bwrap(_)),
        "these tests need bubblewrap: {sandbox:?}"
    );
    sandbox
}

pub(crate) fn no_sandbox() -> Sandbox {
    Sandbox::None {
        why: "there is no bwrap".to_owned(),
    }
}

pub(crate) fn options(
    layout: Layout,
    sandbox: Sandbox,
) -> (ProcessOptions, mpsc::UnboundedReceiver<AgentName>) {
    let (sender, ended) = mpsc::unbounded_channel();
    let options = ProcessOptions {
        layout,
        sandbox,
        launcher: vec![env!("CARGO_BIN_EXE_hive").to_owned(), "launch-process".to_owned()],
        grace: DEADLINE,
        unsafe_no_sandbox: false,
        clock: Arc::new(SystemClock),
        // The receiver may be gone when the test is over.
        notify: Arc::new(move |agent| drop(sender.send(agent))),
    };
    (options, ended)
}

impl World {
    pub(crate) fn new() -> Self {
        Self::in_folder(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn in_folder(keep: tempfile::TempDir) -> Self {
        let root = Utf8Path::from_path(keep.path())
            .expect("UTF-8")
            .canonicalize_utf8()
            .expect("canonical");
        Self {
            layout: layout_at(&root),
            root,
            _keep: keep,
        }
    }

    pub(crate) async fn daemon(&self) -> Daemon {
        self.daemon_with(sandbox().await)
    }

    pub(crate) fn daemon_with(&self, sandbox: Sandbox) -> Daemon {
        let (options, ended) = options(self.layout.clone(), sandbox);
        Daemon {
            runtime: ProcessRuntime::new(options).expect("a runtime"),
            ended,
        }
    }

    /// Folders and launch file of an agent that behaves like this.
    pub(crate) async fn agent(&self, agent: &str, behaviour: &str) -> LaunchFile {
        self.agent_with(agent, behaviour, |_| {}).await
    }

    pub(crate) async fn agent_with(
        &self,
        agent: &str,
        behaviour: &str,
        change: impl FnOnce(&mut Launch),
    ) -> LaunchFile {
        let mut launch = Launch {
            agent: name(agent),
            uid: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().expect("a uid"),
            harness: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/harness.sh").into(),
            claude: None,
            driver: DriverKind::Claude,
            network: Network::None,
            binds: Vec::new(),
            limits: LimitsSpec::default(),
            secrets: BTreeMap::new(),
            user_range: None,
            system: None,
        };
        change(&mut launch);
        let file = LaunchFile {
            digest: canonical::digest(Encoding::Toplevel, &launch).expect("a digest"),
            launch,
        };
        AgentFolders::new(self.layout.clone())
            .prepare(&file.launch.agent)
            .await
            .expect("prepared");
        self.put_launch(&file);
        self.put(&file, "behaviour", behaviour);
        file
    }

    pub(crate) fn put_launch(&self, launch: &LaunchFile) {
        let bytes = serde_json::to_vec(launch).expect("JSON");
        write_atomic(&self.layout.launch_file(&launch.launch.agent), &bytes, 0o600).expect("written");
    }

    /// Writes a file into the agent's state folder.
    pub(crate) fn put(&self, launch: &LaunchFile, file: &str, text: &str) {
        let path = self.layout.agent_state(&launch.launch.agent).join(file);
        write_atomic(&path, text.as_bytes(), 0o644).expect("written");
    }

    /// Reads a file from the agent's state folder; empty when it is not there.
    pub(crate) fn get(&self, launch: &LaunchFile, file: &str) -> String {
        fs::read_to_string(self.layout.agent_state(&launch.launch.agent).join(file)).unwrap_or_default()
    }

    /// Waits until the agent has written a file.
    pub(crate) async fn written(&self, launch: &LaunchFile, file: &str) -> String {
        until(file, || {
            Some(self.get(launch, file)).filter(|text| !text.is_empty())
        })
        .await
    }

    pub(crate) fn run_file(&self, launch: &LaunchFile, file: &str) -> Utf8PathBuf {
        self.layout.launch(&launch.launch.agent).join(file)
    }

    pub(crate) fn record(&self, launch: &LaunchFile) -> Value {
        let text = fs::read(self.run_file(launch, "run.json")).expect("run.json");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// The process id of `bwrap`.
    pub(crate) fn outer_pid(&self, launch: &LaunchFile) -> i32 {
        pid_in(&self.record(launch), "pid")
    }

    /// The process id of the harness, as the host sees it.
    pub(crate) fn harness_pid(&self, launch: &LaunchFile) -> i32 {
        let account = fs::read(self.run_file(launch, "run.lock")).expect("run.lock");
        let mut lines = serde_json::Deserializer::from_slice(&account).into_iter::<Value>();
        pid_in(&lines.next().expect("a line").expect("JSON"), "child-pid")
    }
}

/// Ends what a failed test left running, by its records.
impl Drop for World {
    fn drop(&mut self) {
        let Ok(agents) = self.layout.agents().read_dir_utf8() else {
            return;
        };
        for agent in agents.flatten() {
            let text = |file: &str| fs::read(agent.path().join("launch").join(file)).unwrap_or_default();
            let record = serde_json::from_slice::<Value>(&text("run.json")).unwrap_or_default();
            let account = serde_json::Deserializer::from_slice(&text("run.lock"))
                .into_iter::<Value>()
                .next();
            let harness = account
                .and_then(Result::ok)
                .and_then(|line| line.get("child-pid")?.as_i64());
            for pid in [harness, record.get("pid").and_then(Value::as_i64)]
                .into_iter()
                .flatten()
            {
                let Some(handle) = i32::try_from(pid).ok().and_then(handle) else {
                    continue;
                };
                // Only a process that still has our folder on its command line is ours.
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let ours = String::from_utf8_lossy(&command).contains(self.root.as_str())
                    || String::from_utf8_lossy(&command).contains("hive-harness-bin");
                if ours && pid != i64::from(std::process::id()) {
                    rustix::process::pidfd_send_signal(&handle, Signal::KILL).ok();
                }
            }
        }
    }
}

impl Daemon {
    pub(crate) async fn start(&self, launch: &LaunchFile) {
        self.runtime
            .start(launch)
            .await
            .unwrap_or_else(|error| panic!("{}", error.chain()));
    }

    pub(crate) async fn stop(&self, launch: &LaunchFile) {
        self.runtime
            .stop(&launch.launch.agent)
            .await
            .unwrap_or_else(|error| panic!("{}", error.chain()));
    }

    pub(crate) async fn state(&self, launch: &LaunchFile) -> UnitState {
        let agent = launch.launch.agent.clone();
        let mut states = self
            .runtime
            .observe(std::slice::from_ref(&agent))
            .await
            .expect("observed");
        states.remove(&agent).expect("every agent has a state")
    }

    /// The identity of the current run.
    pub(crate) async fn run(&self, launch: &LaunchFile) -> String {
        match self.state(launch).await {
            UnitState::Running { toplevel, run, .. } if toplevel == launch.digest => run,
            other => panic!("not running: {other:?}"),
        }
    }

    /// Waits until the runtime says that this agent has ended.
    pub(crate) async fn told(&mut self, launch: &LaunchFile) {
        let told = tokio::time::timeout(DEADLINE, self.ended.recv())
            .await
            .expect("nobody was told of the end");
        assert_eq!(told.as_ref(), Some(&launch.launch.agent));
    }
}

pub(crate) fn layout_at(root: &Utf8Path) -> Layout {
    Layout::new(root.join("hive/state"), root.join("hive/run"))
}

fn pid_in(document: &Value, field: &str) -> i32 {
    let pid = document.get(field).and_then(Value::as_i64).expect("a process id");
    i32::try_from(pid).expect("a process id")
}

/// A handle on a process; `None` when there is none.
pub(crate) fn handle(pid: i32) -> Option<OwnedFd> {
    rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

pub(crate) fn kill(pid: i32) {
    let handle = handle(pid).expect("the process is there");
    rustix::process::pidfd_send_signal(&handle, Signal::KILL).expect("killed");
}

/// Waits until a condition holds, and returns what it yields.
pub(crate) async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = condition() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
