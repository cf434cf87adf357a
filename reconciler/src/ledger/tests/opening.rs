use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use super::*;
use crate::ledger::error::{LedgerError, OpenError};
use crate::ledger::schema::{MIGRATIONS, Migration};
use crate::model::user_range::UserRange;

/// This build's version.
const KNOWN: u32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// This build's tables and one version more.
fn and_then(sql: &'static str) -> &'static [Migration] {
    let next = Migration {
        version: KNOWN + 1,
        sql,
    };
    Vec::leak([MIGRATIONS, &[next]].concat())
}

fn upgrade() -> &'static [Migration] {
    and_then("CREATE TABLE extra (id INTEGER PRIMARY KEY) STRICT;")
}

fn alice_doc() -> String {
    let (uid, at) = (uid(1), now());
    serde_json::json!({ "uid": uid, "name": "alice", "life": "declared", "origin": "spec", "declaredAt": at })
        .to_string()
}

async fn open(path: &Utf8Path) -> Result<Ledger, OpenError> {
    Ledger::open(path, now(), HiveId(Uuid::from_u128(99))).await
}

fn mode(path: impl AsRef<std::path::Path>) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[tokio::test]
async fn what_was_written_survives_a_crash() {
    let desk = Desk::with_alice().await;
    let id = desk.open_gate(gate("deploy")).await;
    desk.approve(id, &digest("deploy")).await;

    let (_folder, copy) = crash_copy(&desk.path);
    let reopened = open(&copy).await.expect("the ledger opens again");

    assert_eq!(reopened.meta(), desk.ledger.meta());
    assert_eq!(
        reopened.meta().hive_id,
        hive_id(),
        "the id of a new hive is not used"
    );
    let before = desk.ledger.agent(&name("alice")).await.expect("a read");
    assert_eq!(reopened.agent(&name("alice")).await.expect("a read"), before);
    assert_eq!(before.expect("alice").gates.len(), 1);
    assert_eq!(
        *reopened.subscribe().borrow(),
        desk.ledger.last_seq().await.expect("a read")
    );
}

#[tokio::test]
async fn every_commit_is_synced_and_references_are_checked() {
    let desk = Desk::new().await;
    let settings: Result<(String, i64, i64), LedgerError> = desk
        .ledger
        .write(|tx| {
            let sql = "SELECT (SELECT journal_mode FROM pragma_journal_mode),
                              (SELECT synchronous FROM pragma_synchronous),
                              (SELECT foreign_keys FROM pragma_foreign_keys)";
            Ok(tx.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
        })
        .await;
    let full = 2;
    assert_eq!(settings.expect("a read"), ("wal".to_owned(), full, 1));
}

#[tokio::test]
async fn another_file_is_another_epoch() {
    let one = Desk::new().await;
    let folder = TempDir::new().expect("a folder");
    let two = open(&db_in(&folder)).await.expect("a new ledger");
    assert_ne!(one.ledger.meta().epoch, two.meta().epoch);
    one.ledger.meta().epoch.parse::<Uuid>().expect("a uuid");
}

#[tokio::test]
async fn only_its_owner_can_read_it() {
    let desk = Desk::with_alice().await;
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(mode(format!("{}{suffix}", desk.path)), 0o600, "{suffix}");
    }
    let (_folder, copy) = crash_copy(&desk.path);
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).expect("a mode");
    let _ledger = open(&copy).await.expect("the ledger opens");
    assert_eq!(mode(&copy), 0o600, "a mode that is too wide is narrowed");
}

#[tokio::test]
async fn a_newer_ledger_is_refused_and_left_as_it_is() {
    let desk = Desk::with_alice().await;
    desk.raw()
        .pragma_update(None, "user_version", 99)
        .expect("a version");
    let (_folder, copy) = crash_copy(&desk.path);
    let bytes = || {
        (
            fs::read(&copy).expect("the file"),
            fs::read(format!("{copy}-wal")).expect("its log"),
        )
    };
    let before = bytes();
    assert!(
        !before.1.is_empty(),
        "the version lies in the log, where an upgrade that crashed leaves it"
    );

    let error = open(&copy).await.expect_err("it is newer");

    let OpenError::Newer {
        found: 99,
        known: KNOWN,
        ..
    } = error
    else {
        panic!("{error}");
    };
    let text = error.to_string();
    assert!(
        text.contains("version 99") && text.contains(&format!("version {KNOWN} ")),
        "{text}"
    );
    assert!(before == bytes(), "it was changed");
}

