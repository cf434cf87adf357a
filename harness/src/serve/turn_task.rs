//! One turn from its first lease to its last.
//!
//! A driver that does not fetch messages gets them leased before it starts. One that does lets its agent fetch them, and
//! what came in by the end is what is acknowledged. A turn that shortens the conversation has no messages at all.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use shared::TurnId;
use shared::agent_api::{AckRequest, MAX_BATCH, Message, RecvRequest, RecvResponse};
use shared::budget::TurnLimits;
use shared::config::AgentConfig;
use shared::turn::{TurnResult, TurnStats};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Note;
use super::latest::Signals;
use super::meter::{self, Meter};
use super::tally::{self, Tally};
use crate::driver::tools::Offered;
use crate::driver::{Driver, Failure, RunningTurn, TurnEnd, TurnEvent, TurnProgress, TurnSpec};
use crate::events::{Feed, Told};
use crate::host_client::HostClient;
use crate::host_client::retry::{until_answered, until_taken};
use crate::turn::{Event, Interruption, Outcome, Purpose, Refusal};

/// How long a driver may take to end once it was asked to.
const INTERRUPT_TIME: Duration = Duration::from_secs(2);
/// How long the end of a turn waits until the daemon has heard what it was. It is told later in any case.
const TELL_TIME: Duration = Duration::from_secs(1);

/// What a turn needs.
pub(super) struct TurnTask {
    pub(super) id: TurnId,
    pub(super) purpose: Purpose,
    pub(super) conversation: Option<u64>,
    /// What the declared MCP servers are known to offer.
    pub(super) offered: Offered,
    pub(super) client: Arc<HostClient>,
    pub(super) driver: Arc<dyn Driver>,
    pub(super) config: Arc<AgentConfig>,
    pub(super) notes: mpsc::UnboundedSender<Note>,
    pub(super) feed: Feed,
    /// The agent's own folder.
    pub(super) state: Utf8PathBuf,
    /// The lease that the daemon was told of.
    pub(super) told_lease: watch::Receiver<Option<TurnId>>,
    pub(super) signals: Signals,
}

/// The messages of a turn.
enum Leases {
    /// It has none to settle.
    None,
    /// These, of this batch.
    Leased(Vec<Message>, u64),
    /// Whatever the agent fetches.
    Fetched,
}

impl Leases {
    /// The same, of which nobody has seen anything yet.
    fn unseen(&self) -> Self {
        match self {
            Self::Leased(messages, _) => Self::Leased(messages.clone(), 0),
            Self::None | Self::Fetched => Self::None,
        }
    }
}

