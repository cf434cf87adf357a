//! What is written about a run, and what it proves.
//!
//! `launch/run.json` is written by the launcher just before it becomes the sandbox (or the harness): its process id
//! stays the same. `launch/run.lock` is held by that process for as long as it lives, and `bwrap` writes its account
//! into it: the harness's process id before the harness starts, and its exit status. `launch/exit.json` is what the
//! daemon knows better. The agent can reach none of them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use shared::Digest;

use super::proc::{self, Stat};
use crate::host::folders::read_bounded;
use crate::host::{ExitCause, HostError};

/// The largest of these files that is read.
const MAX_RECORD: u64 = 64 * 1024;

/// The paths of a run's files.
#[derive(Debug, Clone)]
pub(super) struct RunFiles {
    launch: Utf8PathBuf,
}

impl RunFiles {
    pub(super) fn new(launch: Utf8PathBuf) -> Self {
        Self { launch }
    }

    pub(super) fn record(&self) -> Utf8PathBuf {
        self.launch.join("run.json")
    }

    pub(super) fn lock(&self) -> Utf8PathBuf {
        self.launch.join("run.lock")
    }

    pub(super) fn exit(&self) -> Utf8PathBuf {
        self.launch.join("exit.json")
    }

    pub(super) fn log(&self) -> Utf8PathBuf {
        self.launch.join("harness.log")
    }

    pub(super) fn folder(&self) -> &Utf8Path {
        &self.launch
    }
}

/// One run of an agent: which process it is, and what it was started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunRecord {
    /// Made anew at each start.
    pub(super) run: String,
    /// The outermost process: `bwrap`, or the harness itself.
    pub(super) pid: i32,
    /// Its start time.
    pub(super) start_time: u64,
    /// The boot it belongs to.
    pub(super) boot_id: String,
    /// What it was started from.
    pub(super) toplevel: Digest,
    /// When.
    pub(super) since: Timestamp,
    /// Whether `bwrap` stands between.
    pub(super) sandboxed: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExitRecord {
    /// Which run.
    pub(super) run: String,
    /// When it was seen to have ended.
    pub(super) at: Timestamp,
    /// Why.
    pub(super) cause: ExitCause,
}

/// What `bwrap` wrote with `--json-status-fd`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// The harness, process 1 of its namespace.
    harness: Option<i32>,
    pid_namespace: Option<u64>,
    exit_code: Option<i32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct AccountLine {
    child_pid: Option<i32>,
    pid_namespace: Option<u64>,
    exit_code: Option<i32>,
}

impl Account {
    fn parse(bytes: &[u8]) -> Self {
        let mut account = Self::default();
        // The last line may be half written.
        let lines = serde_json::Deserializer::from_slice(bytes).into_iter::<AccountLine>();
        for AccountLine {
            child_pid,
            pid_namespace,
            exit_code,
        } in lines.map_while(Result::ok)
        {
            account.harness = child_pid.or(account.harness);
            account.pid_namespace = pid_namespace.or(account.pid_namespace);
            account.exit_code = exit_code.or(account.exit_code);
        }
        account
    }

    /// Why the harness ended, if it did so before `bwrap`.
    pub(super) fn cause(&self) -> Option<ExitCause> {
        self.exit_code.map(cause_of_code)
    }
}

/// `bwrap` reports a signal the way a shell does.
pub(super) fn cause_of_code(code: i32) -> ExitCause {
    match code {
        129..=192 => ExitCause::Signal(code - 128),
        _ => ExitCause::Code(code),
    }
}

/// A run as read from its files.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) record: RunRecord,
    pub(super) account: Account,
    /// When `run.lock` was last written: the harness's end, if the account has it.
    written: Option<Timestamp>,
}

/// Handles on a run's live processes.
#[derive(Debug, Default)]
pub(super) struct Handles {
    /// `bwrap`, or the harness itself.
    pub(super) outer: Option<OwnedFd>,
    /// The harness in the sandbox.
    pub(super) harness: Option<OwnedFd>,
}

impl Handles {
    pub(super) fn is_empty(&self) -> bool {
        self.outer.is_none() && self.harness.is_none()
    }
}

impl Run {
    /// Reads the last run; `None` when there was none or its record is broken.
    pub(super) fn read(files: &RunFiles) -> Result<Option<Self>, HostError> {
        let Some(record) = read_json::<RunRecord>(&files.record())? else {
            return Ok(None);
        };
        let bytes = read_bounded(&files.lock(), MAX_RECORD)?.unwrap_or_default();
        let written = File::open(files.lock())
            .and_then(|file| file.metadata())
            .ok()
            .and_then(|metadata| {
                Timestamp::new(metadata.mtime(), i32::try_from(metadata.mtime_nsec()).ok()?).ok()
            });
        Ok(Some(Self {
            record,
            account: Account::parse(&bytes),
            written,
        }))
    }

    /// Whether any of its processes runs.
    pub(super) fn is_alive(&self, boot_id: &str) -> io::Result<bool> {
        Ok(self.outer_alive(boot_id)? || self.harness_pid(boot_id)?.is_some())
    }

    fn outer_alive(&self, boot_id: &str) -> io::Result<bool> {
        Ok(self.record.boot_id == boot_id
            && Stat::read(self.record.pid)?
                .is_some_and(|stat| stat.start_time == self.record.start_time && stat.is_alive()))
    }

