//! What can be read of a damaged ledger, and a ledger made anew.

use rusqlite::types::Value;
use shared::gate::GateState;
use shared::topic::Topic;

use super::*;
use crate::ledger::{Condition, Rebuilt, RebuiltAgent, condition, interrupted, rebuild, salvage, swap_in};
use crate::model::change::Notice;
use crate::model::records::{AgentLife, Failures, GateRecord, Overrides};
use crate::model::user_range::UserRange;

/// A ledger of `alice` with a gate that was approved and completed, one that is open, and many messages; closed.
async fn closed() -> (TempDir, Utf8PathBuf) {
    let desk = Desk::with_alice().await;
    let done = desk.open_gate(gate("done")).await;
    desk.approve(done, &digest("done")).await;
    let at = now();
    let begun = desk
        .ledger
        .begin(Some(uid(1)), digest("step"), Some(done), &digest("done"), at, at)
        .await;
    begun.expect("it begins");
    let completed = desk
        .ledger
        .complete(Some(uid(1)), digest("step"), Some(done), Vec::new(), at)
        .await;
    completed.expect("it completes");
    desk.open_gate(gate("open")).await;
    desk.apply(vec![propose(1, proposal(1))]).await;
    let changes = (0..400).map(|number| Change::Notify {
        agent: name("alice"),
        notice: Notice {
            topic: Topic::Order,
            body: format!("message {number} {}", "x".repeat(500)),
            dedupe: format!("m/{number}"),
            at,
        },
    });
    desk.apply(changes.collect()).await;
    let raw = desk.raw();
    raw.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("a checkpoint");
    let folder = TempDir::new().expect("a folder");
    let to = db_in(&folder);
    std::fs::copy(&desk.path, &to).expect("a copy");
    (folder, to)
}

fn rebuilt(agents: Vec<RebuiltAgent>, gates: Vec<GateRecord>) -> Rebuilt {
    Rebuilt {
        hive_id: hive_id(),
        at: now(),
        spec: None,
        agents,
        gates,
        last_gate: Some(GateId(41)),
        raw: BTreeMap::new(),
    }
}

fn anew(record: crate::model::records::AgentRecord) -> RebuiltAgent {
    RebuiltAgent {
        record,
        proposals: vec![proposal(1)],
        overrides: Overrides::default(),
        probation: None,
        quarantine: Vec::new(),
        failures: Failures::default(),
    }
}

#[tokio::test]
async fn a_whole_ledger_is_whole_and_looking_changes_nothing() {
    let (folder, path) = closed().await;
    let before = std::fs::read(&path).expect("the file");
    assert!(matches!(condition(&path).expect("a look"), Condition::Whole));
    assert_eq!(std::fs::read(&path).expect("the file"), before);
    let entries = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(entries, 1, "nothing was left beside it");
}

#[tokio::test]
async fn rows_before_and_behind_a_bad_page_are_read() {
    let (_folder, path) = closed().await;
    let mut bytes = std::fs::read(&path).expect("the file");
    let needle = b"message 200 ";
    let at = bytes
        .windows(needle.len())
        .position(|found| found == needle)
        .expect("the message");
    let page = at / 4096 * 4096;
    bytes[page..page + 4096].fill(0);
    crate::host::folders::write_atomic(&path, &bytes, 0o600).expect("damage");
    assert!(matches!(
        condition(&path).expect("a look"),
        Condition::Damaged { .. }
    ));
    let found = salvage(&path).expect("what is left");
    let tally = found.tallies["messages"];
    assert!(
        tally.cut_short && tally.read > 350 && tally.read < 400,
        "{tally:?}"
    );
    let ids: Vec<i64> = found.raw["messages"]
        .iter()
        .map(|row| match row[0] {
            Value::Integer(id) => id,
            _ => 0,
        })
        .collect();
    assert!(ids.contains(&1) && ids.contains(&400), "{ids:?}");
    assert_eq!(
        (found.hive_id, found.agents.len(), found.proposals.len()),
        (Some(hive_id()), 1, 1)
    );
    let states: Vec<GateState> = found.gates.iter().map(|record| record.gate.state).collect();
    assert_eq!(states, [GateState::Consumed, GateState::Open]);
    assert!(found.gates[0].gate.decision.is_some());
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_damage_and_is_counted() {
    let (_folder, path) = closed().await;
    let db = Connection::open(&path).expect("a connection");
    db.execute_batch("UPDATE agents SET doc = '{'").expect("damage");
    drop(db);
    let Condition::Damaged { detail } = condition(&path).expect("a look") else {
        panic!("it is damaged");
    };
    assert!(detail.contains("1 rows of table agents"), "{detail}");
    assert_eq!(
        salvage(&path).expect("what is left").tallies["agents"].unreadable,
        1
    );
}

#[tokio::test]
async fn no_file_and_an_empty_one_are_no_ledger_and_another_file_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let path = db_in(&folder);
    assert!(matches!(condition(&path).expect("a look"), Condition::Missing));
    crate::host::folders::write_atomic(&path, b"", 0o600).expect("a file");
    assert!(matches!(condition(&path).expect("a look"), Condition::Missing));
    crate::host::folders::write_atomic(&path, &[7; 8192], 0o600).expect("a file");
    assert!(matches!(
        condition(&path).expect("a look"),
        Condition::Damaged { .. }
    ));
}

