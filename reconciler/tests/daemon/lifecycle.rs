//! Agents that go away, come back, are deleted for good, or go back to what they were.

use std::fs;

use reconciler::host::folders::write_atomic;
use serde_json::{Value, json};
use shared::admin_api::ArchivedAgent;
use shared::gate::Gate;

use super::config_repo::{git, propose};
use super::world::{World, name, scripted, spec};

fn idle() -> Value {
    scripted(&json!([]))
}

/// A spec in which spawned agents run without a model.
fn hive(agents: &Value) -> Value {
    let mut document = spec(agents);
    document["spawnDefaults"] = idle();
    document
}

fn approve(world: &World, gate: &Gate) {
    world.does(&["gate", "approve", &gate.id.to_string()]);
}

fn archive(world: &World) -> Vec<ArchivedAgent> {
    serde_json::from_value(world.does(&["archive"])).unwrap()
}

/// Alice has notes, and lies in the archive.
fn with_alice_archived() -> World {
    let world = World::serving(&hive(&json!({ "queen": idle(), "alice": idle() })));
    world.until_healthy("alice");
    let notes = world.layout.agent_state(&name("alice")).join("notes");
    write_atomic(&notes, b"remember the bees", 0o644).unwrap();
    world.spec(&hive(&json!({ "queen": idle() })));
    approve(&world, &world.until_gate("archive"));
    world.until_kind("archived");
    world
}

#[test]
fn an_archived_agent_comes_back_with_its_state_its_repo_and_its_uid() {
    let world = with_alice_archived();
    let kept = archive(&world);
    assert_eq!(kept.len(), 1, "{kept:?}");
    world.does(&["restore", "alice", "--reason", "missed"]);
    let back = world.until_healthy("alice");
    assert_eq!(back.uid, Some(kept[0].uid));
    let notes = world.layout.agent_state(&name("alice")).join("notes");
    assert_eq!(fs::read(notes).unwrap(), b"remember the bees");
    assert!(archive(&world).is_empty());
    // The spec names it again: nothing is made anew.
    world.spec(&hive(&json!({ "queen": idle(), "alice": idle() })));
    world.until_kind("agentAdopted");
    assert_eq!(world.until_healthy("alice").uid, back.uid);
}

#[test]
fn what_is_kept_is_deleted_only_after_its_gate_is_approved() {
    let mut world = with_alice_archived();
    let kept = archive(&world).remove(0);
    let folder = world.layout.archive(&kept.name, kept.uid);
    world.does(&["destroy", "alice", "--purge"]);
    let gate = world.until_gate("purge");
    assert!(folder.join("agent/state/notes").exists());
    assert_eq!(archive(&world)[0].gate, Some(gate.id));
    // The question outlives the daemon.
    world.kill();
    world.start();
    let asked = world.until_gate("purge");
    assert_eq!((asked.id, &asked.digest), (gate.id, &gate.digest));
    approve(&world, &gate);
    world.until_kind("purged");
    assert!(!folder.exists());
    assert!(archive(&world).is_empty());
    let told = world.hive(&["restore", "alice"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.err.contains("there is no agent alice"), "{told:?}");
}

#[test]
fn an_agent_of_the_spec_is_not_destroyed_by_a_command() {
    let world = World::serving(&hive(&json!({ "alice": idle() })));
    world.until_healthy("alice");
    for args in [&["destroy", "alice"][..], &["destroy", "alice", "--purge"]] {
        let told = world.hive(args);
        assert_eq!(told.code, 1, "{told:?}");
        assert!(told.err.contains("declared in the spec"), "{told:?}");
    }
    world.until_healthy("alice");
}

#[test]
fn a_rollback_is_a_new_commit_with_the_old_content_and_deployed_like_any_other() {
    let world = World::serving(&hive(&json!({ "alice": idle() })));
    world.until_healthy("alice");
    let told = world.hive(&["rollback", "alice"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.err.contains("no other commit"), "{told:?}");

    propose(&world, "alice", r#"{ "prompt": "tend the garden" }"#);
    approve(&world, &world.until_gate("deployWidens"));
    let prompt = |expected: &str| {
        world.until_agent("alice", "has another prompt", |alice| {
            alice
                .config
                .as_ref()
                .is_some_and(|config| config.prompt == expected)
        })
    };
    prompt("tend the garden");
    world.does(&["rollback", "alice", "--reason", "the bees were better"]);
    assert_eq!(prompt("").generations.proposal.map(|number| number.0), Some(2));
    let repo = world.layout.repo(&name("alice"));
    let log = git(&repo, &["log", "--format=%s", "main"]);
    assert_eq!(log, "Roll back to the seed\nA change\nseed");
    assert!(git(&repo, &["show", "--format=%b", "main"]).contains("the bees were better"));
    world.does(&["rollback", "alice", "--to", "1"]);
    prompt("tend the garden");
    let told = world.hive(&["rollback", "alice", "--to", "9"]);
    assert_eq!(told.code, 1, "{told:?}");
}

#[test]
fn a_renamed_agent_keeps_running_under_its_old_name_and_the_spec_says_why() {
    let world = World::serving(&hive(&json!({ "alice": idle() })));
    let before = world.until_healthy("alice");
    world.spec(&hive(&json!({ "bob": idle() })));
    let faults = world.until("the fault", || {
        let faults = world.status().spec.faults;
        (!faults.is_empty()).then_some(faults)
    });
    assert!(faults[0].contains("Keep the name alice"), "{faults:?}");
    assert_eq!(world.until_healthy("alice").uid, before.uid);
    assert!(world.agent("bob").is_none());
}
