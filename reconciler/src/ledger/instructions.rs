//! Instructions of the operator to harnesses: kept until one has carried them out, or they have no use any more.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row};
use shared::instruction::{Instruction, InstructionKind, MAX_INSTRUCTIONS};
use shared::{AgentName, AgentUid};

use super::Tx;
use super::agents;
use super::error::{Fault, LedgerError};
use super::sql::{At, Columns as _, execute, int, list, text};

pub(super) const INSTRUCTIONS: (&str, &[&str]) = ("instructions", &["id"]);

/// An instruction to be kept.
pub(crate) struct NewInstruction<'a> {
    pub(crate) uid: AgentUid,
    /// What; its number is given by the ledger.
    pub(crate) instruction: &'a Instruction,
    /// Until when it is of any use.
    pub(crate) ends_at: Option<Timestamp>,
    pub(crate) by: &'a str,
    pub(crate) at: Timestamp,
}

/// Keeps an instruction; returns its number.
pub(crate) fn insert(tx: &Tx<'_>, new: &NewInstruction<'_>) -> Result<u64, LedgerError> {
    let Instruction {
        id: _,
        kind,
        turn,
        until,
        wake_on_message,
    } = new.instruction;
    execute(
        tx,
        "INSERT INTO instructions (uid, kind, turn, until, wakes, ends_at, by, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        (
            text(&new.uid),
            kind.as_str(),
            turn.as_ref().map(text),
            until.map(At),
            wake_on_message,
            new.ends_at.map(At),
            new.by,
            At(new.at),
        ),
    )?;
    Ok(tx.last_insert_rowid().unsigned_abs())
}

/// What a run of the harness is to do that has carried out everything up to `done`, in the order in which it was given. A
/// nap lasts for the runs after it too, until something later ends it.
pub(crate) fn pending(
    db: &Connection,
    uid: AgentUid,
    done: u64,
    now: Timestamp,
) -> Result<Vec<Instruction>, LedgerError> {
    let found = list(
        db,
        INSTRUCTIONS,
        "SELECT * FROM instructions o WHERE uid = ?1 AND id > ?2 AND (ends_at IS NULL OR ends_at > ?3)
             AND (taken_at IS NULL OR (kind = 'nap' AND NOT EXISTS (
                 SELECT 1 FROM instructions l WHERE l.uid = o.uid AND l.id > o.id AND l.kind IN ('nap', 'wake'))))
         ORDER BY id LIMIT ?4",
        (text(&uid), int(done), At(now), MAX_INSTRUCTIONS),
        decode,
    )?;
    // One that cannot be read is nothing a harness could carry out.
    Ok(found.items)
}

/// Whether something up to `done` was not known to be carried out.
pub(crate) fn is_news(db: &Connection, uid: AgentUid, done: u64) -> Result<bool, LedgerError> {
    let mut statement =
        db.prepare_cached("SELECT 1 FROM instructions WHERE uid = ?1 AND id <= ?2 AND taken_at IS NULL")?;
    Ok(statement.exists((text(&uid), int(done)))?)
}

/// Notes that everything up to `done` was carried out; returns what that is news of.
pub(crate) fn take(
    tx: &Tx<'_>,
    uid: AgentUid,
    done: u64,
    at: Timestamp,
) -> Result<Vec<Instruction>, LedgerError> {
    let open = list(
        tx,
        INSTRUCTIONS,
        "SELECT * FROM instructions WHERE uid = ?1 AND id <= ?2 AND taken_at IS NULL ORDER BY id",
        (text(&uid), int(done)),
        decode,
    )?;
    execute(
        tx,
        "UPDATE instructions SET taken_at = ?3 WHERE uid = ?1 AND id <= ?2 AND taken_at IS NULL",
        (text(&uid), int(done), At(at)),
    )?;
    Ok(open.items)
}

/// How many instructions wait for this agent's harness.
pub(crate) fn waiting(db: &Connection, uid: AgentUid, now: Timestamp) -> Result<u64, LedgerError> {
    let count: i64 = db
        .prepare_cached(
            "SELECT count(*) FROM instructions WHERE uid = ?1 AND taken_at IS NULL AND (ends_at IS NULL OR ends_at > ?2)",
        )?
        .query_row((text(&uid), At(now)), |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// The number of the conversation that was instructed last: the second in which that was, which rises also when the ledger
/// is rebuilt.
pub(crate) fn conversation(db: &Connection, uid: AgentUid) -> Result<Option<u64>, LedgerError> {
    let at: Option<At> = db
        .prepare_cached(
            "SELECT at FROM instructions WHERE uid = ?1 AND kind = 'newConversation' ORDER BY id DESC LIMIT 1",
        )?
        .query_row([text(&uid)], |row| row.get(0))
        .optional()?;
    Ok(at.and_then(|at| u64::try_from(at.0.as_second()).ok()))
}

/// The uid of the agent of this name; `None` when there is none.
pub(crate) fn uid_of(db: &Connection, agent: &AgentName) -> Result<Option<AgentUid>, LedgerError> {
    agents::uid_of(db, agent)
}

pub(super) fn decode(row: &Row<'_>) -> Result<Instruction, Fault> {
    Ok(Instruction {
        id: row.number("id")?,
        kind: row.word::<InstructionKind>("kind")?,
        turn: row.maybe_parsed("turn")?,
        until: row.maybe_time("until")?,
        wake_on_message: row.get("wakes")?,
    })
}
