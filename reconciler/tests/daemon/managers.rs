//! What managers see of other agents and order about them, and that nobody else does.

use serde_json::{Value, json};
use shared::admin_api::{Acknowledged, ArchivedAgent};
use shared::agent_api::ProposalInfo;
use shared::event::Event;
use shared::gate::{Asker, Gate, GateState};
use shared::look::AgentLog;
use shared::status::{AgentStatus, Health};
use shared::wire_error::ErrorCode;

use super::config_repo::committed;
use super::http::{self, Request};
use super::world::{World, name, scripted, silent, spec, with};

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

/// A manager and a worker at whose doors a test may speak, and an agent that runs, under this policy for agents.
fn hive(policy: &Value) -> World {
    let mut spec = spec(&json!({ "queen": manager(), "pawn": silent(), "bee": scripted(&json!([])) }));
    spec["policy"] = json!({ "agent": policy });
    let world = World::serving(&spec);
    world.until_healthy("bee");
    world.until_stopped("queen");
    world.until_stopped("pawn");
    world
}

fn order(world: &World, agent: &str, verb: &str, id: &str) -> Acknowledged {
    let body = json!({ "reason": "it hangs", "dedupe": id });
    world
        .ask("queen", &format!("/v1/agents/{agent}/{verb}"), &body)
        .ok()
}

#[test]
fn a_manager_restarts_an_agent_once_and_nobody_else_does() {
    let mut world = hive(&json!({}));
    let refused = world.ask("pawn", "/v1/agents/bee/restart", &json!({}));
    let refused = refused.refused(403, ErrorCode::Forbidden);
    assert!(
        refused.message.contains("pawn is no manager of this hive"),
        "{refused:?}"
    );
    let before = world.run_pid("bee").unwrap();
    assert!(order(&world, "bee", "restart", "one").changed);
    // Whatever becomes of the daemon, the order is there; and the agent is restarted once.
    world.kill();
    world.start();
    let after = world.until("another run", || {
        world.run_pid("bee").filter(|pid| *pid != before)
    });
    world.until_healthy("bee");
    assert!(
        !order(&world, "bee", "restart", "one").changed,
        "it is the same order"
    );
    let carried = || {
        world
            .events()
            .into_iter()
            .filter(|event| event.kind == "orderCarriedOut")
            .count()
    };
    assert_eq!(carried(), 1);
    assert!(order(&world, "bee", "stop", "two").changed);
    world.until_agent("bee", "stopped", |bee| bee.health.value == Health::Suspended);
    assert_eq!(carried(), 2);
    assert_eq!(
        world.run_pid("bee"),
        Some(after),
        "nothing was started in between"
    );
    let shown = world.agent("bee").unwrap().notices;
    assert!(
        shown
            .iter()
            .any(|line| line == "kept stopped by agent:queen: it hangs"),
        "{shown:?}"
    );
    // The operator has the last word.
    world.does(&["start", "bee"]);
    world.until_healthy("bee");
}

#[test]
fn where_the_policy_asks_the_operator_decides_about_exactly_this_order() {
    let mut world = hive(&json!({ "stop": "ask", "restart": "never" }));
    let refused = world.ask("queen", "/v1/agents/bee/restart", &json!({}));
    let refused = refused.refused(403, ErrorCode::Forbidden);
    assert!(refused.message.contains("agent.restart=never"), "{refused:?}");
    let said = order(&world, "bee", "stop", "one");
    assert!(said.message.contains("agent.stop=ask"), "{said:?}");
    let gate = world.until_gate("stop");
    assert_eq!(gate.asked_by, Asker::Manager);
    assert_eq!(
        gate.view.summary,
        "queen orders that bee be stopped, and stay stopped"
    );
    assert_eq!(gate.view.reason.as_deref(), Some("it hangs"));
    // The question outlives the daemon, and until it is answered nothing happens.
    world.kill();
    world.start();
    assert_eq!(world.until_gate("stop").id, gate.id);
    world.until_agent("bee", "healthy", |bee| bee.health.value == Health::Healthy);
    world.does(&["gate", "deny", &gate.id.to_string(), "--reason", "it works"]);
    world.until("the order is over", || {
        let said = order(&world, "bee", "stop", "one");
        said.message.contains("came to nothing").then_some(())
    });
    world.until_healthy("bee");
    assert_eq!(world.gate(gate.id).state, GateState::Denied);

    assert!(order(&world, "bee", "stop", "two").changed);
    let gate = world.until_gate("stop");
    world.does(&["gate", "approve", &gate.id.to_string()]);
    world.until_agent("bee", "stopped", |bee| bee.health.value == Health::Suspended);
    let told = world.messages("SELECT body FROM messages WHERE to_addr = 'queen' AND from_addr = 'system'");
    assert!(
        told.iter()
            .any(|body| body.contains("agreed that bee be stopped")),
        "{told:?}"
    );
}