#[tokio::test]
async fn a_file_that_is_no_ledger_is_refused_and_left_as_it_is() {
    let folder = TempDir::new().expect("a folder");
    let path = db_in(&folder);
    Connection::open(&path)
        .and_then(|db| db.execute_batch("CREATE TABLE mine (id INTEGER)"))
        .expect("some other database");
    let before = fs::read(&path).expect("the file");
    assert!(matches!(open(&path).await, Err(OpenError::NotALedger { .. })));
    assert_eq!(before, fs::read(&path).expect("the file"));

    fs::remove_file(&path).expect("removed");
    std::io::Write::write_all(
        &mut fs::File::create(&path).expect("a file"),
        "no database at all\n".repeat(1000).as_bytes(),
    )
    .expect("written");
    assert!(matches!(open(&path).await, Err(OpenError::Corrupt { .. })));
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let error = open(Utf8Path::new("/nowhere/at/all/hive.db"))
        .await
        .expect_err("no folder");
    assert_eq!(error.to_string(), "cannot create /nowhere/at/all/hive.db");
}

#[tokio::test]
async fn a_damaged_ledger_says_what_to_do() {
    let desk = Desk::new().await;
    desk.apply((1..200).map(|n| register(&format!("agent-{n}"), n)).collect())
        .await;
    let folder = TempDir::new().expect("a folder");
    let path = db_in(&folder);
    desk.raw()
        .execute("VACUUM INTO ?1", [path.as_str()])
        .expect("a copy in one file");
    let mut bytes = fs::read(&path).expect("the file");
    // A page that opening itself has no need of.
    let row = bytes
        .windows(9)
        .position(|window| window == b"agent-150")
        .expect("a row");
    let page = row / 4096 * 4096;
    bytes[page..page + 4096].fill(0xff);
    std::io::Write::write_all(&mut fs::File::create(&path).expect("the file"), &bytes).expect("written");

    let error = open(&path).await.expect_err("it is damaged");

    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    for advice in ["hive recover --state", "put a copy in its place"] {
        assert!(error.to_string().contains(advice), "{error}");
    }
}

#[tokio::test]
async fn an_upgrade_copies_what_was_there_first() {
    let desk = Desk::with_alice().await;
    let (_folder, path) = crash_copy(&desk.path);

    let upgraded = Ledger::open_with(&path, now(), hive_id(), upgrade())
        .await
        .expect("an upgrade");

    assert_eq!(upgraded.agents().await.expect("a read").items.len(), 1);
    let version = |path: &Utf8Path| -> i64 {
        Connection::open(path)
            .and_then(|db| db.query_row("PRAGMA user_version", [], |row| row.get(0)))
            .expect("a version")
    };
    assert_eq!(version(&path), i64::from(KNOWN) + 1);
    let copy = Utf8PathBuf::from(format!("{path}.before-v{}", KNOWN + 1));
    assert_eq!((version(&copy), mode(&copy)), (i64::from(KNOWN), 0o600));
    let restored = open(&copy)
        .await
        .expect("the copy is a ledger of the old version");
    assert_eq!(restored.agents().await.expect("a read").items.len(), 1);

    let again = Ledger::open_with(&path, now(), hive_id(), upgrade())
        .await
        .expect("no upgrade");
    assert_eq!(again.meta(), upgraded.meta());
}

#[tokio::test]
async fn a_lease_of_the_first_version_ends_as_it_would_have() {
    let folder = TempDir::new().expect("a folder");
    let path = db_in(&folder);
    let first = Ledger::open_with(&path, now(), hive_id(), &MIGRATIONS[..1])
        .await
        .expect("a ledger of the first version");
    first
        .write::<_, LedgerError>(|tx| {
            // As that version wrote it: today's code knows tables that are not there yet.
            tx.execute(
                "INSERT INTO agents (uid, name, life, doc) VALUES (?1, 'alice', 'declared', ?2)",
                [uid(1).to_string(), alice_doc()],
            )?;
            tx.execute(
                "INSERT INTO messages (from_addr, to_addr, kind, body, at, state, turn, deliveries)
                 VALUES ('operator', 'alice', 'message', 'hello', 0, 'leased', ?1, 1)",
                [Uuid::from_u128(5).to_string()],
            )?;
            Ok(())
        })
        .await
        .expect("a lease");
    drop(first);

    let broker = crate::broker::Broker::new(open(&path).await.expect("an upgrade"));
    let acked = broker
        .ack(&name("alice"), shared::TurnId(Uuid::from_u128(5)), Some(0))
        .await;
    assert_eq!(acked.expect("an ack"), 1, "that turn saw what it leased");
}

