//! The `acp` driver: any program that speaks the Agent Client Protocol, one process for each turn.
//!
//! ```text
//!  plan (what to say) --> talk <--lines--> wire      (all pure)
//!                          |  permit: what the agent may do when its program asks
//!                          v
//!                         run (with the process of a turn) --> TurnEvents, TurnEnd
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
use camino::Utf8Path;
use shared::spec::DriverSpec;
use shared::turn::TurnResult;

use super::conversation::Conversation as _;
use super::program::{RunError, Setup, Turn, is_program};
use super::{Driver, Failure, RunningTurn, TurnEnd, TurnEvent, TurnSpec, running};
use crate::turn::Purpose;
use session::Session;
use talk::Ending;

/// Runs turns with a program that speaks the protocol.
#[derive(Debug, Clone)]
pub struct Acp {
    setup: Arc<Setup>,
}

impl Acp {
    /// A driver with this setup. Of its settings all but the program of Claude Code hold here too: an agent that is moved
    /// from one driver to the other finds the same login.
    pub fn new(setup: Arc<Setup>) -> Self {
        Self { setup }
    }
}

#[async_trait]
impl Driver for Acp {
    fn fetches_messages(&self) -> bool {
        true
    }

    async fn start_turn(&self, turn: TurnSpec) -> RunningTurn {
        self.setup.start_turn(turn, take_turn)
    }

    fn prepare(&self, driver: &DriverSpec) -> Option<String> {
        running::end_stray(&session::home(&self.setup.state));
        program(driver).err()
    }
}

async fn take_turn(turn: Turn) -> Result<TurnEnd, RunError> {
    let mut session: Session = turn.load().await?;
    if turn.spec.purpose == Purpose::Compaction {
        return give_up(&turn, session).await;
    }
    // Once more when the conversation is not there.
    for _ in 0..2 {
        match run::run(&turn, &mut session).await? {
            Ending::Over(end) => {
                if end == TurnEnd::Completed {
                    session.turns = session.turns.saturating_add(1);
                    turn.keep(&session).await?;
                }
                return Ok(end);
            }
            Ending::Lost(said) => {
                let (id, turns) = (session.id.unwrap_or_default(), session.turns);
                turn.tell(TurnEvent::Alarm(format!(
                    "the conversation {id} of {turns} turns is lost, a new one begins: {said}"
                )))
                .await;
                session = Session::new(session.number);
            }
        }
    }
    Ok(TurnEnd::Failed(Failure::new(
        TurnResult::Crashed,
        "the agent's program neither finds nor begins a conversation: begin a new one",
    )))
}

/// The protocol has no word for shortening a conversation.
async fn give_up(turn: &Turn, session: Session) -> Result<TurnEnd, RunError> {
    if let Some(id) = session.id {
        let text = format!("the conversation {id} is full: the next turn begins a new one");
        turn.tell(TurnEvent::Notice(text)).await;
        turn.keep(&Session::new(session.number)).await?;
    }
    Ok(TurnEnd::Completed)
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
