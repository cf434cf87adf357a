//! The limited evaluator: it reads the store and nothing else, has no network, and ends at its bounds.
//!
//! On hosts with systemd it is the unit `hyperhive-eval@.service` ([`unit()`]); elsewhere a `bwrap` sandbox
//! ([`Sandboxed`]). Both run `hive evaluate`, which reads a [`Job`] and becomes the evaluator. Without the Nix daemon an
//! evaluator must write derivations into the store itself, so there the sandbox leaves the store writable.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use shared::Digest;

pub use super::program::Log;
use super::program::Run;
use super::store::Store;
use crate::host::HostError;
use crate::host::blocking::blocking;
use crate::host::folders::write_atomic;
use crate::host::process::Bwrap;
use crate::host::process::sandbox_programs;
use crate::untrusted::line;

/// The name of the template unit.
pub const UNIT: &str = "hyperhive-eval@.service";
/// The exit status of `hive evaluate` when it could not become the evaluator. Nix has none like it.
pub const NOT_BECOME: u8 = 125;
/// How much longer than the evaluation itself anybody waits for its end.
const GRACE: Duration = Duration::from_secs(5);

/// What one evaluation may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory, in bytes.
    pub memory: u64,
    /// Processes and threads.
    pub tasks: u32,
    /// Time, on the wall and of processors.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 4 << 30,
            tasks: 64,
            time: Duration::from_secs(300),
        }
    }
}

/// What an evaluator is to run. Made by the daemon alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Job {
    /// The program, absolute.
    pub program: Utf8PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Address space, in bytes; absent where a control group bounds memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processor time, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_secs: Option<u64>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// Its control group had no memory left.
    OutOfMemory,
    /// It was ended at its deadline.
    TimedOut,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// How it ended.
    pub end: End,
    /// Its answer.
    pub stdout: Vec<u8>,
    /// Beginning and end of what it said.
    pub stderr: Vec<u8>,
}

/// Something that evaluates within limits.
#[async_trait]
pub trait Evaluate: Send + Sync {
    /// Runs a job to its end, and adds what it says to the log. An error only when it could not be run.
    async fn evaluate(&self, key: &Digest, job: Job, log: &Log) -> Result<Evaluated, HostError>;

    /// What holds.
    fn limits(&self) -> Limits;
}

/// Evaluates in a `bwrap` sandbox, with limits of the process itself.
pub struct Sandboxed {
    /// The program that becomes an evaluator: `hive`.
    pub hive: Utf8PathBuf,
    /// The sandbox program.
    pub bwrap: Bwrap,
    /// The store.
    pub store: Store,
    /// Where job files lie, one for each key.
    pub jobs: Utf8PathBuf,
    /// What holds.
    pub limits: Limits,
}

