//! Questions: rows under the number of their message. Each ends once, in one transaction with the answer its asker gets.

use jiff::Timestamp;
use rusqlite::{Connection, Row};
use shared::agent_api::MessageKind;
use shared::event::Level;
use shared::question::{QuestionInfo, QuestionState};
use shared::topic::Topic;
use shared::{Address, AgentName};

use super::Tx;
use super::error::{Fault, LedgerError, Listing};
use super::events::{self, NewEvent};
use super::messages::{self, NewMessage};
use super::sql::{At, Columns as _, execute, int, list, one, text};
use crate::model::change::Notice;

pub(super) const QUESTIONS: (&str, &[&str]) = ("questions", &["id"]);

/// The most questions in one list.
const MAX_LISTED: u32 = 500;
/// The most text in one list, in bytes; the newest question is always there.
const MAX_LISTED_BYTES: usize = 16 * 1024 * 1024;

/// How a question ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending<'a> {
    /// In what state.
    pub(crate) state: QuestionState,
    /// Who ends it.
    pub(crate) by: &'a Address,
    /// What its asker is told.
    pub(crate) answer: &'a str,
    /// The id under which whoever ends it may say so again.
    pub(crate) dedupe: Option<&'a str>,
}

/// Which questions are listed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Involving<'a> {
    /// Those of the whole hive.
    Anybody,
    /// Those asked by or of this agent, but not by or of one that had its name before.
    Agent(&'a AgentName),
}

/// Notes the question that a message asks.
pub(crate) fn open(
    tx: &mut Tx<'_>,
    id: u64,
    message: &NewMessage<'_>,
    expires_at: Option<Timestamp>,
    default: Option<&str>,
) -> Result<(), LedgerError> {
    execute(
        tx,
        "INSERT INTO questions (id, from_addr, to_addr, body, asked_at, expires_at, fallback, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'open')",
        (
            int(id),
            text(message.from),
            text(message.to),
            message.body,
            At(message.at),
            expires_at.map(At),
            default,
        ),
    )?;
    if expires_at.is_some() {
        tx.heed_deadlines();
    }
    Ok(())
}

/// One question.
pub(crate) fn get(db: &Connection, id: u64) -> Result<Option<QuestionInfo>, LedgerError> {
    one(
        db,
        QUESTIONS,
        "SELECT * FROM questions WHERE id = ?1",
        [int(id)],
        decode,
    )
}