#[test]
fn a_manager_proposes_for_another_agent_which_is_told_and_the_operator_decides() {
    let world = hive(&json!({}));
    let bundle = committed(
        &world,
        &world.door("queen"),
        "/v1/agents/bee/repo/bundle",
        r#"{ "prompt": "Tend the garden." }"#,
    );
    let offer = |agent: &str| {
        let request = Request {
            method: "POST",
            path: "/v1/agents/bee/proposals",
            headers: &[],
            body: &bundle,
        };
        http::send(&world.door(agent), &request).unwrap()
    };
    let refused = offer("pawn").refused(403, ErrorCode::Forbidden);
    assert!(
        refused.message.contains("it proposes changes of itself alone"),
        "{refused:?}"
    );
    let refused = http::get(&world.door("pawn"), "/v1/agents/bee/repo/bundle").unwrap();
    refused.refused(403, ErrorCode::Forbidden);
    let first: ProposalInfo = offer("queen").ok();
    let again: ProposalInfo = offer("queen").ok();
    assert_eq!(
        (first.number, &first.commit),
        (again.number, &again.commit),
        "the same commit is one proposal"
    );
    let gate = world.until_gate("deployWidens");
    assert_eq!(
        (gate.asked_by, gate.proposal),
        (Asker::Manager, Some(first.number))
    );
    let told = world.messages("SELECT body FROM messages WHERE to_addr = 'bee' AND from_addr = 'system'");
    let told: Vec<_> = told
        .iter()
        .filter(|body| body.contains("queen proposes 1 for bee: A change"))
        .collect();
    assert_eq!(told.len(), 1, "it is told once");
    world.does(&["gate", "approve", &gate.id.to_string()]);
    let done = |bee: &AgentStatus| {
        bee.config
            .as_ref()
            .is_some_and(|config| config.prompt == "Tend the garden.")
    };
    world.until_agent("bee", "with another prompt", done);
}

#[test]
fn a_spawned_agent_that_a_manager_archives_is_asked_about_once_and_a_declared_one_not_at_all() {
    let mut declared = spec(&json!({ "queen": manager(), "pawn": silent() }));
    declared["spawnDefaults"] = json!({ "driver": { "kind": "scripted" } });
    let world = World::serving(&declared);
    world.until_stopped("queen");
    world.does(&["spawn", "helper"]);
    world.until_healthy("helper");
    let refused = world.ask("queen", "/v1/agents/pawn/archive", &json!({}));
    let refused = refused.refused(409, ErrorCode::Conflict);
    assert!(
        refused.message.contains("pawn is declared in the spec"),
        "{refused:?}"
    );
    let said = order(&world, "helper", "archive", "one");
    assert!(
        said.changed && said.message.contains("agent.archive=ask"),
        "{said:?}"
    );
    let gate = world.until_gate("archive");
    assert_eq!(gate.asked_by, Asker::Manager);
    world.until_agent("helper", "healthy", |helper| {
        helper.health.value == Health::Healthy
    });
    world.does(&["gate", "approve", &gate.id.to_string()]);
    world.until_kind("archived");
    let kept: Vec<ArchivedAgent> = serde_json::from_value(world.does(&["archive"])).unwrap();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let gates: Vec<Gate> = world.get("/v1/gates?all=true").ok();
    assert_eq!(
        gates
            .iter()
            .filter(|gate| gate.class.as_str() == "archive")
            .count(),
        1
    );
    let told = world.messages("SELECT body FROM messages WHERE to_addr = 'queen' AND from_addr = 'system'");
    assert!(
        told.iter()
            .any(|body| body.contains("the operator agreed that helper be stopped")),
        "{told:?}"
    );
    // The operator rebuilds what is there, and nothing else comes of it.
    let builds = || {
        let of_pawn = |event: &&Event| event.kind == "built" && event.agent == Some(name("pawn"));
        world.events().iter().filter(of_pawn).count()
    };
    let before = (world.agent("pawn").unwrap().generations, builds());
    world.does(&["rebuild", "pawn", "--reason", "to be sure"]);
    world.until("another build", || (builds() > before.1).then_some(()));
    assert_eq!(world.until_stopped("pawn").generations, before.0);
}
