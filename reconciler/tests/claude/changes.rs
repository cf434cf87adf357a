//! An agent that changes its own configuration.

use model_server::Rule;
use serde_json::json;
use shared::gate::GateState;
use shared::turn::TurnResult;

use crate::hive::{Hive, Provider, declared, recv, send};

/// An MCP server in one word of a command line.
const GARDEN: &str = include_str!("garden.sh");

#[test]
fn a_server_that_an_agent_proposes_is_there_in_its_next_turn_once_the_operator_has_approved() {
    let agent_json = json!({ "mcpServers": { "garden": { "command": "/bin/sh", "args": ["-c", GARDEN] } } });
    let proposal = json!({
        "files": { "agent.json": agent_json.to_string() },
        "title": "Look after the garden",
        "reason": "It has no keeper.",
    });
    let hive = Hive::of(
        &["alice"],
        vec![
            recv(),
            Rule::tool("please keep the garden", "mcp__hive__propose_config", proposal),
            Rule::tool("of alice is deployed", "mcp__garden__look", json!({})),
            send("the roses bloom", "operator", "I have seen the roses"),
            Rule::text("", "done"),
        ],
    );
    let world = &hive.world;
    let before = world.agent("alice").unwrap();
    let pid = world.harness_pid("alice").unwrap();
    hive.say("alice", "please keep the garden");

    let gate = world.until_gate("deployWidens");
    assert!(
        gate.view.capabilities.iter().any(|change| change.widens),
        "{:?}",
        gate.view
    );
    let first = hive.turns("alice", 1);
    assert_eq!(first[0].result, TurnResult::Ok, "{first:?}");
    assert_eq!(first[0].tool_calls["mcp__hive__propose_config"], 1);
    let offered = |name: &str| {
        let log = hive.model.log();
        log.iter()
            .any(|asked| asked.tools.iter().any(|tool| tool == name))
    };
    assert!(offered("mcp__hive__send") && !offered("mcp__garden__look"));
    let path = format!("/v1/gates/{}/decision", gate.id);
    let other = format!("effect1-{}", "0".repeat(64));
    let wrong = world.post(&path, &json!({ "approve": true, "digest": other }));
    assert_eq!(wrong.status, 409, "{}", wrong.text());
    assert_eq!(world.gate(gate.id).state, GateState::Open);
    let right = world.post(&path, &json!({ "approve": true, "digest": gate.digest }));
    assert_eq!(right.status, 200, "{}", right.text());

    hive.until_said(&["alice says: I have seen the roses"]);
    let turns = hive.turns("alice", 2);
    assert_eq!(turns[1].result, TurnResult::Ok, "{turns:?}");
    assert_eq!(turns[1].tool_calls["mcp__garden__look"], 1);
    assert_eq!(turns[1].session, turns[0].session);
    let after = world.until_healthy("alice");
    assert_ne!(after.generations.deployed, before.generations.deployed);
    assert_eq!(after.generations.deployed, after.generations.desired);
    assert_ne!(
        after.generations.running_config,
        before.generations.running_config
    );
    assert_eq!(world.harness_pid("alice"), Some(pid), "it was restarted");
}

#[test]
fn another_provider_is_taken_up_between_two_turns_without_a_restart() {
    let rules = || {
        vec![
            recv(),
            send("say hello", "operator", "hello"),
            Rule::text("", "done"),
        ]
    };
    let hive = Hive::of(&["alice"], rules());
    let world = &hive.world;
    let pid = world.harness_pid("alice").unwrap();
    let before = world.until_healthy("alice");
    hive.say("alice", "say hello");
    hive.turns("alice", 1);
    let asked = hive.model.log().len();

    let other = Provider::new(rules());
    world.spec(&declared(&["alice"], &other));
    world.until_agent("alice", "runs another config", |alice| {
        alice.generations.running_config != before.generations.running_config
    });
    hive.say("alice", "say hello");
    let turns = hive.turns("alice", 2);
    assert_eq!(turns[1].result, TurnResult::Ok, "{turns:?}");
    assert_eq!(hive.model.log().len(), asked);
    assert!(other.log()[0].all.contains("say hello"), "another conversation");
    assert_eq!(world.harness_pid("alice"), Some(pid), "it was restarted");
}
