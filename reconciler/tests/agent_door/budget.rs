//! What turns use is counted whatever their agent does, and what is used up is used up.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::world::{Door, Hive, idle, turn};

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
