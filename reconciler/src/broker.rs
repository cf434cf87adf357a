//! Messages between agents, the operator and the daemon.
//!
//! A message is queued, leased to a turn, and acknowledged when that turn ends well. A turn that does not gives its
//! leases back, in their old order and marked as redelivered; what no turn gets past is dead, kept and reported.
//! Leases are rows of the ledger, so a restart of the daemon changes nothing for a turn that goes on.
//!
//! A question is a message with a row of its own, and ends once. A reminder becomes a message when it is due. Both are
//! ended and delivered by [`Broker::settle`], whose time [`Broker::next_deadline`] tells.

mod budgets;
mod deadlines;
mod facts;
pub mod instructions;
pub mod loose_ends;
mod mail;
pub mod questions;
pub mod reminders;
mod rights;
pub mod schedule;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;
use shared::agent_api::{MAX_BATCH, MAX_BODY_BYTES, MessageKind, SendResponse};
use shared::topic::Topic;
use shared::{Address, AgentName, TurnId};
use tokio::sync::{oneshot, watch};

use crate::ledger::leases::{self, Leases};
pub use crate::ledger::leases::{Ask, Batch};
use crate::ledger::messages::{self, NewMessage};
pub use crate::ledger::sent::Search;
use crate::ledger::{Ledger, LedgerError, Tx, TxError, Wakes, bounded};
pub use mail::{Broadcast, BroadcastError, MAX_SENT_LISTED, MessageError};
use questions::{Refusal, Terms};

/// The most messages that may wait for one recipient, leased ones included.
pub const MAX_INBOX: u64 = 1000;
/// The longest dedupe id, in characters.
pub const MAX_DEDUPE_CHARS: usize = 64;
/// After how many turns that failed over it a message is dead.
pub const MAX_DELIVERIES: u32 = 5;

/// A message was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Its text is too long.
    #[error(
        "the message to {to} has {bytes} bytes, {MAX_BODY_BYTES} at most are allowed: send a shorter one"
    )]
    TooLarge {
        /// The recipient.
        to: Address,
        /// Its length.
        bytes: usize,
    },
    /// Its dedupe id is too long or empty.
    #[error("the dedupe id {shown:?} must have 1 to {MAX_DEDUPE_CHARS} characters")]
    BadDedupe {
        /// The beginning of it.
        shown: String,
    },
    /// Nobody has that name.
    #[error("there is no {0} in this hive: ask for the agents' names, or write to operator")]
    UnknownRecipient(Address),
    /// The sender's allow-list does not have the recipient.
    #[error("{from} may not write to {to}")]
    Forbidden {
        /// The sender.
        from: Address,
        /// The recipient.
        to: Address,
    },
    /// The daemon only ever sends.
    #[error("nobody can write to system: write to operator")]
    ToSystem,
    /// Only the daemon sends messages of that kind.
    #[error("{from} cannot send a message of kind {kind:?}: use message, question or answer")]
    BadKind {
        /// The sender.
        from: Address,
        /// The kind.
        kind: MessageKind,
    },
    /// Nobody waits for an answer of one's own.
    #[error("{0} cannot ask itself: the answer would never come")]
    AskedItself(Address),
    /// The recipient has not taken up what it has.
    #[error("the inbox of {to} is full ({MAX_INBOX} undelivered messages): wait until it has taken some up")]
    InboxFull {
        /// The recipient.
        to: Address,
    },
    /// That cannot be done about this question.
    #[error(transparent)]
    Question(#[from] Refusal),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl TxError for SendError {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Self::Ledger(error) => Some(error),
            Self::TooLarge { .. }
            | Self::BadDedupe { .. }
            | Self::UnknownRecipient(_)
            | Self::Forbidden { .. }
            | Self::ToSystem
            | Self::BadKind { .. }
            | Self::AskedItself(_)
            | Self::InboxFull { .. }
            | Self::Question(_) => None,
        }
    }
}

/// Messages were not handed out.
#[derive(Debug, thiserror::Error)]
pub enum RecvError {
    /// Nobody would settle what it took.
    #[error(
        "turn {turn} of {agent} gets no messages: it has ended, or its harness has not reported it as its lease"
    )]
    NoSuchTurn {
        /// Whose.
        agent: AgentName,
        /// Which.
        turn: TurnId,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl TxError for RecvError {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Self::NoSuchTurn { .. } => None,
            Self::Ledger(error) => Some(error),
        }
    }
}

/// Knows which turns go on. A request of one that has ended, or whose harness has died, may still be on its way: what it
/// was given would be with nobody.
pub trait Turns: Debug + Send + Sync {
    /// Whether a turn of this agent may go on, as far as is known.
    fn goes_on(&self, agent: &AgentName, turn: TurnId) -> bool;
    /// A turn of this agent ends.
    fn end(&self, agent: &AgentName, turn: TurnId);
}