/// Why a turn is cut short.
enum Cut {
    /// The loop wants it.
    Asked(Interruption),
    /// It has used what it may.
    Budget(String),
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
            Outcome::Refused { why, error } => {
                tracing::warn!(%turn, ?why, error, "turn refused, its messages given back");
            }
            Outcome::Exit(status) => tracing::warn!(%turn, status, "the driver ends the harness"),
        }
        self.tell(Event::TurnEnded(outcome));
    }

    async fn turn(&mut self, turn: TurnId) -> Outcome {
        let leases = match self.lease(turn).await {
            Ok(leases) => leases,
            Err(outcome) => return outcome,
        };
        let limits = match self.begin(turn).await {
            Ok(limits) => limits,
            Err(outcome) => {
                self.settle_turn(turn, &leases.unseen(), false).await;
                return outcome;
            }
        };
        let (messages, woken_by) = match &leases {
            Leases::None => (Vec::new(), vec!["compaction".to_owned()]),
            Leases::Leased(messages, _) => (messages.clone(), tally::woken_by(messages)),
            Leases::Fetched => (Vec::new(), Vec::new()),
        };
        tracing::info!(%turn, messages = messages.len(), purpose = ?self.purpose, "turn started");
        self.tell(Event::Leased);
        self.feed.tell(turn, Told::started(&woken_by));
        if !messages.is_empty() {
            self.tell(Event::TakenUp(messages.len()));
        }
        let mut tally = Tally::new(turn, crate::clock::now(), woken_by);
        let cost_limit_usd = limits.cost_usd;
        let mut meter = Meter::start(Arc::clone(&self.client), turn, limits);
        let begun = Instant::now();
        let spec = TurnSpec {
            turn,
            purpose: self.purpose,
            messages,
            config: Arc::clone(&self.config),
            offered: std::mem::take(&mut self.offered),
            conversation: self.conversation,
            cost_limit_usd,
            waits: self.signals.waits.clone(),
        };
        let running = self.driver.start_turn(spec).await;
        let end = self.watch(turn, running, &mut tally, &mut meter).await;
        drop(meter);
        self.feed.tell(turn, Told::ended(&end));
        if let TurnEnd::ExitHarness(status) = end {
            return Outcome::Exit(status);
        }
        if let Some((tokens, window)) = tally.context() {
            self.tell(Event::Context { tokens, window });
        }
        self.tell(Event::DriverEnded);
        let took = begun.elapsed();
        let settled = self.settle_turn(turn, &leases, end == TurnEnd::Completed).await;
        let stats = TurnStats {
            notes_bytes: crate::notes::size(self.state.clone()).await,
            ..tally.stats(&end, took)
        };
        self.tell_stats(stats).await;
        if settled {
            outcome(end)
        } else {
            Outcome::Failed("its end could not be told to the daemon".into())
        }
    }

    /// Leases messages where the driver wants that.
    async fn lease(&mut self, turn: TurnId) -> Result<Leases, Outcome> {
        if self.purpose == Purpose::Compaction {
            return Ok(Leases::None);
        }
        // A daemon that hears of this run for the first time gives back all leases but the reported one, so that one
        // must be reported before there is anything to give back.
        if self
            .told_lease
            .wait_for(|told| *told == Some(turn))
            .await
            .is_err()
        {
            return Err(Outcome::Nothing);
        }
        if self.driver.fetches_messages() {
            return Ok(Leases::Fetched);
        }
        let request = RecvRequest {
            turn,
            max: MAX_BATCH,
            wait_secs: 0,
            received: Some(0),
        };
        match self.client.recv(&request).await {
            Ok(RecvResponse { messages, .. }) if messages.is_empty() => Err(Outcome::Nothing),
            Ok(RecvResponse { batch, messages }) => Ok(Leases::Leased(messages, batch)),
            Err(error) => {
                // The answer may have been lost after the daemon had leased.
                self.settle(AckRequest {
                    turn,
                    done: false,
                    received: Some(0),
                })
                .await;
                Err(Outcome::Failed(crate::error_chain(&error)))
            }
        }
    }

    /// Tells the daemon that the turn begins: it counts from now on, whatever becomes of it. Gives what it may use.
    async fn begin(&self, turn: TurnId) -> Result<TurnLimits, Outcome> {
        let nothing = meter::nothing_of(turn);
        match until_taken(|| self.client.turn_uses(&nothing)).await {
            Ok(limits) if limits.over_budget => {
                tracing::info!(%turn, "over budget: no turn is begun");
                Err(Outcome::Nothing)
            }
            Ok(limits) => Ok(limits),
            Err(error) => Err(Outcome::Failed(crate::error_chain(&error))),
        }
    }

    /// Acknowledges what the turn had, or gives it back. Returns whether the daemon took that.
    async fn settle_turn(&self, turn: TurnId, leases: &Leases, completed: bool) -> bool {
        let received = match leases {
            Leases::None => return true,
            Leases::Leased(_, batch) => *batch,
            Leases::Fetched => *self.signals.received.borrow(),
        };
        self.settle(AckRequest {
            turn,
            // What came in without being seen goes back even so.
            done: completed && received > 0,
            received: Some(received),
        })
        .await
    }

    /// Follows the driver to its end, and sees to it that there is one.
    async fn watch(
        &mut self,
        turn: TurnId,
        mut running: RunningTurn,
        tally: &mut Tally,
        meter: &mut Meter,
    ) -> TurnEnd {
        let why = loop {
            tokio::select! {
                progress = running.next() => match progress {
                    TurnProgress::Event(event) => {
                        if let TurnEvent::Used(used) = &event {
                            meter.note(used);
                        }
                        self.note(turn, &event, tally);
                    }
                    TurnProgress::End(end) => return end,
                },
                why = self.signals.interrupted() => break Cut::Asked(why),
                why = meter.exceeded() => break Cut::Budget(why),
            }
        };
        running.interrupt();
        let ended = async {
            loop {
                match running.next().await {
                    TurnProgress::Event(event) => self.note(turn, &event, tally),
                    TurnProgress::End(end) => break end,
                }
            }
        };
        let end = tokio::time::timeout(INTERRUPT_TIME, ended)
            .await
            .unwrap_or(TurnEnd::Interrupted);
        match (end, why) {
            // It came to its end while it was being interrupted.
            (TurnEnd::Completed, _) => TurnEnd::Completed,
            (_, Cut::Budget(why)) => TurnEnd::Failed(Failure::new(TurnResult::LimitReached, why)),
            (_, Cut::Asked(Interruption::Hung)) => TurnEnd::Failed(Failure::new(
                TurnResult::Hung,
                format!("hung: longer than {} min", self.config.max_turn_minutes),
            )),
            (end, Cut::Asked(Interruption::Stop | Interruption::Cancelled)) => end,
        }
    }

    fn note(&self, turn: TurnId, event: &TurnEvent, tally: &mut Tally) {
        tally.note(event);
        if let Some(told) = Told::of(event) {
            self.feed.tell(turn, told);
        }
        match event {
            TurnEvent::Notice(text) => tracing::info!(%turn, text, "notice"),
            TurnEvent::Alarm(text) => tracing::error!(%turn, text, "alarm"),
            TurnEvent::Compacting(compacting) => self.tell(Event::Compacting(*compacting)),
            TurnEvent::Retry { attempt, error } => {
                tracing::info!(%turn, attempt, error, "the provider is asked again");
            }
            TurnEvent::Unknown(kind) => tracing::debug!(%turn, kind, "event not known"),
            TurnEvent::Servers(servers) => self.send(Note::Servers(servers.clone())),
            TurnEvent::Session(_)
            | TurnEvent::Model(_)
            | TurnEvent::Text(_)
            | TurnEvent::ToolCall { .. }
            | TurnEvent::ToolResult { .. }
            | TurnEvent::Used(_) => {}
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

    /// Logs what the turn was, and tells the daemon, which may be away for a while.
    async fn tell_stats(&self, stats: TurnStats) {
        tracing::info!(
            turn = %stats.turn,
            result = stats.result.as_str(),
            model = stats.model,
            tokens = stats.tokens.total(),
            context = stats.context,
            cost_usd = stats.cost_usd,
            ms = stats.duration_ms,
            error = stats.error,
            "turn over"
        );
        let client = Arc::clone(&self.client);
        let telling = tokio::spawn(async move {
            if let Err(error) = until_taken(|| client.turn_ended(&stats)).await {
                tracing::warn!(turn = %stats.turn, error = crate::error_chain(&error), "what it was is not told");
            }
        });
        if tokio::time::timeout(TELL_TIME, telling).await.is_err() {
            tracing::debug!("what the turn was is told later");
        }
    }

    fn tell(&self, event: Event) {
        self.send(Note::Turn(event));
    }

    fn send(&self, note: Note) {
        if self.notes.send(note).is_err() {
            tracing::debug!("the loop has ended before the turn");
        }
    }
}

/// What a turn's end means for the turns after it.
fn outcome(end: TurnEnd) -> Outcome {
    let Failure { result, error, pause } = match end {
        TurnEnd::Completed => return Outcome::Completed,
        TurnEnd::Interrupted => return Outcome::Interrupted,
        TurnEnd::ExitHarness(status) => return Outcome::Exit(status),
        TurnEnd::Failed(failure) => failure,
    };
    let why = match result {
        TurnResult::Auth => Refusal::Login,
        TurnResult::RateLimited => Refusal::RateLimited(pause),
        TurnResult::Overloaded => Refusal::Overloaded,
        TurnResult::Billing => Refusal::Billing,
        TurnResult::ContextFull => Refusal::ContextFull,
        TurnResult::Ok
        | TurnResult::Interrupted
        | TurnResult::LimitReached
        | TurnResult::OutOfMemory
        | TurnResult::Crashed
        | TurnResult::Hung
        | TurnResult::Unknown => {
            return Outcome::Failed(format!("{}: {error}", result.as_str()));
        }
    };
    Outcome::Refused {
        why,
        error: format!("{}: {error}", result.as_str()),
    }
}