impl Sandboxed {
    fn job(&self, inner: Job) -> Job {
        let mut args: Vec<String> = [
            "--unshare-user",
            "--unshare-ipc",
            "--unshare-pid",
            "--unshare-net",
            "--unshare-uts",
            "--unshare-cgroup-try",
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
            "--hostname",
            "evaluator",
            "--clearenv",
        ]
        .map(str::to_owned)
        .to_vec();
        if self.bwrap.disable_userns {
            args.push("--disable-userns".to_owned());
        }
        for (name, value) in &inner.env {
            args.extend(["--setenv".to_owned(), name.clone(), value.clone()]);
        }
        args.extend(sandbox_programs());
        args.extend(["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"].map(str::to_owned));
        args.extend(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"].map(str::to_owned));
        let mut bind = |how: &str, path: &Utf8Path| {
            args.extend([how.to_owned(), path.to_string(), path.to_string()]);
        };
        match &self.store.socket {
            Some(socket) => {
                bind("--ro-bind", &self.store.dir);
                bind("--ro-bind", socket);
            }
            None => {
                bind("--bind", &self.store.dir);
                bind("--bind", &self.store.state);
            }
        }
        args.extend(["--remount-ro", "/", "--"].map(str::to_owned));
        args.push(inner.program.into_string());
        args.extend(inner.args);
        Job {
            program: self.bwrap.program.clone(),
            args,
            env: BTreeMap::new(),
            memory: Some(self.limits.memory),
            cpu_secs: Some(self.limits.time.as_secs()),
        }
    }
}

#[async_trait]
impl Evaluate for Sandboxed {
    async fn evaluate(&self, key: &Digest, job: Job, log: &Log) -> Result<Evaluated, HostError> {
        let job = self.job(job);
        let file = self.jobs.join(key.as_str()).join("job.json");
        let text =
            serde_json::to_vec(&job).map_err(|error| HostError::failed("job.json", error.to_string()))?;
        let written = file.clone();
        blocking(file.to_string(), move || write_atomic(&written, &text, 0o600)).await?;
        let run = Run {
            program: self.hive.clone(),
            args: vec!["evaluate".to_owned(), "--job".to_owned(), file.into_string()],
            env: Vec::new(),
            time: self.limits.time,
        };
        let mut ended = run.run(log).await?;
        // Before anything of an agent's ran.
        if ended.end == End::Exit(NOT_BECOME.into()) || ended.stderr.starts_with(b"bwrap: ") {
            let said = String::from_utf8_lossy(&ended.stderr);
            return Err(HostError::failed("the evaluator", line(&said, 300)));
        }
        // bwrap tells of a signal as a shell does.
        if let End::Exit(status @ 129..=192) = ended.end {
            ended.end = match status - 128 {
                // Processor time was used up: asked to end, then ended.
                24 => End::TimedOut,
                signal => End::Signal(signal),
            };
        }
        Ok(ended)
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

/// Which job to run. Only the daemon and its units pass these.
#[derive(Debug, Clone, clap::Args)]
pub struct EvaluateArgs {
    /// The file that holds the job
    #[arg(long)]
    pub job: Utf8PathBuf,
}

/// Reads a job and becomes it.
///
/// # Errors
/// When it cannot be read, limited or run.
pub fn become_evaluator(args: &EvaluateArgs) -> Result<Infallible, HostError> {
    let path = args.job.as_str();
    let text = std::fs::read(&args.job).map_err(HostError::io("read", path))?;
    let job: Job =
        serde_json::from_slice(&text).map_err(|error| HostError::failed(path, error.to_string()))?;
    for (resource, most) in [
        (Resource::As, job.memory),
        (Resource::Cpu, job.cpu_secs),
        (Resource::Core, Some(0)),
    ] {
        if most.is_some() {
            let limit = Rlimit {
                current: most,
                // A second later, so that what ends it says that it was time.
                maximum: most.map(|most| if resource == Resource::Cpu { most + 1 } else { most }),
            };
            setrlimit(resource, limit).map_err(|errno| HostError::io("limit", path)(errno.into()))?;
        }
    }
    Err(HostError::io("run", job.program.as_str())(command(&job).exec()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "programs are started in host/ alone; this is one of the places"
)]
fn command(job: &Job) -> Command {
    let mut command = Command::new(&job.program);
    command.args(&job.args).env_clear().envs(&job.env);
    command
}

/// The text of the template unit. An instance reads `<eval>/%i/job.json` and leaves `stdout` and `stderr` beside it.
pub fn unit(hive: &Utf8Path, eval: &Utf8Path, store: &Store, limits: Limits) -> String {
    let Limits { memory, tasks, time } = limits;
    let (seconds, longest) = (time.as_secs(), (time + GRACE).as_secs());
    let socket = store.socket.as_deref().unwrap_or(&store.state);
    format!(
        r"[Unit]
Description=Evaluate the configuration of a hyperhive agent (%i)

[Service]
Type=exec
ExecStart={hive} evaluate --job %d/job.json
LoadCredential=job.json:{eval}/%i/job.json
StandardInput=null
StandardOutput=truncate:{eval}/%i/stdout
StandardError=truncate:{eval}/%i/stderr
DynamicUser=yes
MemoryMax={memory}
MemorySwapMax=0
TasksMax={tasks}
LimitCPU={seconds}:{longest}
LimitCORE=0
RuntimeMaxSec={longest}
KillMode=control-group
OOMPolicy=kill
# It sees the store, what its own program needs, and nothing else of the host.
TemporaryFileSystem=/:ro
MountAPIVFS=yes
BindReadOnlyPaths={store} {hive} -/usr -/bin -/lib -/lib64 -/etc/ld.so.cache
BindReadOnlyPaths={socket}
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProcSubset=pid
PrivateTmp=yes
PrivateDevices=yes
PrivateNetwork=yes
PrivateIPC=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077
",
        store = store.dir,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandboxed(store: Store) -> Sandboxed {
        Sandboxed {
            hive: "/usr/bin/hive".into(),
            bwrap: Bwrap {
                program: "/usr/bin/bwrap".into(),
                disable_userns: true,
                bind_fd: false,
            },
            store,
            jobs: "/state/builds".into(),
            limits: Limits::default(),
        }
    }

    fn bound(store: Store) -> Vec<(String, String)> {
        let job = sandboxed(store).job(Job {
            program: "/usr/bin/nix".into(),
            args: vec!["eval".to_owned()],
            env: BTreeMap::new(),
            memory: None,
            cpu_secs: None,
        });
        let words = job.args.windows(2).filter(|pair| pair[0].ends_with("bind"));
        words.map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    }

    #[test]
    fn with_a_daemon_an_evaluator_writes_nowhere() {
        let mut store = Store::below(Utf8Path::new("/s"));
        store.socket = Some("/s/socket".into());
        let bound = bound(store);
        assert!(bound.iter().all(|(how, _)| how == "--ro-bind"), "{bound:?}");
        assert!(bound.iter().any(|(_, path)| path == "/s/socket"), "{bound:?}");
    }

    #[test]
    fn without_one_it_writes_to_the_store_alone() {
        let bound = bound(Store::below(Utf8Path::new("/s")));
        let written: Vec<_> = bound.iter().filter(|(how, _)| how == "--bind").collect();
        assert_eq!(written.len(), 2, "{bound:?}");
        assert!(
            written.iter().all(|(_, path)| path.starts_with("/s/")),
            "{bound:?}"
        );
    }

    #[test]
    fn the_unit_is_the_same_text_for_the_same_inputs() {
        let mut store = Store::of_machine();
        store.socket = Some("/nix/var/nix/daemon-socket/socket".into());
        insta::assert_snapshot!(unit(
            Utf8Path::new("/usr/bin/hive"),
            Utf8Path::new("/run/hyperhive/eval"),
            &store,
            Limits::default()
        ));
    }
}
