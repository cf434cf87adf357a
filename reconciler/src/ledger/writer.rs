//! Carries out what callers hand over. Writes that wait together go to disk together: one sync for all of them.
//!
//! Each write is undone alone when it fails, and no caller is answered before the whole group is on disk. A write
//! that comes alone does not wait for others.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use shared::AgentName;
use tokio::sync::{mpsc, oneshot};

use super::error::LedgerError;
use super::leases::Handed;
use super::storage::TxError;
use super::{Signals, Tx};
use crate::counters::Counted;

/// How many writes share one sync at most. Those that come first wait until the last of their group is carried out.
const MAX_GROUP: usize = 64;

/// What a ledger thread carries out.
pub(super) enum Job {
    /// Something that changes nothing.
    Read(Box<dyn FnOnce(&mut Connection) + Send>),
    /// One write transaction, as far as its caller can tell.
    Write(Box<dyn Write>),
}

/// A write that waits for its turn, then for its group.
pub(super) trait Write: Send {
    /// Carries it out; whether what it changed is to be kept.
    fn run(&mut self, db: &Connection) -> bool;
    /// Answers the caller, now that it is known what became of its group.
    fn settle(self: Box<Self>, committed: Result<(), LedgerError>);
}

/// A read and its caller.
pub(super) fn read<T, E>(
    work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    reply: oneshot::Sender<Result<T, E>>,
    signals: Arc<Signals>,
) -> Job
where
    T: Send + 'static,
    E: TxError,
{
    Job::Read(Box::new(move |db| {
        let snapshot = db.transaction().map_err(LedgerError::from);
        let answer = snapshot.map_err(E::from).and_then(|snapshot| work(&snapshot));
        signals.heed(&answer);
        // An error only means that the caller stopped waiting.
        drop(reply.send(answer));
    }))
}

/// A write and its caller.
pub(super) fn write<T, E, F>(work: F, reply: oneshot::Sender<Result<T, E>>, signals: Arc<Signals>) -> Job
where
    T: Send + 'static,
    E: TxError,
    F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
{
    Job::Write(Box::new(Pending {
        work: Some(work),
        done: None,
        reply,
        signals,
    }))
}

struct Pending<F, T, E> {
    work: Option<F>,
    /// What it came to, and who is to be told once it is on disk.
    done: Option<Result<(T, News), E>>,
    reply: oneshot::Sender<Result<T, E>>,
    signals: Arc<Signals>,
}

/// What a transaction has to tell.
pub(super) struct News {
    pub(super) last_seq: Option<u64>,
    pub(super) woken: BTreeSet<AgentName>,
    pub(super) handed: Vec<Handed>,
    pub(super) counted: Vec<Counted>,
    /// Whether a row is different now.
    pub(super) changed: bool,
    pub(super) deadlines: bool,
}

impl<F, T, E> Write for Pending<F, T, E>
where
    T: Send,
    E: TxError,
    F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send,
{
    fn run(&mut self, db: &Connection) -> bool {
        self.done = self.work.take().map(|work| {
            let mut tx = Tx::new(db);
            let value = work(&mut tx)?;
            let news = tx.into_news(&self.signals.receivers)?;
            Ok((value, news))
        });
        matches!(self.done, Some(Ok(_)))
    }

    fn settle(self: Box<Self>, committed: Result<(), LedgerError>) {
        let answer = match (self.done, committed) {
            (Some(Ok((value, news))), Ok(())) => {
                self.signals.tell(news);
                Ok(value)
            }
            (Some(Err(error)), _) => Err(error),
            (_, Err(error)) => Err(error.into()),
            // It never came to its turn.
            (None, Ok(())) => return,
        };
        self.signals.heed(&answer);
        // An error only means that the caller stopped waiting.
        drop(self.reply.send(answer));
    }
}

/// Carries out one job, by itself.
pub(super) fn now(db: &mut Connection, job: Job) {
    let (_nobody, mut jobs) = mpsc::channel(1);
    match job {
        Job::Read(read) => read(db),
        Job::Write(write) => {
            // Nothing waits behind it.
            let _none = group(db, write, &mut jobs);
        }
    }
}

/// Works until the last handle is gone. A job that panics ends the thread; its group is undone.
pub(super) fn serve(mut db: Connection, mut jobs: mpsc::Receiver<Job>) {
    let mut next = jobs.blocking_recv();
    while let Some(job) = next {
        let left = match job {
            Job::Read(read) => {
                read(&mut db);
                None
            }
            Job::Write(first) => group(&mut db, first, &mut jobs),
        };
        next = left.or_else(|| jobs.blocking_recv());
    }
}

/// Carries out this write and those that wait behind it. Returns the job that is no write and ended the group.
fn group(db: &mut Connection, first: Box<dyn Write>, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
    let mut transaction = match db.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => {
            first.settle(Err(error.into()));
            return None;
        }
    };
    let mut members = Vec::new();
    let mut next = Some(first);
    let mut left = None;
    let mut sound = Ok(());
    while let Some(mut member) = next.take() {
        sound = carry_out(&mut transaction, &mut *member);
        members.push(member);
        if sound.is_ok() && members.len() < MAX_GROUP {
            match jobs.try_recv() {
                Ok(Job::Write(write)) => next = Some(write),
                Ok(read) => left = Some(read),
                Err(_) => {}
            }
        }
    }
    let outcome = sound.and_then(|()| transaction.commit()).map_err(Arc::new);
    for member in members {
        member.settle(outcome.clone().map_err(LedgerError::Undone));
    }
    left
}

/// Carries out one write of a group, so that it can be undone alone. An error says that the group cannot go on: SQLite
/// undoes a whole transaction when a disk is full or fails.
fn carry_out(transaction: &mut Transaction<'_>, write: &mut dyn Write) -> rusqlite::Result<()> {
    let savepoint = transaction.savepoint()?;
    if write.run(&savepoint) {
        savepoint.commit()
    } else {
        savepoint.finish()
    }
}
