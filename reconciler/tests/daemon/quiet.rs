//! A converged daemon does nothing: no write, no program, no line in the log.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use super::world::{World, scripted, silent, spec};

/// Every file below a folder: size, time of the last change, inode.
fn files(folder: &Utf8Path, into: &mut BTreeMap<Utf8PathBuf, (u64, i64, i64, u64)>) {
    for entry in folder.read_dir_utf8().unwrap() {
        let path = entry.unwrap().into_path();
        let data = fs::symlink_metadata(&path).unwrap();
        // SQLite's readers note themselves in the shared memory, which is memory.
        if !path.as_str().ends_with("-shm") {
            into.insert(
                path.clone(),
                (data.size(), data.mtime(), data.mtime_nsec(), data.ino()),
            );
        }
        if data.is_dir() {
            files(&path, into);
        }
    }
}

/// What a process has done so far.
#[derive(Debug, PartialEq, Eq)]
struct Deeds {
    /// Bytes sent towards a disk.
    to_disk: u64,
    /// Page faults of children that have ended: no program runs without any.
    faults_of_children: u64,
    children: Vec<String>,
    files: BTreeMap<Utf8PathBuf, (u64, i64, i64, u64)>,
    log: String,
}

fn proc(pid: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}

fn io(pid: u32, field: &str) -> u64 {
    let text = proc(pid, "io");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
    line.unwrap().parse().unwrap()
}

fn deeds(world: &World) -> Deeds {
    let pid = world.pid();
    let stat = proc(pid, "stat");
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let faults_of_children = fields.split(' ').nth(8).unwrap().parse().unwrap();
    let mut children: Vec<String> = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .flat_map(|task| {
            let text = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
            text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    children.sort();
    let mut seen = BTreeMap::new();
    files(world.layout.state(), &mut seen);
    files(world.layout.run(), &mut seen);
    Deeds {
        to_disk: io(pid, "write_bytes"),
        faults_of_children,
        children,
        files: seen,
        log: world.log(),
    }
}

#[test]
fn a_converged_daemon_that_looks_again_writes_nothing_and_starts_nothing() {
    let hive = spec(&json!({ "alice": scripted(&json!([])), "bob": silent() }));
    let world = World::serving(&hive);
    world.until_healthy("alice");
    world.until_stopped("bob");
    let poll = |seq: u64, turn: &str| {
        let report = json!({ "version": "1", "runId": "a run", "seq": seq, "turn": turn });
        let answer = world.ask("bob", "/v1/poll", &json!({ "report": report, "waitSecs": 0 }));
        let _told: Value = answer.ok();
    };
    let looked_since = |before| {
        world.until("another pass", || {
            world.status().last_pass_at.filter(|at| Some(*at) > before)
        })
    };
    // A harness that this daemon has not heard of may have had leases: that look is not free.
    poll(1, "idle");
    let mut last = Some(looked_since(None));
    // The run of alice that was noted last is settled when two looks a second apart find the same.
    let before = world.until("nothing is done any more", || {
        let first = deeds(&world);
        let _pause = super::world::within(std::time::Duration::from_secs(1), || None::<()>);
        Some(deeds(&world)).filter(|second| *second == first)
    });
    let mut answered = 0;
    let written = io(world.pid(), "wchar");
    for round in 0..5 {
        // A look at the hive: the same spec, written anew.
        world.spec(&hive);
        let since = last;
        last = Some(world.until("a pass over the hive", || {
            let answer = world.get("/v1/status");
            answered += answer
                .headers
                .iter()
                .map(|(k, v)| k.len() + v.len() + 4)
                .sum::<usize>()
                + answer.body.len()
                + 64;
            let status: shared::status::HiveStatus = answer.ok();
            status.last_pass_at.filter(|at| Some(*at) > since)
        }));
        // A look at an agent: its harness reports something else.
        poll(round + 2, if round % 2 == 0 { "napping" } else { "idle" });
        answered += 1024;
        let since = last;
        last = Some(world.until("a pass over bob", || {
            let answer = world.get("/v1/status");
            answered += answer
                .headers
                .iter()
                .map(|(k, v)| k.len() + v.len() + 4)
                .sum::<usize>()
                + answer.body.len()
                + 64;
            let status: shared::status::HiveStatus = answer.ok();
            status.last_pass_at.filter(|at| Some(*at) > since)
        }));
    }
    assert_eq!(deeds(&world), before);
    // Answers, and the few bytes with which threads wake each other; one page of the ledger would be 4096.
    let written = io(world.pid(), "wchar") - written;
    let bound = u64::try_from(answered).unwrap() + 4096;
    assert!(written < bound, "{written} bytes written, {bound} explained");
}