#[tokio::test]
async fn an_upgrade_keeps_messages_their_dedupe_ids_and_the_count_of_their_numbers() {
    for version in 1..MIGRATIONS.len() {
        upgraded(version).await;
    }
}

/// A ledger of this version becomes one of this build.
async fn upgraded(version: usize) {
    let folder = TempDir::new().expect("a folder");
    let path = db_in(&folder);
    let first = Ledger::open_with(&path, now(), hive_id(), &MIGRATIONS[..version])
        .await
        .expect("a ledger of that version");
    first
        .write::<_, LedgerError>(|tx| {
            // As that version wrote it: today's code knows tables that are not there yet.
            tx.execute(
                "INSERT INTO agents (uid, name, life, doc) VALUES (?1, 'alice', 'declared', ?2)",
                [uid(1).to_string(), alice_doc()],
            )?;
            tx.execute_batch(
                "INSERT INTO messages (from_addr, to_addr, kind, body, at, state, dedupe)
                 VALUES ('operator', 'alice', 'message', 'kept', 0, 'queued', 'x'),
                        ('operator', 'alice', 'message', 'past its time', 0, 'acked', NULL);
                 DELETE FROM messages WHERE state = 'acked'",
            )?;
            Ok(())
        })
        .await
        .expect("one message of two");
    drop(first);

    let ledger = open(&path).await.expect("an upgrade");
    let alice = ledger
        .agent(&name("alice"))
        .await
        .expect("a read")
        .expect("alice");
    assert_eq!(
        alice.user_range,
        UserRange::of_slot(0),
        "who was there before has user ids too"
    );
    let broker = crate::broker::Broker::new(ledger);
    let mut message = crate::broker::Outgoing {
        from: shared::Address::Operator,
        to: shared::Address::Agent(name("alice")),
        kind: shared::agent_api::MessageKind::Message,
        topic: None,
        body: "kept".to_owned(),
        reply_to: None,
        dedupe: Some("x".to_owned()),
    };
    let again = broker.send(message.clone(), now()).await.expect("a retry");
    assert_eq!((again.id, again.duplicate), (1, true));
    message.dedupe = None;
    let next = broker.send(message, now()).await.expect("a send");
    assert_eq!(next.id, 3, "no number is given twice");
}

#[tokio::test]
async fn a_new_ledger_needs_no_copy() {
    let folder = TempDir::new().expect("a folder");
    let path = db_in(&folder);
    let _ledger = Ledger::open_with(&path, now(), hive_id(), upgrade())
        .await
        .expect("a new ledger");
    assert!(!Utf8PathBuf::from(format!("{path}.before-v{}", KNOWN + 1)).exists());
}

#[tokio::test]
async fn an_upgrade_that_fails_is_undone() {
    let desk = Desk::with_alice().await;
    let (_folder, path) = crash_copy(&desk.path);
    let broken = and_then("CREATE TABLE extra (id INTEGER) STRICT; CREATE TABLE extra (id INTEGER);");
    let failed = Ledger::open_with(&path, now(), hive_id(), broken).await;
    assert!(matches!(failed, Err(OpenError::Upgrade { version, .. }) if version == KNOWN + 1));
    let ledger = open(&path).await.expect("it is as it was");
    assert_eq!(ledger.agents().await.expect("a read").items.len(), 1);
}

#[tokio::test]
async fn three_copies_are_kept() {
    let desk = Desk::with_alice().await;
    let (_folder, path) = crash_copy(&desk.path);
    for old in [7, 8, 9, 10] {
        fs::File::create(format!("{path}.before-v{old}")).expect("an old copy");
    }
    let _ledger = Ledger::open_with(&path, now(), hive_id(), upgrade())
        .await
        .expect("an upgrade");
    let kept: Vec<u32> = (1..20)
        .filter(|version| Utf8PathBuf::from(format!("{path}.before-v{version}")).exists())
        .collect();
    assert_eq!(kept, [8, 9, 10]);
}

#[tokio::test]
async fn a_panic_closes_the_ledger_and_nothing_hangs() {
    let desk = Desk::with_alice().await;
    let outcome: Result<(), LedgerError> = desk
        .ledger
        .write(|tx| {
            tx.execute("DELETE FROM agents", [])?;
            panic!("on purpose")
        })
        .await;
    assert!(matches!(outcome, Err(LedgerError::Closed)));
    let later = desk.ledger.apply(vec![register("bob", 2)]).await;
    assert!(matches!(later, Err(LedgerError::Closed)));
    let agents = desk.ledger.agents().await.expect("the reader lives on");
    assert_eq!(agents.items.len(), 1, "the transaction was undone");
}

