//! The evaluator as a unit of systemd's: its user is nobody else, and its control group bounds what it takes.
//!
//! A run and the daemon share a folder with the job and two pipes. Of the host's users only the daemon's reaches it, and
//! the unit sees it read-only: an evaluator can write to its pipes and nowhere else. Root mounts the folder of all jobs,
//! whose path the daemon's user cannot change, and follows nothing in it.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use shared::Digest;
use tokio::net::unix::pipe::{OpenOptions, Receiver};

use super::{End, Evaluate, Evaluated, Job, Limits, Log, NOT_BECOME, PIPES, writer};
use crate::host::HostError;
use crate::host::blocking::blocking;
use crate::host::folders::{remove_folder, write_atomic};
use crate::host::nix::program::{answer, said};
use crate::host::nspawn::{Bus, Outcome};
use crate::host::remains::entries;

/// How much longer than an evaluation may take systemd is waited for.
const GRACE: Duration = Duration::from_secs(60);

/// How a process ended, as systemd says it: by itself, or by a signal.
const EXITED: i32 = 1;
const KILLED: i32 = 2;
const DUMPED: i32 = 3;

/// How many digits of a key name a unit: as many as fit into the name of its user.
const DIGITS: usize = 24;

/// What systemd ends a process with that it could not set up as the unit says.
const NOT_SET_UP: RangeInclusive<i32> = 200..=255;

/// Evaluates in units.
pub struct Unit {
    folder: Utf8PathBuf,
    limits: Limits,
}

impl Unit {
    /// `folder` is where each run has its folder, as the installed unit says. What an earlier daemon left there is removed.
    pub async fn new(folder: Utf8PathBuf, limits: Limits) -> Self {
        let swept = folder.clone();
        let sweep = blocking(folder.as_str(), move || {
            let left = entries(&swept)?;
            left.iter().try_for_each(|name| remove_folder(&swept.join(name)))
        });
        if let Err(error) = sweep.await {
            tracing::warn!(%folder, error = error.chain(), "what evaluators left is still there");
        }
        Self { folder, limits }
    }
}

