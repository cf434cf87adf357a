//! What turns use is counted whatever their agent does, and what is used up is used up.

use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::Address;
use shared::agent_api::{MessageKind, Report};
use shared::budget::TurnLimits;
use shared::status::TurnState;

use super::world::{Door, Hive, PROMPT, idle, leasing, turn};

/// A turn that has ended and used so many tokens.
fn used(number: u128, tokens: u64) -> Value {
    json!({ "turn": turn(number), "startedAt": "2026-01-01T00:00:00Z", "durationMs": 1, "result": "ok",
        "tokens": { "output": tokens } })
}

async fn tell(door: &Door, number: u128, tokens: u64) -> StatusCode {
    door.post("/v1/turns", &used(number, tokens)).await.status()
}

async fn is_over(door: &Door, run: &str, seq: u64) -> bool {
    door.poll(idle(run, seq), 0).await.over_budget
}

#[tokio::test]
async fn an_agent_that_has_sent_all_it_may_still_has_its_turns_counted() {
    let hive = Hive::new(json!({ "alice": { "budget": { "tokensPerDay": 10 } }, "bob": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    for size in [256 * 1024, 16 * 1024, 1] {
        let message = json!({ "to": "bob", "kind": "message", "body": "x".repeat(size) });
        for sent in 0.. {
            assert!(sent < 1000, "the flood does not end");
            if door.post("/v1/send", &message).await.status() == StatusCode::TOO_MANY_REQUESTS {
                break;
            }
        }
    }
    assert_eq!(tell(&door, 1, 10).await, StatusCode::NO_CONTENT);
    assert!(
        is_over(&door, "one", 0).await,
        "a turn that does not count costs nothing"
    );
}

#[tokio::test]
async fn a_flood_of_turns_ends_in_a_refusal_and_takes_nothing_of_what_may_be_sent() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let mut large = used(0, 1);
    large["error"] = json!("x".repeat(100_000));
    large["toolCalls"] = (0..256)
        .map(|n| (format!("{n:0128}"), json!(1)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for number in 0_u128.. {
        assert!(number < 2000, "the flood does not end");
        large["turn"] = json!(turn(number));
        if door.post("/v1/turns", &large).await.status() == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
    }
    let message = json!({ "to": "operator", "kind": "message", "body": "x" });
    assert_eq!(door.post("/v1/send", &message).await.status(), StatusCode::OK);
    hive.world.advance(60);
    assert_eq!(tell(&door, 10_000, 1).await, StatusCode::NO_CONTENT);
}

async fn uses(door: &Door, number: u128, tokens: u64) -> TurnLimits {
    let usage = json!({ "turn": turn(number), "tokens": tokens });
    let answer = door.post("/v1/turns/usage", &usage).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json().await.unwrap()
}

fn parked(seq: u64) -> Report {
    Report {
        turn: TurnState::OverBudget,
        ..idle("one", seq)
    }
}

#[tokio::test]
async fn an_agent_that_has_used_what_a_day_allows_gets_no_turn_and_the_operator_is_asked_once() {
    let hive = Hive::new(json!({ "alice": { "budget": { "tokensPerDay": 10 } }, "bob": {} })).await;
    let mut daemon = hive.daemon();
    for (agent, tokens) in [("alice", 9), ("bob", 1000)] {
        let door = daemon.door(agent);
        assert_eq!(tell(&door, 1, tokens).await, StatusCode::NO_CONTENT);
        assert!(!is_over(&door, agent, 0).await, "{agent}");
    }
    let alice = daemon.door("alice");
    daemon.message("operator", MessageKind::Message).await;
    tell(&alice, 2, 1).await;
    tell(&alice, 2, 1).await;
    let answer = alice.poll(idle("alice", 1), 0).await;
    assert!(answer.over_budget);
    assert_eq!(answer.inbox, 0, "nothing is handed out");
    let request = json!({ "turn": turn(3), "max": 1 });
    let refused = alice.post("/v1/recv", &request).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(uses(&alice, 3, 0).await.over_budget);
    drop(daemon);

    let mut daemon = hive.daemon();
    let alice = daemon.door("alice");
    assert!(is_over(&alice, "alice", 0).await, "after a restart too");
    let asked = daemon.broker.questions(None, true).await.unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(
        asked[0].body.contains("alice has used 10 tokens today"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_turn_that_runs_goes_on_receiving_and_one_whose_end_is_never_told_has_counted() {
    let hive = Hive::new(json!({ "alice": { "budget": { "tokensPerDay": 5000 } } })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    assert_eq!(uses(&door, 1, 0).await.tokens, Some(5000));
    assert_eq!(uses(&door, 1, 5000).await.tokens, Some(5000));
    let id = daemon.message("operator", MessageKind::Message).await;
    assert_eq!(door.recv(turn(1)).await, [(id, false)], "it has begun");
    let busy = Report {
        turn: TurnState::Thinking,
        lease: Some(turn(1)),
        ..idle("one", 0)
    };
    assert!(!door.poll(busy, 0).await.over_budget, "that is for the next turn");
    // Its harness is killed, and says nothing of it.
    let answer = door.poll(idle("two", 0), 0).await;
    assert!(answer.over_budget);
}

#[tokio::test]
async fn an_answer_of_the_operator_reaches_a_parked_agent_at_once() {
    let hive = Hive::new(json!({ "alice": { "budget": { "tokensPerDay": 10 } } })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    tell(&door, 1, 10).await;
    let id = daemon.message("operator", MessageKind::Message).await;
    assert!(door.poll(parked(0), 0).await.over_budget);
    let asked = daemon.broker.questions(None, false).await.unwrap();
    let waiting = tokio::spawn({
        let door = door.clone();
        async move { door.poll(parked(0), 180).await }
    });
    let broker = daemon.broker.clone();
    let answered = broker
        .answer(asked[0].id, Address::Operator, "more".into(), daemon.now)
        .await;
    answered.unwrap();
    let answer = tokio::time::timeout(PROMPT, waiting).await.unwrap().unwrap();
    assert!(!answer.over_budget);
    door.poll(leasing("one", 1, 2), 0).await;
    assert_eq!(door.recv(turn(2)).await, [(id, false)]);
}
