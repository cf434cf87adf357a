//! Messages seen from outside the turn that takes them: delivery states, search, broadcast, and another try.

use jiff::Timestamp;
use shared::agent_api::{
    BroadcastRequest, BroadcastResponse, DeliveryState, MAX_BODY_BYTES, MessageKind, SentMessage,
};
use shared::question::QuestionState;
use shared::{Address, AgentName};

use super::rights::{Party, is_manager};
use super::{Broker, MAX_DEDUPE_CHARS, MAX_INBOX, is_dedupe};
use crate::ledger::messages::{self, NewMessage};
use crate::ledger::questions;
use crate::ledger::sent::{self, Search};
use crate::ledger::{LedgerError, Tx, TxError, active, bounded};

/// The most messages in one list.
pub const MAX_SENT_LISTED: u32 = 500;

/// Nothing can be done about a message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// There is none of that number.
    #[error("there is no message {0}, or it is no longer kept")]
    NotFound(u64),
    /// It is not given up.
    #[error("message {id} is {}: only one that is not delivered any more can be dealt with", shown(*state))]
    NotDead {
        /// The message.
        id: u64,
        /// Where it is.
        state: DeliveryState,
    },
    /// It cannot be read.
    #[error("message {0} cannot be read, so no turn can take it: dismiss it")]
    Unreadable(u64),
    /// Its question has ended.
    #[error("message {0} asks a question that has ended: nobody waits for an answer")]
    Settled(u64),
    /// Its recipient gets no mail.
    #[error("message {id} is to {to}, which gets no mail")]
    Gone {
        /// The message.
        id: u64,
        /// Its recipient.
        to: Address,
    },
    /// Its recipient has not taken up what it has.
    #[error("the inbox of {to} is full ({MAX_INBOX} undelivered messages): wait until it has taken some up")]
    InboxFull {
        /// Its recipient.
        to: Address,
    },
    /// It is somebody else's.
    #[error("message {id} is not {who}'s: only its sender, a manager or the operator may dismiss it")]
    NotYours {
        /// The message.
        id: u64,
        /// Who would dismiss it.
        who: Address,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl TxError for MessageError {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Self::Ledger(error) => Some(error),
            _ => None,
        }
    }
}

fn shown(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Queued => "queued",
        DeliveryState::Leased => "with a turn",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Dead => "given up",
        DeliveryState::Unknown => "in a state this build does not know",
    }
}

/// A message was not sent to all.
#[derive(Debug, thiserror::Error)]
pub enum BroadcastError {
    /// Only managers may.
    #[error("{0} is no manager: only managers may write to everybody at once")]
    NotManager(AgentName),
    /// Its text is too long.
    #[error("the message has {0} bytes, {MAX_BODY_BYTES} at most are allowed: send a shorter one")]
    TooLarge(usize),
    /// Its dedupe id is too long or empty.
    #[error("the dedupe id {0:?} must have 1 to {MAX_DEDUPE_CHARS} characters")]
    BadDedupe(String),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl TxError for BroadcastError {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Self::Ledger(error) => Some(error),
            _ => None,
        }
    }
}

/// A message to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast {
    /// Who sends it.
    pub from: AgentName,
    /// What.
    pub request: BroadcastRequest,
}

impl Broker {
    /// What an agent sent, newest first.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn sent(
        &self,
        agent: &AgentName,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<SentMessage>, LedgerError> {
        let (agent, limit) = (agent.clone(), limit.min(MAX_SENT_LISTED));
        self.ledger
            .read(move |db| sent::by(db, &agent, before, limit))
            .await
    }

