//! What time alone does: questions that ran out, reminders that are due.

use jiff::Timestamp;
use tokio::sync::watch;

use super::{Broker, questions, reminders};
use crate::ledger::LedgerError;
use crate::ledger::{questions as asked, reminders as set};

/// How many of each kind one transaction settles. What is left is due at once.
const AT_ONCE: u32 = 100;

impl Broker {
    /// When something is to be settled next; `None`: nothing ever, as things are.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn next_deadline(&self) -> Result<Option<Timestamp>, LedgerError> {
        self.ledger
            .read(|db| {
                let next = [asked::next_due(db)?, set::next_due(db)?];
                Ok(next.into_iter().flatten().min())
            })
            .await
    }

    /// Changes whenever something may be due earlier than was known. Subscribe first, then ask, then wait.
    pub fn deadlines(&self) -> watch::Receiver<u64> {
        self.ledger.deadlines()
    }

    /// Ends what ran out and delivers what is due, in one transaction; returns how much that was. To be asked only when
    /// something is due: it is a write.
    ///
    /// # Errors
    /// When the ledger fails; then nothing has happened.
    pub async fn settle(&self, now: Timestamp) -> Result<usize, LedgerError> {
        self.ledger
            .write(move |tx| {
                let mut settled = 0;
                let mut ran_out = asked::due(tx, now, AT_ONCE)?;
                for row in std::mem::take(&mut ran_out.undecodable) {
                    asked::give_up(tx, &row, now)?;
                    settled += 1;
                }
                for question in ran_out.items {
                    questions::expire(tx, &question, now)?;
                    settled += 1;
                }
                let mut due = set::due(tx, now, AT_ONCE)?;
                for row in std::mem::take(&mut due.undecodable) {
                    set::give_up(tx, &row, now)?;
                    settled += 1;
                }
                for reminder in due.items {
                    reminders::deliver(tx, &reminder, now)?;
                    settled += 1;
                }
                Ok(settled)
            })
            .await
    }
}
