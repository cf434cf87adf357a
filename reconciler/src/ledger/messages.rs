//! The rows behind the broker: queued, leased to a turn, acknowledged, or dead. See [`super::leases`] for the second.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
use shared::agent_api::MessageKind;
use shared::event::Level;
use shared::topic::Topic;
use shared::{Address, AgentName};

use super::error::LedgerError;
use super::events::{self, NewEvent};
use super::sql::{At, bounded, execute, int, text};
use super::{Tx, agents};
use crate::counters::Counted;
use crate::model::change::Notice;

/// The longest message from the daemon, in bytes.
const MAX_NOTICE_BYTES: usize = 16 * 1024;

/// A message to be stored.
pub(crate) struct NewMessage<'a> {
    /// Who sends it.
    pub(crate) from: &'a Address,
    /// To whom.
    pub(crate) to: &'a Address,
    /// What kind.
    pub(crate) kind: MessageKind,
    /// What it is about, if the daemon sends it.
    pub(crate) topic: Option<Topic>,
    /// The text.
    pub(crate) body: &'a str,
    /// The message it answers.
    pub(crate) reply_to: Option<u64>,
    /// The same id from the same sender is one message.
    pub(crate) dedupe: Option<&'a str>,
    /// When.
    pub(crate) at: Timestamp,
}

/// Whether there is an agent of that name that can get mail.
pub(crate) fn is_reachable(db: &Connection, agent: &AgentName) -> Result<bool, LedgerError> {
    agents::gets_mail(db, agent)
}

/// The message that carries this dedupe id already.
pub(crate) fn duplicate(db: &Connection, from: &Address, dedupe: &str) -> Result<Option<u64>, LedgerError> {
    let id: Option<i64> = db
        .prepare_cached("SELECT id FROM messages WHERE from_addr = ?1 AND dedupe = ?2")?
        .query_row((text(from), dedupe), |row| row.get(0))
        .optional()?;
    Ok(id.map(i64::unsigned_abs))
}

/// Whether fewer than `most` messages to this address are in one of the two states before the end.
pub(crate) fn has_room(db: &Connection, to: &Address, most: u64) -> Result<bool, LedgerError> {
    // How many can be there at most: those between the oldest of them and the newest of all. Counting takes as long as
    // the inbox is, and is seldom needed.
    let span: i64 = db
        .prepare_cached(
            "SELECT coalesce((SELECT max(id) FROM messages) + 1 - (SELECT min(id) FROM (
                 SELECT min(id) AS id FROM messages WHERE to_addr = ?1 AND state = 'queued'
                 UNION ALL SELECT min(id) FROM messages WHERE to_addr = ?1 AND state = 'leased')), 0)",
        )?
        .query_row([text(to)], |row| row.get(0))?;
    if span.unsigned_abs() < most {
        return Ok(true);
    }
    let undelivered = count(
        db,
        "SELECT count(*) FROM messages WHERE to_addr = ?1 AND state IN ('queued', 'leased')",
        to,
    )?;
    Ok(undelivered < most)
}

/// How many messages wait for each agent that has any.
pub(crate) fn inboxes(db: &Connection) -> Result<Vec<(String, u64)>, LedgerError> {
    let mut query =
        db.prepare_cached("SELECT to_addr, count(*) FROM messages WHERE state = 'queued' GROUP BY to_addr")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether a message waits, and no turn has ever had it.
pub(crate) fn is_queued(db: &Connection, id: u64) -> Result<bool, LedgerError> {
    let queued = db
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM messages WHERE id = ?1 AND state = 'queued' AND deliveries = 0)",
        )?
        .query_row([int(id)], |row| row.get(0))?;
    Ok(queued)
}

/// Whether a message belongs to an earlier agent of this name.
pub(crate) fn is_earlier(db: &Connection, name: &AgentName, id: u64) -> Result<bool, LedgerError> {
    let earlier = db
        .prepare_cached(&format!("SELECT ?2 <= {EARLIER}"))?
        .query_row((name.as_str(), int(id)), |row| row.get(0))?;
    Ok(earlier)
}

/// Messages that wait for a turn.
pub(crate) fn queued(db: &Connection, to: &Address) -> Result<u64, LedgerError> {
    count(
        db,
        "SELECT count(*) FROM messages WHERE to_addr = ?1 AND state = 'queued'",
        to,
    )
}