/// A message to be sent. Who sends it is stamped by the daemon, never read from a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The sender.
    pub from: Address,
    /// The recipient.
    pub to: Address,
    /// What kind.
    pub kind: MessageKind,
    /// What it is about; given with [`MessageKind::System`] alone.
    pub topic: Option<Topic>,
    /// The text.
    pub body: String,
    /// The message it answers.
    pub reply_to: Option<u64>,
    /// The same id sent twice by the same sender is one message.
    pub dedupe: Option<String>,
}

/// The post office of the hive.
#[derive(Debug, Clone)]
pub struct Broker {
    ledger: Ledger,
    turns: Option<Arc<dyn Turns>>,
}

impl Broker {
    /// A broker on this ledger. All brokers of one ledger are the same.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, turns: None }
    }

    /// The same, which gives messages only to turns that go on.
    #[must_use]
    pub fn knowing(self, turns: Arc<dyn Turns>) -> Self {
        Self {
            turns: Some(turns),
            ..self
        }
    }

    /// Stores a message; once this returns it survives a crash. A question is opened with it, and an answer ends one.
    pub async fn send(&self, message: Outgoing, at: Timestamp) -> Result<SendResponse, SendError> {
        check(&message)?;
        self.ledger
            .write(move |tx| store(tx, &message, Terms::default(), at))
            .await
    }

    /// Leases the oldest undelivered messages to a turn, in the order in which they were sent.
    ///
    /// # Errors
    /// When the turn does not go on, or the ledger fails.
    pub async fn recv(&self, agent: &AgentName, ask: Ask) -> Result<Batch, RecvError> {
        self.lease(agent, ask, None).await
    }

    /// The same; when there is nothing, what comes next is leased as it comes, and sent to the second. That ends
    /// without a batch when the same agent asks again.
    ///
    /// # Errors
    /// When the turn does not go on, or the ledger fails.
    pub async fn recv_or_wait(
        &self,
        agent: &AgentName,
        ask: Ask,
    ) -> Result<(Batch, oneshot::Receiver<Batch>), RecvError> {
        let (reply, wait) = oneshot::channel();
        let batch = self.lease(agent, ask, Some(reply)).await?;
        Ok((batch, wait))
    }

    async fn lease(
        &self,
        agent: &AgentName,
        ask: Ask,
        reply: Option<oneshot::Sender<Batch>>,
    ) -> Result<Batch, RecvError> {
        let agent = agent.clone();
        let ask = Ask {
            max: ask.max.clamp(1, MAX_BATCH),
            ..ask
        };
        let (receivers, turns) = (self.ledger.receivers(), self.turns.clone());
        self.ledger
            .write(move |tx| {
                // In the same order as the writes that settle leases: one that comes later finds the turn ended.
                if turns.is_some_and(|turns| !turns.goes_on(&agent, ask.turn)) {
                    let turn = ask.turn;
                    return Err(RecvError::NoSuchTurn { agent, turn });
                }
                let batch = leases::lease(tx, &agent, &ask)?;
                if let Some(reply) = reply
                    && batch.messages.is_empty()
                {
                    // No other write can come in between.
                    receivers.note(&agent, ask, reply);
                }
                Ok(batch)
            })
            .await
    }

    /// The turn ended well: what it leased, in batches that came in, is delivered. Returns how many messages that were.
    pub async fn ack(
        &self,
        agent: &AgentName,
        turn: TurnId,
        received: Option<u64>,
    ) -> Result<usize, LedgerError> {
        self.end(agent, turn);
        let (agent, receivers) = (agent.clone(), self.ledger.receivers());
        self.ledger
            .write(move |tx| {
                receivers.end(&agent, Leases::Of(turn, received));
                leases::ack(tx, &agent, turn, received)
            })
            .await
    }

    /// The turn did not end well: what it leased is queued again; what never came in, as if it had not been leased.
    /// Returns how many messages that were.
    pub async fn release(
        &self,
        agent: &AgentName,
        turn: TurnId,
        received: Option<u64>,
        at: Timestamp,
    ) -> Result<usize, LedgerError> {
        self.end(agent, turn);
        self.give_back(agent, Leases::Of(turn, received), at).await
    }

    /// A run of the harness ended: what was leased is queued again, except for the turn that still lives, if any.
    pub async fn release_all_but(
        &self,
        agent: &AgentName,
        live_turn: Option<TurnId>,
        at: Timestamp,
    ) -> Result<usize, LedgerError> {
        self.give_back(agent, Leases::AllBut(live_turn), at).await
    }

    /// How many messages wait for a turn of this agent.
    pub async fn queued(&self, agent: &AgentName) -> Result<u64, LedgerError> {
        let address = Address::Agent(agent.clone());
        self.ledger.read(move |db| messages::queued(db, &address)).await
    }

    /// How many messages wait for each agent that has any.
    pub async fn inboxes(&self) -> Result<BTreeMap<String, u64>, LedgerError> {
        let counts = self.ledger.read(messages::inboxes).await?;
        Ok(counts.into_iter().collect())
    }

    /// Changes whenever there may be something new for this agent. Subscribe first, then look, then wait: what
    /// comes in between is not missed.
    pub fn subscribe(&self, agent: &AgentName) -> watch::Receiver<u64> {
        let wakes: &Arc<Wakes> = self.ledger.wakes();
        wakes.subscribe(agent)
    }

    fn end(&self, agent: &AgentName, turn: TurnId) {
        if let Some(turns) = &self.turns {
            turns.end(agent, turn);
        }
    }

    async fn give_back(&self, agent: &AgentName, which: Leases, at: Timestamp) -> Result<usize, LedgerError> {
        let (agent, receivers) = (agent.clone(), self.ledger.receivers());
        self.ledger
            .write(move |tx| {
                receivers.end(&agent, which);
                leases::release(tx, &agent, which, MAX_DELIVERIES, at)
            })
            .await
    }
}

