//! One run of the program, from its start until nothing of it is left that should not be.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::parse::{Line, parse};
use super::session::{self, Session, SessionError};
use super::story::{Exit, Story, Verdict};
use super::{Turn, command, find, servers};
use crate::children::{self, OwnChild};
use crate::driver::lines::{Lines, Piece};
use crate::driver::{TurnEnd, running};
use crate::secrets::SecretError;

/// How long the program may take after each signal. All three fit into what a turn has for being interrupted.
const AFTER_INTERRUPT: Duration = Duration::from_millis(800);
const AFTER_TERMINATE: Duration = Duration::from_millis(400);
const AFTER_KILL: Duration = Duration::from_millis(200);
/// How long output is waited for when the program is gone: what it left behind may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(200);

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
    #[error("cannot write the files of the driver's program: is the disk full?")]
    Files(#[source] std::io::Error),
    /// It cannot be started.
    #[error("cannot start the driver's program {program}")]
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

/// How many processes of this container the kernel has killed for want of memory, where that is to be seen.
fn oom_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/memory.events").ok()?;
    count_of("oom_kill", &text)
}

fn count_of(what: &str, text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == what)?.1.trim().parse().ok()
}

/// Runs the program once.
///
/// # Errors
/// When it cannot be started; whatever happens later is a verdict.
pub(super) async fn run(turn: &mut Turn, session: &mut Session) -> Result<Verdict, RunError> {
    let mut process = start(turn, session).await?;
    let servers = servers::names(&turn.spec.config);
    let mut story = Story::new(turn.spec.purpose, session.id.to_string(), servers);
    let kills = blocking(oom_kills).await?;
    let mut exit = process.follow(turn, &mut story, session).await;
    if exit == Exit::Signal(Signal::KILL.as_raw()) && blocking(oom_kills).await? > kills {
        exit = Exit::OutOfMemory;
    }
    let errors = process.last_words().await;
    let mut verdict = story.judge(exit, &errors, crate::clock::now());
    // What an agent left running in a turn that went well may be meant to go on.
    let swept = exit == Exit::Lingered || verdict != Verdict::Over(TurnEnd::Completed);
    let (id, home) = (turn.spec.turn, command::home(&turn.setup.state));
    blocking(move || {
        if swept {
            running::sweep(id);
        }
        running::clear(&home);
    })
    .await?;
    if let Verdict::Over(TurnEnd::Failed(failure)) = &mut verdict {
        failure.error = crate::tame(&failure.error, 2000);
    }
    Ok(verdict)
}

async fn start(turn: &Turn, session: &Session) -> Result<Process, RunError> {
    let (setup, spec) = (Arc::clone(&turn.setup), &turn.spec);
    let args = command::args(&spec.config, session, &setup.state);
    let environment =
        command::environment(&setup.settings.environment, &spec.config, &setup.state, spec.turn);
    let servers = servers::document(&setup.settings.own_server, &spec.config, spec.turn).to_string();
    let settings = command::settings(&spec.config, &spec.offered, &setup.state).to_string();
    let (kept, id, config) = (session.clone(), spec.turn, Arc::clone(&spec.config));
    let (program, secrets) = blocking(move || {
        let state = &setup.state;
        let secrets = setup.settings.secrets.variables_and_headers(&config)?;
        let home = command::home(state);
        running::end_stray(&home);
        session::write(&command::servers_file(state), servers.as_bytes()).map_err(RunError::Files)?;
        session::write(&command::settings_file(state), settings.as_bytes()).map_err(RunError::Files)?;
        // Before it is used for the first time: an id that is not kept would be a conversation that is lost.
        session::save(state, &kept)?;
        running::note(&home, id).map_err(RunError::Files)?;
        let program = find(&setup.settings).map_err(RunError::Missing)?;
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
        Ok(Process::new(
            child,
            input,
            output,
            errors.ok_or_else(lost)?,
            command::prompt(spec.purpose, turn.tidy),
        ))
    });
    started.map_err(|source| RunError::Start {
        program: program.into_string(),
        source,
    })
}

/// What is being waited for beside the program's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing: it works.
    Works,
    /// It was asked to end in this way, for this reason.
    Interrupted(Exit),
    Terminated(Exit),
    Killed(Exit),
}

impl Stage {
    fn reason(self) -> Option<Exit> {
        match self {
            Self::Works => None,
            Self::Interrupted(exit) | Self::Terminated(exit) | Self::Killed(exit) => Some(exit),
        }
    }
}

struct Process {
    child: OwnChild,
    lines: Lines<ChildStdout>,
    errors: JoinHandle<String>,
    input: JoinHandle<()>,
    status: Option<ExitStatus>,
    stage: Stage,
    /// When the stage is over.
    deadline: Option<Instant>,
    heard: Instant,
    result_at: Option<Instant>,
}

impl Process {
    fn new(
        child: OwnChild,
        mut input: ChildStdin,
        output: ChildStdout,
        errors: ChildStderr,
        prompt: &'static str,
    ) -> Self {
        Self {
            child,
            lines: Lines::new(output),
            errors: tokio::spawn(children::last_words(errors)),
            input: tokio::spawn(async move {
                // It may end without reading; that is told by its end. Dropping the pipe is the end of the prompt.
                if let Err(error) = input.write_all(prompt.as_bytes()).await {
                    tracing::debug!(%error, "prompt not taken");
                }
            }),
            status: None,
            stage: Stage::Works,
            deadline: None,
            heard: Instant::now(),
            result_at: None,
        }
    }

