//! What messages say of a turn: who woke it, to whom it wrote, how many waited.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::Connection;
use shared::{Address, AgentName, TurnId};

use super::error::LedgerError;
use super::managers;
use super::sql::{At, text};

/// The kinds of sender of the messages that a turn had, each once, and how many messages these were. Of a turn that gave
/// its messages back nothing is known any more.
pub(crate) fn woken_by(
    db: &Connection,
    agent: &AgentName,
    turn: TurnId,
) -> Result<(Vec<String>, u64), LedgerError> {
    let mut query = db.prepare_cached(
        "SELECT CASE WHEN from_addr IN ('operator', 'system') THEN from_addr ELSE 'agent' END,
                EXISTS (SELECT 1 FROM reminders r WHERE r.owner = m.to_addr AND r.message = m.id), count(*)
         FROM messages m WHERE to_addr = ?1 AND state IN ('leased', 'acked', 'dead') AND turn = ?2 GROUP BY 1, 2",
    )?;
    let rows = query.query_map((agent.as_str(), text(&turn)), |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, bool>(1)?,
            row.get::<_, i64>(2)?,
        ))
    })?;
    let mut kinds = BTreeSet::new();
    let mut count = 0;
    for row in rows {
        let (sender, reminds, messages) = row?;
        kinds.insert(if reminds { "reminder".to_owned() } else { sender });
        count += messages.unsigned_abs();
    }
    Ok((kinds.into_iter().collect(), count))
}

/// How many messages an agent sent in this time, by kind of recipient: `operator`, `manager`, `agent`.
pub(crate) fn sent(
    db: &Connection,
    agent: &AgentName,
    from: Timestamp,
    until: Timestamp,
) -> Result<BTreeMap<String, u64>, LedgerError> {
    let managers = managers(db)?;
    let mut query = db.prepare_cached(
        "SELECT to_addr, count(*) FROM messages WHERE from_addr = ?1 AND at >= ?2 AND at <= ?3 GROUP BY to_addr",
    )?;
    let rows = query.query_map((agent.as_str(), At(from), At(until)), |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })?;
    let mut sent = BTreeMap::new();
    for row in rows {
        let (to, count) = row?;
        let kind = match to.parse::<Address>() {
            Ok(Address::Operator) => "operator",
            Ok(Address::Agent(name)) if managers.contains(&name) => "manager",
            _ => "agent",
        };
        *sent.entry(kind.to_owned()).or_default() += count.unsigned_abs();
    }
    Ok(sent)
}

/// The most messages that waited for an agent at once, since its turn before was told of.
pub(crate) fn most_waited(db: &Connection, agent: &AgentName, now: Timestamp) -> Result<u64, LedgerError> {
    let mut query = db.prepare_cached(
        "WITH since AS (SELECT coalesce(max(at), 0) AS at FROM turns WHERE agent = ?1)
         SELECT m.at, CASE WHEN state = 'queued' THEN NULL ELSE leased_at END FROM messages m, since
         WHERE to_addr = ?1 AND m.at <= ?2 AND (state = 'queued' OR leased_at > since.at)",
    )?;
    let rows = query.query_map((agent.as_str(), At(now)), |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
    })?;
    let mut changes = Vec::new();
    for row in rows {
        let (came, went) = row?;
        changes.push((came, 1));
        // What goes the moment it comes has not waited.
        changes.extend(went.map(|went| (went.max(came), -1)));
    }
    Ok(highest(changes))
}

/// The highest sum of changes, in the order of time; of one moment the falls come first.
fn highest(mut changes: Vec<(i64, i64)>) -> u64 {
    changes.sort_unstable();
    let sums = changes.into_iter().scan(0_i64, |sum, (_, change)| {
        *sum += change;
        Some(*sum)
    });
    sums.max().unwrap_or(0).max(0).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_point_is_found_wherever_it_is() {
        assert_eq!(highest(Vec::new()), 0);
        assert_eq!(highest(vec![(5, -1), (1, 1), (2, 1), (3, -1), (4, 1)]), 2);
        assert_eq!(
            highest(vec![(1, 1), (1, -1), (1, 1)]),
            1,
            "of one moment the falls come first"
        );
    }
}
