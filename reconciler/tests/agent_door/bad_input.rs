//! Whatever is wrong with what an agent says about mail, questions, reminders and turns, is refused in words, and leaves
//! nothing behind.

use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::agent_api::MAX_BODY_BYTES;
use shared::question::{MAX_TTL_SECS, QuestionInfo};
use shared::reminder::MAX_REMINDER_BYTES;
use shared::wire_error::{ErrorCode, WireError};

use super::world::{Door, Hive, leasing, turn};

/// A manager, one who may write to bob alone, and bob.
async fn hive() -> Hive {
    Hive::new(json!({ "queen": { "role": "manager" }, "alice": { "recipients": ["bob"] }, "bob": {} })).await
}

fn changed(request: &Value, field: &str, value: Value) -> Value {
    let mut request = request.clone();
    request[field] = value;
    request
}

async fn refused(what: &str, answer: reqwest::Response, status: StatusCode, code: ErrorCode) {
    assert_eq!(answer.status(), status, "{what}");
    let error: WireError = answer.json().await.unwrap();
    assert_eq!(error.code, code, "{what}: {error:?}");
    assert!((1..8192).contains(&error.message.len()), "{what}: {error:?}");
}

/// What is taken as it should be, at each address that takes something about mail or turns.
fn requests() -> Vec<(&'static str, Value)> {
    let stats =
        json!({ "turn": turn(1), "startedAt": "2026-11-21T11:04:29Z", "durationMs": 5, "result": "ok" });
    vec![
        (
            "/v1/send",
            json!({ "to": "bob", "kind": "message", "body": "hello" }),
        ),
        ("/v1/broadcast", json!({ "body": "hello" })),
        ("/v1/questions", json!({ "to": "bob", "body": "red or blue?" })),
        ("/v1/questions/1/answer", json!({ "body": "blue" })),
        (
            "/v1/reminders",
            json!({ "schedule": { "afterSecs": 60 }, "body": "hello" }),
        ),
        ("/v1/recv", json!({ "turn": turn(1), "max": 1 })),
        ("/v1/ack", json!({ "turn": turn(1), "done": true })),
        ("/v1/turns", stats),
        ("/v1/turns/usage", json!({ "turn": turn(1), "tokens": 5 })),
    ]
}

