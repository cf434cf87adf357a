//! One run of the agent's program, from its start until nothing of it is left that should not be.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use shared::turn::TurnResult;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::permit::Permit;
use super::session::{self, Session, SessionError};
use super::talk::{Ending, Plan, Talk};
use super::wire::{Heard, parse};
use super::{Turn, plan, program};
use crate::children::{self, OwnChild};
use crate::driver::lines::{Lines, Piece};
use crate::driver::{Failure, TurnEnd, claude, running};
use crate::secrets::SecretError;

/// How long the program may take to end the turn when it was asked to, and to end after each signal. All fit into what a
/// turn has for being interrupted.
const AFTER_CANCEL: Duration = Duration::from_millis(800);
const AFTER_TERMINATE: Duration = Duration::from_millis(400);
const AFTER_KILL: Duration = Duration::from_millis(200);
/// How long output is waited for when the program is gone: what it left behind may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(200);
/// The most messages that wait for a program that does not read.
const MAX_OUTBOX: usize = 256;

/// Why a run could not even be tried.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// There is no program.
    #[error("{0}")]
    Missing(String),
    /// The conversation is not known, or cannot be kept.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A secret that is to be in its environment is not there.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A file for the program cannot be written.
    #[error("cannot write the files of the agent's program: is the disk full?")]
    Files(#[source] std::io::Error),
    /// It cannot be started.
    #[error("cannot start the agent's program {program}")]
    Start {
        /// The program.
        program: String,
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

/// Runs the program once. The conversation is kept as soon as it has begun.
///
/// # Errors
/// When it cannot be started; whatever happens later is an ending.
pub(super) async fn run(turn: &mut Turn, session: &mut Session) -> Result<Ending, RunError> {
    let mut process = start(turn).await?;
    let mut talk = Talk::new(plan(turn, session));
    let gone = process.follow(turn, &mut talk, session).await;
    let ending = match talk.ending.take() {
        Some(ending) => ending,
        None => Ending::Over(process.without_answer(gone).await),
    };
    // What an agent left running in a turn that went well may be meant to go on.
    let swept = gone == Gone::Stopped || ending != Ending::Over(TurnEnd::Completed);
    let (id, home) = (turn.spec.turn, session::home(&turn.setup.state));
    blocking(move || {
        if swept {
            running::sweep(id);
        }
        running::clear(&home);
    })
    .await?;
    Ok(ending)
}

fn plan(turn: &Turn, session: &Session) -> Plan {
    let (setup, spec) = (&turn.setup, &turn.spec);
    let config = &spec.config;
    Plan {
        session: session.id.clone(),
        cwd: setup.state.to_string(),
        servers: plan::servers(&setup.settings.own_server, config, spec.turn),
        meta: plan::meta(config, &spec.offered),
        model: config.driver.model.clone(),
        instructions: claude::command::system_prompt(config, &setup.state),
        permit: Permit::new(Arc::clone(config), spec.offered.clone()),
    }
}

async fn start(turn: &Turn) -> Result<Process, RunError> {
    let (setup, spec) = (Arc::clone(&turn.setup), &turn.spec);
    let environment =
        claude::command::environment(&setup.settings.environment, &spec.config, &setup.state, spec.turn);
    let (driver, id) = (spec.config.driver.clone(), spec.turn);
    let (args, config) = (driver.args.clone(), Arc::clone(&spec.config));
    let (program, secrets) = blocking(move || {
        let secrets = setup.settings.secrets.variables(&config)?;
        let home = session::home(&setup.state);
        running::end_stray(&home);
        running::note(&home, id).map_err(RunError::Files)?;
        let program = program(&driver).map_err(RunError::Missing)?.to_owned();
        Ok::<_, RunError>((program, secrets))
    })
    .await??;
    let mut command = children::command(program.as_str());
    command
        .args(args)
        .env_clear()
        .envs(environment)
        .envs(secrets.environment())
        .current_dir(&turn.setup.state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let started = turn.setup.children.spawn(&mut command).and_then(|mut child| {
        let lost = || std::io::Error::other("a pipe is missing");
        let (input, output, errors) = (child.stdin(), child.stdout(), child.stderr());
        let (input, output) = (input.ok_or_else(lost)?, output.ok_or_else(lost)?);
        Ok(Process::new(child, input, output, errors.ok_or_else(lost)?))
    });
    started.map_err(|source| RunError::Start {
        program: program.into_string(),
        source,
    })
}

/// How the program came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// By itself.
    Itself,
    /// By us.
    Stopped,
}

/// What is being waited for beside the program's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing: it works.
    Works,
    /// It was asked to end the turn.
    Cancelled,
    /// Its input is closed: it is to end by itself.
    Closed,
    Terminated,
    Killed,
}

/// Why the program is stopped without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Interrupted,
    Silent(Duration),
    Deaf,
}

