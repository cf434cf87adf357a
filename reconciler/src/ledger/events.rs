//! The durable stream of events.

use jiff::Timestamp;
use rusqlite::{Connection, Row};
use serde_json::{Value, json};
use shared::AgentName;
use shared::event::{Event, Level};

use super::error::{Fault, LedgerError, Undecodable};
use super::sql::{At, Columns as _, bounded, execute, int, undecodable};
use super::{Ledger, Tx};
use crate::counters::Counted;

/// The longest line of an event, in bytes; part of it may be written by an agent.
const MAX_MESSAGE_BYTES: usize = 2000;
/// The largest structured part of an event, in bytes.
const MAX_DATA_BYTES: usize = 16 * 1024;
/// The most events one call returns.
const MAX_EVENTS: u32 = 1000;

/// An event to be appended.
pub(crate) struct NewEvent<'a> {
    /// When.
    pub(crate) at: Timestamp,
    /// The agent.
    pub(crate) agent: Option<&'a AgentName>,
    /// How much an operator should care.
    pub(crate) level: Level,
    /// A stable word.
    pub(crate) kind: &'static str,
    /// One line.
    pub(crate) message: &'a str,
    /// More.
    pub(crate) data: Value,
}

impl Ledger {
    /// Events after `after`, oldest first, at most `limit` of them and never more than 1,000.
    pub async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>, LedgerError> {
        self.read(move |db| {
            read(
                db,
                "SELECT * FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
                (int(after), limit.min(MAX_EVENTS)),
            )
        })
        .await
    }

    /// The last events that concern an agent, newest first.
    pub async fn events_about(&self, agent: &AgentName, limit: u32) -> Result<Vec<Event>, LedgerError> {
        let agent = agent.clone();
        self.read(move |db| {
            read(
                db,
                "SELECT * FROM events WHERE agent = ?1 ORDER BY seq DESC LIMIT ?2",
                (agent.as_str(), limit.min(MAX_EVENTS)),
            )
        })
        .await
    }

    /// The number of the newest event; 0 when there was none yet.
    pub async fn last_seq(&self) -> Result<u64, LedgerError> {
        self.read(last_seq).await
    }
}

/// Appends an event. Subscribers learn of it once it is on disk.
pub(crate) fn append(tx: &mut Tx<'_>, event: NewEvent<'_>) -> Result<(), LedgerError> {
    let mut data = event.data.to_string();
    if data.len() > MAX_DATA_BYTES {
        data = json!({ "tooLarge": data.len() }).to_string();
    }
    execute(
        tx,
        "INSERT INTO events (at, agent, level, kind, message, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (
            At(event.at),
            event.agent.map(AgentName::as_str),
            level_word(event.level),
            event.kind,
            bounded(event.message, MAX_MESSAGE_BYTES),
            data,
        ),
    )?;
    tx.last_seq = u64::try_from(tx.last_insert_rowid()).ok();
    tx.count(Counted::Event {
        kind: event.kind,
        level: level_word(event.level),
    });
    Ok(())
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Alert => "alert",
    }
}

/// The newest number ever given; pruning does not lower it.
pub(super) fn last_seq(db: &Connection) -> Result<u64, LedgerError> {
    let last: i64 = db
        .prepare_cached("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)")?
        .query_row([], |row| row.get(0))?;
    Ok(last.unsigned_abs())
}

fn read(db: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Event>, LedgerError> {
    let mut events = Vec::new();
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        let event = match decode(row) {
            Ok(event) => event,
            // A gap in the numbers would look like a loss to whoever resumes, so the row is shown as what it is.
            Err(source) => unreadable(
                row.get::<_, i64>("seq")?.unsigned_abs(),
                &undecodable("events", &["seq"], row, source),
            ),
        };
        events.push(event);
    }
    Ok(events)
}

fn decode(row: &Row<'_>) -> Result<Event, Fault> {
    Ok(Event {
        seq: row.number("seq")?,
        at: row.time("at")?,
        agent: row.maybe_parsed("agent")?,
        level: row.word("level")?,
        kind: row.get("kind")?,
        message: row.get("message")?,
        data: row.json("data")?,
    })
}

fn unreadable(seq: u64, row: &Undecodable) -> Event {
    Event {
        seq,
        at: Timestamp::UNIX_EPOCH,
        agent: row.agent.clone(),
        level: Level::Warning,
        kind: "undecodable".to_owned(),
        message: crate::error_chain(row),
        data: Value::Null,
    }
}
