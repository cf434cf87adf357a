//! Questions: who may ask, answer and take back, and how each ends once.

use jiff::{SignedDuration, Timestamp};
use shared::agent_api::{MAX_BODY_BYTES, MessageKind};
use shared::question::{AskRequest, MAX_TTL_SECS, QuestionInfo, QuestionState};
use shared::{Address, AgentName};

use super::rights::Party;
use super::{Broker, Outgoing, SendError, budgets, check, store};
use crate::ledger::messages::NewMessage;
use crate::ledger::questions::{self, Ending, Involving};
use crate::ledger::{LedgerError, Tx};

/// The most questions one asker may have open.
pub const MAX_OPEN: u64 = 100;
/// What an asker is told when there is no default.
pub(crate) const NOBODY_ANSWERED: &str = "[nobody answered in time]";

/// That cannot be done about a question.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// There is none of that number.
    #[error("there is no question {0}: the list of questions shows those that are open")]
    NotFound(u64),
    /// Only the one asked answers.
    #[error("question {id} was not asked of {who}: only the one who was asked may answer it")]
    NotAsked {
        /// The question.
        id: u64,
        /// Who would answer.
        who: Address,
    },
    /// An answer names somebody else than the asker.
    #[error("question {id} was asked by {from}: an answer to it goes to {from}, not to {to}")]
    OtherAsker {
        /// The question.
        id: u64,
        /// Who asked it.
        from: Address,
        /// Who was to get the answer.
        to: Address,
    },
    /// Only the asker takes it back, or who is over all.
    #[error("{who} did not ask question {id}: only its asker, a manager or the operator may take it back")]
    NotAsker {
        /// The question.
        id: u64,
        /// Who would take it back.
        who: Address,
    },
    /// It has ended.
    #[error("question {id} {}", ended(*state, by.as_ref(), *at))]
    Ended {
        /// The question.
        id: u64,
        /// How it ended.
        state: QuestionState,
        /// Who ended it.
        by: Option<Address>,
        /// When.
        at: Option<Timestamp>,
    },
    /// The asker has enough open.
    #[error("{0} has {MAX_OPEN} open questions: wait for an answer, or take one back")]
    TooMany(Address),
    /// No such term.
    #[error(
        "a question may stay open for 1 to {MAX_TTL_SECS} seconds, not {0}; leave it out to wait for good"
    )]
    BadTerm(u64),
    /// Without a term the default would never hold.
    #[error("a default needs ttlSecs: without a time limit it would never hold")]
    DefaultWithoutTerm,
    /// The default is too long.
    #[error("the default has {0} bytes, {MAX_BODY_BYTES} at most are allowed")]
    DefaultTooLarge(usize),
    /// The dedupe id belongs to another message.
    #[error("the dedupe id was used for message {0}, which is no question: use another")]
    DedupeTaken(u64),
}

fn ended(state: QuestionState, by: Option<&Address>, at: Option<Timestamp>) -> String {
    let how = match state {
        QuestionState::Answered => "was answered",
        QuestionState::Cancelled => "was taken back",
        QuestionState::Expired => "ran out of time",
        QuestionState::Open | QuestionState::Unknown => "has ended",
    };
    let by = by
        .filter(|_| state != QuestionState::Expired)
        .map_or_else(String::new, |by| format!(" by {by}"));
    let at = at.map_or_else(String::new, |at| {
        format!(" at {}", at.strftime("%Y-%m-%d %H:%M:%SZ"))
    });
    format!("{how}{by}{at}")
}

/// For how long a question stays open, and what holds then.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Terms<'a> {
    pub(super) ttl_secs: Option<u64>,
    pub(super) default: Option<&'a str>,
}

