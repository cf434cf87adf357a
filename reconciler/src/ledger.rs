//! The ledger: what must survive a crash, in one SQLite file.
//!
//! ```text
//! Ledger (cheap handle) --boxed closures--> writer thread --one transaction each, FULL sync--> hive.db
//!                       --boxed closures--> reader thread --read-only connection, WAL snapshot----^
//! ```
//!
//! Each write is one transaction: all of it is on disk when the call returns, or none of it. Writes that wait at the
//! same time share one sync. A write that was handed over is carried out even when the caller stops waiting for it.
//! Reads have their own connection, so they never wait behind a sync, and that connection cannot write. Both threads
//! end with the last handle; once a thread is gone every call is [`LedgerError::Closed`]. A ledger in memory, for
//! simulations, has no threads.
//!
//! Nothing here decides anything, with one exception: what a gate allows is checked in the transaction that uses it
//! up, and again by triggers in the schema.

mod agents;
mod attempts;
mod changes;
mod counts;
mod drafts;
mod egress;
mod error;
pub(crate) mod events;
mod gates;
pub(crate) mod instructions;
pub(crate) mod leases;
mod memory;
pub(crate) mod messages;
mod open;
mod orders;
mod plans;
mod prune;
pub(crate) mod questions;
mod rebuild;
pub(crate) mod reminders;
mod salvage;
mod schema;
pub(crate) mod sent;
pub(crate) mod spending;
mod sql;
pub mod storage;
#[cfg(test)]
pub(crate) mod tests;
mod trials;
pub(crate) mod turn_facts;
mod turns;
mod wakes;
mod wal;
mod writer;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use shared::{AgentName, HiveId};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use agents::{active, correspondence, managers};
pub use counts::Counts;
pub use drafts::Register;
pub use error::{BeginError, DecideError, LedgerError, Listing, OpenError, Undecodable};
pub(crate) use gates::open_gates;
pub use memory::Boundary;
pub use plans::StoredSpec;
pub use prune::Pruned;
pub use rebuild::{Interrupted, Rebuilt, RebuiltAgent, give_to_owner, interrupted, rebuild, swap_in};
pub(crate) use salvage::places;
pub use salvage::{Condition, Salvage, Tally, condition, is_missing, salvage};
pub(crate) use sql::bounded;
pub(crate) use storage::TxError;
pub(crate) use wakes::Wakes;

use crate::counters::{self, Counted};
use leases::{Handed, Receivers};
use writer::{Job, News};

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
    writer: Door,
    reader: Door,
    signals: Arc<Signals>,
    meta: Arc<Meta>,
    boundary: Option<Arc<dyn Boundary>>,
}

/// Who carries out a job.
#[derive(Debug, Clone)]
enum Door {
    /// The thread that owns the connection.
    Thread(mpsc::Sender<Job>),
    /// Whoever asks, at once: a ledger in memory waits for no disk.
    Here(Arc<Mutex<Connection>>),
}

/// Who is told after a commit, and what is counted.
#[derive(Debug)]
struct Signals {
    seq: watch::Sender<u64>,
    wakes: Arc<Wakes>,
    receivers: Arc<Receivers>,
    counters: counters::Counters,
    trouble: watch::Sender<Option<storage::Trouble>>,
    /// Writes that changed something.
    writes: AtomicU64,
    deadlines: watch::Sender<u64>,
}

/// A write transaction, and who is to be told once it is on disk.
pub(crate) struct Tx<'c> {
    db: &'c Connection,
    changes_before: u64,
    last_seq: Option<u64>,
    woken: BTreeSet<AgentName>,
    counted: Vec<Counted>,
    deadlines: bool,
}

impl std::ops::Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.db
    }
}

impl<'c> Tx<'c> {
    fn new(db: &'c Connection) -> Self {
        Self {
            db,
            changes_before: db.total_changes(),
            last_seq: None,
            woken: BTreeSet::new(),
            counted: Vec::new(),
            deadlines: false,
        }
    }

