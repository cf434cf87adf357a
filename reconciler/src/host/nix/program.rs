//! Running the programs of Nix: nothing of our environment, bounded in time and output, all they say in a log.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::evaluate::{End, Evaluated};
use crate::host::HostError;
use crate::host::blocking::blocking;
use crate::host::process_group::Group;

/// The most that the log of one build holds, in bytes.
const MAX_LOG: u64 = 8 * 1024 * 1024;
/// The most that a program may answer, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// How much of the beginning and of the end of what is said is kept for a message, in bytes.
const KEPT: usize = 32 * 1024;

/// The log of one build, which grows while the build runs.
#[derive(Debug, Clone)]
pub struct Log {
    /// `None`: nobody wants to know.
    file: Option<Arc<File>>,
}

impl Log {
    /// Begins a log, in place of one that is there.
    pub(super) async fn begin(path: Utf8PathBuf) -> Result<Self, HostError> {
        let file = blocking(path.to_string(), move || {
            let made = File::create(&path);
            made.map_err(HostError::io("make", path.as_str()))
        });
        Ok(Self {
            file: Some(Arc::new(file.await?)),
        })
    }

    /// A log that keeps nothing.
    pub fn none() -> Self {
        Self { file: None }
    }

    /// Adds to it, up to the most that it may hold.
    pub async fn add(&self, bytes: Vec<u8>) -> Result<(), HostError> {
        let Some(file) = self.file.clone() else {
            return Ok(());
        };
        blocking("the log of a build".to_owned(), move || {
            append(&file, &bytes).map_err(HostError::io("write", "the log of a build"))
        })
        .await
    }
}

fn append(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    const LEFT_OUT: &[u8] = b"\n(what follows is left out)\n";
    let length = file.metadata()?.len();
    if length >= MAX_LOG {
        return Ok(());
    }
    let room = usize::try_from(MAX_LOG - length).unwrap_or(usize::MAX);
    file.write_all(&bytes[..bytes.len().min(room)])?;
    if bytes.len() >= room {
        file.write_all(LEFT_OUT)?;
    }
    Ok(())
}

/// One run of a program.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) program: Utf8PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) time: Duration,
}

impl Run {
    /// Runs it to its end. An error only when it could not be run.
    pub(super) async fn run(&self, log: &Log) -> Result<Evaluated, HostError> {
        let failed = || HostError::io("run", self.program.as_str());
        let mut child = self.command().spawn().map_err(failed())?;
        let group = Group::of(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let whole = async {
            let (answer, said) = tokio::join!(answer(stdout), said(stderr, log));
            (child.wait().await, answer, said)
        };
        let Ok((status, answer, said)) = tokio::time::timeout(self.time, whole).await else {
            drop(group);
            // The pipes may be held by what was just killed; what was said is in the log.
            return Ok(Evaluated {
                end: End::TimedOut,
                stdout: Vec::new(),
                stderr: Vec::new(),
            });
        };
        group.forget();
        Ok(Evaluated {
            end: end(status.map_err(failed())?),
            stdout: answer?,
            stderr: said?,
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that starts Nix, with an environment of its own"
    )]
    fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What it starts in turn is ended with it.
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

fn end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    }
}

/// All that is answered.
///
/// # Errors
/// [`HostError::Refused`] when it is too much: the same input would answer as much again.
pub(super) async fn answer(pipe: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, HostError> {
    let mut answer = Vec::new();
    let Some(mut pipe) = pipe else {
        return Ok(answer);
    };
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = pipe
            .read(&mut buffer)
            .await
            .map_err(HostError::io("read", "what Nix answers"))?;
        if count == 0 {
            return Ok(answer);
        }
        if answer.len() + count > MAX_ANSWER {
            return Err(HostError::refused(
                "what Nix answers",
                format!("it is more than {MAX_ANSWER} bytes"),
            ));
        }
        answer.extend_from_slice(&buffer[..count]);
    }
}

/// Beginning and end of what is said, while all of it goes to the log.
pub(super) async fn said(pipe: Option<impl AsyncRead + Unpin>, log: &Log) -> Result<Vec<u8>, HostError> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else {
        return Ok(kept);
    };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = pipe
            .read(&mut buffer)
            .await
            .map_err(HostError::io("read", "what Nix says"))?;
        if count == 0 {
            return Ok(kept);
        }
        log.add(buffer[..count].to_vec()).await?;
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > 2 * KEPT {
            let end = kept.len() - KEPT;
            kept.drain(KEPT..end);
        }
    }
}

/// Looks for a program, as a shell would, and finds where it really is.
pub(in crate::host) fn find(search_path: &std::ffi::OsStr, name: &str) -> Option<Utf8PathBuf> {
    std::env::split_paths(search_path)
        .filter_map(|folder| Utf8PathBuf::from_path_buf(folder.join(name)).ok())
        .find(|program| program.is_absolute() && Utf8Path::new(program).is_file())
}
