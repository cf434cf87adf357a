//! What turns count for in budgets: each from when it begins, so that one whose end is never told has counted.
//!
//! A row never goes down, whatever is told later. A turn that has begun and whose end was not told yet counts for at least
//! [`UNTOLD`] tokens: whoever starts turns that never tell anything does not do so for nothing.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row};
use shared::budget::TurnUsage;
use shared::{AgentName, AgentUid, TurnId};

use super::Tx;
use super::agents;
use super::error::LedgerError;
use super::sql::{At, execute, int, text};
use crate::plan::budget::{Account, Allowed, Spent};

/// What a turn counts for at least as long as nobody told how it ended, in tokens.
pub(crate) const UNTOLD: u64 = 1000;

/// What the turns of a row count for, as columns of a sum.
const SUMS: &str =
    "count(*), coalesce(sum(counts), 0), coalesce(sum(cost_usd), 0.0), coalesce(max(tokens), 0),
     coalesce(max(cost_usd), 0.0)";

/// Rows with what they count for.
fn counted() -> String {
    format!(
        "(SELECT *, CASE ended WHEN 1 THEN tokens ELSE max(tokens, {UNTOLD}) END AS counts FROM spending WHERE at >= ?1)"
    )
}

/// Notes what a turn has used so far, or in the end. A turn that nobody heard of begins with this.
pub(crate) fn note(
    tx: &Tx<'_>,
    uid: AgentUid,
    usage: &TurnUsage,
    ended: bool,
    at: Timestamp,
) -> Result<(), LedgerError> {
    let TurnUsage {
        turn,
        tokens,
        cost_usd,
    } = usage;
    execute(
        tx,
        "INSERT INTO spending (uid, turn, at, tokens, cost_usd, ended) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (uid, turn) DO UPDATE SET
             tokens = max(tokens, excluded.tokens),
             cost_usd = CASE WHEN cost_usd IS NULL OR excluded.cost_usd > cost_usd THEN excluded.cost_usd
                        ELSE cost_usd END,
             ended = max(ended, excluded.ended)
         WHERE excluded.tokens > tokens OR excluded.ended > ended
             OR coalesce(excluded.cost_usd, 0) > coalesce(cost_usd, 0)",
        (text(&uid), text(turn), At(at), int(*tokens), cost_usd, ended),
    )
    .map(drop)
}

/// Whether this turn of this agent has begun.
pub(crate) fn has_begun(db: &Connection, uid: AgentUid, turn: TurnId) -> Result<bool, LedgerError> {
    let mut statement = db.prepare_cached("SELECT 1 FROM spending WHERE uid = ?1 AND turn = ?2")?;
    Ok(statement.exists((text(&uid), text(&turn)))?)
}

/// What was used since the day began, and what may be.
pub(crate) fn account(db: &Connection, uid: AgentUid, day: Timestamp) -> Result<Account, LedgerError> {
    let rows = counted();
    let agent = db
        .prepare_cached(&format!("SELECT {SUMS} FROM {rows} WHERE uid = ?2"))?
        .query_row((At(day), text(&uid)), spent)?;
    let hive = db
        .prepare_cached(&format!("SELECT {SUMS} FROM {rows}"))?
        .query_row([At(day)], spent)?;
    Ok(Account {
        agent,
        hive,
        agent_may: allowed(db, Some(uid), day)?,
        hive_may: allowed(db, None, day)?,
    })
}

/// What this turn counts for in the account of this day.
pub(crate) fn of_turn(
    db: &Connection,
    uid: AgentUid,
    turn: TurnId,
    day: Timestamp,
) -> Result<Spent, LedgerError> {
    let rows = counted();
    Ok(db
        .prepare_cached(&format!("SELECT {SUMS} FROM {rows} WHERE uid = ?2 AND turn = ?3"))?
        .query_row((At(day), text(&uid), text(&turn)), spent)?)
}

fn spent(row: &Row<'_>) -> rusqlite::Result<Spent> {
    let number = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
    Ok(Spent {
        turns: number(0)?,
        tokens: number(1)?,
        usd: row.get(2)?,
        most_tokens: number(3)?,
        most_usd: row.get(4)?,
    })
}