struct Process {
    child: OwnChild,
    lines: Lines<ChildStdout>,
    errors: JoinHandle<String>,
    /// Closes the input when it is dropped.
    say: Option<mpsc::Sender<Value>>,
    input: JoinHandle<()>,
    status: Option<ExitStatus>,
    stage: Stage,
    why: Option<Why>,
    /// When the stage is over.
    deadline: Option<Instant>,
    heard: Instant,
}

impl Process {
    fn new(child: OwnChild, mut input: ChildStdin, output: ChildStdout, errors: ChildStderr) -> Self {
        let (say, mut said) = mpsc::channel::<Value>(MAX_OUTBOX);
        Self {
            child,
            lines: Lines::new(output),
            errors: tokio::spawn(children::last_words(errors)),
            say: Some(say),
            input: tokio::spawn(async move {
                while let Some(message) = said.recv().await {
                    // It may end without reading; that is told by its end.
                    if let Err(error) = input.write_all(format!("{message}\n").as_bytes()).await {
                        tracing::debug!(%error, "the agent's program does not take what it is told");
                        return;
                    }
                }
            }),
            status: None,
            stage: Stage::Works,
            why: None,
            deadline: None,
            heard: Instant::now(),
        }
    }

    /// Follows it until it is gone and its output at its end.
    async fn follow(&mut self, turn: &mut Turn, talk: &mut Talk, session: &mut Session) -> Gone {
        let (silence, grace) = (turn.setup.settings.silence, turn.setup.settings.grace);
        let mut waits = turn.spec.waits.clone();
        let mut ended = false;
        loop {
            self.post(talk, grace);
            if self.status.is_some() && ended {
                break;
            }
            let silent = (!*waits.borrow()).then(|| self.heard + silence);
            let due = self.deadline.or(silent);
            // All arms are cancel-safe: a reader that keeps what it has, a wait, channels, a point in time.
            tokio::select! {
                line = self.lines.next(), if !ended => match line {
                    Ok(Some(piece)) => {
                        self.heard = Instant::now();
                        listen(piece, turn, talk, session).await;
                    }
                    Ok(None) => ended = true,
                    Err(error) => {
                        tracing::debug!(%error, "the program's output cannot be read");
                        ended = true;
                    }
                },
                status = self.child.wait(), if self.status.is_none() => {
                    // Only a second wait fails, and there is none.
                    self.status = Some(status.unwrap_or_default());
                    self.deadline = Some(Instant::now() + DRAIN);
                }
                () = interrupted(&mut turn.interrupted), if self.stage == Stage::Works => {
                    self.stop(talk, Why::Interrupted);
                }
                changed = waits.changed(), if waits.has_changed().is_ok() => {
                    self.heard = Instant::now();
                    if changed.is_err() {
                        waits = watch::channel(false).1;
                    }
                }
                () = at(due) => if self.elapsed(talk, silence) {
                    break;
                },
            }
        }
        match self.stage {
            Stage::Works | Stage::Closed | Stage::Cancelled => Gone::Itself,
            Stage::Terminated | Stage::Killed => Gone::Stopped,
        }
    }

