//! The ledger: what must survive a crash, in one SQLite file.
//!
//! ```text
//! Ledger (cheap handle) --boxed closures--> writer thread --one transaction each, FULL sync--> hive.db
//!                       --boxed closures--> reader thread --read-only connection, WAL snapshot----^
//! ```
//!
//! Each write is one transaction: all of it is on disk when the call returns, or none of it. A write that was handed
//! over is carried out even when the caller stops waiting for it. Reads have their own connection, so they never
//! wait behind a sync, and that connection cannot write. Both threads end with the last handle; once a thread is
//! gone every call is [`LedgerError::Closed`].
//!
//! Nothing here decides anything, with one exception: what a gate allows is checked in the transaction that uses it
//! up, and again by triggers in the schema.

mod agents;
mod attempts;
mod changes;
mod error;
mod events;
mod gates;
pub(crate) mod messages;
mod open;
mod plans;
mod prune;
mod schema;
mod sql;
#[cfg(test)]
mod tests;
mod wakes;

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use shared::{AgentName, HiveId};
use tokio::sync::{mpsc, oneshot, watch};

pub use error::{BeginError, DecideError, LedgerError, Listing, OpenError, Undecodable};
pub use plans::StoredSpec;
pub use prune::Pruned;
pub(crate) use sql::bounded;
pub(crate) use wakes::Wakes;

/// What a ledger thread carries out.
type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// How many calls may wait for a thread before further callers are held back.
const JOBS: usize = 256;

/// The identity of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The hive. It outlives its ledger.
    pub hive_id: HiveId,
    /// The stream of events: another file, another epoch.
    pub epoch: String,
}

/// A handle to the ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    writer: mpsc::Sender<Job>,
    reader: mpsc::Sender<Job>,
    signals: Arc<Signals>,
    meta: Arc<Meta>,
}

/// Who is told after a commit.
#[derive(Debug)]
struct Signals {
    seq: watch::Sender<u64>,
    wakes: Arc<Wakes>,
}

/// A write transaction, and who is to be told once it is on disk.
pub(crate) struct Tx<'c> {
    sql: Transaction<'c>,
    last_seq: Option<u64>,
    woken: BTreeSet<AgentName>,
}

impl std::ops::Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.sql
    }
}

impl Tx<'_> {
    /// There is something for this agent's next poll.
    pub(crate) fn wake(&mut self, agent: &AgentName) {
        self.woken.insert(agent.clone());
    }
}

impl Ledger {
    /// The identity of this ledger.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The number of the newest event, whenever it rises.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.signals.seq.subscribe()
    }

    /// Who waits for messages.
    pub(crate) fn wakes(&self) -> &Arc<Wakes> {
        &self.signals.wakes
    }

    /// Carries out `work` in one transaction: committed when it returns `Ok`, else undone.
    pub(crate) async fn write<T, E>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<LedgerError> + Send + 'static,
    {
        let signals = Arc::clone(&self.signals);
        call(&self.writer, move |db| signals.transact(db, work)).await
    }

    /// Carries out `work` on one snapshot, apart from all writes.
    pub(crate) async fn read<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<LedgerError> + Send + 'static,
    {
        call(&self.reader, move |db| {
            let snapshot = db.transaction().map_err(LedgerError::from)?;
            work(&snapshot)
        })
        .await
    }
}

/// Sends a job to a thread and waits for its answer.
async fn call<T, E>(
    thread: &mpsc::Sender<Job>,
    work: impl FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<LedgerError> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let job: Job = Box::new(move |db| {
        // An error only means that the caller stopped waiting.
        drop(reply.send(work(db)));
    });
    // A thread that is gone drops its queue and with it every `reply`, so neither wait can last.
    thread.send(job).await.map_err(|_| LedgerError::Closed)?;
    answer.await.map_err(|_| LedgerError::Closed)?
}

impl Signals {
    fn transact<T, E: From<LedgerError>>(
        &self,
        db: &mut Connection,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let sql = db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(LedgerError::from)?;
        let mut tx = Tx {
            sql,
            last_seq: None,
            woken: BTreeSet::new(),
        };
        let value = work(&mut tx)?;
        let Tx { sql, last_seq, woken } = tx;
        sql.commit().map_err(LedgerError::from)?;
        if let Some(seq) = last_seq {
            self.seq.send_replace(seq);
        }
        for agent in &woken {
            self.wakes.wake(agent);
        }
        Ok(value)
    }
}
