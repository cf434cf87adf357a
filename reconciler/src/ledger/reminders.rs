//! Reminders: what an agent is to be told later.

use jiff::Timestamp;
use rusqlite::{Connection, Row};
use shared::event::Level;
use shared::reminder::{Missed, ReminderInfo, Schedule};
use shared::{Address, AgentName};

use super::Tx;
use super::error::{Fault, LedgerError, Listing, Undecodable};
use super::events::{self, NewEvent};
use super::sql::{At, Columns as _, execute, int, json, list, one, text};

pub(super) const REMINDERS: (&str, &[&str]) = ("reminders", &["id"]);

/// A reminder and what the daemon notes beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reminder {
    /// As shown.
    pub(crate) info: ReminderInfo,
    /// The message that it became the last time.
    pub(crate) message: Option<u64>,
    /// Whether it is over.
    pub(crate) ended: bool,
}

/// A reminder to be set.
#[derive(Debug)]
pub(crate) struct NewReminder<'a> {
    /// To whom it comes.
    pub(crate) owner: &'a AgentName,
    /// Who sets it, unless its owner does.
    pub(crate) set_by: Option<&'a Address>,
    /// What.
    pub(crate) body: &'a str,
    /// When, as it is shown.
    pub(crate) schedule: &'a Schedule,
    /// What becomes of it when it was missed.
    pub(crate) missed: Missed,
    /// The same id from the same owner is one reminder.
    pub(crate) dedupe: Option<&'a str>,
    /// When it is due first.
    pub(crate) due: Timestamp,
    /// When it is set.
    pub(crate) at: Timestamp,
}

/// Stores a reminder; returns its number.
pub(crate) fn insert(tx: &mut Tx<'_>, new: &NewReminder<'_>) -> Result<u64, LedgerError> {
    let missed = match new.missed {
        Missed::Run => "run",
        Missed::Skip => "skip",
        Missed::Notify => "notify",
    };
    execute(
        tx,
        "INSERT INTO reminders (owner, body, schedule, missed, dedupe, set_at, due, try_at, set_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)",
        (
            new.owner.as_str(),
            new.body,
            json("a schedule", new.schedule)?,
            missed,
            new.dedupe,
            At(new.at),
            At(new.due),
            new.set_by.map(text),
        ),
    )?;
    let id = tx.last_insert_rowid().unsigned_abs();
    tx.heed_deadlines();
    Ok(id)
}

/// One reminder.
pub(crate) fn get(db: &Connection, id: u64) -> Result<Option<Reminder>, LedgerError> {
    one(
        db,
        REMINDERS,
        "SELECT * FROM reminders WHERE id = ?1",
        [int(id)],
        decode,
    )
}

/// The reminder that was set under this id.
pub(crate) fn duplicate(
    db: &Connection,
    owner: &AgentName,
    dedupe: &str,
) -> Result<Option<Reminder>, LedgerError> {
    one(
        db,
        REMINDERS,
        "SELECT * FROM reminders WHERE owner = ?1 AND dedupe = ?2",
        (owner.as_str(), dedupe),
        decode,
    )
}

/// Those that are not over: of one agent or of all, the next first.
pub(crate) fn pending(db: &Connection, owner: Option<&AgentName>) -> Result<Listing<Reminder>, LedgerError> {
    list(
        db,
        REMINDERS,
        "SELECT * FROM reminders WHERE ended_at IS NULL AND (?1 IS NULL OR owner = ?1)
         ORDER BY due IS NULL, due, id",
        [owner.map(AgentName::as_str)],
        decode,
    )
}