    /// Ends the work: whoever waits for messages that are there now gets them in this same transaction.
    fn into_news(mut self, receivers: &Receivers) -> Result<News, LedgerError> {
        let woken = std::mem::take(&mut self.woken);
        let handed = receivers.lease(&mut self, &woken)?;
        let Self {
            db,
            changes_before,
            last_seq,
            woken: _,
            counted,
            deadlines,
        } = self;
        Ok(News {
            last_seq,
            woken,
            handed,
            counted,
            changed: db.total_changes() != changes_before,
            deadlines,
        })
    }

    /// There is something for this agent's next poll.
    pub(crate) fn wake(&mut self, agent: &AgentName) {
        self.woken.insert(agent.clone());
    }

    /// Something may be due earlier than was known.
    pub(crate) fn heed_deadlines(&mut self) {
        self.deadlines = true;
    }

    /// Something to be counted once it is on disk.
    pub(crate) fn count(&mut self, counted: Counted) {
        self.counted.push(counted);
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

    /// How many writes have changed something since the ledger was opened. What was read before the number rose may be
    /// out of date; a write that is not answered yet may not be counted yet.
    pub fn writes(&self) -> u64 {
        self.signals.writes.load(Ordering::SeqCst)
    }

    /// Changes whenever something may be due earlier than was known. Subscribe first, then look, then wait.
    pub(crate) fn deadlines(&self) -> watch::Receiver<u64> {
        self.signals.deadlines.subscribe()
    }

    /// What has happened since the daemon started.
    pub fn counters(&self) -> &counters::Counters {
        &self.signals.counters
    }

    /// Who is told that there are messages.
    pub(crate) fn wakes(&self) -> &Arc<Wakes> {
        &self.signals.wakes
    }

    /// Who waits for messages.
    pub(crate) fn receivers(&self) -> Arc<Receivers> {
        Arc::clone(&self.signals.receivers)
    }

    /// Carries out `work` in one transaction: committed when it returns `Ok`, else undone.
    pub(crate) async fn write<T, E>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: TxError,
    {
        let signals = Arc::clone(&self.signals);
        let transaction = call(&self.writer, |reply| writer::write(work, reply, signals));
        match &self.boundary {
            None => transaction.await,
            Some(boundary) => {
                let number = boundary.before().await?;
                let value = transaction.await?;
                boundary.after(number).await?;
                Ok(value)
            }
        }
    }

    /// Carries out `work` on one snapshot, apart from all writes.
    pub(crate) async fn read<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: TxError,
    {
        let signals = Arc::clone(&self.signals);
        call(&self.reader, |reply| writer::read(work, reply, signals)).await
    }
}

/// Has a job carried out and waits for its answer.
async fn call<T, E>(door: &Door, job: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Job) -> Result<T, E>
where
    E: From<LedgerError>,
{
    let (reply, mut answer) = oneshot::channel();
    match door {
        // A thread that is gone drops its queue and with it every `reply`, so neither wait can last.
        Door::Thread(thread) => thread.send(job(reply)).await.map_err(|_| LedgerError::Closed)?,
        // A job that panicked left no transaction behind.
        Door::Here(db) => {
            writer::now(&mut db.lock().unwrap_or_else(PoisonError::into_inner), job(reply));
            // Not awaited: whoever is polled by hand has no budget of the runtime's, and would wait for ever.
            return answer.try_recv().map_err(|_| LedgerError::Closed)?;
        }
    }
    answer.await.map_err(|_| LedgerError::Closed)?
}

impl Signals {
    /// Takes note when it was the storage that failed.
    fn heed<T, E: TxError>(&self, outcome: &Result<T, E>) {
        if let Some(fault) = outcome.as_ref().err().and_then(|error| error.ledger()?.fault()) {
            self.met(fault);
        }
    }

    /// Tells and counts what is on disk now.
    fn tell(&self, news: News) {
        let News {
            last_seq,
            woken,
            handed,
            counted,
            changed,
            deadlines,
        } = news;
        if changed {
            self.writes.fetch_add(1, Ordering::SeqCst);
        }
        handed.into_iter().for_each(Handed::over);
        if let Some(seq) = last_seq {
            self.seq.send_replace(seq);
        }
        for counted in counted {
            self.counters.add(counted);
        }
        for agent in &woken {
            self.wakes.wake(agent);
        }
        if deadlines {
            self.deadlines.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}