/// Which budget a question was asked about: an agent's, or with `None` the hive's.
pub(crate) fn asked_by(
    db: &Connection,
    question: u64,
) -> Result<Option<(Option<AgentUid>, Timestamp)>, LedgerError> {
    let found: Option<(String, At)> = db
        .prepare_cached("SELECT uid, day FROM overspending WHERE question = ?1")?
        .query_row([int(question)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(found.map(|(uid, day)| (uid.parse().ok(), day.0)))
}

/// Whether the operator was asked already about what may be used now.
pub(crate) fn was_asked(
    db: &Connection,
    whose: Option<AgentUid>,
    day: Timestamp,
) -> Result<bool, LedgerError> {
    let mut statement = db.prepare_cached(
        "SELECT 1 FROM overspending WHERE uid = ?1 AND day = ?2 AND (times IS NULL OR times = asked_times)",
    )?;
    Ok(statement.exists((super::sql::uid_or_hive(whose), At(day)))?)
}

/// Notes the question that the operator was asked: one for each day, and one more for each time that the operator allowed
/// as much again.
pub(crate) fn asked(
    tx: &Tx<'_>,
    whose: Option<AgentUid>,
    day: Timestamp,
    question: u64,
) -> Result<(), LedgerError> {
    execute(
        tx,
        "INSERT INTO overspending (uid, day, question, times, asked_times) VALUES (?1, ?2, ?3, 1, 1)
         ON CONFLICT (uid, day) DO UPDATE SET question = excluded.question, asked_times = times",
        (super::sql::uid_or_hive(whose), At(day), int(question)),
    )
    .map(drop)
}

/// How much may be used today.
pub(crate) fn allowed(
    db: &Connection,
    whose: Option<AgentUid>,
    day: Timestamp,
) -> Result<Allowed, LedgerError> {
    let times: Option<Option<u32>> = db
        .prepare_cached("SELECT times FROM overspending WHERE uid = ?1 AND day = ?2")?
        .query_row((super::sql::uid_or_hive(whose), At(day)), |row| row.get(0))
        .optional()?;
    Ok(times.map_or_else(Allowed::default, |times| {
        times.map_or(Allowed::Everything, Allowed::Times)
    }))
}

/// Allows more, for this day alone. Whoever waits for it is woken.
pub(crate) fn allow(
    tx: &mut Tx<'_>,
    whose: Option<AgentUid>,
    day: Timestamp,
    may: Allowed,
    by: &str,
    at: Timestamp,
) -> Result<(), LedgerError> {
    let times = match may {
        Allowed::Times(times) => Some(times),
        Allowed::Everything => None,
    };
    execute(
        tx,
        "UPDATE overspending SET times = ?3, by = ?4, at = ?5 WHERE uid = ?1 AND day = ?2",
        (super::sql::uid_or_hive(whose), At(day), times, by, At(at)),
    )?;
    for agent in names(tx, whose)? {
        tx.wake(&agent);
    }
    Ok(())
}

/// The agent of this uid, or with `None` all of them.
pub(crate) fn names(db: &Connection, whose: Option<AgentUid>) -> Result<Vec<AgentName>, LedgerError> {
    let mut statement =
        db.prepare_cached("SELECT name FROM agents WHERE life <> 'archived' AND (?1 = '' OR uid = ?1)")?;
    let names = statement.query_map([super::sql::uid_or_hive(whose)], |row| row.get::<_, String>(0))?;
    let mut found = Vec::new();
    for name in names {
        // A row that cannot be read is reported by whoever loads the agent.
        found.extend(name?.parse::<AgentName>().ok());
    }
    Ok(found)
}

/// The uid of the agent of this name; `None` when there is none.
pub(crate) fn uid_of(db: &Connection, agent: &AgentName) -> Result<Option<AgentUid>, LedgerError> {
    agents::uid_of(db, agent)
}

/// An override of today's budget as a person is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) may: Allowed,
    pub(crate) by: String,
    pub(crate) at: Timestamp,
}

/// What the operator allowed today, if anything.
pub(crate) fn allowance(
    db: &Connection,
    whose: Option<AgentUid>,
    day: Timestamp,
) -> Result<Option<Allowance>, LedgerError> {
    let may = allowed(db, whose, day)?;
    let found: Option<(String, At)> = db
        .prepare_cached("SELECT by, at FROM overspending WHERE uid = ?1 AND day = ?2 AND by IS NOT NULL")?
        .query_row((super::sql::uid_or_hive(whose), At(day)), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    Ok(found.map(|(by, at)| Allowance { may, by, at: at.0 }))
}
