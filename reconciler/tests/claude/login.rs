//! Agents that cannot take a turn yet: no login, no program.

use model_server::Rule;
use serde_json::json;
use shared::status::{AgentStatus, Health, TurnState};
use shared::turn::TurnResult;

use crate::hive::{Hive, Provider, declared, recv, send};
use crate::world::World;

#[test]
fn an_agent_without_a_login_says_so_asks_nobody_and_loses_nothing_until_it_has_one() {
    let hive = Hive::without_login(
        &["alice"],
        vec![
            recv(),
            send("water the roses", "operator", "watered"),
            Rule::text("", "done"),
        ],
    );
    hive.say("alice", "water the roses");
    let status = hive.world.until_agent("alice", "needs a login", |alice| {
        alice.turn == Some(TurnState::NeedsLogin)
    });
    assert_eq!(status.health.value, Health::Degraded, "{status:?}");
    assert_eq!(hive.turns("alice", 1)[0].result, TurnResult::Auth);
    assert_eq!(hive.model.log().len(), 0);
    hive.log_in("alice");
    hive.until_said(&["alice says: watered"]);
    assert_eq!(hive.turns("alice", 2)[1].result, TurnResult::Ok);
}

#[test]
fn an_agent_whose_program_is_not_there_says_what_to_write_and_takes_no_turn() {
    let model = Provider::new(Vec::new());
    let mut spec = declared(&["alice"], &model);
    spec["programs"] = json!({ "claude": "/nonexistent/claude" });
    let world = World::serving(&spec);
    // The trial of its first deployment is on, and says why it cannot end well.
    let says = |alice: &AgentStatus| alice.activity.message.contains("programs.claude in the spec");
    world.until_agent("alice", "says what to write", says);
    world.spec(&declared(&["alice"], &model));
    world.until_healthy("alice");
}
