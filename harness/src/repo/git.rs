//! Runs the `git` program: bounded in time and output, blind to the machine's and the user's configuration.

use std::process::Stdio;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::children::{self, Children};

/// The longest run of one command.
const TIME: Duration = Duration::from_secs(60);
/// How much of an error text is kept.
const MAX_ERROR: u64 = 4096;

/// Why a git command failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program cannot be started or talked to.
    #[error("cannot run git {command}: is git installed in the agent's system?")]
    Io {
        /// The subcommand.
        command: String,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("git {command} failed: {message}")]
    Failed {
        /// The subcommand.
        command: String,
        /// What it wrote.
        message: String,
    },
    /// It took too long.
    #[error("git {command} did not end within {} s", TIME.as_secs())]
    TimedOut {
        /// The subcommand.
        command: String,
    },
    /// It wrote more than is expected of it.
    #[error("git {command} wrote more than {max} bytes")]
    TooMuch {
        /// The subcommand.
        command: String,
        /// The limit.
        max: u64,
    },
}

/// Git in one repository, always named, never searched for in parent folders.
#[derive(Debug, Clone)]
pub(super) struct Git {
    pub(super) children: Children,
    /// The repository itself (`.git`, or the bare repository).
    pub(super) git_dir: Utf8PathBuf,
    /// Its work tree, when it has one.
    pub(super) work_tree: Option<Utf8PathBuf>,
    /// Name of author and committer.
    pub(super) identity: String,
    /// The time written into commits, so that the same commit is the same object.
    pub(super) at: Timestamp,
}

impl Git {
    /// Runs a command and returns what it wrote, at most `max` bytes.
    pub(super) async fn run(&self, args: &[&str], input: &[u8], max: u64) -> Result<Vec<u8>, GitError> {
        let command = || args.first().copied().unwrap_or_default().to_owned();
        tokio::time::timeout(TIME, self.run_untimed(args, input, max))
            .await
            .unwrap_or_else(|_| Err(GitError::TimedOut { command: command() }))
    }

    /// Runs a command whose output is one word.
    pub(super) async fn word(&self, args: &[&str], input: &[u8]) -> Result<String, GitError> {
        let output = self.run(args, input, 1024).await?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    }

    async fn run_untimed(&self, args: &[&str], input: &[u8], max: u64) -> Result<Vec<u8>, GitError> {
        let name = || args.first().copied().unwrap_or_default().to_owned();
        let io = |source| GitError::Io {
            command: name(),
            source,
        };
        let mut command = children::clean_command("git");
        // Hooks and monitors named in the repository would be programs we did not ask for.
        for setting in [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "commit.gpgsign=false",
            "gc.auto=0",
            "maintenance.auto=false",
            "advice.detachedHead=false",
        ] {
            command.args(["-c", setting]);
        }
        let date = format!("{} +0000", self.at.as_second().max(0));
        let mail = format!("{}@hive.invalid", self.identity);
        command
            .env("GIT_DIR", &self.git_dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .env("GIT_AUTHOR_NAME", &self.identity)
            .env("GIT_COMMITTER_NAME", &self.identity)
            .env("GIT_AUTHOR_EMAIL", &mail)
            .env("GIT_COMMITTER_EMAIL", &mail)
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date);
        if let Some(work_tree) = &self.work_tree {
            command.env("GIT_WORK_TREE", work_tree);
        }
        command
            .args(args)
            .current_dir(self.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());

        let mut child = self.children.spawn(&mut command).map_err(io)?;
        let (stdin, stdout, stderr) = (child.stdin(), child.stdout(), child.stderr());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A command that does not want its input says why on its standard error.
                if let Err(error) = stdin.write_all(input).await {
                    tracing::debug!(%error, "git did not read its input");
                }
            }
        };
        // One byte more than allowed tells too much from just enough.
        let (_written, output, errors) = tokio::join!(
            write,
            read(stdout, max.saturating_add(1)),
            read(stderr, MAX_ERROR)
        );
        let output = output.map_err(io)?;
        if output.len() as u64 > max {
            return Err(GitError::TooMuch { command: name(), max });
        }
        if child.wait().await.map_err(io)?.success() {
            Ok(output)
        } else {
            let message = String::from_utf8_lossy(&errors.unwrap_or_default()).into_owned();
            Err(GitError::Failed {
                command: name(),
                message: crate::tame(&message, 500),
            })
        }
    }

    fn folder(&self) -> &Utf8Path {
        self.work_tree.as_deref().unwrap_or(&self.git_dir)
    }
}

/// Reads at most `max` bytes; what comes after them breaks the writer's pipe.
async fn read(stream: Option<impl AsyncRead + Unpin>, max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(max).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