fn count(db: &Connection, sql: &str, to: &Address) -> Result<u64, LedgerError> {
    let count: i64 = db.prepare_cached(sql)?.query_row([text(to)], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Stores a message and wakes whoever waits for it; returns its number.
pub(crate) fn insert(tx: &mut Tx<'_>, message: &NewMessage<'_>) -> Result<u64, LedgerError> {
    execute(
        tx,
        "INSERT INTO messages (from_addr, to_addr, kind, reply_to, body, at, dedupe, topic, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'queued')",
        (
            text(message.from),
            text(message.to),
            kind_word(message.kind),
            message.reply_to.map(int),
            message.body,
            At(message.at),
            message.dedupe,
            message.topic.map(Topic::as_str),
        ),
    )?;
    let id = tx.last_insert_rowid().unsigned_abs();
    tx.count(Counted::Message {
        kind: kind_word(message.kind),
    });
    if let Address::Agent(agent) = message.to {
        tx.wake(agent);
    }
    Ok(id)
}

/// Notes a message to the operator as an event, in the same transaction: that is its delivery.
pub(crate) fn deliver_to_operator(
    tx: &mut Tx<'_>,
    id: u64,
    message: &NewMessage<'_>,
) -> Result<(), LedgerError> {
    execute(tx, "UPDATE messages SET state = 'acked' WHERE id = ?1", [int(id)])?;
    let (verb, level) = match message.kind {
        MessageKind::Question => ("asks", Level::Alert),
        _ => ("says", Level::Info),
    };
    let agent = match message.from {
        Address::Agent(name) => Some(name),
        Address::Operator | Address::System => None,
    };
    let body = bounded(message.body, MAX_NOTICE_BYTES);
    events::append(
        tx,
        NewEvent {
            agent,
            level,
            kind: "messageToOperator",
            message: &format!("{} {verb}: {body}", message.from),
            data: serde_json::json!({ "message": id, "replyTo": message.reply_to }),
            at: message.at,
        },
    )
}

/// Who asked the question that this agent was asked under this number.
pub(crate) fn asker(
    db: &Connection,
    agent: &AgentName,
    question: u64,
) -> Result<Option<Address>, LedgerError> {
    // The message of a question may be gone before the question has ended; questions of the first version have no row.
    let from: Option<String> = db
        .prepare_cached(
            "SELECT from_addr FROM questions WHERE id = ?1 AND to_addr = ?2
             UNION SELECT from_addr FROM messages WHERE id = ?1 AND to_addr = ?2 AND kind = 'question'",
        )?
        .query_row((int(question), agent.as_str()), |row| row.get(0))
        .optional()?;
    Ok(from.and_then(|from| from.parse().ok()))
}

/// A message from the daemon, once for each dedupe id and agent. No bound on the inbox holds it back, and when the
/// agent is gone that is an event rather than an error: what the daemon did stays done.
pub(super) fn notify(tx: &mut Tx<'_>, agent: &AgentName, notice: &Notice) -> Result<(), LedgerError> {
    let Notice {
        topic,
        body,
        dedupe,
        at,
    } = notice;
    let Some(uid) = agents::uid_of(tx, agent)? else {
        return events::append(
            tx,
            NewEvent {
                at: *at,
                agent: Some(agent),
                level: Level::Warning,
                kind: "messageUndeliverable",
                message: &format!("no agent {agent} to be told: {body}"),
                data: serde_json::Value::Null,
            },
        );
    };
    // The uid, because an archived agent's name may come back.
    let dedupe = format!("{uid}/{dedupe}");
    if duplicate(tx, &Address::System, &dedupe)?.is_some() {
        return Ok(());
    }
    let body = bounded(body, MAX_NOTICE_BYTES);
    insert(
        tx,
        &NewMessage {
            from: &Address::System,
            to: &Address::Agent(agent.clone()),
            kind: MessageKind::System,
            topic: Some(*topic),
            body: &body,
            reply_to: None,
            dedupe: Some(&dedupe),
            at: *at,
        },
    )?;
    Ok(())
}

/// The same message to every manager but the agent it is about.
pub(crate) fn notify_managers(
    tx: &mut Tx<'_>,
    about: &AgentName,
    notice: &Notice,
) -> Result<(), LedgerError> {
    for manager in agents::managers(tx)? {
        if manager != *about {
            notify(tx, &manager, notice)?;
        }
    }
    Ok(())
}

pub(super) fn kind_word(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Message => "message",
        MessageKind::Question => "question",
        MessageKind::Answer => "answer",
        MessageKind::System => "system",
        MessageKind::Unknown => "unknown",
    }
}

/// The number of the last message that belongs to an earlier agent of the name `?1`.
pub(super) const EARLIER: &str = "coalesce((SELECT message FROM earlier_mail WHERE name = ?1), 0)";

/// Ends all mail of an agent that is archived, and frees its dedupe ids; returns how much was undelivered.
pub(super) fn close_inbox(tx: &Tx<'_>, agent: &AgentName) -> Result<usize, LedgerError> {
    execute(
        tx,
        "UPDATE messages SET dedupe = NULL WHERE from_addr = ?1 AND dedupe IS NOT NULL",
        [agent.as_str()],
    )?;
    execute(
        tx,
        "UPDATE messages SET state = 'dead' WHERE to_addr = ?1 AND state IN ('queued', 'leased')",
        [agent.as_str()],
    )
}

/// Keeps all mail up to now from whoever is given this name next.
pub(super) fn seal(tx: &Tx<'_>, agent: &AgentName) -> Result<(), LedgerError> {
    execute(
        tx,
        "INSERT INTO earlier_mail (name, message)
         VALUES (?1, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0))
         ON CONFLICT (name) DO UPDATE SET message = excluded.message",
        [agent.as_str()],
    )
    .map(drop)
}