/// Stores a message that was checked.
fn store(
    tx: &mut Tx<'_>,
    message: &Outgoing,
    terms: Terms<'_>,
    at: Timestamp,
) -> Result<SendResponse, SendError> {
    let Outgoing {
        from,
        to,
        kind,
        topic,
        body,
        reply_to,
        dedupe,
    } = message;
    // Before all bounds: a retry of what was accepted is accepted.
    if let Some(dedupe) = dedupe
        && let Some(id) = messages::duplicate(tx, from, dedupe)?
    {
        return Ok(SendResponse { id, duplicate: true });
    }
    let is_there = match to {
        Address::Agent(name) => messages::is_reachable(tx, name)?,
        Address::Operator | Address::System => true,
    };
    // In the same transaction: what is deployed this moment decides. Who is not there and who may not be written to are
    // told apart.
    if !rights::may_write(tx, from, to, *reply_to)? {
        return Err(if is_there {
            SendError::Forbidden {
                from: from.clone(),
                to: to.clone(),
            }
        } else {
            SendError::UnknownRecipient(to.clone())
        });
    }
    if *kind == MessageKind::Answer
        && let Some(id) = questions::answer_by_message(tx, message, at)?
    {
        return Ok(SendResponse { id, duplicate: false });
    }
    if !is_there {
        return Err(SendError::UnknownRecipient(to.clone()));
    }
    if !messages::has_room(tx, to, MAX_INBOX)? {
        return Err(SendError::InboxFull { to: to.clone() });
    }
    let new = NewMessage {
        from,
        to,
        kind: *kind,
        topic: *topic,
        body,
        reply_to: *reply_to,
        dedupe: dedupe.as_deref(),
        at,
    };
    // The daemon asks about each agent once a day at most.
    if *kind == MessageKind::Question && *from != Address::System {
        questions::may_ask(tx, from)?;
    }
    let id = messages::insert(tx, &new)?;
    if *kind == MessageKind::Question {
        questions::open(tx, id, &new, terms)?;
    }
    if *to == Address::Operator {
        // The event stream tells people at once; `hive inbox` shows it later.
        messages::deliver_to_operator(tx, id, &new)?;
    }
    Ok(SendResponse { id, duplicate: false })
}

/// What can be said against a message without looking at the ledger.
fn check(message: &Outgoing) -> Result<(), SendError> {
    let Outgoing {
        from,
        to,
        kind,
        topic: _,
        body,
        reply_to: _,
        dedupe,
    } = message;
    if *to == Address::System {
        return Err(SendError::ToSystem);
    }
    let allowed = match kind {
        MessageKind::Message | MessageKind::Question | MessageKind::Answer => true,
        MessageKind::System => *from == Address::System,
        MessageKind::Unknown => false,
    };
    if !allowed {
        return Err(SendError::BadKind {
            from: from.clone(),
            kind: *kind,
        });
    }
    if *kind == MessageKind::Question && from == to {
        return Err(SendError::AskedItself(from.clone()));
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(SendError::TooLarge {
            to: to.clone(),
            bytes: body.len(),
        });
    }
    match dedupe {
        Some(id) if !is_dedupe(id) => Err(SendError::BadDedupe {
            shown: bounded(id, 32),
        }),
        _ => Ok(()),
    }
}

/// Whether this may be a dedupe id.
fn is_dedupe(id: &str) -> bool {
    !id.is_empty() && id.chars().count() <= MAX_DEDUPE_CHARS
}

#[cfg(test)]
mod tests;
