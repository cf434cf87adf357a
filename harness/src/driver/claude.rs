//! The `claude` driver: Claude Code, one process for each turn.
//!
//! ```text
//!  command, servers, session --> run --lines--> parse --> story --> TurnEvents
//!  (what to start)               |                                           \--> TurnEnd
//!                                +-- process: SIGINT, SIGTERM, SIGKILL; then what the turn left behind
//! ```
//!
//! The program fetches its messages itself, with the tool `recv` of the hive's own MCP server, which is started for each
//! turn as `hive-harness mcp … --turn ID`. What was measured about the program, and is relied on here: a result decides
//! how a turn went, not the exit status; there may be several results; costs are those of the conversation unless they
//! are taken from `model_usage_since_last_result`; two processes with one conversation lose messages.

pub(super) mod command;
mod login;
mod parse;
mod run;
mod servers;
mod session;
mod story;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use shared::config::AgentConfig;
use shared::login::LoginCode;
use shared::spec::DriverSpec;
use shared::turn::TurnResult;
use tokio::sync::oneshot;

use super::conversation::Conversation as _;
use super::program::{RunError, Settings, Setup, Turn, is_program};
use super::{Driver, Failure, RunningTurn, TurnEnd, TurnEvent, TurnSpec, running};
use crate::notes;
use crate::turn::Purpose;

pub use command::PASSED_ON;

use session::Session;
use story::Verdict;

/// How often a turn is begun: once more when the conversation is not there, once more when it is there already.
const ATTEMPTS: usize = 3;

/// Runs turns with Claude Code.
#[derive(Debug, Clone)]
pub struct Claude {
    setup: Arc<Setup>,
}

impl Claude {
    /// A driver with this setup.
    pub fn new(setup: Arc<Setup>) -> Self {
        Self { setup }
    }
}

#[async_trait]
impl Driver for Claude {
    fn fetches_messages(&self) -> bool {
        true
    }

    async fn start_turn(&self, turn: TurnSpec) -> RunningTurn {
        self.setup.start_turn(turn, take_turn)
    }

    fn prepare(&self, _driver: &DriverSpec) -> Option<String> {
        running::end_stray(&command::home(&self.setup.state));
        find(&self.setup.settings).err()
    }

    async fn log_in(
        &self,
        config: Arc<AgentConfig>,
        address: oneshot::Sender<String>,
        code: oneshot::Receiver<LoginCode>,
    ) -> Result<(), String> {
        let outcome = login::run(Arc::clone(&self.setup), &config, address, code).await;
        outcome.map_err(|error| crate::tame(&crate::error_chain(&error), 2000))
    }

    fn login(&self) -> u64 {
        let file = command::home(&self.setup.state).join(".credentials.json");
        let mut hasher = DefaultHasher::new();
        if let Ok(metadata) = std::fs::metadata(file) {
            (metadata.len(), metadata.modified().ok()).hash(&mut hasher);
        }
        hasher.finish()
    }
}

async fn take_turn(turn: Turn) -> Result<TurnEnd, RunError> {
    let mut session: Session = turn.load().await?;
    let purpose = turn.spec.purpose;
    if purpose == Purpose::Compaction && !session.began {
        return Ok(TurnEnd::Completed);
    }
    let (tidy, asked) = look_at_notes(&turn, session.notes_asked).await;
    let prompt = command::prompt(purpose, tidy);
    for _ in 0..ATTEMPTS {
        match run::run(&turn, prompt, &mut session).await? {
            Verdict::Over(end) => {
                if end == TurnEnd::Completed {
                    session.turns = session.turns.saturating_add(1);
                    session.notes_asked = asked;
                    turn.keep(&session).await?;
                }
                return Ok(end);
            }
            Verdict::Unknown(said) => {
                let (id, turns) = (session.id, session.turns);
                turn.tell(if turns > 0 {
                    TurnEvent::Alarm(format!(
                        "the conversation {id} of {turns} turns is lost, a new one begins: {said}"
                    ))
                } else {
                    // None of its turns ended well: there is nothing in it to be missed.
                    TurnEvent::Notice("a new conversation begins".to_owned())
                })
                .await;
                session = Session::new(session.number);
                if purpose == Purpose::Compaction {
                    turn.keep(&session).await?;
                    return Ok(TurnEnd::Completed);
                }
            }
            Verdict::InUse => session.began = true,
        }
    }
    Ok(TurnEnd::Failed(Failure::new(
        TurnResult::Crashed,
        "the driver neither finds nor begins a conversation: begin a new one",
    )))
}

/// Whether the agent is to be asked to tidy its notes up, and what to remember of that once it was.
async fn look_at_notes(turn: &Turn, asked: u64) -> (bool, u64) {
    if turn.spec.purpose != Purpose::Messages {
        return (false, asked);
    }
    let Some(size) = notes::size(turn.setup.state.clone()).await else {
        return (false, asked);
    };
    let (tidy, asked) = notes::to_tidy(asked, size);
    if tidy {
        let text = format!("its notes take {size} bytes: it is asked to tidy them up");
        turn.tell(TurnEvent::Notice(text)).await;
    }
    (tidy, asked)
}

/// The program.
///
/// # Errors
/// When there is none; the text says where it was looked for and what to do.
fn find(settings: &Settings) -> Result<Utf8PathBuf, String> {
    let after = "then restart the agent";
    if let Some(program) = &settings.claude {
        return if is_program(program) {
            Ok(program.clone())
        } else {
            Err(format!(
                "the driver's program {program} is not there, or cannot be run: correct programs.claude in the spec (by \
                 hand --claude or HIVE_CLAUDE), {after}"
            ))
        };
    }
    let path = settings.environment.get("PATH").cloned().unwrap_or_default();
    std::env::split_paths(&path)
        .filter_map(|folder| Utf8PathBuf::from_path_buf(folder.join("claude")).ok())
        .find(|program| program.is_absolute() && is_program(program))
        .ok_or_else(|| {
            format!(
                "driver.kind is `claude`, and there is no program `claude` in {}: install Claude Code there, or name it \
                 as programs.claude in the spec (by hand with --claude or HIVE_CLAUDE), {after}",
                path.to_string_lossy()
            )
        })
}

#[cfg(test)]
mod tests;
