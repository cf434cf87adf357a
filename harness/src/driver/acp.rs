//! The `acp` driver: any program that speaks the Agent Client Protocol, one process for each turn.
//!
//! ```text
//!  plan (what to say) --> talk <--lines--> wire      (all pure)
//!                          |  permit: what the agent may do when its program asks
//!                          v
//!                         run (the only part that touches a process) --> TurnEvents, TurnEnd
//! ```
//!
//! As with Claude Code the agent fetches its messages itself. The protocol tells less: nothing of its MCP servers, no cost
//! that programs agree on, no time at which a limit ends, no shortening of a conversation. A conversation that is full is
//! given up for a new one.

mod permit;
mod plan;
mod run;
mod session;
mod talk;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use shared::spec::DriverSpec;
use shared::turn::TurnResult;
use tokio::sync::{mpsc, watch};

use super::claude::{Settings, is_program};
use super::{Capabilities, Driver, Failure, RunningTurn, TurnEnd, TurnEvent, TurnSpec, running};
use crate::children::Children;
use crate::turn::Purpose;
use run::RunError;
use session::Session;
use talk::Ending;

/// Runs turns with a program that speaks the protocol.
#[derive(Debug, Clone)]
pub struct Acp {
    setup: Arc<Setup>,
}

/// What every turn needs.
#[derive(Debug)]
struct Setup {
    settings: Settings,
    state: Utf8PathBuf,
    children: Children,
}

impl Acp {
    /// A driver that keeps everything of its own in `state`. Of the settings of Claude Code all but the program hold here
    /// too: an agent that is moved from one driver to the other finds the same login.
    pub fn new(settings: Settings, state: Utf8PathBuf, children: Children) -> Self {
        Self {
            setup: Arc::new(Setup {
                settings,
                state,
                children,
            }),
        }
    }
}

#[async_trait]
impl Driver for Acp {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            can_compact: false,
            reports_cost: false,
            streams_text: true,
            per_command_allow_list: true,
            survives_interrupt: true,
            fetches_messages: true,
        }
    }

    async fn start_turn(&self, turn: TurnSpec) -> RunningTurn {
        let setup = Arc::clone(&self.setup);
        RunningTurn::spawn(|events, interrupted| async move {
            let mut turn = Turn {
                setup,
                spec: turn,
                events,
                interrupted,
            };
            turn.run().await.unwrap_or_else(|error| {
                TurnEnd::Failed(Failure::new(TurnResult::Crashed, crate::error_chain(&error)))
            })
        })
    }

    fn prepare(&self, driver: &DriverSpec) -> Option<String> {
        running::end_stray(&session::home(&self.setup.state));
        program(driver).err()
    }
}

/// One turn.
struct Turn {
    setup: Arc<Setup>,
    spec: TurnSpec,
    events: mpsc::Sender<TurnEvent>,
    interrupted: watch::Receiver<bool>,
}

impl Turn {
    async fn run(&mut self) -> Result<TurnEnd, RunError> {
        let mut session = self.load().await?;
        if self.spec.purpose == Purpose::Compaction {
            return self.give_up(session).await;
        }
        // Once more when the conversation is not there.
        for _ in 0..2 {
            match run::run(self, &mut session).await? {
                Ending::Over(end) => {
                    if end == TurnEnd::Completed {
                        session.turns = session.turns.saturating_add(1);
                        self.keep(&session).await?;
                    }
                    return Ok(end);
                }
                Ending::Lost(said) => {
                    let (id, turns) = (session.id.unwrap_or_default(), session.turns);
                    self.tell(TurnEvent::Alarm(format!(
                        "the conversation {id} of {turns} turns is lost, a new one begins: {said}"
                    )))
                    .await;
                    session = Session::new(session.number);
                }
            }
        }
        Ok(TurnEnd::Failed(Failure::new(
            TurnResult::Crashed,
            "the agent's program neither finds nor begins a conversation",
        )))
    }

    /// The protocol has no word for shortening a conversation.
    async fn give_up(&self, session: Session) -> Result<TurnEnd, RunError> {
        if let Some(id) = session.id {
            let text = format!("the conversation {id} is full: the next turn begins a new one");
            self.tell(TurnEvent::Notice(text)).await;
            self.keep(&Session::new(session.number)).await?;
        }
        Ok(TurnEnd::Completed)
    }

    async fn load(&self) -> Result<Session, RunError> {
        let (state, number) = (self.setup.state.clone(), self.spec.conversation);
        let session = run::blocking(move || session::load(&state, number)).await??;
        Ok(session)
    }

    async fn keep(&self, session: &Session) -> Result<(), RunError> {
        let (state, session) = (self.setup.state.clone(), session.clone());
        run::blocking(move || session::save(&state, &session)).await??;
        Ok(())
    }

    async fn tell(&self, event: TurnEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("nobody listens to the turn any more");
        }
    }
}

/// The program.
///
/// # Errors
/// When there is none; the text says what to do.
fn program(driver: &DriverSpec) -> Result<&Utf8Path, String> {
    let Some(command) = driver.command.as_deref().map(Utf8Path::new) else {
        return Err(
            "driver.kind is `acp`, and driver.command is missing: name the program that speaks the protocol"
                .to_owned(),
        );
    };
    if is_program(command) {
        Ok(command)
    } else {
        let command = crate::tame(command.as_str(), 200);
        Err(format!(
            "driver.command {command} is not there, or cannot be run: add it to the agent's system, or correct it"
        ))
    }
}