#[tokio::test]
async fn a_ledger_made_anew_holds_what_it_was_given_and_counts_on() {
    let (folder, path) = closed().await;
    Connection::open(&path)
        .expect("a connection")
        .execute("UPDATE user_slots SET slot = 7", [])
        .expect("another range");
    let found = salvage(&path).expect("what is left");
    let agents = found.agents.into_iter().map(anew).collect();
    let over = found
        .gates
        .into_iter()
        .filter(|record| record.gate.state == GateState::Consumed);
    let mut anew = rebuilt(agents, over.collect());
    anew.raw = found.raw;
    let waiting = rebuild(&path, &anew).expect("a new one");
    assert_eq!(interrupted(&path).expect("a look"), Some(waiting.clone()));
    let kept = swap_in(&path, &waiting)
        .expect("in place")
        .expect("the old one is kept");
    assert!(kept.as_str().ends_with(".damaged-20260301T120000Z"), "{kept}");
    assert_eq!(interrupted(&path).expect("a look"), None);
    assert!(matches!(condition(&path).expect("a look"), Condition::Whole));

    let ledger = Ledger::open(&path, now(), HiveId(Uuid::from_u128(8)))
        .await
        .expect("it opens");
    assert_eq!(ledger.meta().hive_id, hive_id());
    let alice = ledger
        .agent(&name("alice"))
        .await
        .expect("a read")
        .expect("alice");
    assert_eq!(
        (alice.record.uid, alice.record.life, alice.proposals.len()),
        (uid(1), AgentLife::Declared, 1)
    );
    assert_eq!(
        alice.user_range,
        UserRange::of_slot(7),
        "its files keep their owner"
    );
    let actions = vec![GateAction::Open(Box::new(gate("open")))];
    assert_eq!(
        ledger.sync_gates(actions, now()).await.expect("a gate"),
        [GateId(42)]
    );
    let old = ledger.gate(GateId(1)).await.expect("a read").expect("history");
    assert!(old.gate.decision.is_some_and(|decision| decision.approve));
    drop(folder);
}

#[tokio::test]
async fn a_swap_that_was_interrupted_anywhere_is_finished() {
    for done in 0..=3 {
        let folder = TempDir::new().expect("a folder");
        let path = db_in(&folder);
        let write = |ending: &str| {
            let file = Utf8PathBuf::from(format!("{path}{ending}"));
            crate::host::folders::write_atomic(&file, ending.as_bytes(), 0o600).expect("a file");
        };
        for ending in ["-wal", "-shm", ""] {
            write(ending);
        }
        let waiting = rebuild(&path, &rebuilt(Vec::new(), Vec::new())).expect("a new one");
        // What a swap that died had renamed already.
        for ending in ["-wal", "-shm", ""].iter().take(done) {
            let kept = format!("{path}.damaged-20260301T120000Z{ending}");
            std::fs::rename(format!("{path}{ending}"), kept).expect("a rename");
        }
        let found = interrupted(&path).expect("a look").expect("it waits");
        assert_eq!(found, waiting);
        swap_in(&path, &found).expect("in place");
        assert!(
            matches!(condition(&path).expect("a look"), Condition::Whole),
            "{done}"
        );
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .collect();
        names.sort();
        let kept = ["", "-shm", "-wal"].map(|ending| format!("hive.db.damaged-20260301T120000Z{ending}"));
        assert_eq!(names[1..], kept, "{done}");
    }
}

#[tokio::test]
async fn a_ledger_made_anew_belongs_to_whom_its_folder_belongs() {
    use std::os::unix::fs::{MetadataExt as _, chown};

    let folder = TempDir::new().expect("a folder");
    // Only root can give a folder away; for anybody else it is his own already.
    if rustix::process::geteuid().is_root() {
        chown(folder.path(), Some(65_534), Some(65_534)).expect("the folder is given away");
    }
    let path = db_in(&folder);
    let waiting = rebuild(&path, &rebuilt(Vec::new(), Vec::new())).expect("a new one");
    swap_in(&path, &waiting).expect("in place");
    let owner = |path: &std::path::Path| std::fs::metadata(path).expect("it is there").uid();
    assert_eq!(owner(path.as_std_path()), owner(folder.path()));
}
