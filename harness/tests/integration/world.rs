//! Folders, a daemon, and harnesses that end with the test.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use camino::Utf8PathBuf;
use serde_json::{Value, json};
use shared::Digest;
use shared::canonical::{Encoding, digest_value};
use shared::status::TurnState;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::daemon::Daemon;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_hive-harness");

/// One agent's surroundings.
pub(crate) struct Nest {
    pub(crate) daemon: Daemon,
    root: Utf8PathBuf,
    _dir: tempfile::TempDir,
}

impl Nest {
    /// A daemon, and a config with these rules, announced.
    pub(crate) fn new(script: Value) -> Self {
        let dir = tempfile::Builder::new().prefix("hive").tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        for folder in ["config", "state", "sock"] {
            std::fs::create_dir(root.join(folder)).unwrap();
        }
        let daemon = Daemon::start(&root.join("sock/hive.sock"));
        let nest = Self {
            daemon,
            root,
            _dir: dir,
        };
        nest.deploy(script);
        nest
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        self.root.join(name)
    }

    /// Writes and announces a config with these rules.
    pub(crate) fn deploy(&self, script: Value) -> Digest {
        self.deploy_config(json!({ "driver": { "kind": "scripted", "script": script } }))
    }

    /// Writes and announces a config with these fields.
    pub(crate) fn deploy_config(&self, fields: Value) -> Digest {
        let (digest, text) = config_file(fields);
        self.write_config(&text);
        self.announce(&digest);
        digest
    }

    /// Replaces the config file the way the daemon does.
    pub(crate) fn write_config(&self, text: &str) {
        let new = self.path("config/agent.json.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path("config/agent.json")).unwrap();
    }

    pub(crate) fn announce(&self, digest: &Digest) {
        self.daemon.change(|world| world.config = Some(digest.clone()));
    }

    pub(crate) fn start(&self) -> Harness {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, more: &[&str]) -> Harness {
        let mut command = Command::new(PROGRAM);
        command.args(self.args()).args(more);
        Harness::start(command)
    }

    pub(crate) fn args(&self) -> Vec<String> {
        let path = |name| self.path(name).into_string();
        [
            "--log".into(),
            "info".into(),
            "serve".into(),
            "--socket".into(),
            path("sock/hive.sock"),
            "--config".into(),
            path("config"),
            "--state".into(),
            path("state"),
        ]
        .into()
    }

    /// Waits until the harness has this config and no turn.
    pub(crate) async fn until_idle(&self, digest: &Digest) {
        self.daemon
            .until("idle with the announced config", |world| {
                world.reported(|report| {
                    report.config.as_ref() == Some(digest) && report.turn == TurnState::Idle
                })
            })
            .await;
    }

    pub(crate) fn announced(&self) -> Digest {
        self.daemon.world().config.clone().unwrap()
    }
}

/// A config file with these fields set.
pub(crate) fn config_file(fields: Value) -> (Digest, String) {
    let mut config = json!({
        "agent": "alice",
        "uid": "6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f",
        "hive": "home",
        "driver": { "kind": "scripted" },
        "maxTurnMinutes": 60,
        "commit": "0123456789abcdef0123456789abcdef01234567",
    });
    for (name, value) in fields.as_object().unwrap() {
        config[name] = value.clone();
    }
    let digest = digest_value(Encoding::Config, &config);
    let text = json!({ "digest": digest, "config": config }).to_string();
    (digest, text)
}

/// A running harness; killed when dropped.
pub(crate) struct Harness {
    child: Child,
    log: JoinHandle<String>,
}

impl Harness {
    /// Starts it with as little around it as possible.
    pub(crate) fn start(command: Command) -> Self {
        Self::start_with_path(command, &std::env::var_os("PATH").unwrap())
    }

    pub(crate) fn start_with_path(mut command: Command, path: &std::ffi::OsStr) -> Self {
        let mut child = command
            .env_clear()
            .env("PATH", path)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = tokio::spawn(async move {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).await.unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self { child, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("running")
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; gives the status and all that was logged.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let deadline = Duration::from_secs(30);
        let status = tokio::time::timeout(deadline, self.child.wait())
            .await
            .expect("the harness ends")
            .unwrap();
        let log = tokio::time::timeout(deadline, self.log)
            .await
            .expect("its log ends")
            .unwrap();
        (status, log)
    }

    pub(crate) async fn terminated(self) -> (ExitStatus, String) {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }

    pub(crate) async fn killed(self) {
        self.signal(rustix::process::Signal::KILL);
        self.ended().await;
    }
}