/// How many of an agent's reminders are not over.
pub(crate) fn count(db: &Connection, owner: &AgentName) -> Result<u64, LedgerError> {
    let count: i64 = db
        .prepare_cached("SELECT count(*) FROM reminders WHERE owner = ?1 AND ended_at IS NULL")?
        .query_row([owner.as_str()], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Those to be delivered by now, the oldest first.
pub(crate) fn due(db: &Connection, now: Timestamp, most: u32) -> Result<Listing<Reminder>, LedgerError> {
    list(
        db,
        REMINDERS,
        "SELECT * FROM reminders WHERE try_at <= ?1 ORDER BY try_at, id LIMIT ?2",
        (At(now), most),
        decode,
    )
}

/// When the next one is to be delivered.
pub(crate) fn next_due(db: &Connection) -> Result<Option<Timestamp>, LedgerError> {
    let at: Option<At> = db
        .prepare_cached("SELECT min(try_at) FROM reminders WHERE try_at IS NOT NULL")?
        .query_row([], |row| row.get(0))?;
    Ok(at.map(|at| at.0))
}

/// What is due was dealt with: what comes next, if anything, and the message that it became.
pub(crate) fn advance(
    tx: &Tx<'_>,
    id: u64,
    next: Option<Timestamp>,
    message: Option<u64>,
    at: Timestamp,
) -> Result<(), LedgerError> {
    let ended_at = next.is_none().then_some(At(at));
    execute(
        tx,
        "UPDATE reminders SET due = ?2, try_at = ?2, message = coalesce(?3, message), error = NULL, ended_at = ?4
         WHERE id = ?1 AND ended_at IS NULL",
        (int(id), next.map(At), message.map(int), ended_at),
    )
    .map(drop)
}

/// It could not be delivered: why, and when that is tried again. Without a time it is not tried any more, and stays
/// until it is taken back.
pub(crate) fn fail(tx: &Tx<'_>, id: u64, error: &str, try_at: Option<Timestamp>) -> Result<(), LedgerError> {
    execute(
        tx,
        "UPDATE reminders SET error = ?2, try_at = ?3, due = iif(?3 IS NULL, NULL, due) WHERE id = ?1",
        (int(id), error, try_at.map(At)),
    )
    .map(drop)
}

/// Ends a reminder.
pub(crate) fn end(tx: &Tx<'_>, id: u64, at: Timestamp) -> Result<(), LedgerError> {
    execute(
        tx,
        "UPDATE reminders SET due = NULL, try_at = NULL, error = NULL, ended_at = ?2
         WHERE id = ?1 AND ended_at IS NULL",
        (int(id), At(at)),
    )
    .map(drop)
}

/// Ends all reminders of an agent that is archived, and frees their dedupe ids.
pub(super) fn close_of(tx: &Tx<'_>, owner: &AgentName, at: Timestamp) -> Result<(), LedgerError> {
    execute(
        tx,
        "UPDATE reminders SET due = NULL, try_at = NULL, error = NULL, dedupe = NULL,
             ended_at = coalesce(ended_at, ?2) WHERE owner = ?1",
        (owner.as_str(), At(at)),
    )
    .map(drop)
}

/// A reminder that cannot be read cannot be delivered: it is reported once, and stays until it is taken back.
pub(crate) fn give_up(tx: &mut Tx<'_>, row: &Undecodable, at: Timestamp) -> Result<(), LedgerError> {
    let error = crate::error_chain(row);
    execute(
        tx,
        "UPDATE reminders SET due = NULL, try_at = NULL, error = ?2 WHERE id = ?1",
        (&row.key, error),
    )?;
    report(tx, row, at)
}

/// Says in the stream of events that a row cannot be read.
pub(super) fn report(tx: &mut Tx<'_>, row: &Undecodable, at: Timestamp) -> Result<(), LedgerError> {
    events::append(
        tx,
        NewEvent {
            at,
            agent: row.agent.as_ref(),
            level: Level::Warning,
            kind: "undecodable",
            message: &crate::error_chain(row),
            data: serde_json::json!({ "table": row.table, "key": row.key }),
        },
    )
}

pub(super) fn decode(row: &Row<'_>) -> Result<Reminder, Fault> {
    let message: Option<i64> = row.get("message")?;
    Ok(Reminder {
        info: ReminderInfo {
            id: row.number("id")?,
            owner: Address::Agent(row.parsed("owner")?),
            set_by: row.maybe_word("set_by")?,
            body: row.get("body")?,
            schedule: row.json("schedule")?,
            missed: row.word("missed")?,
            set_at: row.time("set_at")?,
            due: row.maybe_time("due")?,
            error: row.get("error")?,
        },
        message: message.map(i64::unsigned_abs),
        ended: row.maybe_time("ended_at")?.is_some(),
    })
}

/// Notes that a reminder was missed and is not delivered.
pub(crate) fn note_missed(
    tx: &mut Tx<'_>,
    reminder: &Reminder,
    due: Timestamp,
    at: Timestamp,
) -> Result<(), LedgerError> {
    let ReminderInfo { id, owner, .. } = &reminder.info;
    events::append(
        tx,
        NewEvent {
            at,
            agent: match owner {
                Address::Agent(name) => Some(name),
                Address::Operator | Address::System => None,
            },
            level: Level::Info,
            kind: "reminderMissed",
            message: &format!("reminder {id} of {owner}, due {due}, was missed and is skipped"),
            data: serde_json::json!({ "reminder": id, "due": due }),
        },
    )
}

/// The dedupe id of the message that a reminder becomes: one for each time that it is due.
pub(crate) fn dedupe(id: u64, due: Timestamp) -> String {
    format!("reminder/{id}/{}", due.as_nanosecond())
}
