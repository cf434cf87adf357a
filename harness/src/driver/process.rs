//! The program of a turn while it runs: what comes of it, and what is done against one that does not end.
//!
//! ```text
//!  works --> is to end by itself --> SIGTERM --> SIGKILL --> is given up
//! ```
//!
//! Why it is to end, and how it is told so, is the driver's affair.

use std::process::ExitStatus;
use std::time::Duration;

use camino::Utf8PathBuf;
use rustix::process::Signal;
use shared::TurnId;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::lines::{Lines, Piece};
use super::program::{RunError, Spawned, Turn, blocking};
use super::running;
use crate::children::{self, OwnChild};

/// How long a program may take that was asked to end the turn, then after SIGTERM, then after SIGKILL. All three fit into
/// what a turn has for being interrupted.
pub(super) const AFTER_INTERRUPT: Duration = Duration::from_millis(800);
pub(super) const AFTER_TERMINATE: Duration = Duration::from_millis(400);
const AFTER_KILL: Duration = Duration::from_millis(200);
/// How long output is waited for when the program is gone: what it left behind may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(200);

/// What happens next.
#[derive(Debug)]
pub(super) enum Next {
    /// The program wrote a line.
    Line(Piece),
    /// The turn is to end, and the program works. It comes again until the program is made to end.
    Interrupted,
    /// The program works, and its time is up. It comes again until the program is made to end.
    Due,
    /// The program is gone and its output at its end, or no more can be done about it. Nothing comes after it.
    Gone,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Works,
    /// It is to end by itself.
    Ends,
    Terminated,
    Killed,
}

/// A program that runs. Dropping it ends the program, and without [`Process::finish`] all that the turn has started.
pub(super) struct Process {
    turn: TurnId,
    finished: bool,
    child: OwnChild,
    lines: Lines<ChildStdout>,
    /// Whether its output is at its end.
    ended: bool,
    errors: JoinHandle<String>,
    input: JoinHandle<()>,
    /// Turns true when the turn is to end.
    interrupted: watch::Receiver<bool>,
    /// Whether the agent waits for messages: then silence means nothing.
    waits: watch::Receiver<bool>,
    silence: Duration,
    status: Option<ExitStatus>,
    stage: Stage,
    /// When the stage is over; absent while it works.
    deadline: Option<Instant>,
    heard: Instant,
}

impl Process {
    pub(super) fn new<F>(turn: &Turn, spawned: Spawned, speak: impl FnOnce(ChildStdin) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Spawned {
            child,
            input,
            output,
            errors,
        } = spawned;
        Self {
            turn: turn.spec.turn,
            finished: false,
            child,
            lines: Lines::new(output),
            ended: false,
            errors: tokio::spawn(children::last_words(errors)),
            input: tokio::spawn(speak(input)),
            interrupted: turn.interrupted.clone(),
            waits: turn.spec.waits.clone(),
            silence: turn.setup.settings.silence,
            status: None,
            stage: Stage::Works,
            deadline: None,
            heard: Instant::now(),
        }
    }

    /// What happens next. `limit`: when the time of a program that works is up, if not after its silence.
    pub(super) async fn next(&mut self, limit: Option<Instant>) -> Next {
        loop {
            if self.status.is_some() && self.ended {
                return Next::Gone;
            }
            let due = self.due(limit);
            // All arms are cancel-safe: a reader that keeps what it has, a wait, channels, a point in time.
            tokio::select! {
                line = self.lines.next(), if !self.ended => match line {
                    Ok(Some(piece)) => {
                        self.heard = Instant::now();
                        return Next::Line(piece);
                    }
                    Ok(None) => self.ended = true,
                    Err(error) => {
                        tracing::debug!(%error, "the program's output cannot be read");
                        self.ended = true;
                    }
                },
                status = self.child.wait(), if self.status.is_none() => {
                    // Only a second wait fails, and there is none.
                    self.status = Some(status.unwrap_or_default());
                    self.deadline = Some(Instant::now() + DRAIN);
                }
                () = asked(&mut self.interrupted), if self.works() => return Next::Interrupted,
                changed = self.waits.changed(), if self.waits.has_changed().is_ok() => {
                    self.heard = Instant::now();
                    if changed.is_err() {
                        self.waits = watch::channel(false).1;
                    }
                }
                () = at(due) => if let Some(next) = self.elapsed(limit) {
                    return next;
                },
            }
        }
    }

