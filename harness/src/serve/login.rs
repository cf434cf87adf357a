//! A login that the operator asked for, while it is under way.

use std::sync::Arc;
use std::time::Duration;

use shared::LoginId;
use shared::config::AgentConfig;
use shared::login::{LoginCode, LoginOrder, LoginPhase, LoginState};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Note;
use crate::driver::Driver;

/// How long the operator may take.
const LONGEST: Duration = Duration::from_mins(10);

/// The login that was last asked for.
pub(super) struct Logins {
    notes: mpsc::UnboundedSender<Note>,
    current: Option<Current>,
}

struct Current {
    state: LoginState,
    /// Where its code goes.
    code: Option<oneshot::Sender<LoginCode>>,
    task: JoinHandle<()>,
}

impl Drop for Current {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Logins {
    /// None yet; what becomes of one is noted.
    pub(super) fn new(notes: mpsc::UnboundedSender<Note>) -> Self {
        Self { notes, current: None }
    }

    /// How it stands.
    pub(super) fn state(&self) -> Option<LoginState> {
        self.current.as_ref().map(|current| current.state.clone())
    }

    /// Does what is asked. An order that is asked again changes nothing.
    pub(super) fn heed(&mut self, order: LoginOrder, driver: Option<(Arc<dyn Driver>, Arc<AgentConfig>)>) {
        let LoginOrder { id, code } = order;
        if self.current.as_ref().is_none_or(|current| current.state.id != id) {
            self.current = Some(self.begin(id, driver));
        }
        if let (Some(current), Some(code)) = (&mut self.current, code)
            && current.state.phase == LoginPhase::WaitingForCode
            && let Some(sender) = current.code.take()
        {
            current.state.phase = LoginPhase::Checking;
            if sender.send(code).is_err() {
                tracing::debug!(%id, "the login ended before its code came");
            }
        }
    }

    /// Takes in what became of a login. Says whether there is a new one.
    pub(super) fn told(&mut self, state: LoginState) -> bool {
        let done = state.phase == LoginPhase::Done;
        match &mut self.current {
            Some(current) if current.state.id == state.id => current.state = state,
            Some(_) | None => return false,
        }
        done
    }

    fn begin(&self, id: LoginId, driver: Option<(Arc<dyn Driver>, Arc<AgentConfig>)>) -> Current {
        let state = move |phase| LoginState {
            id,
            phase,
            url: None,
            error: None,
        };
        let notes = self.notes.clone();
        let tell = move |state: LoginState| {
            if notes.send(Note::LogsIn(state)).is_err() {
                tracing::debug!("the loop has ended before a login");
            }
        };
        let (code, code_comes) = oneshot::channel();
        let (found, address) = oneshot::channel();
        let task = tokio::spawn(async move {
            let Some((driver, config)) = driver else {
                let error = Some("the harness has no config yet".to_owned());
                return tell(LoginState {
                    error,
                    ..state(LoginPhase::Failed)
                });
            };
            let waits = async {
                // Without an address nobody is asked for a code.
                if let Ok(url) = address.await {
                    let url = Some(url);
                    tell(LoginState {
                        url,
                        ..state(LoginPhase::WaitingForCode)
                    });
                }
                std::future::pending().await
            };
            let ends = tokio::time::timeout(LONGEST, driver.log_in(config, found, code_comes));
            let ended = tokio::select! {
                ended = ends => ended,
                never = waits => never,
            };
            let outcome = ended.unwrap_or_else(|_| {
                Err(format!(
                    "there was no login within {} minutes",
                    LONGEST.as_secs() / 60
                ))
            });
            tell(match outcome {
                Ok(()) => state(LoginPhase::Done),
                Err(error) => LoginState {
                    error: Some(error),
                    ..state(LoginPhase::Failed)
                },
            });
        });
        Current {
            state: state(LoginPhase::Starting),
            code: Some(code),
            task,
        }
    }
}