/// What an agent has written, and what has been noted about it.
async fn traces(hive: &Hive, door: &Door) -> (u64, String) {
    let mut found = String::new();
    for path in [
        "/v1/messages/sent",
        "/v1/questions?all=true",
        "/v1/reminders",
        "/v1/loose-ends",
    ] {
        let answer = door.http.get(format!("http://hive{path}")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        found.push_str(&answer.text().await.unwrap());
    }
    (hive.ledger.last_seq().await.unwrap(), found)
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused_wherever_text_is_taken() {
    let hive = hive().await;
    let mut daemon = hive.daemon();
    let door = daemon.door("queen");
    let before = traces(&hive, &door).await;
    for (path, request) in requests() {
        for bytes in [&b"\xff\xfe"[..], b"\xc3", b"\xed\xa0\x80"] {
            // In the place of the first text, which every request has.
            let text = request.to_string();
            let place = text.find(":\"").unwrap() + 2;
            let mut body = text.clone().into_bytes();
            body.splice(place..place, bytes.iter().copied());
            let asked = door.http.post(format!("http://hive{path}"));
            let asked = asked.header("content-type", "application/json").body(body);
            refused(
                path,
                asked.send().await.unwrap(),
                StatusCode::BAD_REQUEST,
                ErrorCode::BadRequest,
            )
            .await;
        }
    }
    assert_eq!(traces(&hive, &door).await, before);
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_what_is_just_short_enough_is_kept_whole() {
    let hive = hive().await;
    let mut daemon = hive.daemon();
    let (alice, bob, queen) = (daemon.door("alice"), daemon.door("bob"), daemon.door("queen"));
    let question = json!({ "to": "bob", "body": "red or blue?" });
    let asked: QuestionInfo = alice.post("/v1/questions", &question).await.json().await.unwrap();
    let answer = format!("/v1/questions/{}/answer", asked.id);
    let message = json!({ "to": "bob", "kind": "message", "body": "" });
    let reminder = json!({ "schedule": { "afterSecs": 60 }, "body": "" });
    let default = json!({ "to": "bob", "body": "red or blue?", "ttlSecs": 60, "default": "" });
    let cases = [
        (&alice, "/v1/send", &message, "body", MAX_BODY_BYTES),
        (&alice, "/v1/questions", &question, "body", MAX_BODY_BYTES),
        (&alice, "/v1/questions", &default, "default", MAX_BODY_BYTES),
        (&alice, "/v1/reminders", &reminder, "body", MAX_REMINDER_BYTES),
        (&bob, &answer, &json!({ "body": "" }), "body", MAX_BODY_BYTES),
        (
            &queen,
            "/v1/broadcast",
            &json!({ "body": "" }),
            "body",
            MAX_BODY_BYTES,
        ),
    ];
    for (door, path, request, field, most) in cases {
        let before = traces(&hive, door).await;
        // Two bytes a letter: the bound is in bytes, and a text that ends in the middle of a letter is none.
        let long = changed(request, field, json!("é".repeat(most / 2 + 1)));
        refused(
            path,
            door.post(path, &long).await,
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::TooLarge,
        )
        .await;
        assert_eq!(traces(&hive, door).await, before, "{path}");
        let fits = changed(request, field, json!("é".repeat(most / 2)));
        assert_eq!(
            door.post(path, &fits).await.status(),
            StatusCode::OK,
            "{path} {field}"
        );
    }
    let endless = "x".repeat(8 * MAX_BODY_BYTES);
    for (path, request) in requests() {
        let long = changed(&request, "more", json!(endless));
        refused(
            path,
            queen.post(path, &long).await,
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::TooLarge,
        )
        .await;
    }
}

#[tokio::test]
async fn a_time_or_a_number_that_is_none_is_refused() {
    let hive = hive().await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    door.poll(leasing("one", 0, 1), 0).await;
    let before = traces(&hive, &door).await;
    let requests = requests();
    let of = |path: &str| {
        requests
            .iter()
            .find(|(known, _)| *known == path)
            .unwrap()
            .1
            .clone()
    };
    let reminder = of("/v1/reminders");
    for (path, field) in [
        ("/v1/send", "replyTo"),
        ("/v1/questions", "ttlSecs"),
        ("/v1/recv", "max"),
        ("/v1/recv", "waitSecs"),
        ("/v1/recv", "received"),
        ("/v1/ack", "received"),
        ("/v1/turns", "durationMs"),
        ("/v1/turns/usage", "tokens"),
    ] {
        for number in [json!(-1), json!(1.5), json!(1e300), json!("1"), json!(i64::MIN)] {
            let what = format!("{path} {field} {number}");
            let answer = door.post(path, &changed(&of(path), field, number)).await;
            refused(
                &what,
                answer,
                StatusCode::UNPROCESSABLE_ENTITY,
                ErrorCode::BadRequest,
            )
            .await;
        }
    }
    for schedule in [
        json!({ "afterSecs": -1 }),
        json!({ "afterSecs": "soon" }),
        json!({ "at": "yesterday" }),
        json!({ "at": -1 }),
        json!({ "every": 5 }),
    ] {
        let what = schedule.to_string();
        let answer = door
            .post("/v1/reminders", &changed(&reminder, "schedule", schedule))
            .await;
        refused(
            &what,
            answer,
            StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::BadRequest,
        )
        .await;
    }
    for schedule in [
        json!({ "afterSecs": 0 }),
        json!({ "afterSecs": u64::MAX }),
        json!({ "at": "1969-12-31T23:59:59Z" }),
        json!({ "at": "9999-12-30T00:00:00Z" }),
        json!({ "cron": { "expression": "* * * * * *" } }),
        json!({ "cron": { "expression": "-1 * * * *" } }),
        json!({ "cron": { "expression": "0 0 30 2 *" } }),
        json!({ "cron": { "expression": "0 9 * * *", "timeZone": "../../etc/passwd" } }),
    ] {
        let what = schedule.to_string();
        let answer = door
            .post("/v1/reminders", &changed(&reminder, "schedule", schedule))
            .await;
        refused(&what, answer, StatusCode::BAD_REQUEST, ErrorCode::BadRequest).await;
    }
    for secs in [0, MAX_TTL_SECS + 1, u64::MAX] {
        let what = format!("a term of {secs}");
        let answer = door
            .post(
                "/v1/questions",
                &changed(&of("/v1/questions"), "ttlSecs", json!(secs)),
            )
            .await;
        refused(&what, answer, StatusCode::BAD_REQUEST, ErrorCode::BadRequest).await;
    }
    assert_eq!(traces(&hive, &door).await, before);
}
