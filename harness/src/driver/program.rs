//! What the drivers have in common that run a program of their own, one process for each turn.
//!
//! Such a driver's turn is a function that takes a `Turn`; it starts its program with `Turn::start` and follows it as a
//! `Process`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use shared::TurnId;
use shared::config::AgentConfig;
use shared::turn::TurnResult;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, watch};

use super::conversation::{self, Conversation, ConversationError};
use super::process::Process;
use super::{Failure, RunningTurn, TurnEnd, TurnEvent, TurnSpec};
use crate::children::{self, Children, OwnChild};
use crate::relay::Ways;
use crate::secrets::{SecretError, Secrets};

/// What these drivers need to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program of Claude Code; else `claude` is looked for in the search path.
    pub claude: Option<Utf8PathBuf>,
    /// What is passed on to the program, of [`super::claude::PASSED_ON`].
    pub environment: BTreeMap<String, OsString>,
    /// Where the agent's secrets are.
    pub secrets: Secrets,
    /// How the hive's own MCP server is started.
    pub own_server: OwnServer,
    /// What leads out of the container.
    pub ways: Ways,
    /// How long it may say nothing, unless the agent waits for messages. Longer than any tool of its own may take.
    pub silence: Duration,
    /// How long it may go on after a result.
    pub grace: Duration,
}

/// How the hive's own MCP server is started: this program with these words, the turn's id after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnServer {
    /// The program.
    pub program: Utf8PathBuf,
    /// Its words, before `--turn ID`.
    pub args: Vec<String>,
}

impl OwnServer {
    /// All of its words.
    pub(super) fn args_for(&self, turn: TurnId) -> Vec<String> {
        let mut args = self.args.clone();
        args.extend(["--turn".to_owned(), turn.to_string()]);
        args
    }
}

/// What every turn needs.
#[derive(Debug)]
pub struct Setup {
    pub(super) settings: Settings,
    pub(super) state: Utf8PathBuf,
    pub(super) children: Children,
}

impl Setup {
    /// Of drivers that keep everything of their own in `state`.
    pub fn new(settings: Settings, state: Utf8PathBuf, children: Children) -> Arc<Self> {
        Arc::new(Self {
            settings,
            state,
            children,
        })
    }

    /// Runs `turn` as a task.
    pub(super) fn start_turn<F>(
        self: &Arc<Self>,
        spec: TurnSpec,
        turn: impl FnOnce(Turn) -> F + Send + 'static,
    ) -> RunningTurn
    where
        F: Future<Output = Result<TurnEnd, RunError>> + Send + 'static,
    {
        let setup = Arc::clone(self);
        RunningTurn::spawn(|events, interrupted| async move {
            let config = Arc::clone(&spec.config);
            let begun = Turn {
                setup: Arc::clone(&setup),
                spec,
                events,
                interrupted,
            };
            let end = turn(begun).await.unwrap_or_else(|error| {
                TurnEnd::Failed(Failure::new(TurnResult::Crashed, crate::error_chain(&error)))
            });
            setup.without_secrets(config, end).await
        })
    }

    /// How a turn ended is told to the daemon, which keeps it; and the program's last words may be what it was given.
    async fn without_secrets(self: Arc<Self>, config: Arc<AgentConfig>, mut end: TurnEnd) -> TurnEnd {
        let TurnEnd::Failed(failure) = &mut end else {
            return end;
        };
        let given = blocking(move || self.settings.secrets.variables_and_headers(&config)).await;
        // A secret that cannot be read was not given to anybody.
        if let Ok(Ok(secrets)) = given {
            failure.error = secrets.without(&failure.error);
        }
        end
    }

    /// Starts a program in the state folder, with nothing in its environment but this.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn spawn<S: AsRef<str>>(
        &self,
        program: &Utf8Path,
        args: &[S],
        environment: BTreeMap<String, OsString>,
    ) -> std::io::Result<Spawned> {
        let mut command = children::command(program.as_str());
        command
            .args(args.iter().map(AsRef::as_ref))
            .env_clear()
            .envs(environment)
            .current_dir(&self.state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.children.spawn(&mut command)?;
        let lost = || std::io::Error::other("a pipe is missing");
        Ok(Spawned {
            input: child.stdin().ok_or_else(lost)?,
            output: child.stdout().ok_or_else(lost)?,
            errors: child.stderr().ok_or_else(lost)?,
            child,
        })
    }
}

/// A program that was started, and its pipes.
pub(super) struct Spawned {
    pub(super) child: OwnChild,
    pub(super) input: ChildStdin,
    pub(super) output: ChildStdout,
    pub(super) errors: ChildStderr,
}

/// One turn.
pub(super) struct Turn {
    pub(super) setup: Arc<Setup>,
    pub(super) spec: TurnSpec,
    events: mpsc::Sender<TurnEvent>,
    /// Turns true when it is to end.
    pub(super) interrupted: watch::Receiver<bool>,
}

impl Turn {
    /// The conversation that it goes on with.
    pub(super) async fn load<C: Conversation>(&self) -> Result<C, RunError> {
        let (state, number) = (self.setup.state.clone(), self.spec.conversation);
        Ok(blocking(move || conversation::load(&state, number)).await??)
    }

    /// Keeps the conversation for the turns after it.
    pub(super) async fn keep<C: Conversation>(&self, conversation: &C) -> Result<(), RunError> {
        let (state, conversation) = (self.setup.state.clone(), conversation.clone());
        Ok(blocking(move || conversation::save(&state, &conversation)).await??)
    }

    /// Tells what happens in it.
    pub(super) async fn tell(&self, event: TurnEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("nobody listens to the turn any more");
        }
    }

    /// Starts its program. `speak` has the program's input, and closes it by its end.
    pub(super) fn start<F>(
        &self,
        program: Utf8PathBuf,
        args: &[String],
        environment: BTreeMap<String, OsString>,
        speak: impl FnOnce(ChildStdin) -> F,
    ) -> Result<Process, RunError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let spawned = self.setup.spawn(&program, args, environment);
        let spawned = spawned.map_err(|source| RunError::Start { program, source })?;
        Ok(Process::new(self, spawned, speak))
    }
}

/// Why a run could not even be tried.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// There is no program.
    #[error("{0}")]
    Missing(String),
    /// The conversation is not known, or cannot be kept.
    #[error(transparent)]
    Conversation(#[from] ConversationError),
    /// A secret that is to be in its environment is not there.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A file for the program cannot be written.
    #[error("cannot write the files of the driver's program: is the disk full?")]
    Files(#[source] std::io::Error),
    /// It cannot be started.
    #[error("cannot start the driver's program {program}")]
    Start {
        /// The program.
        program: Utf8PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The harness is ending.
    #[error("a task of the driver broke off")]
    BrokenOff(#[from] tokio::task::JoinError),
}

/// Does something that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RunError> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

/// Whether this is a file that can be run.
pub(super) fn is_program(path: &Utf8Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