    /// Passes on what is to be said; closes the input when the talk is over.
    fn post(&mut self, talk: &mut Talk, grace: Duration) {
        for message in talk.take_outbox() {
            let full = match &self.say {
                Some(say) => matches!(say.try_send(message), Err(mpsc::error::TrySendError::Full(_))),
                None => false,
            };
            if full && self.stage == Stage::Works {
                self.stop(talk, Why::Deaf);
            }
        }
        let over = talk.ending.is_some() && self.say.take().is_some();
        // An answer that comes too late stops no signal.
        if over && self.status.is_none() && matches!(self.stage, Stage::Works | Stage::Cancelled) {
            self.stage = Stage::Closed;
            // One that was asked to end has no time left for its own affairs.
            let grace = self.why.map_or(grace, |_| AFTER_TERMINATE);
            self.deadline = Some(Instant::now() + grace);
        }
    }

    fn stop(&mut self, talk: &mut Talk, why: Why) {
        self.why = Some(why);
        self.stage = Stage::Cancelled;
        let wait = if talk.cancel() {
            AFTER_CANCEL
        } else {
            Duration::ZERO
        };
        self.deadline = Some(Instant::now() + wait);
    }

    /// Takes the next step against a program that does not end. Returns whether no more can be done.
    fn elapsed(&mut self, talk: &mut Talk, silence: Duration) -> bool {
        if self.status.is_some() {
            return true;
        }
        match self.stage {
            Stage::Works => self.stop(talk, Why::Silent(silence)),
            Stage::Cancelled | Stage::Closed => {
                self.child.signal(Signal::TERM);
                self.stage = Stage::Terminated;
                self.deadline = Some(Instant::now() + AFTER_TERMINATE);
            }
            Stage::Terminated => {
                self.child.kill();
                self.stage = Stage::Killed;
                self.deadline = Some(Instant::now() + AFTER_KILL);
            }
            // Not even that is quick on a machine that has stalled; dropping it goes on with it.
            Stage::Killed => return true,
        }
        false
    }

    /// The end of a turn whose prompt was never answered.
    async fn without_answer(&mut self, gone: Gone) -> TurnEnd {
        let failed = |result, error: String| TurnEnd::Failed(Failure::new(result, crate::tame(&error, 2000)));
        match self.why {
            Some(Why::Interrupted) => return TurnEnd::Interrupted,
            Some(Why::Silent(time)) => {
                let error = format!("the agent's program said nothing for {} s", time.as_secs());
                return failed(TurnResult::Hung, error);
            }
            Some(Why::Deaf) => {
                return failed(
                    TurnResult::Crashed,
                    "the agent's program asks and does not read the answers".to_owned(),
                );
            }
            None => {}
        }
        let status = self.status.unwrap_or_default();
        let how = match (status.code(), status.signal()) {
            _ if gone == Gone::Stopped => "was stopped".to_owned(),
            (Some(code), _) => format!("ended with status {code}"),
            (None, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
        };
        let mut error = format!("the agent's program {how} before the end of the turn");
        let words = self.last_words().await;
        if !words.is_empty() {
            error.push_str("; it wrote: ");
            error.push_str(&words);
        }
        failed(TurnResult::Crashed, error)
    }

    /// The last of what it wrote to its standard error.
    async fn last_words(&mut self) -> String {
        // What it left behind may hold the pipe open.
        match tokio::time::timeout(DRAIN, &mut self.errors).await {
            Ok(Ok(text)) => text,
            Ok(Err(_)) | Err(_) => String::new(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.errors.abort();
        self.input.abort();
    }
}

async fn listen(piece: Piece, turn: &Turn, talk: &mut Talk, session: &mut Session) {
    let heard = match piece {
        Piece::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => return,
        Piece::Whole(line) => parse(&line),
        Piece::Cut(head) => Heard::Garbage(format!(
            "a line that is too long: {}",
            crate::tame(&String::from_utf8_lossy(&head), 100)
        )),
    };
    for event in talk.hear(heard) {
        turn.tell(event).await;
    }
    if talk.session.is_some() && talk.session != session.id {
        session.id.clone_from(&talk.session);
        session.turns = 0;
        if let Err(error) = turn.keep(session).await {
            let error = crate::error_chain(&error);
            tracing::warn!(
                error,
                "the conversation is not kept: the next turn begins another"
            );
        }
    }
}

async fn interrupted(interrupted: &mut watch::Receiver<bool>) {
    if interrupted.wait_for(|interrupted| *interrupted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