    /// Messages of the whole hive that fit, newest first.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn search(&self, search: Search) -> Result<Vec<SentMessage>, LedgerError> {
        let search = Search {
            limit: search.limit.min(MAX_SENT_LISTED),
            ..search
        };
        self.ledger.read(move |db| sent::search(db, &search)).await
    }

    /// Queues a message once more that is not delivered any more.
    ///
    /// # Errors
    /// When that makes no sense, or the ledger fails.
    pub async fn requeue(&self, id: u64, by: String, at: Timestamp) -> Result<SentMessage, MessageError> {
        self.ledger
            .write(move |tx| {
                let message = existing_dead(tx, id)?;
                if message.kind == MessageKind::Unknown {
                    return Err(MessageError::Unreadable(id));
                }
                if questions::get(tx, id)?.is_some_and(|question| question.state != QuestionState::Open) {
                    return Err(MessageError::Settled(id));
                }
                let to = message.to.clone();
                let reachable = match &to {
                    // What was sent to an earlier agent of that name is not for the one that has it now.
                    Address::Agent(name) => {
                        messages::is_reachable(tx, name)? && !messages::is_earlier(tx, name, id)?
                    }
                    Address::Operator | Address::System => false,
                };
                if !reachable {
                    return Err(MessageError::Gone { id, to });
                }
                if !messages::has_room(tx, &to, MAX_INBOX)? {
                    return Err(MessageError::InboxFull { to });
                }
                sent::requeue(tx, &message, &by, at)?;
                sent::get(tx, id)?.ok_or(MessageError::NotFound(id))
            })
            .await
    }

    /// Sends one message to every active agent but its sender, in one transaction. Whose inbox is full is left out, and
    /// named.
    ///
    /// # Errors
    /// When it is refused, or the ledger fails.
    pub async fn broadcast(
        &self,
        broadcast: Broadcast,
        at: Timestamp,
    ) -> Result<BroadcastResponse, BroadcastError> {
        let Broadcast { from: name, request } = broadcast;
        let from = Address::Agent(name.clone());
        let BroadcastRequest { body, dedupe } = request;
        if body.len() > MAX_BODY_BYTES {
            return Err(BroadcastError::TooLarge(body.len()));
        }
        if let Some(id) = dedupe.as_deref().filter(|id| !is_dedupe(id)) {
            return Err(BroadcastError::BadDedupe(bounded(id, 32)));
        }
        self.ledger
            .write(move |tx| {
                if !is_manager(tx, &name)? {
                    return Err(BroadcastError::NotManager(name));
                }
                let mut answer = BroadcastResponse::default();
                if let Some(dedupe) = &dedupe
                    && messages::duplicate(tx, &from, dedupe)?.is_some()
                {
                    answer.duplicate = true;
                    return Ok(answer);
                }
                // The first message carries the id for all: they are there together or not at all.
                let mut dedupe = dedupe.as_deref();
                for agent in active(tx)? {
                    let to = Address::Agent(agent.clone());
                    if agent == name {
                        continue;
                    }
                    if !messages::has_room(tx, &to, MAX_INBOX)? {
                        answer.full.push(agent);
                        continue;
                    }
                    let new = NewMessage {
                        from: &from,
                        to: &to,
                        kind: MessageKind::Message,
                        topic: None,
                        body: &body,
                        reply_to: None,
                        dedupe: dedupe.take(),
                        at,
                    };
                    messages::insert(tx, &new)?;
                    answer.count += 1;
                }
                Ok(answer)
            })
            .await
    }
}

/// To whom a message that is given up is left: its sender, or, when the daemon sent it, whoever was to get it.
pub(super) fn owner(message: &SentMessage) -> &Address {
    match &message.from {
        Address::System => &message.to,
        from => from,
    }
}

/// Takes note that a message is not delivered any more.
pub(super) fn dismiss(tx: &mut Tx<'_>, id: u64, party: &Party, at: Timestamp) -> Result<(), MessageError> {
    let message = existing_dead(tx, id)?;
    if !party.may_end(owner(&message)) {
        let who = party.who.clone();
        return Err(MessageError::NotYours { id, who });
    }
    sent::dismiss(tx, id, at)?;
    Ok(())
}

fn existing_dead(tx: &Tx<'_>, id: u64) -> Result<SentMessage, MessageError> {
    let message = sent::get(tx, id)?.ok_or(MessageError::NotFound(id))?;
    match message.state {
        DeliveryState::Dead => Ok(message),
        state => Err(MessageError::NotDead { id, state }),
    }
}
