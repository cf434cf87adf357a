//! What managers see of other agents and order about them, and that nobody else does.

use serde_json::{Value, json};
use shared::look::AgentLog;
use shared::wire_error::ErrorCode;

use super::http;
use super::world::{World, scripted, silent, spec, with};

fn manager() -> Value {
    with(silent(), &json!({ "role": "manager" }))
}

#[test]
fn a_log_of_a_real_harness_is_shown_to_the_operator_and_to_managers_alone() {
    let world = World::serving(&spec(
        &json!({ "queen": manager(), "pawn": silent(), "bee": scripted(&json!([])) }),
    ));
    world.until_healthy("bee");
    world.until_stopped("queen");
    world.until_stopped("pawn");
    let log: AgentLog = serde_json::from_value(world.does(&["logs", "bee", "-n", "5"])).unwrap();
    assert!((1..=5).contains(&log.lines.len()), "{log:?}");
    assert!(
        log.events.iter().any(|event| event.kind == "started"),
        "{:?}",
        log.events
    );
    let path = "/v1/agents/bee/logs?lines=5";
    let seen: AgentLog = http::get(&world.door("queen"), path).unwrap().ok();
    assert_eq!((seen.agent, seen.lines), (log.agent, log.lines));
    let refused = http::get(&world.door("pawn"), path).unwrap();
    let refused = refused.refused(403, ErrorCode::Forbidden);
    assert!(
        refused.message.contains("pawn is no manager of this hive"),
        "{refused:?}"
    );
    let typo = world.hive(&["logs", "bea"]);
    assert!(typo.err.contains("did you mean bee?"), "{typo:?}");
}
