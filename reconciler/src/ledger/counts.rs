//! How many rows of a kind there are.

use std::collections::BTreeMap;

use super::error::LedgerError;
use super::{Ledger, messages};

/// Counts of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open gates by class.
    pub open_gates: BTreeMap<String, u64>,
    /// Messages that wait, by recipient.
    pub inboxes: BTreeMap<String, u64>,
    /// Messages that were given up and are still kept.
    pub dead_messages: u64,
}

impl Ledger {
    /// Counts what waits and what was given up.
    pub async fn counts(&self) -> Result<Counts, LedgerError> {
        self.read(|db| {
            let mut query =
                db.prepare_cached("SELECT class, count(*) FROM gates WHERE state = 'open' GROUP BY class")?;
            let open_gates = query
                .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?
                .collect::<Result<_, _>>()?;
            let dead: i64 = db
                .prepare_cached(
                    "SELECT count(*) FROM messages WHERE state = 'dead' AND dismissed_at IS NULL",
                )?
                .query_row([], |row| row.get(0))?;
            Ok(Counts {
                open_gates,
                inboxes: messages::inboxes(db)?.into_iter().collect(),
                dead_messages: dead.unsigned_abs(),
            })
        })
        .await
    }
}
