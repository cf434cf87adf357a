//! Agents that the spec declares no longer.

use std::fs;

use serde_json::{Value, json};
use shared::gate::{Gate, GateState};

use super::world::{World, lives, name, scripted, silent, spec};

fn agents(names: &[&str]) -> Value {
    let agents: serde_json::Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), scripted(&json!([]))))
        .collect();
    spec(&Value::Object(agents))
}

#[test]
fn a_removed_agent_stops_at_once_and_is_archived_once_the_operator_agrees() {
    let mut world = World::serving(&agents(&["alice", "bob"]));
    let uid = world.until_healthy("alice").uid.unwrap();
    world.until_healthy("bob");
    let pid = world.harness_pid("alice").unwrap();
    let note = world.layout.agent_state(&name("alice")).join("note");
    reconciler::host::folders::write_atomic(&note, b"keep me", 0o644).unwrap();
    world.spec(&agents(&["bob"]));
    let gate = world.until_gate("archive");
    assert!(!lives(pid), "it is stopped before anybody is asked");
    assert_eq!(gate.agent, Some(name("alice")));
    assert_eq!(
        fs::read(&note).unwrap(),
        b"keep me",
        "nothing moves before the decision"
    );
    let told = world.hive(&["stop", "alice"]);
    assert_eq!(told.code, 1, "{told:?}");
    // The question outlives the daemon and is not asked twice.
    world.kill();
    world.start();
    assert_eq!(world.until_gate("archive"), gate);
    world.does(&["gate", "approve", &gate.id.to_string()]);
    let archive = world.layout.archive(&name("alice"), uid);
    world.until("alice is gone", || world.agent("alice").is_none().then_some(()));
    assert_eq!(fs::read(archive.join("agent/state/note")).unwrap(), b"keep me");
    assert!(archive.join("repo.git/HEAD").exists());
    assert!(!world.layout.agent(&name("alice")).exists());
    assert!(!world.layout.repo(&name("alice")).exists());
    assert!(!world.door("alice").exists());
    assert_eq!(world.gate(gate.id).state, GateState::Consumed);
    world.until_healthy("bob");
    // The same name declared again is another agent.
    world.spec(&agents(&["alice", "bob"]));
    let again = world.until_healthy("alice");
    assert_ne!(again.uid, Some(uid));
    assert!(archive.join("agent/state/note").exists());
}

#[test]
fn an_agent_that_is_declared_again_before_it_was_archived_goes_on_as_it_was() {
    let world = World::serving(&agents(&["alice", "bob"]));
    let before = world.until_healthy("alice");
    world.until_healthy("bob");
    world.spec(&agents(&["bob"]));
    let gate = world.until_gate("archive");
    world.spec(&agents(&["alice", "bob"]));
    let after = world.until_healthy("alice");
    assert_eq!(after.uid, before.uid);
    assert_eq!(after.generations.deployed, before.generations.deployed);
    assert_eq!(world.gate(gate.id).state, GateState::Superseded);
}

#[test]
fn many_removals_at_once_stop_nobody_before_the_operator_agrees() {
    let world = World::serving(&agents(&["alice", "bob", "carol", "dave"]));
    for agent in ["alice", "bob", "carol", "dave"] {
        world.until_healthy(agent);
    }
    let pids: Vec<i32> = ["alice", "bob", "carol"]
        .iter()
        .map(|agent| world.harness_pid(agent).unwrap())
        .collect();
    world.spec(&agents(&["dave"]));
    let gate = world.until_gate("massRemoval");
    assert_eq!(world.hive(&["status"]).code, 3);
    assert!(pids.iter().all(|pid| lives(*pid)), "nobody is stopped");
    // Fewer are no mass: the question is withdrawn, and they go by themselves.
    world.spec(&agents(&["bob", "carol", "dave"]));
    world.until("the question is withdrawn", || {
        (world.gate(gate.id).state == GateState::Superseded).then_some(())
    });
    let archive = world.until_gate("archive");
    assert_eq!(archive.agent, Some(name("alice")));
    assert!(pids[1..].iter().all(|pid| lives(*pid)));
    // An empty spec is a mass, however few there are.
    world.spec(&agents(&[]));
    let gate = world.until_gate("massRemoval");
    assert!(pids[1..].iter().all(|pid| lives(*pid)));
    world.does(&["gate", "approve", &gate.id.to_string()]);
    world.until("everybody is stopped", || {
        pids.iter().all(|pid| !lives(*pid)).then_some(())
    });
    world.until("each archive asks for itself", || {
        let gates: Vec<Gate> = world.get("/v1/gates").ok();
        (gates
            .iter()
            .filter(|gate| gate.class.as_str() == "archive")
            .count()
            == 4)
            .then_some(())
    });
}

#[test]
fn a_mass_removal_that_is_denied_leaves_everybody_alone() {
    let mut world = World::serving(&spec(&json!({ "alice": silent() })));
    world.until_stopped("alice");
    world.spec(&agents(&[]));
    let gate = world.until_gate("massRemoval");
    world.does(&["gate", "deny", &gate.id.to_string(), "--reason", "a mistake"]);
    world.until("the denial", || {
        (world.gate(gate.id).state == GateState::Denied).then_some(())
    });
    world.kill();
    world.start();
    world.until("a pass over the new daemon", || world.status().last_pass_at);
    let open: Vec<Gate> = world.get("/v1/gates").ok();
    assert_eq!(open, [], "the same question is not asked again");
    assert!(world.layout.agent(&name("alice")).exists());
}
