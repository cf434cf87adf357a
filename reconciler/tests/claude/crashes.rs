//! Turns that go on, or are taken again, when something around them dies.

use std::fs;

use camino::Utf8Path;
use model_server::Rule;
use rustix::process::Signal;
use serde_json::json;
use shared::turn::TurnResult;

use crate::hive::{Hive, recv, send};
use crate::world::{is_ours, lives, signal};

/// For how long a tool sleeps, which tells it from all other processes.
const SLEEP: &str = "1013";

/// The process of a tool that sleeps, in the hive of this folder.
fn sleeper(root: &Utf8Path) -> Option<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let command = format!("sleep\0{SLEEP}\0");
    pids.find(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words == command.as_bytes() && is_ours(*pid, root)
    })
}

#[test]
fn a_harness_that_is_killed_in_mid_turn_has_its_message_delivered_again_in_the_same_conversation() {
    let hive = Hive::of(
        &["alice"],
        vec![
            recv(),
            send("redelivered", "operator", "I took it up again"),
            Rule::text("water the roses", "I begin").with(|reply| reply.hang = true),
            Rule::text("", "done"),
        ],
    );
    let world = &hive.world;
    let pid = world.harness_pid("alice").unwrap();
    hive.say("alice", "water the roses");
    hive.model
        .until_asked("the message", |asked| asked.last.contains("water the roses"));
    let conversation = hive.conversation("alice");
    signal(pid, Signal::KILL);

    hive.until_said(&["alice says: I took it up again"]);
    // The turn that was cut off had nobody left to tell of it.
    let turns = hive.turns("alice", 1);
    assert_eq!(turns.len(), 1, "{turns:?}");
    assert_eq!(turns[0].result, TurnResult::Ok, "{turns:?}");
    assert_eq!(Some(turns[0].session.as_deref()), Some(conversation.as_str()));
    assert_eq!(hive.conversation("alice"), conversation);
    assert_ne!(world.harness_pid("alice"), Some(pid));
    assert_eq!(world.until_healthy("alice").inbox, 0);
}

#[test]
fn a_turn_that_the_operator_cancels_in_a_tool_leaves_nothing_running_and_its_message_to_the_next() {
    let hive = Hive::with(
        &["alice"],
        &json!({ "tools": { "allow": ["Bash"] } }),
        vec![
            recv(),
            send("redelivered", "operator", "I took it up again"),
            Rule::tool(
                "water the roses",
                "Bash",
                json!({ "command": format!("exec sleep {SLEEP}") }),
            ),
            Rule::text("", "done"),
        ],
    );
    hive.log_in("alice");
    let world = &hive.world;
    let pid = world.harness_pid("alice").unwrap();
    hive.say("alice", "water the roses");
    let tool = world.until("the tool runs", || sleeper(&world.root));
    let conversation = hive.conversation("alice");
    world.does(&["cancel", "alice", "--reason", "not now"]);

    let turns = hive.turns("alice", 1);
    assert_eq!(turns[0].result, TurnResult::Interrupted, "{turns:?}");
    world.until("the tool has ended", || (!lives(tool)).then_some(()));
    assert_eq!(
        world
            .until_agent("alice", "waits", |alice| alice.inbox == 1)
            .inbox,
        1,
        "the message waits"
    );
    world.does(&["wake", "alice"]);
    hive.until_said(&["alice says: I took it up again"]);
    let turns = hive.turns("alice", 2);
    assert_eq!(turns[1].result, TurnResult::Ok, "{turns:?}");
    assert_eq!(hive.conversation("alice"), conversation);
    assert_eq!(world.harness_pid("alice"), Some(pid), "it was restarted");
    assert_eq!(world.until_healthy("alice").inbox, 0);
}

#[test]
fn a_turn_outlives_the_daemon_and_the_conversation_goes_on_under_the_next_one_and_after_a_restart() {
    let mut hive = Hive::of(
        &["alice"],
        vec![
            recv(),
            send("the first thing", "operator", "first").with(|reply| reply.delay_ms = Some(1500)),
            send("the second thing", "operator", "second"),
            send("the third thing", "operator", "third"),
            Rule::text("", "done"),
        ],
    );
    let pid = hive.world.harness_pid("alice").unwrap();
    hive.say("alice", "the first thing");
    hive.model
        .until_asked("the message", |asked| asked.last.contains("the first thing"));
    hive.world.kill();
    hive.world.start();
    hive.until_said(&["alice says: first"]);
    assert_eq!(hive.world.harness_pid("alice"), Some(pid));

    hive.turns("alice", 1);
    hive.say("alice", "the second thing");
    hive.until_said(&["alice says: first", "alice says: second"]);
    hive.turns("alice", 2);
    hive.world.does(&["restart", "alice"]);
    hive.world.until("another process", || {
        hive.world.harness_pid("alice").filter(|new| *new != pid)
    });
    hive.say("alice", "the third thing");
    let turns = hive.turns("alice", 3);
    assert!(
        turns.iter().all(|turn| turn.result == TurnResult::Ok),
        "{turns:?}"
    );
    assert!(turns[0].session.is_some());
    assert!(
        turns.iter().all(|turn| turn.session == turns[0].session),
        "{turns:?}"
    );
    let log = hive.model.log();
    let third = log
        .iter()
        .find(|asked| asked.last.contains("the third thing"))
        .unwrap();
    assert!(third.all.contains("the first thing") && third.all.contains("the second thing"));
}