#[tokio::test]
async fn its_threads_end_with_the_last_handle() {
    let desk = Desk::with_alice().await;
    let path = desk.path.clone();
    let is_open = || {
        fs::read_dir("/proc/self/fd")
            .expect("a list")
            .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
            .any(|target| target.as_os_str() == path.as_str())
    };
    assert!(is_open());
    drop(desk.ledger);
    let deadline = Instant::now() + Duration::from_secs(20);
    while is_open() {
        assert!(Instant::now() < deadline, "the threads did not end");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_do_not_wait_for_a_write() {
    let desk = Desk::with_alice().await;
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let (began, begin) = tokio::sync::oneshot::channel();
    let ledger = desk.ledger.clone();
    let long_write = tokio::spawn(async move {
        ledger
            .write(move |tx| -> Result<(), LedgerError> {
                tx.execute("UPDATE agents SET life = 'active'", [])?;
                began.send(()).expect("the test listens");
                held.recv().expect("the test lets go");
                Ok(())
            })
            .await
    });
    begin.await.expect("the write began");

    let alice = name("alice");
    let (agents, agent) = tokio::join!(desk.ledger.agents(), desk.ledger.agent(&alice));
    assert_eq!(agents.expect("a read").items.len(), 1);
    assert!(agent.expect("a read").is_some());

    assert!(!long_write.is_finished());
    let_go.send(()).expect("the write waits");
    long_write.await.expect("no panic").expect("the write ends");
}

#[tokio::test]
async fn reading_writes_nothing() {
    let desk = Desk::with_alice().await;
    let id = desk.open_gate(gate("deploy")).await;
    let raw = desk.raw();
    let version = || -> i64 {
        raw.query_row("PRAGMA data_version", [], |row| row.get(0))
            .expect("a version")
    };
    let log = || fs::read(format!("{}-wal", desk.path)).expect("the log");
    let before = (version(), log());

    let ledger = &desk.ledger;
    let alice = name("alice");
    ledger.spec().await.expect("a read");
    ledger.agents().await.expect("a read");
    ledger.archived().await.expect("a read");
    ledger.agent(&alice).await.expect("a read");
    ledger.agent_ledgers().await.expect("a read");
    ledger.hive_gates().await.expect("a read");
    ledger.hive_attempts().await.expect("a read");
    ledger.gates(true).await.expect("a read");
    ledger.gates(false).await.expect("a read");
    ledger.gate(id).await.expect("a read");
    ledger.events(0, 100).await.expect("a read");
    ledger.events_about(&alice, 100).await.expect("a read");
    ledger.last_seq().await.expect("a read");
    ledger.history(None, 100).await.expect("a read");
    ledger.proposals(&alice).await.expect("a read");
    ledger.next_proposal(uid(1)).await.expect("a read");
    // What changes nothing writes nothing either.
    ledger.apply(Vec::new()).await.expect("nothing");
    ledger.sync_gates(Vec::new(), now()).await.expect("nothing");
    assert_eq!(
        ledger.prune(now()).await.expect("nothing"),
        crate::ledger::Pruned::default()
    );

    assert!(before == (version(), log()), "something was written");
    let refused: Result<usize, LedgerError> = ledger
        .read(|db| Ok(db.execute("UPDATE agents SET life = 'removed'", [])?))
        .await;
    assert!(
        matches!(refused, Err(LedgerError::Sqlite(_))),
        "a reader can write"
    );
}

#[tokio::test]
async fn a_ledger_in_memory_behaves_like_one_on_disk() {
    let ledger = Ledger::open_in_memory(now(), hive_id()).await.expect("a ledger");
    ledger.apply(vec![register("alice", 1)]).await.expect("a change");
    assert!(ledger.agent(&name("alice")).await.expect("a read").is_some());
}

#[tokio::test]
async fn the_same_spec_again_is_no_write() {
    let desk = Desk::new().await;
    assert_eq!(desk.ledger.spec().await.expect("a read"), None);
    let store = |generation| {
        desk.ledger
            .store_spec("{}".into(), digest("spec"), generation, now())
    };
    store(1).await.expect("a write");
    let raw = desk.raw();
    let version = || -> i64 {
        raw.query_row("PRAGMA data_version", [], |row| row.get(0))
            .expect("a version")
    };
    let before = version();
    store(1).await.expect("nothing");
    assert_eq!(version(), before);
    store(2).await.expect("a write");
    let stored = desk.ledger.spec().await.expect("a read").expect("a spec");
    assert_eq!((stored.generation, stored.at), (2, now()));
}
