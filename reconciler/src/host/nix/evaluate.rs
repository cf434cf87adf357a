//! The limited evaluator: it reads the store and nothing else, has no network, and ends at its bounds.
//!
//! Where agents run in containers it is a unit of systemd's ([`Unit`]), elsewhere a `bwrap` sandbox ([`Sandboxed`]). Both
//! run `hive evaluate`, which reads a [`Job`] and becomes the evaluator.

mod sandboxed;
mod unit;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use shared::Digest;

pub use self::sandboxed::Sandboxed;
pub use self::unit::Unit;
pub use super::program::Log;
use crate::host::HostError;

/// The exit status of `hive evaluate` when it could not become the evaluator. Nix has none like it.
pub const NOT_BECOME: u8 = 125;

/// The signal that ends what has used up its time on processors.
const OUT_OF_TIME: i32 = 24;

/// What one evaluation may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Address space, in bytes.
    pub memory: u64,
    /// Time, on the wall and of processors.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 4 << 30,
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
    /// Address space, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processor time, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_secs: Option<u64>,
}

impl Job {
    /// The same, which ends itself at these limits.
    fn limited(self, limits: Limits) -> Self {
        Self {
            memory: Some(limits.memory),
            cpu_secs: Some(limits.time.as_secs()),
            ..self
        }
    }
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

impl End {
    /// By this signal, which may stand for something else.
    fn signal(signal: i32) -> Self {
        if signal == OUT_OF_TIME {
            Self::TimedOut
        } else {
            Self::Signal(signal)
        }
    }
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

/// Which job to run. Only the daemon and its units pass these.
#[derive(Debug, Clone, clap::Args)]
pub struct EvaluateArgs {
    /// The file that holds the job
    #[arg(long)]
    pub job: Utf8PathBuf,
    /// The folder of the pipes for its answer and for what it says; without, they go where this program's go
    #[arg(long)]
    pub pipes: Option<Utf8PathBuf>,
}

/// The pipe for the answer, and the one for what is said.
const PIPES: [&str; 2] = ["stdout", "stderr"];

/// Reads a job and becomes it.
///
/// # Errors
/// When it cannot be read, limited or run.
pub fn become_evaluator(args: &EvaluateArgs) -> Result<Infallible, HostError> {
    let path = args.job.as_str();
    let text = std::fs::read(&args.job).map_err(HostError::io("read", path))?;
    let job: Job =
        serde_json::from_slice(&text).map_err(|error| HostError::failed(path, error.to_string()))?;
    let mut command = command(&job);
    if let Some(folder) = &args.pipes {
        let [answer, said] = PIPES.map(|name| writer(&folder.join(name)));
        command.stdout(answer?).stderr(said?);
    }
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
    Err(HostError::io("run", job.program.as_str())(command.exec()))
}

/// The end of a pipe that is written to. Nobody waits here for a reader: without one there is nobody to answer.
fn writer(pipe: &Utf8Path) -> Result<File, HostError> {
    let open = || {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(pipe.as_std_path(), flags, Mode::empty())?;
        // What is run knows nothing of writes that would have to wait.
        rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
        Ok(file)
    };
    let file =
        open().map_err(|errno: rustix::io::Errno| HostError::io("open", pipe.as_str())(errno.into()))?;
    Ok(File::from(file))
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