#[async_trait]
impl Evaluate for Unit {
    async fn evaluate(&self, key: &Digest, job: Job, log: &Log) -> Result<Evaluated, HostError> {
        let name = key.hex().get(..DIGITS).unwrap_or(key.hex());
        let unit = format!("hyperhive-eval@{name}.service");
        let folder = self.folder.join(name);
        let text = serde_json::to_vec(&job.limited(self.limits))
            .map_err(|error| HostError::failed("job.json", error.to_string()))?;
        let made = folder.clone();
        blocking(unit.as_str(), move || prepare(&made, &text)).await?;
        let over = async {
            let run = async { Bus::connect().await?.once(&unit).await };
            let ended = tokio::time::timeout(self.limits.time + GRACE, run).await;
            ended.unwrap_or_else(|_| {
                Err(HostError::failed(
                    unit.as_str(),
                    "systemd does not say that it is over",
                ))
            })
        };
        let evaluated = Box::pin(heard(&unit, &folder, log, over)).await;
        blocking(unit.as_str(), move || remove_folder(&folder)).await?;
        evaluated
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

/// Makes the folder of a run: the job and the pipes.
fn prepare(folder: &Utf8Path, job: &[u8]) -> Result<(), HostError> {
    remove_folder(folder)?;
    fs::create_dir(folder).map_err(|error| match folder.parent() {
        Some(jobs) if error.kind() == ErrorKind::NotFound => {
            let why =
                format!("there is no {jobs}: as root hive units --install && systemd-tmpfiles --create");
            HostError::failed("the evaluator", why)
        }
        _ => HostError::io("make", folder.as_str())(error),
    })?;
    allow(folder, 0o755)?;
    write_atomic(&folder.join("job.json"), job, 0o644)?;
    for pipe in PIPES.map(|name| folder.join(name)) {
        mknodat(CWD, pipe.as_std_path(), FileType::Fifo, Mode::empty(), 0)
            .map_err(|errno| HostError::io("make", pipe.as_str())(errno.into()))?;
        allow(&pipe, 0o622)?;
    }
    Ok(())
}

fn allow(path: &Utf8Path, mode: u32) -> Result<(), HostError> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(HostError::io("give access to", path.as_str()))
}

/// Reads what a run answers and says until it is over.
async fn heard(
    unit: &str,
    folder: &Utf8Path,
    log: &Log,
    over: impl Future<Output = Result<Outcome, HostError>>,
) -> Result<Evaluated, HostError> {
    let [answers, words] = PIPES.map(|name| folder.join(name));
    let (answers, words) = (receiver(&answers)?, receiver(&words)?);
    let over = async {
        let outcome = over.await;
        // A run that never opened its pipes never closes them either. Whoever has read enough is gone already.
        for name in PIPES {
            drop(writer(&folder.join(name)));
        }
        outcome
    };
    let (outcome, answer, said) = tokio::join!(over, answer(Some(answers)), said(Some(words), log));
    Ok(Evaluated {
        stdout: answer?,
        end: end(unit, &outcome?)?,
        stderr: said?,
    })
}

fn receiver(pipe: &Utf8Path) -> Result<Receiver, HostError> {
    let opened = OpenOptions::new().open_receiver(pipe);
    opened.map_err(HostError::io("open", pipe.as_str()))
}

/// How the evaluator ended.
///
/// # Errors
/// When there was none, because the unit failed before.
fn end(unit: &str, outcome: &Outcome) -> Result<End, HostError> {
    match (outcome.result.as_str(), outcome.code, outcome.status) {
        ("success", ..) => Ok(End::Exit(0)),
        ("timeout", ..) => Ok(End::TimedOut),
        ("oom-kill", ..) => Ok(End::OutOfMemory),
        (_, EXITED, status) if status != i32::from(NOT_BECOME) && !NOT_SET_UP.contains(&status) => {
            Ok(End::Exit(status))
        }
        (_, KILLED | DUMPED, signal) => Ok(End::signal(signal)),
        (result, _, status) => Err(HostError::failed(
            "the evaluator",
            format!("its unit failed ({result}, status {status}): journalctl -u {unit} says why"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn outcome(result: &str, code: i32, status: i32) -> Outcome {
        Outcome {
            result: result.to_owned(),
            code,
            status,
        }
    }

    /// What is heard of a run that does this with its pipes, and then ends so.
    async fn run(
        writes: impl FnOnce([std::fs::File; 2]) + Send + 'static,
        outcome: Outcome,
    ) -> Result<Evaluated, HostError> {
        let keep = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(keep.path()).unwrap().join("run");
        prepare(&folder, b"{}").unwrap();
        let pipes = folder.clone();
        let over = async {
            blocking("a run", move || {
                writes(PIPES.map(|name| writer(&pipes.join(name)).unwrap()));
                Ok(())
            })
            .await?;
            Ok(outcome)
        };
        heard("x.service", &folder, &Log::none(), over).await
    }

    #[tokio::test]
    async fn a_run_answers_and_speaks_through_its_pipes() {
        let evaluated = run(
            |[mut answer, mut said]| {
                // More than a pipe holds.
                answer.write_all(&vec![b'x'; 1 << 20]).unwrap();
                said.write_all(b"warning: y\n").unwrap();
            },
            outcome("exit-code", EXITED, 1),
        );
        let evaluated = evaluated.await.unwrap();
        assert_eq!(evaluated.stdout.len(), 1 << 20);
        assert_eq!(evaluated.stderr, b"warning: y\n");
        assert_eq!(evaluated.end, End::Exit(1));
    }

    #[tokio::test]
    async fn a_run_that_answers_without_end_is_refused() {
        let evaluated = run(
            |[mut answer, _said]| while answer.write_all(&[b'x'; 1 << 16]).is_ok() {},
            outcome("signal", KILLED, 13),
        );
        assert!(evaluated.await.unwrap_err().is_terminal());
    }

    #[tokio::test]
    async fn a_unit_that_fails_before_it_opens_its_pipes_is_not_waited_for() {
        let keep = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(keep.path()).unwrap().join("run");
        prepare(&folder, b"{}").unwrap();
        let over = std::future::ready(Ok(outcome("exit-code", EXITED, 226)));
        let error = heard("x.service", &folder, &Log::none(), over).await.unwrap_err();
        assert!(!error.is_terminal());
        assert!(
            error.chain().contains("journalctl -u x.service"),
            "{}",
            error.chain()
        );
    }

    #[test]
    fn how_a_unit_ended_is_how_the_evaluator_did() {
        for (result, code, status, expected) in [
            ("success", 0, 0, Some(End::Exit(0))),
            ("exit-code", EXITED, 1, Some(End::Exit(1))),
            ("exit-code", EXITED, 100, Some(End::Exit(100))),
            ("exit-code", EXITED, 125, None),
            ("exit-code", EXITED, 226, None),
            ("signal", KILLED, 9, Some(End::Signal(9))),
            ("signal", KILLED, 24, Some(End::TimedOut)),
            ("core-dump", DUMPED, 6, Some(End::Signal(6))),
            ("oom-kill", KILLED, 9, Some(End::OutOfMemory)),
            ("timeout", KILLED, 15, Some(End::TimedOut)),
            ("resources", 0, 0, None),
        ] {
            let end = end("x.service", &outcome(result, code, status));
            assert_eq!(end.ok(), expected, "{result} {code} {status}");
        }
    }

    #[tokio::test]
    async fn what_an_earlier_daemon_left_is_removed() {
        let keep = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(keep.path()).unwrap().join("jobs");
        // A daemon may come up before its host has the folder.
        Unit::new(folder.clone(), Limits::default()).await;
        assert!(!folder.exists(), "it is not the daemon's to make");
        fs::create_dir_all(folder.join("left")).unwrap();
        Unit::new(folder.clone(), Limits::default()).await;
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn without_the_folder_of_jobs_it_is_said_who_makes_it() {
        let keep = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(keep.path()).unwrap().join("jobs/run");
        let error = prepare(&folder, b"{}").unwrap_err();
        assert!(!error.is_terminal());
        assert!(
            error.chain().contains("systemd-tmpfiles --create"),
            "{}",
            error.chain()
        );
    }
}
