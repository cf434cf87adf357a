//! Start, stop, restart, suspend, retry: what an operator says about an agent's life.

use std::fs;

use rustix::process::Signal;
use serde_json::json;
use shared::plan::WaitingOn;
use shared::status::{Activity, Health, Sync, TurnState};

use super::config_repo::git;
use super::world::{World, lives, name, scripted, signal, silent, spec, with};

fn greeter() -> serde_json::Value {
    scripted(&json!([{ "on": "hello", "do": [{ "reply": "hello, operator" }] }]))
}

#[test]
fn a_stopped_agent_stays_stopped_until_it_is_started_and_loses_no_message() {
    let mut world = World::serving(&spec(&json!({ "alice": greeter() })));
    world.until_healthy("alice");
    let first = world.run_pid("alice").unwrap();
    let told = world.does(&["stop", "alice", "--reason", "for the night"]);
    assert_eq!(told["changed"], json!(true));
    let stopped = world.until_stopped("alice");
    assert!(!lives(first));
    assert!(
        stopped
            .notices
            .iter()
            .any(|notice| notice.contains("for the night")),
        "{:?}",
        stopped.notices
    );
    assert_eq!(
        world.does(&["stop", "alice"])["changed"],
        json!(false),
        "it is stopped already"
    );
    world.does(&["send", "alice", "hello"]);
    // The operator's word outlives the daemon.
    world.kill();
    world.start();
    assert_eq!(world.until_stopped("alice").inbox, 1);
    assert_eq!(world.run_pid("alice").filter(|pid| lives(*pid)), None);
    world.does(&["start", "alice"]);
    let started = world.until_healthy("alice");
    assert!(started.notices.is_empty(), "{:?}", started.notices);
    assert_ne!(world.run_pid("alice").unwrap(), first);
    world.until("the greeting", || {
        (world.said() == ["alice says: hello, operator"]).then_some(())
    });
}

#[test]
fn a_restart_is_another_process_with_the_same_state() {
    let world = World::serving(&spec(&json!({ "alice": greeter() })));
    let before = world.until_healthy("alice");
    let first = world.harness_pid("alice").unwrap();
    let kept = world.layout.agent_state(&name("alice")).join("note");
    reconciler::host::folders::write_atomic(&kept, b"keep me", 0o644).unwrap();
    world.does(&["restart", "alice"]);
    world.until("another process", || {
        world.harness_pid("alice").filter(|pid| *pid != first)
    });
    let after = world.until_healthy("alice");
    assert!(!lives(first));
    assert_eq!(after.generations, before.generations);
    assert_eq!(fs::read(kept).unwrap(), b"keep me");
    let starts = world.events();
    let asked = starts
        .iter()
        .filter(|event| event.kind == "restartRequested")
        .count();
    assert_eq!(asked, 1);
}

#[test]
fn a_suspended_agent_runs_on_untouched_and_its_drift_is_shown_until_it_is_resumed() {
    let world = World::serving(&spec(&json!({ "alice": greeter() })));
    let before = world.until_healthy("alice");
    let pid = world.harness_pid("alice").unwrap();
    world.does(&["suspend", "alice", "--reason", "I am looking at it"]);
    world.spec(&spec(&json!({ "alice": with(greeter(), &json!({ "prompt": "new", "driver": { "kind": "scripted", "script": [] } })) })));
    world.until("the new spec", || {
        (world.status().spec.generation == 2).then_some(())
    });
    let repo = world.layout.repo(&name("alice"));
    git(&repo, &["update-ref", "-d", "refs/heads/main"]);
    world.does(&["retry", "alice"]);
    let suspended = world.until_agent("alice", "suspended", |alice| {
        alice
            .waiting
            .iter()
            .any(|w| matches!(&w.on, WaitingOn::Suspended { reason, .. } if reason == "I am looking at it"))
    });
    assert_eq!(suspended.sync.value, Sync::OutOfSync);
    let diff = world.until("the drift", || {
        Some(world.hive(&["diff", "alice"])).filter(|told| told.code == 2)
    });
    assert!(diff.out.to_string().contains("main"), "{diff:?}");
    assert_eq!(
        git(&repo, &["for-each-ref", "refs/heads"]),
        "",
        "nothing was repaired"
    );
    assert_eq!(world.harness_pid("alice"), Some(pid));
    assert!(lives(pid));
    // It goes on with the config that it has.
    world.does(&["send", "alice", "hello"]);
    world.until("the greeting", || (world.said().len() == 1).then_some(()));
    assert_eq!(
        world.agent("alice").unwrap().generations.deployed,
        before.generations.deployed
    );
    world.does(&["resume", "alice"]);
    world.until_agent("alice", "has the new config", |alice| {
        alice.generations.deployed != before.generations.deployed
    });
    world.until_healthy("alice");
    assert!(git(&repo, &["for-each-ref", "refs/heads"]).contains("refs/heads/main"));
    assert_eq!(world.does(&["resume", "alice"])["changed"], json!(false));
}

#[test]
fn a_build_that_cannot_write_backs_off_and_is_tried_at_once_when_asked() {
    let world = World::serving(&spec(&json!({})));
    let systems = world.layout.systems();
    fs::remove_dir(&systems).unwrap();
    reconciler::host::folders::write_atomic(&systems, b"in the way", 0o600).unwrap();
    world.spec(&spec(&json!({ "alice": silent() })));
    // Long enough for the pause to outlast this test.
    let failing = world.until_agent("alice", "backs off", |alice| {
        alice
            .waiting
            .iter()
            .any(|w| matches!(w.on, WaitingOn::Backoff { attempts, .. } if attempts >= 3))
    });
    assert_eq!(failing.activity.value, Activity::BackingOff);
    assert!(
        serde_json::to_string(&failing.waiting)
            .unwrap()
            .contains("systems"),
        "{:?}",
        failing.waiting
    );
    fs::remove_file(&systems).unwrap();
    fs::create_dir(&systems).unwrap();
    world.does(&["retry", "alice"]);
    world.until_stopped("alice");
    assert!(world.agent("alice").unwrap().generations.deployed.is_some());
}

#[test]
fn a_harness_that_is_killed_comes_back_and_takes_up_what_it_had_exactly_once() {
    let world = World::serving(&spec(&json!({
        "alice": scripted(&json!([{ "on": "work", "do": [{ "sleep": 2000 }, { "reply": "done" }] }])),
    })));
    world.until_healthy("alice");
    world.does(&["send", "alice", "work"]);
    world.until_agent("alice", "at work", |alice| {
        alice.turn == Some(TurnState::Thinking)
    });
    let pid = world.harness_pid("alice").unwrap();
    signal(pid, Signal::KILL);
    let down = world.until_agent("alice", "waits before it comes back", |alice| {
        alice
            .waiting
            .iter()
            .any(|w| matches!(w.on, WaitingOn::Backoff { .. }))
    });
    assert_eq!(down.health.value, Health::Missing);
    world.until("the work is done", || (!world.said().is_empty()).then_some(()));
    world.until_agent("alice", "idle again", |alice| {
        alice.turn == Some(TurnState::Idle) && alice.inbox == 0
    });
    assert_eq!(world.said(), ["alice says: done"]);
    assert_ne!(world.harness_pid("alice"), Some(pid));
    let rows = world.messages("SELECT state, deliveries FROM messages WHERE body = 'work'");
    assert_eq!(rows, ["acked 2"], "delivered twice, acknowledged once");
    let failures = world.events();
    let failures = failures
        .iter()
        .filter(|event| event.agent == Some(name("alice")) && event.message.contains("killed"));
    assert_eq!(failures.count(), 1, "its end is told once");
}
