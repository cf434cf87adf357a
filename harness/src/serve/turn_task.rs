//! One turn from its first lease to its last.

use std::sync::Arc;
use std::time::Duration;

use shared::TurnId;
use shared::agent_api::{AckRequest, RecvResponse};
use shared::config::AgentConfig;
use tokio::sync::{mpsc, watch};

use super::Note;
use crate::driver::{Driver, RunningTurn, TurnEnd, TurnEvent, TurnProgress, TurnSpec};
use crate::host_client::HostClient;
use crate::host_client::retry::until_answered;
use crate::turn::{Event, Interruption, Outcome};

/// How long a driver may take to end once it was asked to.
const INTERRUPT_TIME: Duration = Duration::from_secs(2);

/// What a turn needs.
pub(super) struct TurnTask {
    pub(super) id: TurnId,
    pub(super) client: Arc<HostClient>,
    pub(super) driver: Arc<dyn Driver>,
    pub(super) config: Arc<AgentConfig>,
    pub(super) notes: mpsc::UnboundedSender<Note>,
    /// The lease that the daemon was told of.
    pub(super) told_lease: watch::Receiver<Option<TurnId>>,
    /// Tells when, and why, the turn is to be cut short.
    pub(super) interrupted: watch::Receiver<Option<Interruption>>,
}

impl TurnTask {
    /// Runs the turn and tells the loop how it goes.
    pub(super) async fn run(mut self) {
        let turn = self.id;
        let outcome = self.turn(turn).await;
        match &outcome {
            Outcome::Nothing => tracing::debug!(%turn, "no messages"),
            Outcome::Completed => tracing::info!(%turn, "turn completed"),
            Outcome::Interrupted => tracing::warn!(%turn, "turn interrupted, its messages given back"),
            Outcome::Failed(error) => tracing::warn!(%turn, error, "turn failed, its messages given back"),
            Outcome::Exit(status) => tracing::warn!(%turn, status, "the driver ends the harness"),
        }
        self.tell(Event::TurnEnded(outcome));
    }

    async fn turn(&mut self, turn: TurnId) -> Outcome {
        // A daemon that hears of this run for the first time gives back all leases but the reported one, so that one
        // must be reported before there is anything to give back.
        if self
            .told_lease
            .wait_for(|told| *told == Some(turn))
            .await
            .is_err()
        {
            return Outcome::Nothing;
        }
        let RecvResponse { batch, messages } = match self.client.recv(turn, 0).await {
            Ok(batch) => batch,
            Err(error) => {
                // The answer may have been lost after the daemon had leased.
                self.settle(AckRequest {
                    turn,
                    done: false,
                    received: Some(0),
                })
                .await;
                return Outcome::Failed(crate::error_chain(&error));
            }
        };
        if messages.is_empty() {
            return Outcome::Nothing;
        }
        tracing::info!(%turn, messages = messages.len(), "turn started");
        self.tell(Event::Leased);
        let spec = TurnSpec {
            turn,
            messages,
            config: Arc::clone(&self.config),
        };
        let running = self.driver.start_turn(spec).await;
        let end = self.watch(turn, running).await;
        if let TurnEnd::ExitHarness(status) = end {
            return Outcome::Exit(status);
        }
        self.tell(Event::DriverEnded);
        let done = end == TurnEnd::Completed;
        let ack = AckRequest {
            turn,
            done,
            received: Some(batch),
        };
        if !self.settle(ack).await {
            return Outcome::Failed("its end could not be told to the daemon".into());
        }
        match end {
            TurnEnd::Completed => Outcome::Completed,
            TurnEnd::Interrupted => Outcome::Interrupted,
            TurnEnd::Failed(error) => Outcome::Failed(error),
            TurnEnd::ExitHarness(status) => Outcome::Exit(status),
        }
    }

    /// Follows the driver to its end, and sees to it that there is one.
    async fn watch(&mut self, turn: TurnId, mut running: RunningTurn) -> TurnEnd {
        let why = loop {
            tokio::select! {
                progress = running.next() => match progress {
                    TurnProgress::Event(TurnEvent::Notice(text)) => tracing::info!(%turn, text, "notice"),
                    TurnProgress::End(end) => return end,
                },
                why = interruption(&mut self.interrupted) => break why,
            }
        };
        running.interrupt();
        let ended = async {
            loop {
                if let TurnProgress::End(end) = running.next().await {
                    break end;
                }
            }
        };
        let end = tokio::time::timeout(INTERRUPT_TIME, ended)
            .await
            .unwrap_or(TurnEnd::Interrupted);
        match (end, why) {
            // It came to its end while it was being interrupted.
            (TurnEnd::Completed, _) => TurnEnd::Completed,
            (_, Interruption::Hung) => {
                TurnEnd::Failed(format!("hung: longer than {} min", self.config.max_turn_minutes))
            }
            (end, Interruption::Stop) => end,
        }
    }

    /// Acknowledges the leases or gives them back, however long the daemon is away. Returns whether it took them.
    async fn settle(&self, ack: AckRequest) -> bool {
        match until_answered(|| self.client.ack(&ack)).await {
            Ok(()) => true,
            Err(error) => {
                let error = crate::error_chain(&error);
                tracing::warn!(turn = %ack.turn, done = ack.done, error, "leases not settled");
                false
            }
        }
    }

    fn tell(&self, event: Event) {
        if self.notes.send(Note::Turn(event)).is_err() {
            tracing::debug!("the loop has ended before the turn");
        }
    }
}

/// Waits for an interruption; for ever when nobody can send one any more.
async fn interruption(interrupted: &mut watch::Receiver<Option<Interruption>>) -> Interruption {
    let why = match interrupted.wait_for(Option::is_some).await {
        Ok(why) => *why,
        Err(_) => None,
    };
    match why {
        Some(why) => why,
        None => std::future::pending().await,
    }
}