    /// Follows it until it is gone and its output at its end.
    async fn follow(&mut self, turn: &mut Turn, story: &mut Story, session: &mut Session) -> Exit {
        let (silence, grace) = (turn.setup.settings.silence, turn.setup.settings.grace);
        let mut waits = turn.spec.waits.clone();
        let mut ended = false;
        loop {
            if self.status.is_some() && ended {
                return self.exit();
            }
            let due = self.due(silence, grace, *waits.borrow());
            // All arms are cancel-safe: a reader that keeps what it has, a wait, channels, a point in time.
            tokio::select! {
                line = self.lines.next(), if !ended => match line {
                    Ok(Some(piece)) => {
                        self.heard = Instant::now();
                        self.line(piece, turn, story, session).await;
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
                    self.interrupt(Exit::Interrupted);
                }
                changed = waits.changed(), if !waits_is_over(&waits) => {
                    self.heard = Instant::now();
                    if changed.is_err() {
                        waits = watch::channel(false).1;
                    }
                }
                () = at(due) => {
                    if self.elapsed(silence, grace, *waits.borrow()) {
                        return self.exit();
                    }
                }
            }
        }
    }

    /// When something is due that does not come by itself.
    fn due(&self, silence: Duration, grace: Duration, waits: bool) -> Option<Instant> {
        if self.deadline.is_some() {
            return self.deadline;
        }
        if let Some(result_at) = self.result_at {
            return Some(result_at + grace);
        }
        (!waits).then(|| self.heard + silence)
    }

    /// Takes the next step against a program that does not end. Returns whether no more can be done.
    fn elapsed(&mut self, silence: Duration, grace: Duration, waits: bool) -> bool {
        let now = Instant::now();
        if self.due(silence, grace, waits).is_none_or(|due| due > now) {
            return false;
        }
        if self.status.is_some() {
            return true;
        }
        match self.stage {
            // It is done, so there is nothing to interrupt.
            Stage::Works if self.result_at.is_some() => self.terminate(Exit::Lingered),
            Stage::Works => self.interrupt(Exit::Silent(silence)),
            Stage::Interrupted(exit) => self.terminate(exit),
            Stage::Terminated(exit) => {
                self.child.kill();
                self.stage = Stage::Killed(exit);
                self.deadline = Some(now + AFTER_KILL);
            }
            // Not even that is quick on a machine that has stalled; dropping it goes on with it.
            Stage::Killed(_) => return true,
        }
        false
    }

    fn interrupt(&mut self, why: Exit) {
        self.child.signal(Signal::INT);
        self.stage = Stage::Interrupted(why);
        self.deadline = Some(Instant::now() + AFTER_INTERRUPT);
    }

    fn terminate(&mut self, why: Exit) {
        self.child.signal(Signal::TERM);
        self.stage = Stage::Terminated(why);
        self.deadline = Some(Instant::now() + AFTER_TERMINATE);
    }

    async fn line(&mut self, piece: Piece, turn: &Turn, story: &mut Story, session: &mut Session) {
        let line = match piece {
            Piece::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => return,
            Piece::Whole(line) => parse(&line),
            Piece::Cut(head) => Line::Garbage(format!(
                "a line that is too long: {}",
                crate::tame(&String::from_utf8_lossy(&head), 100)
            )),
        };
        for event in story.tell(line) {
            turn.tell(event).await;
        }
        self.result_at = story.has_result().then(|| self.result_at.unwrap_or(self.heard));
        if story.began && !session.began {
            session.began = true;
            if let Err(error) = turn.keep(session).await {
                // It is found out at the next turn, when the program says that it has the conversation.
                tracing::warn!(
                    error = crate::error_chain(&error),
                    "conversation not noted as begun"
                );
            }
        }
        if let Some(fault) = story.fault
            && self.stage == Stage::Works
        {
            self.terminate(fault);
        }
    }

    fn exit(&self) -> Exit {
        if let Some(reason) = self.stage.reason() {
            return reason;
        }
        let status = self.status.unwrap_or_default();
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        }
    }

    /// The last of what it wrote to its standard error.
    async fn last_words(&mut self) -> String {
        self.input.abort();
        // What it left behind may hold the pipe open.
        match tokio::time::timeout(DRAIN, &mut self.errors).await {
            Ok(Ok(text)) => text,
            Ok(Err(_)) | Err(_) => {
                self.errors.abort();
                String::new()
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.errors.abort();
        self.input.abort();
    }
}

/// Whether nobody can change it any more.
fn waits_is_over(waits: &watch::Receiver<bool>) -> bool {
    waits.has_changed().is_err()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_for_want_of_memory_are_found_among_the_other_counts() {
        let text = "low 0\nhigh 3\noom 9\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(count_of("oom_kill", text), Some(2));
        assert_eq!(count_of("oom_kill", "oom_kill x\n"), None);
        assert_eq!(count_of("oom_kill", ""), None);
    }
}