    /// Whether the harness would notice this signal. Process 1 of a namespace does not get signals that it has no
    /// handler for, and right after its start it has none.
    pub(super) fn listens(&self, signal: Signal) -> io::Result<bool> {
        match (self.record.sandboxed, self.account.harness) {
            (true, Some(pid)) => proc::catches(pid, signal),
            _ => Ok(true),
        }
    }

    /// The harness in the sandbox. It may outlive `bwrap` when somebody kills that.
    fn harness_pid(&self, boot_id: &str) -> io::Result<Option<i32>> {
        let Some(pid) = self.account.harness.filter(|_| self.record.boot_id == boot_id) else {
            return Ok(None);
        };
        let Some(stat) = Stat::read(pid)?.filter(Stat::is_alive) else {
            return Ok(None);
        };
        // Its namespace is its own. While the sandbox is being made it cannot be asked, but then it has its parent.
        let is_ours = stat.start_time >= self.record.start_time
            && (self
                .account
                .pid_namespace
                .is_some_and(|ours| proc::pid_namespace(pid) == Some(ours))
                || (stat.parent == self.record.pid && self.outer_alive(boot_id)?));
        Ok(is_ours.then_some(pid))
    }

    /// Handles on whatever runs.
    pub(super) fn open(&self, boot_id: &str) -> io::Result<Handles> {
        // The handle first, the check after: a handle on the wrong process fails the check.
        let outer = proc::open(self.record.pid)?;
        let outer = if self.outer_alive(boot_id)? { outer } else { None };
        let harness = match self.account.harness {
            Some(pid) => proc::open(pid)?,
            None => None,
        };
        let harness = if self.harness_pid(boot_id)?.is_some() {
            harness
        } else {
            None
        };
        Ok(Handles { outer, harness })
    }

    /// How it ended, as far as files tell: what the daemon noted, else what `bwrap` did.
    pub(super) fn exit(&self, files: &RunFiles) -> Result<Option<ExitRecord>, HostError> {
        let noted = read_json::<ExitRecord>(&files.exit())?.filter(|exit| exit.run == self.record.run);
        Ok(noted.or_else(|| {
            let (cause, at) = (self.account.cause()?, self.written?);
            Some(ExitRecord {
                run: self.record.run.clone(),
                at,
                cause,
            })
        }))
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Utf8Path) -> Result<Option<T>, HostError> {
    Ok(read_bounded(path, MAX_RECORD)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Whether some process holds `run.lock`. Takes it for a moment: launchers try again for that reason.
pub(super) fn is_locked(files: &RunFiles) -> Result<bool, HostError> {
    let path = files.lock();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = || HostError::io("test the lock", path.as_str());
    let lock = match rustix::fs::open(path.as_std_path(), flags, Mode::empty()) {
        Ok(lock) => lock,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
        Err(errno) => return Err(failed()(errno.into())),
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(failed()(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_bwrap_is_read_also_when_its_end_is_missing() {
        let whole = br#"{ "child-pid": 15, "mnt-namespace": 1, "pid-namespace": 7 }
{ "exit-code": 143 }
"#;
        let account = Account::parse(whole);
        assert_eq!(
            account,
            Account {
                harness: Some(15),
                pid_namespace: Some(7),
                exit_code: Some(143)
            }
        );
        assert_eq!(account.cause(), Some(ExitCause::Signal(15)));

        let half = Account::parse(&whole[..whole.len() - 6]);
        assert_eq!((half.harness, half.cause()), (Some(15), None));
        assert_eq!(Account::parse(b"\0nonsense"), Account::default());
    }

    /// A process id alone is nobody: the kernel gives it to others.
    #[test]
    fn a_process_that_began_at_another_time_or_boot_is_a_stranger() {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let start_time = Stat::read(pid).expect("read").expect("this process").start_time;
        let boot = proc::boot_id().expect("read");
        let run = |start_time, boot_id: &str| Run {
            record: RunRecord {
                run: "r".to_owned(),
                pid,
                start_time,
                boot_id: boot_id.to_owned(),
                toplevel: shared::canonical::digest(shared::canonical::Encoding::Toplevel, "x")
                    .expect("a digest"),
                since: Timestamp::UNIX_EPOCH,
                sandboxed: false,
            },
            account: Account::default(),
            written: None,
        };
        for (run, ours) in [
            (run(start_time, &boot), true),
            (run(start_time + 1, &boot), false),
            (run(start_time - 1, &boot), false),
            (run(start_time, "another boot"), false),
        ] {
            assert_eq!(run.is_alive(&boot).expect("read"), ours, "{run:?}");
            assert_eq!(!run.open(&boot).expect("open").is_empty(), ours, "{run:?}");
        }
    }

    #[test]
    fn an_exit_status_names_its_cause() {
        assert_eq!(cause_of_code(0), ExitCause::Code(0));
        assert_eq!(cause_of_code(75), ExitCause::Code(75));
        assert_eq!(cause_of_code(128), ExitCause::Code(128));
        assert_eq!(cause_of_code(137), ExitCause::Signal(9));
        assert_eq!(cause_of_code(255), ExitCause::Code(255));
    }
}
