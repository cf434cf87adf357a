//! Running the `git` program: never in a folder that an agent can write, with nothing of our environment, bounded in
//! time, memory and output.

use std::fs::File;
use std::io::{self, Read as _};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::AsyncReadExt as _;

use crate::host::process_group::Group;
use crate::untrusted::clean;

/// How long one run may take.
const TIME_OUT: Duration = Duration::from_secs(60);
/// Address space of one run. A small pack can hold objects that fill any memory; a config repo needs a fraction.
const MAX_MEMORY: u64 = 512 * 1024 * 1024;
/// Processor time of one run, in seconds. Indexing the largest bundle that is accepted takes one or two.
const MAX_CPU_SECS: u64 = 20;
/// How much of what it says about an error is kept.
const MAX_STDERR: usize = 4 * 1024;

/// Settings that hold whatever a repository's own configuration says.
const SETTINGS: [&str; 16] = [
    // Larger objects are not held in memory whole.
    "core.bigFileThreshold=64m",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.pager=cat",
    "transfer.fsckObjects=true",
    "fetch.fsckObjects=true",
    "fetch.recurseSubmodules=no",
    "gc.auto=0",
    "maintenance.auto=false",
    "pack.threads=1",
    // What git would take to be faster, and would not get.
    "pack.windowMemory=64m",
    "core.deltaBaseCacheLimit=32m",
    "core.packedGitLimit=64m",
    "core.packedGitWindowSize=16m",
    "protocol.allow=never",
    "protocol.file.allow=always",
];

/// The `git` program, by its absolute path.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: Utf8PathBuf,
    time_out: Duration,
}

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("cannot run {0}")]
    Start(Utf8PathBuf, #[source] io::Error),
    #[error("git took longer than {} seconds", .0.as_secs())]
    TimedOut(Duration),
    #[error("git failed ({status}): {stderr}")]
    Ended {
        status: ExitStatus,
        /// What it said, cleaned and bounded.
        stderr: String,
    },
}

impl ProgramError {
    /// Whether the machine is at fault rather than what git was given.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Start(..) | Self::TimedOut(_) => true,
            Self::Ended { stderr, .. } => [
                "No space left",
                "Disk quota",
                "Read-only file system",
                "Permission denied",
            ]
            .iter()
            .any(|hint| stderr.contains(hint)),
        }
    }
}

impl Program {
    pub(super) fn new(path: Utf8PathBuf) -> Self {
        Self {
            path,
            time_out: TIME_OUT,
        }
    }

    /// Runs one command on a bare repository of ours, with the rest of `input` as its standard input.
    pub(super) async fn run(
        &self,
        repo: &Utf8Path,
        args: &[&str],
        input: Option<File>,
    ) -> Result<(), ProgramError> {
        let start = |error: io::Error| ProgramError::Start(self.path.clone(), error);
        let (reader, writer) = io::pipe().map_err(start)?;
        let mut child = self.command(repo, args).stdin(reader).spawn().map_err(start)?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let group = Group::of(pid);
        // Nothing that an agent made reaches git before these hold. They bind the process itself and what it starts from
        // here on, and the command that reads what an agent made starts nothing.
        limit(pid).map_err(start)?;

        let stderr = child.stderr.take();
        let whole = async {
            let feeder = tokio::task::spawn_blocking(move || feed(input, writer));
            let said = match stderr {
                Some(pipe) => first_part(pipe).await,
                None => String::new(),
            };
            let status = child.wait().await;
            // A write that git cut short shows in git's own status; there is no other news in this result.
            feeder.await.ok();
            (status, said)
        };
        let (status, stderr) = tokio::time::timeout(self.time_out, whole)
            .await
            .map_err(|_| ProgramError::TimedOut(self.time_out))?;
        let status = status.map_err(start)?;
        group.forget();
        if status.success() {
            return Ok(());
        }
        Err(ProgramError::Ended { status, stderr })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that starts git, with an environment of its own"
    )]
    fn command(&self, repo: &Utf8Path, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.path);
        command
            .env_clear()
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C")
            .current_dir("/")
            .args(["--no-replace-objects", "--git-dir", repo.as_str()])
            .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // What git starts in turn is ended with it.
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

