//! The `claude` driver: Claude Code, one process for each turn.
//!
//! ```text
//!  command, servers, session --> run --lines--> parse --> story --> TurnEvents
//!  (what to start)               |  (touches the process of a turn)          \--> TurnEnd
//!                                +-- SIGINT, SIGTERM, SIGKILL, then what the turn left behind
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
pub(super) mod session;
mod story;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use shared::config::AgentConfig;
use shared::login::LoginCode;
use shared::spec::DriverSpec;
use shared::turn::TurnResult;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Capabilities, Driver, Failure, RunningTurn, TurnEnd, TurnEvent, TurnSpec, running};
use crate::children::Children;
use crate::notes;
use crate::secrets::Secrets;
use crate::turn::Purpose;

pub use command::PASSED_ON;
pub use servers::OwnServer;

use session::Session;
use story::Verdict;

/// How often a turn is begun: once more when the conversation is not there, once more when it is there already.
const ATTEMPTS: usize = 3;

/// What the driver needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program; else `claude` is looked for in the search path.
    pub program: Option<Utf8PathBuf>,
    /// What is passed on to it, of [`PASSED_ON`].
    pub environment: BTreeMap<String, OsString>,
    /// Where the agent's secrets are.
    pub secrets: Secrets,
    /// How the hive's own MCP server is started.
    pub own_server: OwnServer,
    /// How long it may say nothing, unless the agent waits for messages. Longer than any tool of its own may take.
    pub silence: Duration,
    /// How long it may go on after a result.
    pub grace: Duration,
}

/// Runs turns with Claude Code.
#[derive(Debug, Clone)]
pub struct Claude {
    setup: Arc<Setup>,
}

/// What every turn needs.
#[derive(Debug)]
struct Setup {
    settings: Settings,
    state: Utf8PathBuf,
    children: Children,
}

impl Claude {
    /// A driver that keeps everything of its own in `state`.
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
impl Driver for Claude {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            can_compact: true,
            reports_cost: true,
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
                tidy: false,
            };
            turn.run().await.unwrap_or_else(|error| {
                TurnEnd::Failed(Failure::new(TurnResult::Crashed, crate::error_chain(&error)))
            })
        })
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

/// One turn.
struct Turn {
    setup: Arc<Setup>,
    spec: TurnSpec,
    events: mpsc::Sender<TurnEvent>,
    interrupted: watch::Receiver<bool>,
    /// Whether the agent is asked to tidy its notes up.
    tidy: bool,
}

impl Turn {
    async fn run(&mut self) -> Result<TurnEnd, run::RunError> {
        let mut session = self.load().await?;
        if self.spec.purpose == Purpose::Compaction && !session.began {
            return Ok(TurnEnd::Completed);
        }
        let asked = self.look_at_notes(session.notes_asked).await;
        for _ in 0..ATTEMPTS {
            match run::run(self, &mut session).await? {
                Verdict::Over(end) => {
                    if end == TurnEnd::Completed {
                        session.turns = session.turns.saturating_add(1);
                        session.notes_asked = asked;
                        self.keep(&session).await?;
                    }
                    return Ok(end);
                }
                Verdict::Unknown(said) => {
                    let (id, turns) = (session.id, session.turns);
                    if turns > 0 {
                        self.tell(TurnEvent::Alarm(format!(
                            "the conversation {id} of {turns} turns is lost, a new one begins: {said}"
                        )))
                        .await;
                    } else {
                        // None of its turns ended well: there is nothing in it to be missed.
                        self.tell(TurnEvent::Notice("a new conversation begins".to_owned()))
                            .await;
                    }
                    session = Session::new(session.number);
                    if self.spec.purpose == Purpose::Compaction {
                        self.keep(&session).await?;
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

    /// Sees whether the agent is to be asked to tidy its notes up, and gives what to remember of that once it was.
    async fn look_at_notes(&mut self, asked: u64) -> u64 {
        if self.spec.purpose != Purpose::Messages {
            return asked;
        }
        let Some(size) = notes::size(self.setup.state.clone()).await else {
            return asked;
        };
        let (tidy, asked) = notes::to_tidy(asked, size);
        self.tidy = tidy;
        if tidy {
            let text = format!("its notes take {size} bytes: it is asked to tidy them up");
            self.tell(TurnEvent::Notice(text)).await;
        }
        asked
    }

    async fn load(&self) -> Result<Session, run::RunError> {
        let (state, number) = (self.setup.state.clone(), self.spec.conversation);
        let session = run::blocking(move || session::load(&state, number)).await??;
        Ok(session)
    }

    async fn keep(&self, session: &Session) -> Result<(), run::RunError> {
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
/// When there is none; the text says where it was looked for and what to do.
fn find(settings: &Settings) -> Result<Utf8PathBuf, String> {
    let after = "then restart the agent";
    if let Some(program) = &settings.program {
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

/// Whether this is a file that can be run.
pub(super) fn is_program(path: &Utf8Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests;
