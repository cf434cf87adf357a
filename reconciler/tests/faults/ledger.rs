//! The ledger's file is damaged.

use std::fs::{self, File};
use std::io::Write as _;

use camino::Utf8Path;
use serde_json::json;
use shared::agent_api::SendResponse;

use super::world::{World, lives, scripted, spec};

fn serving() -> World {
    let world = World::serving(&spec(&json!({
        "alice": scripted(&json!([{ "on": "job", "do": [{ "reply": "done" }] }])),
        "bob": scripted(&json!([{ "on": "job", "do": [{ "reply": "done" }] }])),
    })));
    for agent in ["alice", "bob"] {
        world.until_healthy(agent);
    }
    world
}

fn write(path: &Utf8Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_damaged_ledger_is_refused_untouched_while_agents_go_on_and_the_sound_one_is_taken_up_again() {
    let mut world = serving();
    let pids = ["alice", "bob"].map(|agent| world.harness_pid(agent).unwrap());
    let path = world.layout.ledger();
    let log = path.with_extension("db-wal");
    world.kill();
    let sound = [&path, &log].map(|file| fs::read(file).unwrap());

    // In the middle of what was committed, where a reader would see the end of the log.
    let mut garbage = sound[1].clone();
    let middle = garbage.len() / 2;
    garbage[middle..middle + 8].copy_from_slice(b"garbage!");
    write(&log, &garbage);
    let (status, said) = world.refuses(world.serve());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains(log.as_str()) && said.contains("hive recover"),
        "{said}"
    );
    assert_eq!(
        [&path, &log].map(|file| fs::read(file).unwrap()),
        [sound[0].clone(), garbage]
    );
    assert!(pids.iter().all(|pid| lives(*pid)), "agents go on");

    write(&log, &sound[1]);
    world.start();
    world.end();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(db);
    let ended = fs::read(&path).unwrap();
    let row = ended.windows(5).rposition(|bytes| bytes == b"alice").unwrap();
    let mut flipped = ended.clone();
    let page = row / 4096 * 4096;
    for byte in &mut flipped[page..page + 16] {
        *byte ^= 0xff;
    }
    write(&path, &flipped);
    let (status, said) = world.refuses(world.serve());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(path.as_str()) && said.contains("damaged"), "{said}");
    assert!(said.contains("hive recover"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), flipped);
    assert!(pids.iter().all(|pid| lives(*pid)), "agents go on");

    write(&path, &ended);
    world.start();
    for (agent, pid) in ["alice", "bob"].into_iter().zip(pids) {
        world.until_healthy(agent);
        assert_eq!(world.harness_pid(agent), Some(pid));
    }
}

#[test]
fn a_row_that_cannot_be_read_is_an_error_of_its_agent_and_of_no_other() {
    let mut world = serving();
    world.end();
    let path = world.layout.ledger();
    let db = rusqlite::Connection::open(&path).unwrap();
    let sound: String = db
        .query_row("SELECT doc FROM agents WHERE name = 'alice'", [], |row| {
            row.get(0)
        })
        .unwrap();
    // No check of the file sees that.
    let changed = db.execute(
        "UPDATE agents SET doc = replace(doc, '{', '[') WHERE name = 'alice'",
        [],
    );
    assert_eq!(changed.unwrap(), 1);
    drop(db);
    world.start();
    let told = world.until("the row is named", || {
        let notices = world.status().notices;
        notices
            .into_iter()
            .find(|notice| notice.contains("alice") && notice.contains("agents"))
    });
    assert!(told.contains("cannot be read"), "{told}");
    world.until_healthy("bob");
    let job = json!({ "body": "job" });
    let _sent: SendResponse = world.post("/v1/agents/bob/messages", &job).ok();
    world.until("bob works", || {
        world.said().contains(&"bob says: done".to_owned()).then_some(())
    });
    let status = world.status();
    assert!(
        status.gates.is_empty(),
        "nobody is removed over it: {:?}",
        status.gates
    );

    world.end();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE agents SET doc = ?1 WHERE name = 'alice'", [sound])
        .unwrap();
    drop(db);
    world.start();
    world.until_healthy("alice");
}
