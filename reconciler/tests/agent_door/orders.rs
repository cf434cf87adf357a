use reconciler::control::Key;
use reconciler::model::order::{OrderState, Verb};
use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::admin_api::Acknowledged;
use shared::spec::RunState;
use shared::wire_error::{ErrorCode, WireError};

use super::world::{Daemon, Door, Hive, name};

async fn hive(policy: Value) -> Hive {
    let hive = Hive::new(json!({ "queen": { "role": "manager" }, "alice": {}, "bob": {} })).await;
    let mut spec: Value = serde_json::from_slice(hive.world.lock().spec.as_ref().unwrap()).unwrap();
    spec["policy"] = json!({ "agent": policy });
    hive.world.lock().spec = Ok(spec.to_string().into_bytes());
    hive
}

async fn looking(hive: &Hive) -> Daemon {
    let daemon = hive.daemon();
    daemon.reconciler.reconcile(&Key::Hive).await.unwrap();
    daemon
}

async fn pass(daemon: &Daemon, agent: &str) {
    daemon
        .reconciler
        .reconcile(&Key::Agent(name(agent)))
        .await
        .unwrap();
}

async fn said(door: &Door, path: &str, body: Value) -> Acknowledged {
    let answer = door.post(path, &body).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.json().await.unwrap()
}

async fn refused(door: &Door, path: &str) -> WireError {
    let answer = door.post(path, &json!({})).await;
    assert!(answer.status().is_client_error(), "{path}: {}", answer.status());
    answer.json().await.unwrap()
}

async fn state(hive: &Hive) -> Option<OrderState> {
    let record = hive.ledger.record(&name("alice")).await.unwrap().unwrap();
    record.order.map(|order| order.state)
}

#[tokio::test]
async fn only_a_manager_orders_and_nobody_else_learns_who_is_there() {
    let hive = hive(json!({})).await;
    let mut daemon = looking(&hive).await;
    let (bob, queen) = (daemon.door("bob"), daemon.door("queen"));
    for agent in ["alice", "bob", "nobody"] {
        for verb in ["start", "stop", "restart", "rebuild", "update", "archive"] {
            let error = refused(&bob, &format!("/v1/agents/{agent}/{verb}")).await;
            assert_eq!(error.code, ErrorCode::Forbidden, "{error}");
            assert!(error.message.contains("bob is no manager"), "{error}");
        }
    }
    assert_eq!(
        refused(&queen, "/v1/agents/nobody/stop").await.code,
        ErrorCode::NotFound
    );
    assert_eq!(state(&hive).await, None);
}

#[tokio::test]
async fn what_the_policy_forbids_is_refused_with_the_rule() {
    let hive = hive(json!({ "stop": "never" })).await;
    let mut daemon = looking(&hive).await;
    let error = refused(&daemon.door("queen"), "/v1/agents/alice/stop").await;
    assert_eq!(error.code, ErrorCode::Forbidden);
    assert_eq!(
        error.message,
        "the policy agent.stop=never forbids managers to stop agents: only the operator can"
    );
    assert_eq!(state(&hive).await, None);
}

#[tokio::test]
async fn a_stop_that_the_policy_allows_is_in_force_after_one_pass_and_a_start_takes_it_back() {
    let hive = hive(json!({})).await;
    let mut daemon = looking(&hive).await;
    let queen = daemon.door("queen");
    let answer = said(&queen, "/v1/agents/alice/stop", json!({ "reason": "it hangs" })).await;
    assert!(
        answer.changed && answer.message.contains("agent.stop=auto"),
        "{answer:?}"
    );
    assert_eq!(state(&hive).await, Some(OrderState::Pending));
    pass(&daemon, "alice").await;
    assert_eq!(state(&hive).await, Some(OrderState::Done));
    let alice = hive.ledger.agent(&name("alice")).await.unwrap().unwrap();
    let run = alice.overrides.run.unwrap();
    assert_eq!(
        (run.value, run.by.as_str(), run.reason.as_str()),
        (RunState::Stopped, "agent:queen", "it hangs")
    );
    let again = said(&queen, "/v1/agents/alice/stop", json!({})).await;
    assert!(!again.changed, "{again:?}");
    assert!(said(&queen, "/v1/agents/alice/start", json!({})).await.changed);
    pass(&daemon, "alice").await;
    let alice = hive.ledger.agent(&name("alice")).await.unwrap().unwrap();
    assert_eq!(alice.overrides.run, None, "the spec says it runs");
}