impl Broker {
    /// Asks a question; once this returns it survives a crash.
    ///
    /// # Errors
    /// When it is refused, or the ledger fails.
    pub async fn ask(
        &self,
        from: Address,
        ask: AskRequest,
        at: Timestamp,
    ) -> Result<QuestionInfo, SendError> {
        let AskRequest {
            to,
            body,
            ttl_secs,
            default,
            dedupe,
        } = ask;
        match (ttl_secs, &default) {
            (Some(secs), _) if !(1..=MAX_TTL_SECS).contains(&secs) => {
                return Err(Refusal::BadTerm(secs).into());
            }
            (None, Some(_)) => return Err(Refusal::DefaultWithoutTerm.into()),
            (_, Some(text)) if text.len() > MAX_BODY_BYTES => {
                return Err(Refusal::DefaultTooLarge(text.len()).into());
            }
            _ => {}
        }
        let message = Outgoing {
            from,
            to,
            kind: MessageKind::Question,
            topic: None,
            body,
            reply_to: None,
            dedupe,
        };
        check(&message)?;
        self.ledger
            .write(move |tx| {
                let terms = Terms {
                    ttl_secs,
                    default: default.as_deref(),
                };
                let id = store(tx, &message, terms, at)?.id;
                questions::get(tx, id)?.ok_or_else(|| Refusal::DedupeTaken(id).into())
            })
            .await
    }

    /// Answers an open question: whoever was asked may, and the operator.
    ///
    /// # Errors
    /// When it is refused, or the ledger fails.
    pub async fn answer(
        &self,
        id: u64,
        by: Address,
        body: String,
        at: Timestamp,
    ) -> Result<QuestionInfo, SendError> {
        let author = by.to_string();
        self.answer_as(id, by, author, body, at).await
    }

    /// The same, with the name under which it is kept who answered, where that allows something.
    ///
    /// # Errors
    /// When it is refused, or the ledger fails.
    pub async fn answer_as(
        &self,
        id: u64,
        by: Address,
        author: String,
        body: String,
        at: Timestamp,
    ) -> Result<QuestionInfo, SendError> {
        self.ledger
            .write(move |tx| {
                let question = existing(tx, id)?;
                may_answer(&question, &by)?;
                if body.len() > MAX_BODY_BYTES {
                    let (to, bytes) = (question.from, body.len());
                    return Err(SendError::TooLarge { to, bytes });
                }
                let ending = Ending {
                    state: QuestionState::Answered,
                    by: &by,
                    answer: &body,
                    dedupe: None,
                };
                questions::end(tx, &question, ending, at)?;
                if question.from == Address::System {
                    budgets::answered(tx, &question, &body, &author, at)?;
                }
                existing(tx, id)
            })
            .await
    }

    /// Takes an open question back: its asker may, a manager, and the operator.
    ///
    /// # Errors
    /// When it is refused, or the ledger fails.
    pub async fn cancel(&self, id: u64, by: Address, at: Timestamp) -> Result<QuestionInfo, SendError> {
        self.ledger.write(move |tx| cancel(tx, id, &by, at)).await
    }

    /// Questions that are open, or all that are kept, newest first: those that involve an agent, or everybody's.
    ///
    /// # Errors
    /// When the ledger fails, or a row cannot be read.
    pub async fn questions(
        &self,
        agent: Option<&AgentName>,
        all: bool,
    ) -> Result<Vec<QuestionInfo>, LedgerError> {
        let agent = agent.cloned();
        self.ledger
            .read(move |db| {
                let involving = agent.as_ref().map_or(Involving::Anybody, Involving::Agent);
                questions::listed(db, involving, all)?.complete()
            })
            .await
    }
}

/// Takes a question back.
pub(super) fn cancel(
    tx: &mut Tx<'_>,
    id: u64,
    by: &Address,
    at: Timestamp,
) -> Result<QuestionInfo, SendError> {
    let question = existing(tx, id)?;
    if !Party::of(tx, by)?.may_end(&question.from) {
        let who = by.clone();
        return Err(Refusal::NotAsker { id, who }.into());
    }
    is_open(&question)?;
    let ending = Ending {
        state: QuestionState::Cancelled,
        by,
        answer: &format!("[cancelled by {by}]"),
        dedupe: None,
    };
    questions::end(tx, &question, ending, at)?;
    existing(tx, id)
}