/// How many questions of this asker are open.
pub(crate) fn open_of(db: &Connection, from: &Address) -> Result<u64, LedgerError> {
    let count: i64 = db
        .prepare_cached("SELECT count(*) FROM questions WHERE from_addr = ?1 AND state = 'open'")?
        .query_row([text(from)], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Questions, newest first: those that are open, or the newest of all.
pub(crate) fn listed(
    db: &Connection,
    involving: Involving<'_>,
    all: bool,
) -> Result<Listing<QuestionInfo>, LedgerError> {
    let state = if all { "" } else { "AND state = 'open'" };
    let mut bytes = 0;
    let mut listing = match involving {
        Involving::Anybody => list(
            db,
            QUESTIONS,
            &format!("SELECT * FROM questions WHERE 1 {state} ORDER BY id DESC LIMIT ?1"),
            [MAX_LISTED],
            decode,
        ),
        Involving::Agent(agent) => list(
            db,
            QUESTIONS,
            &format!(
                "SELECT * FROM questions WHERE id IN (
                     SELECT id FROM questions WHERE from_addr = ?1 {state}
                     UNION SELECT id FROM questions WHERE to_addr = ?1 {state})
                 AND id > {} ORDER BY id DESC LIMIT ?2",
                messages::EARLIER
            ),
            (agent.as_str(), MAX_LISTED),
            decode,
        ),
    }?;
    let fits = listing.items.iter().take_while(|question| {
        let before = bytes;
        bytes += question.body.len()
            + question.answer.as_ref().map_or(0, String::len)
            + question.default.as_ref().map_or(0, String::len);
        before == 0 || bytes <= MAX_LISTED_BYTES
    });
    let fits = fits.count();
    listing.items.truncate(fits);
    Ok(listing)
}

/// Open questions whose time has run out, those first that ran out first.
pub(crate) fn due(db: &Connection, now: Timestamp, most: u32) -> Result<Listing<QuestionInfo>, LedgerError> {
    list(
        db,
        QUESTIONS,
        "SELECT * FROM questions WHERE state = 'open' AND expires_at <= ?1 ORDER BY expires_at, id LIMIT ?2",
        (At(now), most),
        decode,
    )
}

/// When the time of the next open question runs out.
pub(crate) fn next_due(db: &Connection) -> Result<Option<Timestamp>, LedgerError> {
    let at: Option<At> = db
        .prepare_cached(
            "SELECT min(expires_at) FROM questions WHERE state = 'open' AND expires_at IS NOT NULL",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(at.map(|at| at.0))
}

/// Ends an open question: the row, the answer to its asker, and a word to the one asked if that had it. Returns the
/// number of the answer.
pub(crate) fn end(
    tx: &mut Tx<'_>,
    question: &QuestionInfo,
    ending: Ending<'_>,
    at: Timestamp,
) -> Result<u64, LedgerError> {
    mark(tx, question.id, &ending, at)?;
    // The daemon itself reads no mail: what it asked for is done in this same transaction.
    let answer = match question.from {
        Address::System => question.id,
        Address::Operator | Address::Agent(_) => tell_the_asker(tx, question, &ending, at)?,
    };
    if question.to != *ending.by {
        tell_the_asked(tx, question, &ending, at)?;
    }
    Ok(answer)
}

/// Writes the end down. A trigger keeps a question from ending twice.
fn mark(tx: &Tx<'_>, id: u64, ending: &Ending<'_>, at: Timestamp) -> Result<(), LedgerError> {
    execute(
        tx,
        "UPDATE questions SET state = ?2, ended_by = ?3, ended_at = ?4, answer = ?5 WHERE id = ?1",
        (
            int(id),
            word(ending.state),
            text(ending.by),
            At(at),
            ending.answer,
        ),
    )
    .map(drop)
}

/// No bound on the inbox holds an answer back: there are no more of them than questions that may be open.
fn tell_the_asker(
    tx: &mut Tx<'_>,
    question: &QuestionInfo,
    ending: &Ending<'_>,
    at: Timestamp,
) -> Result<u64, LedgerError> {
    let message = NewMessage {
        from: ending.by,
        to: &question.from,
        kind: MessageKind::Answer,
        topic: None,
        body: ending.answer,
        reply_to: Some(question.id),
        dedupe: ending.dedupe,
        at,
    };
    let id = messages::insert(tx, &message)?;
    if question.from == Address::Operator {
        messages::deliver_to_operator(tx, id, &message)?;
    }
    Ok(id)
}

/// Whoever was asked need not answer any more: what it has not had yet it does not get, else it is told.
fn tell_the_asked(
    tx: &mut Tx<'_>,
    question: &QuestionInfo,
    ending: &Ending<'_>,
    at: Timestamp,
) -> Result<(), LedgerError> {
    let Ending { state, by, .. } = *ending;
    let how = match state {
        QuestionState::Answered => format!("was answered by {by}"),
        QuestionState::Cancelled => format!("was taken back by {by}"),
        QuestionState::Expired => "got no answer in time".to_owned(),
        QuestionState::Open | QuestionState::Unknown => "has ended".to_owned(),
    };
    let (id, from) = (question.id, &question.from);
    let what = format!("question {id} of {from} {how}: nobody waits for your answer any more");
    match &question.to {
        Address::Operator => events::append(
            tx,
            NewEvent {
                at,
                agent: match from {
                    Address::Agent(name) => Some(name),
                    Address::Operator | Address::System => None,
                },
                level: Level::Info,
                kind: "questionEnded",
                message: &format!("question {id} of {from} {how}"),
                data: serde_json::json!({ "message": id, "state": word(state) }),
            },
        ),
        Address::Agent(asked) => {
            let withdrawn = execute(
                tx,
                "UPDATE messages SET state = 'dead', dismissed_at = ?2 WHERE id = ?1 AND state = 'queued'
                     AND deliveries = 0",
                (int(id), At(at)),
            )?;
            if withdrawn == 0 {
                let notice = Notice {
                    topic: Topic::Question,
                    body: what,
                    dedupe: format!("question/{id}/ended"),
                    at,
                };
                messages::notify(tx, asked, &notice)?;
            }
            Ok(())
        }
        Address::System => Ok(()),
    }
}

/// Ends the open questions of an agent that is archived: what it asked is taken back, what it was asked nobody answers.
pub(super) fn close_of(tx: &mut Tx<'_>, agent: &AgentName, at: Timestamp) -> Result<(), LedgerError> {
    let mut open = listed_all_open(tx, agent)?;
    for row in std::mem::take(&mut open.undecodable) {
        give_up(tx, &row, at)?;
    }
    for question in open.items {
        let asked_by_it = matches!(&question.from, Address::Agent(from) if from == agent);
        let gone = format!("[{agent} was archived: nobody will answer]");
        let (state, answer) = if asked_by_it {
            (QuestionState::Cancelled, "[cancelled by system]")
        } else {
            (
                QuestionState::Expired,
                question.default.as_deref().unwrap_or(&gone),
            )
        };
        let ending = Ending {
            state,
            by: &Address::System,
            answer,
            dedupe: None,
        };
        mark(tx, question.id, &ending, at)?;
        // The one that is gone must not be written to: its name may be given away.
        if asked_by_it {
            tell_the_asked(tx, &question, &ending, at)?;
        } else {
            tell_the_asker(tx, &question, &ending, at)?;
        }
    }
    Ok(())
}

fn listed_all_open(db: &Connection, agent: &AgentName) -> Result<Listing<QuestionInfo>, LedgerError> {
    list(
        db,
        QUESTIONS,
        "SELECT * FROM questions WHERE state = 'open' AND (from_addr = ?1 OR to_addr = ?1) ORDER BY id",
        [agent.as_str()],
        decode,
    )
}

/// A question that cannot be read cannot end: it is reported once, and is not looked at again by itself.
pub(crate) fn give_up(
    tx: &mut Tx<'_>,
    row: &super::error::Undecodable,
    at: Timestamp,
) -> Result<(), LedgerError> {
    execute(
        tx,
        "UPDATE questions SET expires_at = NULL WHERE id = ?1 AND state = 'open'",
        [&row.key],
    )?;
    super::reminders::report(tx, row, at)
}

/// Ends a question that cannot be read. Nobody is told: who asked it may be what cannot be read.
pub(crate) fn abandon(tx: &Tx<'_>, id: u64, by: &Address, at: Timestamp) -> Result<(), LedgerError> {
    execute(
        tx,
        "UPDATE questions SET state = 'cancelled', ended_by = ?2, ended_at = ?3 WHERE id = ?1 AND state = 'open'",
        (int(id), text(by), At(at)),
    )
    .map(drop)
}

fn word(state: QuestionState) -> &'static str {
    match state {
        QuestionState::Open | QuestionState::Unknown => "open",
        QuestionState::Answered => "answered",
        QuestionState::Cancelled => "cancelled",
        QuestionState::Expired => "expired",
    }
}

pub(super) fn decode(row: &Row<'_>) -> Result<QuestionInfo, Fault> {
    Ok(QuestionInfo {
        id: row.number("id")?,
        from: row.parsed("from_addr")?,
        to: row.parsed("to_addr")?,
        body: row.get("body")?,
        state: row.word("state")?,
        asked_at: row.time("asked_at")?,
        expires_at: row.maybe_time("expires_at")?,
        default: row.get("fallback")?,
        ended_by: row.maybe_parsed("ended_by")?,
        ended_at: row.maybe_time("ended_at")?,
        answer: row.get("answer")?,
    })
}
