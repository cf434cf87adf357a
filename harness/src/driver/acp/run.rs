//! One run of the agent's program, from its start until nothing of it is left that should not be.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use shared::turn::TurnResult;
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio::sync::mpsc;

use super::permit::Permit;
use super::session::{self, Session};
use super::talk::{Ending, Plan, Talk};
use super::wire::{Heard, parse};
use super::{plan, program};
use crate::driver::lines::Piece;
use crate::driver::process::{AFTER_INTERRUPT, AFTER_TERMINATE, Next, Process, understood};
use crate::driver::program::{RunError, Turn, blocking};
use crate::driver::{Failure, TurnEnd, claude, running};

/// The most messages that wait for a program that does not read.
const MAX_OUTBOX: usize = 256;

/// Runs the program once. The conversation is kept as soon as it has begun.
///
/// # Errors
/// When it cannot be started; whatever happens later is an ending.
pub(super) async fn run(turn: &Turn, session: &mut Session) -> Result<Ending, RunError> {
    let mut run = start(turn, session).await?;
    run.follow(turn, session).await;
    let ending = match run.talk.ending.take() {
        Some(ending) => ending,
        None => Ending::Over(run.without_answer().await),
    };
    // What an agent left running in a turn that went well may be meant to go on.
    let sweep = run.process.was_stopped() || ending != Ending::Over(TurnEnd::Completed);
    run.process
        .finish(session::home(&turn.setup.state), sweep)
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

async fn start(turn: &Turn, session: &Session) -> Result<Run, RunError> {
    let (setup, spec) = (Arc::clone(&turn.setup), &turn.spec);
    let mut environment =
        claude::command::environment(&setup.settings.environment, &spec.config, &setup.state, spec.turn);
    environment.extend(setup.settings.ways.environment(&spec.config));
    let (driver, id) = (spec.config.driver.clone(), spec.turn);
    let config = Arc::clone(&spec.config);
    let (program, secrets) = blocking(move || {
        let secrets = setup.settings.secrets.variables(&config)?;
        let home = session::home(&setup.state);
        running::end_stray(&home);
        running::note(&home, id).map_err(RunError::Files)?;
        let program = program(&driver).map_err(RunError::Missing)?.to_owned();
        Ok::<_, RunError>((program, secrets))
    })
    .await??;
    environment.extend(secrets.environment());
    let (say, said) = mpsc::channel(MAX_OUTBOX);
    let args = &spec.config.driver.args;
    Ok(Run {
        process: turn.start(program, args, environment, |input| pass_on(said, input))?,
        talk: Talk::new(plan(turn, session)),
        say: Some(say),
        why: None,
    })
}

/// Writes what is said to the program, and closes its input when nothing more can be.
async fn pass_on(mut said: mpsc::Receiver<Value>, mut input: ChildStdin) {
    while let Some(message) = said.recv().await {
        // It may end without reading; that is told by its end.
        if let Err(error) = input.write_all(format!("{message}\n").as_bytes()).await {
            tracing::debug!(%error, "the agent's program does not take what it is told");
            return;
        }
    }
}

/// Why the program is stopped without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Interrupted,
    Silent(Duration),
    Deaf,
}

struct Run {
    process: Process,
    talk: Talk,
    /// Closes the input when it is dropped.
    say: Option<mpsc::Sender<Value>>,
    why: Option<Why>,
}

impl Run {
    /// Follows the program until it is gone.
    async fn follow(&mut self, turn: &Turn, session: &mut Session) {
        let settings = &turn.setup.settings;
        loop {
            self.post(settings.grace);
            match self.process.next(None).await {
                Next::Line(piece) => self.listen(piece, turn, session).await,
                Next::Interrupted => self.stop(Why::Interrupted),
                Next::Due => self.stop(Why::Silent(settings.silence)),
                Next::Gone => return,
            }
        }
    }

    /// Passes on what is to be said; closes the input when the talk is over.
    fn post(&mut self, grace: Duration) {
        for message in self.talk.take_outbox() {
            let full = match &self.say {
                Some(say) => matches!(say.try_send(message), Err(mpsc::error::TrySendError::Full(_))),
                None => false,
            };
            if full && self.process.works() {
                self.stop(Why::Deaf);
            }
        }
        let over = self.talk.ending.is_some() && self.say.take().is_some();
        // An answer that comes too late stops no signal.
        if over && self.process.status().is_none() && !self.process.was_stopped() {
            // One that was asked to end has no time left for its own affairs.
            self.process
                .is_to_end(self.why.map_or(grace, |_| AFTER_TERMINATE));
        }
    }

    fn stop(&mut self, why: Why) {
        self.why = Some(why);
        let asked = self.talk.cancel();
        self.process
            .is_to_end(if asked { AFTER_INTERRUPT } else { Duration::ZERO });
    }

    async fn listen(&mut self, piece: Piece, turn: &Turn, session: &mut Session) {
        let Some(heard) = understood(piece, parse, Heard::Garbage) else {
            return;
        };
        for event in self.talk.hear(heard) {
            turn.tell(event).await;
        }
        let told = &self.talk.session;
        if told.is_some() && *told != session.id {
            session.id.clone_from(told);
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

    /// The end of a turn whose prompt was never answered.
    async fn without_answer(&mut self) -> TurnEnd {
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
        let status = self.process.status().unwrap_or_default();
        let how = match (status.code(), status.signal()) {
            _ if self.process.was_stopped() => "was stopped".to_owned(),
            (Some(code), _) => format!("ended with status {code}"),
            (None, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
        };
        let mut error = format!("the agent's program {how} before the end of the turn");
        let words = self.process.last_words().await;
        if !words.is_empty() {
            error.push_str("; it wrote: ");
            error.push_str(&words);
        }
        failed(TurnResult::Crashed, error)
    }
}