/// Takes a question back as a loose end, which one that cannot be read is too: it has no asker who could be told, and
/// whoever is over all may still be rid of it.
pub(super) fn drop_question(tx: &mut Tx<'_>, id: u64, by: &Address, at: Timestamp) -> Result<(), SendError> {
    match questions::get(tx, id) {
        Err(LedgerError::Undecodable(_)) if Party::of(tx, by)?.over_all => {
            Ok(questions::abandon(tx, id, by, at)?)
        }
        _ => cancel(tx, id, by, at).map(drop),
    }
}

/// Whether somebody may ask one more.
pub(super) fn may_ask(tx: &Tx<'_>, from: &Address) -> Result<(), SendError> {
    if questions::open_of(tx, from)? >= MAX_OPEN {
        return Err(Refusal::TooMany(from.clone()).into());
    }
    Ok(())
}

/// Opens the question that a stored message asks.
pub(super) fn open(
    tx: &mut Tx<'_>,
    id: u64,
    message: &NewMessage<'_>,
    terms: Terms<'_>,
) -> Result<(), SendError> {
    let Terms { ttl_secs, default } = terms;
    let expires_at = ttl_secs.and_then(|secs| {
        let ttl = SignedDuration::from_secs(i64::try_from(secs).ok()?);
        message.at.checked_add(ttl).ok()
    });
    questions::open(tx, id, message, expires_at, default)?;
    Ok(())
}

/// Ends the question that a message of kind `answer` replies to. Returns the message's number; `None` when it replies to
/// no question that is kept, and is an ordinary message.
pub(super) fn answer_by_message(
    tx: &mut Tx<'_>,
    message: &Outgoing,
    at: Timestamp,
) -> Result<Option<u64>, SendError> {
    let question = match message.reply_to {
        Some(id) => questions::get(tx, id)?,
        None => None,
    };
    let Some(question) = question else {
        return Ok(None);
    };
    may_answer(&question, &message.from)?;
    if question.from != message.to {
        let (id, from, to) = (question.id, question.from, message.to.clone());
        return Err(Refusal::OtherAsker { id, from, to }.into());
    }
    let ending = Ending {
        state: QuestionState::Answered,
        by: &message.from,
        answer: &message.body,
        dedupe: message.dedupe.as_deref(),
    };
    Ok(Some(questions::end(tx, &question, ending, at)?))
}

/// Its time has run out: the default is the answer, if there is one.
pub(super) fn expire(tx: &mut Tx<'_>, question: &QuestionInfo, at: Timestamp) -> Result<(), LedgerError> {
    let ending = Ending {
        state: QuestionState::Expired,
        by: &Address::System,
        answer: question.default.as_deref().unwrap_or(NOBODY_ANSWERED),
        dedupe: None,
    };
    questions::end(tx, question, ending, at)?;
    Ok(())
}

fn existing(tx: &Tx<'_>, id: u64) -> Result<QuestionInfo, SendError> {
    Ok(questions::get(tx, id)?.ok_or(Refusal::NotFound(id))?)
}

/// Whether it may be answered by this one. Whoever has nothing to do with it is not told how it ended.
fn may_answer(question: &QuestionInfo, by: &Address) -> Result<(), Refusal> {
    if question.to != *by && *by != Address::Operator {
        return Err(Refusal::NotAsked {
            id: question.id,
            who: by.clone(),
        });
    }
    is_open(question)
}

fn is_open(question: &QuestionInfo) -> Result<(), Refusal> {
    if question.state == QuestionState::Open {
        return Ok(());
    }
    Err(Refusal::Ended {
        id: question.id,
        state: question.state,
        by: question.ended_by.clone(),
        at: question.ended_at,
    })
}