fn limit(pid: Option<Pid>) -> io::Result<()> {
    for (resource, most) in [
        (Resource::As, MAX_MEMORY),
        (Resource::Cpu, MAX_CPU_SECS),
        (Resource::Core, 0),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        match prlimit(pid, resource, limit) {
            // It ended already; its status says why.
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            // A parent with a lower hard limit has set one that is as good.
            Err(rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn feed(input: Option<File>, mut writer: io::PipeWriter) -> io::Result<u64> {
    match input {
        Some(input) => io::copy(&mut input.take(shared::agent_api::MAX_BUNDLE_BYTES), &mut writer),
        None => Ok(0),
    }
}

/// The start of what is said; the rest is read and dropped, so that nobody waits for us.
async fn first_part(mut pipe: tokio::process::ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = MAX_STDERR - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    clean(&String::from_utf8_lossy(&kept).trim().replace('\n', "; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a shell script the way git is run, by way of an alias. It may use what is built into the shell alone.
    async fn run_script(script: &str, input: Option<File>, time_out: Duration) -> Result<(), ProgramError> {
        let folder = tempfile::tempdir().expect("a folder");
        let repo = Utf8PathBuf::from_path_buf(folder.path().join("x.git")).expect("a UTF-8 path");
        crate::host::git::repo::make_bare(&repo, None).expect("a repository");
        let program = Program {
            path: crate::host::git::tests::git_program(),
            time_out,
        };
        let alias = format!("alias.script=!{script}");
        program.run(&repo, &["-c", &alias, "script"], input).await
    }

    async fn said(script: &str) -> String {
        let script = format!("exec >&2; {script}; exit 3");
        match run_script(&script, None, TIME_OUT).await {
            Err(ProgramError::Ended { stderr, .. }) => stderr,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn git_sees_nothing_of_our_environment() {
        let seen = said("export -p").await;
        assert!(
            seen.contains("HOME='/nonexistent'") || seen.contains("HOME=\"/nonexistent\""),
            "{seen}"
        );
        for ours in ["CARGO", "USER", "SSH_AUTH_SOCK", "LOGNAME"] {
            assert!(!seen.contains(ours), "{ours} is in {seen}");
        }
        assert_eq!(said("pwd").await, "/");
    }

    #[tokio::test]
    async fn a_process_that_waits_for_input_is_limited() {
        let folder = tempfile::tempdir().expect("a folder");
        let repo = Utf8PathBuf::from_path_buf(folder.path().join("x.git")).expect("a UTF-8 path");
        crate::host::git::repo::make_bare(&repo, None).expect("a repository");
        let program = Program::new(crate::host::git::tests::git_program());
        let mut command = program.command(&repo, &["cat-file", "--batch"]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("git starts");
        let id = child.id().expect("a process");
        limit(Pid::from_raw(id.cast_signed())).expect("limited");
        let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).expect("limits");
        for (what, most) in [
            ("address space", MAX_MEMORY),
            ("cpu time", MAX_CPU_SECS),
            ("core file size", 0),
        ] {
            let line = limits
                .lines()
                .find(|line| line.starts_with(&format!("Max {what}")))
                .expect(what);
            let set = line
                .split_whitespace()
                .filter(|word| *word == most.to_string())
                .count();
            assert_eq!(set, 2, "{line}");
        }
        child.kill().await.expect("killed");
    }

    #[tokio::test]
    async fn what_git_says_is_bounded_and_safe_to_show() {
        let seen =
            said("i=0; while [ $i -lt 5000 ]; do printf '\\033[2Jxxxxxxxx\\n'; i=$((i+1)); done").await;
        assert!(seen.len() <= 2 * MAX_STDERR, "{} bytes", seen.len());
        assert!(!seen.contains(['\x1b', '\n']), "{seen:?}");
    }

    #[tokio::test]
    async fn a_run_that_takes_too_long_is_ended_with_all_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let never = folder.path().join("never");
        let started = folder.path().join("started");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &never,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .expect("a pipe");
        let script = format!(
            "echo $$ > '{}'; read x < '{}'; exit 0",
            started.display(),
            never.display()
        );
        let run = async {
            // Long enough for the shell to start, whatever the machine does.
            let mut patience = Duration::from_millis(200);
            loop {
                let result = run_script(&script, None, patience).await;
                if std::fs::read_to_string(&started).is_ok_and(|text| text.ends_with('\n')) {
                    break result;
                }
                patience *= 2;
            }
        };
        let result = run.await;
        assert!(matches!(result, Err(ProgramError::TimedOut(_))), "{result:?}");
        let pid: i32 = std::fs::read_to_string(&started)
            .expect("a number")
            .trim()
            .parse()
            .expect("a number");
        let pid = Pid::from_raw(pid).expect("a process");
        let is_gone = || match std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
            // Killed, and waiting for init to take note.
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !is_gone() {
            assert!(std::time::Instant::now() < deadline, "process {pid:?} goes on");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn input_that_is_not_wanted_does_not_hold_anybody_up() {
        let mut input = tempfile::tempfile().expect("a file");
        io::Write::write_all(&mut input, &vec![0; 1 << 20]).expect("written");
        io::Seek::rewind(&mut input).expect("rewound");
        run_script("exit 0", Some(input), TIME_OUT)
            .await
            .expect("it ends well");
    }
}
