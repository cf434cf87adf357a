//! Damaged bytes in the ledger's files: refused with words, and left as they are.

use std::fs;
use std::io::Write as _;

use super::*;
use crate::ledger::error::OpenError;

async fn open(path: &Utf8Path) -> Result<Ledger, OpenError> {
    Ledger::open(path, now(), HiveId(Uuid::from_u128(99))).await
}

fn write(path: &str, bytes: &[u8]) {
    fs::File::create(path)
        .expect("the file")
        .write_all(bytes)
        .expect("written");
}

/// A ledger whose daemon was killed, in its files: the newest commits lie in the log alone.
async fn killed() -> (TempDir, Utf8PathBuf) {
    let desk = Desk::with_alice().await;
    for number in 2..40 {
        desk.apply(vec![register(&format!("agent-{number}"), number)])
            .await;
    }
    crash_copy(&desk.path)
}

/// The same after a clean end: everything lies in one file.
async fn ended() -> (TempDir, Utf8PathBuf) {
    let (folder, path) = killed().await;
    let raw = rusqlite::Connection::open(&path).expect("the file");
    raw.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .expect("a checkpoint");
    drop(raw);
    (folder, path)
}

async fn refused(path: &Utf8Path) -> String {
    let files = || ["", "-wal"].map(|suffix| fs::read(format!("{path}{suffix}")).ok());
    let before = files();
    let error = open(path).await.expect_err("it is damaged");
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert_eq!(files()[0], before[0], "the file was changed");
    assert!(
        before[1]
            .as_ref()
            .is_none_or(|log| files()[1].as_ref() == Some(log)),
        "the log was changed"
    );
    let text = error.to_string();
    assert!(
        text.contains(path.as_str()) && text.contains("hive recover"),
        "{text}"
    );
    text
}

#[tokio::test]
async fn a_damaged_page_is_refused_and_what_lies_in_the_log_is_not_written_over_it() {
    let (_folder, path) = ended().await;
    // New commits in the log, and damage in the file below it.
    let ledger = open(&path).await.expect("a ledger");
    ledger
        .apply(vec![propose(1, proposal(1))])
        .await
        .expect("a write");
    let (_other, copy) = crash_copy(&path);
    let mut bytes = fs::read(&copy).expect("the file");
    let row = bytes
        .windows(8)
        .position(|window| window == b"agent-30")
        .expect("a row");
    let page = row / 4096 * 4096;
    bytes[page..page + 64].fill(0xff);
    write(copy.as_str(), &bytes);
    refused(&copy).await;
}

#[tokio::test]
async fn an_index_that_lost_a_row_is_damage_too() {
    let (_folder, path) = ended().await;
    let raw = rusqlite::Connection::open(&path).expect("the file");
    // The name of an agent lies in its row and in the index that finds it.
    let root: i64 = raw
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'agents' ORDER BY rootpage DESC",
            [],
            |row| row.get(0),
        )
        .expect("an index");
    drop(raw);
    let mut bytes = fs::read(&path).expect("the file");
    let page = usize::try_from(root - 1).expect("a page") * 4096;
    let index = &mut bytes[page..page + 4096];
    let key = index
        .windows(6)
        .position(|window| window == b"agent-")
        .expect("a key");
    index[key] = b'b';
    write(path.as_str(), &bytes);
    refused(&path).await;
}

#[tokio::test]
async fn garbage_in_the_middle_of_the_log_is_refused_and_not_taken_for_its_end() {
    let (_folder, path) = killed().await;
    let log = format!("{path}-wal");
    let sound = fs::read(&log).expect("the log");
    for at in [16, 40, sound.len() / 2] {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        write(&log, &bytes);
        let text = refused(&path).await;
        assert!(text.contains("-wal"), "byte {at}: {text}");
    }
    write(&log, &sound);
    let ledger = open(&path).await.expect("the same bytes again");
    let agents = ledger
        .agents()
        .await
        .expect("a read")
        .complete()
        .expect("all of them");
    assert_eq!(agents.len(), 39);
}

#[tokio::test]
async fn what_a_crash_cut_off_is_no_damage() {
    let (_folder, path) = killed().await;
    let log = format!("{path}-wal");
    let sound = fs::read(&log).expect("the log");
    // The last transaction was being written: some of it is missing, or is not what it was to be.
    let mut torn = sound.clone();
    let last = torn.len() - 100;
    torn[last..].fill(0);
    let zeroed = [&sound[..], &[0; 4120 * 3][..]].concat();
    for (what, bytes) in [
        ("cut off", sound[..sound.len() - 50].to_vec()),
        ("torn", torn),
        ("followed by zeros", zeroed),
        ("empty", Vec::new()),
        ("nothing but a part of its header", sound[..20].to_vec()),
    ] {
        let folder = TempDir::new().expect("a folder");
        let copy = db_in(&folder);
        fs::copy(&path, &copy).expect("a copy");
        write(&format!("{copy}-wal"), &bytes);
        open(&copy)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}
