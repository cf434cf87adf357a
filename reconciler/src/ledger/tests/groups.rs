//! Writes that wait together are committed together, and each still is a transaction of its own.

use std::pin::Pin;
use std::sync::mpsc;

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::super::{LedgerError, Tx};
use super::*;

type Answer = Pin<Box<dyn Future<Output = Result<u64, LedgerError>> + Send>>;

/// A write that adds a line to the events and then does something more.
fn write(
    ledger: &Ledger,
    then: impl FnOnce(&mut Tx<'_>, u64) -> Result<u64, LedgerError> + Send + 'static,
) -> Answer {
    let ledger = ledger.clone();
    let write = async move {
        let work = move |tx: &mut Tx<'_>| {
            tx.execute(
                "INSERT INTO events (at, level, kind, message, data) VALUES (0, 'info', 'test', '', 'null')",
                [],
            )?;
            let id = tx.last_insert_rowid().unsigned_abs();
            tx.last_seq = Some(id);
            then(tx, id)
        };
        ledger.write(work).await
    };
    Box::pin(write)
}

fn plain(ledger: &Ledger) -> Answer {
    write(ledger, |_, id| Ok(id))
}

/// Hands over all of these before the first of them is carried out, so that they wait together. Returns their answers.
async fn together(ledger: &Ledger, writes: Vec<Answer>) -> Vec<Result<u64, LedgerError>> {
    let (go, wait) = mpsc::channel();
    let mut gate = write(ledger, move |_, id| {
        wait.recv().expect("the test lets it go");
        Ok(id)
    });
    assert!(gate.as_mut().now_or_never().is_none());
    let mut writes = writes;
    for write in &mut writes {
        assert!(write.as_mut().now_or_never().is_none());
    }
    go.send(()).expect("the gate waits");
    let answers = join_all(writes).await;
    gate.await.expect("a write");
    answers
}

async fn events(desk: &Desk) -> Vec<u64> {
    let events = desk.ledger.events(0, 1000).await.expect("a read");
    events.into_iter().map(|event| event.seq).collect()
}

/// How many transactions the write-ahead log holds: each ends with a frame that states the size of the database.
fn commits(desk: &Desk) -> usize {
    let log = std::fs::read(format!("{}-wal", desk.path)).expect("a log");
    let word = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().expect("four bytes"));
    let page = usize::try_from(word(8)).expect("a page size");
    let frames = (32..log.len()).step_by(24 + page);
    frames.filter(|frame| word(frame + 4) != 0).count()
}

#[tokio::test]
async fn writes_that_wait_together_share_one_commit() {
    let desk = Desk::new().await;
    let before = commits(&desk);
    plain(&desk.ledger).await.expect("a write");
    assert_eq!(commits(&desk), before + 1);
    let writes = (0..50).map(|_| plain(&desk.ledger)).collect();
    let answers = together(&desk.ledger, writes).await;
    let seqs: Vec<u64> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        seqs,
        (3..53).collect::<Vec<_>>(),
        "in the order in which they came"
    );
    assert_eq!(commits(&desk), before + 2);
    assert_eq!(*desk.ledger.subscribe().borrow(), 52);
}

#[tokio::test]
async fn a_write_that_fails_takes_no_other_of_its_group_with_it() {
    let desk = Desk::new().await;
    let fails = write(&desk.ledger, |tx, _| {
        tx.execute("UPDATE events SET kind = 'changed'", [])?;
        Err(LedgerError::UnknownAgent(uid(7)))
    });
    let writes = vec![plain(&desk.ledger), fails, plain(&desk.ledger)];
    let answers = together(&desk.ledger, writes).await;
    assert!(
        matches!(answers[..], [Ok(2), Err(LedgerError::UnknownAgent(_)), Ok(3)]),
        "{answers:?}"
    );
    let events = desk.ledger.events(0, 10).await.expect("a read");
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.kind == "test"), "{events:?}");
}

#[tokio::test]
async fn nobody_is_answered_before_the_group_is_on_disk() {
    let desk = Desk::new().await;
    let (go, wait) = mpsc::channel();
    let (started, starts) = mpsc::channel();
    let mut first = plain(&desk.ledger);
    let raw = desk.raw();
    let on_disk = move || -> i64 {
        raw.query_row("SELECT count(*) FROM events", [], |row| row.get(0))
            .expect("a count")
    };
    let slow = write(&desk.ledger, move |_, id| {
        started.send(()).expect("the test waits");
        wait.recv().expect("the test lets it go");
        Ok(id)
    });
    let ledger = desk.ledger.clone();
    let group = tokio::spawn(async move { together(&ledger, vec![slow]).await });
    tokio::task::spawn_blocking(move || starts.recv().expect("it starts"))
        .await
        .expect("no panic");
    // The gate of the group has been carried out by now, and its caller knows nothing of it.
    assert_eq!(on_disk(), 0);
    assert!(first.as_mut().now_or_never().is_none());
    assert!(!group.is_finished());
    go.send(()).expect("it waits");
    assert!(group.await.expect("no panic")[0].is_ok());
    first.await.expect("a write");
    assert_eq!(on_disk(), 3);
}

#[tokio::test]
async fn what_sqlite_undoes_as_a_whole_fails_for_the_whole_group_and_for_nobody_else() {
    let desk = Desk::new().await;
    // SQLite does this by itself when a disk is full.
    let undoes = write(&desk.ledger, |tx, id| {
        tx.execute_batch("ROLLBACK")?;
        Ok(id)
    });
    let (go, wait) = mpsc::channel();
    let gate = write(&desk.ledger, move |_, id| {
        wait.recv().expect("the test lets it go");
        Ok(id)
    });
    let mut all = [gate, plain(&desk.ledger), undoes, plain(&desk.ledger)];
    for write in &mut all {
        assert!(write.as_mut().now_or_never().is_none());
    }
    let mut news = desk.ledger.subscribe();
    news.mark_unchanged();
    go.send(()).expect("the gate waits");
    let mut answers = join_all(all).await;
    let after = answers.pop().expect("four answers");
    for lost in answers {
        assert!(matches!(lost, Err(LedgerError::Undone(_))), "{lost:?}");
    }
    let seq = after.expect("a write of its own");
    assert_eq!(events(&desk).await, [seq], "what is told to be lost is lost");
    assert_eq!(*news.borrow_and_update(), seq);
}