    /// When something is due that does not come by itself.
    fn due(&self, limit: Option<Instant>) -> Option<Instant> {
        let silent = || (!*self.waits.borrow()).then(|| self.heard + self.silence);
        self.deadline.or(limit).or_else(silent)
    }

    /// Takes the next step against a program that does not end. Returns what the driver is to know of it.
    fn elapsed(&mut self, limit: Option<Instant>) -> Option<Next> {
        if self.due(limit).is_none_or(|due| due > Instant::now()) {
            return None;
        }
        if self.status.is_some() {
            return Some(Next::Gone);
        }
        match self.stage {
            Stage::Works => return Some(Next::Due),
            Stage::Ends => self.terminate(),
            Stage::Terminated => {
                self.child.kill();
                self.enter(Stage::Killed, AFTER_KILL);
            }
            // Not even that is quick on a machine that has stalled; dropping it goes on with it.
            Stage::Killed => return Some(Next::Gone),
        }
        None
    }

    fn enter(&mut self, stage: Stage, time: Duration) {
        self.stage = stage;
        self.deadline = Some(Instant::now() + time);
    }

    /// It was told to end, and has this long for that.
    pub(super) fn is_to_end(&mut self, within: Duration) {
        self.enter(Stage::Ends, within);
    }

    /// Asks it to end the turn, as a person at a keyboard would.
    pub(super) fn interrupt(&mut self) {
        self.child.signal(Signal::INT);
        self.is_to_end(AFTER_INTERRUPT);
    }

    /// Asks it to end at once.
    pub(super) fn terminate(&mut self) {
        self.child.signal(Signal::TERM);
        self.enter(Stage::Terminated, AFTER_TERMINATE);
    }

    /// Whether nothing was done yet to end it. It may be gone.
    pub(super) fn works(&self) -> bool {
        self.stage == Stage::Works
    }

    /// Whether it did not end by itself: SIGTERM was sent, or SIGKILL.
    pub(super) fn was_stopped(&self) -> bool {
        matches!(self.stage, Stage::Terminated | Stage::Killed)
    }

    /// When it last gave a sign of life.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// How it ended; absent while it runs.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// The last of what it wrote to its standard error, once it is gone.
    pub(super) async fn last_words(&mut self) -> String {
        // What it left behind may hold the pipe open.
        match tokio::time::timeout(DRAIN, &mut self.errors).await {
            Ok(Ok(text)) => text,
            Ok(Err(_)) | Err(_) => String::new(),
        }
    }

    /// It is gone, and what it left running too if that is to be swept away. `home` has the note of the turn.
    pub(super) async fn finish(mut self, home: Utf8PathBuf, sweep: bool) -> Result<(), RunError> {
        let turn = self.turn;
        blocking(move || {
            if sweep {
                running::sweep(turn);
            }
            running::clear(&home);
        })
        .await?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.errors.abort();
        self.input.abort();
        // The turn was given up: what it started in sessions of their own would go on until there is another turn.
        // Without a runtime the whole harness is ending, and the next one sees to it.
        if !self.finished
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let turn = self.turn;
            runtime.spawn_blocking(move || running::sweep(turn));
        }
    }
}

/// A line of a program's output as `parse` understands it, or what is wrong with it as `garbage` does; nothing of an
/// empty one.
pub(super) fn understood<T>(
    piece: Piece,
    parse: impl FnOnce(&[u8]) -> T,
    garbage: impl FnOnce(String) -> T,
) -> Option<T> {
    match piece {
        Piece::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => None,
        Piece::Whole(line) => Some(parse(&line)),
        Piece::Cut(head) => Some(garbage(format!(
            "a line that is too long: {}",
            crate::tame(&String::from_utf8_lossy(&head), 100)
        ))),
    }
}

/// Returns when it is true; never when nobody can make it so any more.
async fn asked(interrupted: &mut watch::Receiver<bool>) {
    if interrupted.wait_for(|interrupted| *interrupted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Returns at a point in time, if there is one.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