#[tokio::test]
async fn an_order_given_twice_under_one_id_is_one() {
    let hive = hive(json!({})).await;
    let mut daemon = looking(&hive).await;
    let queen = daemon.door("queen");
    let order = json!({ "dedupe": "toolu_1" });
    assert!(
        said(&queen, "/v1/agents/alice/restart", order.clone())
            .await
            .changed
    );
    pass(&daemon, "alice").await;
    let again = said(&queen, "/v1/agents/alice/restart", order).await;
    assert!(
        !again.changed && again.message.contains("it is in force"),
        "{again:?}"
    );
    assert!(
        said(&queen, "/v1/agents/alice/restart", json!({ "dedupe": "toolu_2" }))
            .await
            .changed
    );
    let record = hive.ledger.record(&name("alice")).await.unwrap().unwrap();
    let order = record.order.unwrap();
    assert_eq!((order.number, order.verb), (2, Verb::Restart));
    let long = queen
        .post("/v1/agents/alice/restart", &json!({ "dedupe": "x".repeat(65) }))
        .await;
    assert_eq!(long.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn where_the_policy_asks_an_order_waits_and_can_be_taken_back() {
    let hive = hive(json!({ "stop": "ask" })).await;
    let mut daemon = looking(&hive).await;
    let queen = daemon.door("queen");
    let answer = said(&queen, "/v1/agents/alice/stop", json!({})).await;
    assert!(
        answer.changed && answer.message.contains("agent.stop=ask"),
        "{answer:?}"
    );
    pass(&daemon, "alice").await;
    let again = said(&queen, "/v1/agents/alice/stop", json!({})).await;
    assert!(
        !again.changed && again.message.contains("that waits"),
        "{again:?}"
    );
    assert!(said(&queen, "/v1/agents/alice/start", json!({})).await.changed);
    pass(&daemon, "alice").await;
    assert!(matches!(state(&hive).await, Some(OrderState::Ended { .. })));
    assert!(
        hive.ledger
            .gates(false)
            .await
            .unwrap()
            .complete()
            .unwrap()
            .is_empty(),
        "its gate ended"
    );
}

#[tokio::test]
async fn what_the_operator_ordered_stands() {
    let hive = hive(json!({})).await;
    let mut daemon = looking(&hive).await;
    let because = reconciler::control::command::Because {
        by: "unix:root".into(),
        reason: String::new(),
        until: None,
    };
    daemon
        .reconciler
        .set_run(&name("alice"), RunState::Stopped, because.clone())
        .await
        .unwrap();
    let queen = daemon.door("queen");
    let error = refused(&queen, "/v1/agents/alice/start").await;
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("the operator ordered at"), "{error}");
    assert_eq!(
        refused(&queen, "/v1/agents/alice/restart").await.code,
        ErrorCode::Conflict
    );
    assert!(!said(&queen, "/v1/agents/alice/stop", json!({})).await.changed);
    // The operator's own word replaces a manager's, even the same one.
    said(&queen, "/v1/agents/bob/stop", json!({})).await;
    pass(&daemon, "bob").await;
    assert!(
        daemon
            .reconciler
            .set_run(&name("bob"), RunState::Stopped, because)
            .await
            .unwrap()
    );
    let bob = hive.ledger.agent(&name("bob")).await.unwrap().unwrap();
    assert_eq!(bob.overrides.run.unwrap().over, None);
}

#[tokio::test]
async fn a_rebuild_is_done_once_and_what_the_spec_declares_is_not_archived() {
    let hive = hive(json!({ "archive": "auto" })).await;
    let mut daemon = looking(&hive).await;
    let queen = daemon.door("queen");
    let builds = async || {
        let events = hive.ledger.events_about(&name("alice"), 100).await.unwrap();
        events.iter().filter(|event| event.kind == "built").count()
    };
    let before = builds().await;
    let answer = said(&queen, "/v1/agents/alice/update", json!({})).await;
    assert!(
        answer.changed && answer.message.contains("agent.rebuild=auto"),
        "{answer:?}"
    );
    pass(&daemon, "alice").await;
    pass(&daemon, "alice").await;
    assert_eq!(builds().await, before + 1);
    let record = hive.ledger.record(&name("alice")).await.unwrap().unwrap();
    assert!(!record.rebuild);
    let error = refused(&queen, "/v1/agents/alice/archive").await;
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("declared in the spec"), "{error}");
}
