//! What an agent does at its door that has taken over its harness. The rule is always the same: a typed refusal within
//! bounds, nothing lost, and nobody else notices.

use std::time::Duration;

use reconciler::control::Key;
use reconciler::host::HarnessLink as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::agent_api::{MessageKind, Report, SendResponse};
use shared::status::TurnState;
use shared::wire_error::{ErrorCode, WireError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::wire::{connect, two};
use super::world::{Door, Hive, idle, leasing, name, turn};

/// A refusal of this kind, in the one shape.
async fn assert_refused(answer: reqwest::Response, status: StatusCode, code: ErrorCode) -> WireError {
    assert_eq!(answer.status(), status);
    let error: WireError = answer.json().await.unwrap();
    assert_eq!(error.code, code, "{error:?}");
    assert!(!error.message.is_empty());
    error
}

#[tokio::test]
async fn json_that_is_deep_twofold_or_no_json_is_refused() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_field = format!(r#"{{"to":"bob","kind":"message","body":"x","more":{deep}}}"#);
    let twice = r#"{"to":"bob","to":"alice","kind":"message","body":"x"}"#;
    let huge_number = format!(
        r#"{{"to":"bob","kind":"message","body":"x","replyTo":1{}}}"#,
        "0".repeat(10_000)
    );
    for body in [
        deep.as_str(),
        twice,
        &huge_number,
        r#"{"to":"bob","kind":"message","body":NaN}"#,
        r#"{"to":"bob","kind":"message","body":"x","replyTo":1e999}"#,
        r#"{"to":"bob","kind":"message","body":"x","replyTo":-1}"#,
        r#"{"to":"bob","kind":"message","body":"\ud800"}"#,
        "{\"to\":\"bob\",\"kind\":\"message\",\"body\":\"\x01\"}",
        r#"{"to":"bob\u0000","kind":"message","body":"x"}"#,
        r#"{"to":"../bob","kind":"message","body":"x"}"#,
        r#"{"to":"bob","kind":"message","body":"x"} trailing"#,
        "",
    ] {
        for path in ["/v1/send", "/v1/poll", "/v1/recv", "/v1/ack"] {
            let request = door.http.post(format!("http://hive{path}"));
            let request = request.header("content-type", "application/json");
            let answer = request.body(body.to_owned()).send().await.unwrap();
            let status = answer.status();
            assert!(
                status.is_client_error(),
                "{path} {status}: {}",
                &body[..body.len().min(80)]
            );
            let error: WireError = answer.json().await.unwrap();
            assert!(error.message.len() < 8192, "{} bytes", error.message.len());
        }
    }
    assert_eq!(daemon.door("bob").recv(turn(1)).await, []);
    // A field of a later version is passed over, however deep it is.
    let request = door
        .http
        .post("http://hive/v1/send")
        .header("content-type", "application/json");
    assert_eq!(
        request.body(deep_field).send().await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn what_a_report_says_is_kept_within_bounds_and_safe_to_show() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let hostile = "\x1b[2J\u{202e}\n".repeat(10_000);
    let report = Report {
        config: None,
        config_error: Some(hostile.clone()),
        version: hostile.clone(),
        ..idle("one", 0)
    };
    door.poll(report, 0).await;
    let kept = daemon.link.state(&name("alice")).unwrap().report;
    for text in [&kept.version, kept.config_error.as_ref().unwrap()] {
        assert!(text.len() < 16 * 1024, "{} bytes", text.len());
        assert!(!text.contains(['\x1b', '\u{202e}', '\n']), "{text:?}");
    }
    let poll = |report: Value| json!({ "report": report, "waitSecs": 0 });
    let honest = serde_json::to_value(idle("two", 0)).unwrap();
    let with = |field: &str, value: Value| {
        let mut report = honest.clone();
        report[field] = value;
        poll(report)
    };
    let servers: serde_json::Map<String, Value> = (0..5_000)
        .map(|n| (format!("s{n}"), json!({ "health": "healthy" })))
        .collect();
    for (request, status) in [
        (with("runId", json!("x".repeat(100_000))), StatusCode::BAD_REQUEST),
        (with("runId", json!("\u{0}")), StatusCode::BAD_REQUEST),
        (with("mcp", Value::Object(servers)), StatusCode::BAD_REQUEST),
        (
            with("mcp", json!({ "../../x": { "health": "healthy" } })),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            with("config", json!("../../etc")),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (with("lease", json!("\u{0}")), StatusCode::UNPROCESSABLE_ENTITY),
        (with("seq", json!(-1)), StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        assert_refused(
            door.post("/v1/poll", &request).await,
            status,
            ErrorCode::BadRequest,
        )
        .await;
    }
    let after = daemon.link.state(&name("alice")).unwrap().report;
    assert_eq!(after, kept, "what was refused is not believed");
    let huge = with("configError", json!("x".repeat(4 * 1024 * 1024)));
    let answer = door.post("/v1/poll", &huge).await;
    assert_refused(answer, StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge).await;
}

#[tokio::test]
async fn a_wait_beyond_all_bounds_ends_with_the_daemon() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let wait = tokio::spawn(async move {
        let request = json!({ "turn": turn(1), "max": u32::MAX, "waitSecs": u32::MAX });
        door.post("/v1/recv", &request).await.status()
    });
    daemon.end();
    let status = tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    assert_eq!(status.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn leases_of_another_agent_cannot_be_ended_or_taken() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let (alice, bob) = (daemon.door("alice"), daemon.door("bob"));
    let id = daemon.message("operator", MessageKind::Message).await;
    assert_eq!(alice.recv(turn(1)).await, [(id, false)]);
    // Bob knows the turn's id, and had a turn of the same id himself.
    assert_eq!(bob.recv(turn(1)).await, []);
    bob.ack(turn(1), true).await;
    bob.ack(turn(1), false).await;
    assert_eq!(bob.try_recv(turn(1)).await.status(), StatusCode::CONFLICT);
    // A new run of bob's gives back what bob had, not what alice has.
    bob.poll(idle("other", 0), 0).await;
    assert_eq!(alice.recv(turn(2)).await, [], "the message is leased still");
    alice.ack(turn(1), false).await;
    assert_eq!(alice.recv(turn(2)).await, [(id, true)], "nothing is lost");
    // A lease that is over is over.
    alice.ack(turn(2), true).await;
    alice.ack(turn(2), false).await;
    alice.ack(turn(1), false).await;
    assert_eq!(alice.recv(turn(3)).await, []);
}

#[tokio::test]
async fn a_dedupe_id_is_compared_whole_and_is_the_senders_own() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let (alice, bob) = (daemon.door("alice"), daemon.door("bob"));
    let send = async |door: &Door, dedupe: &str| -> SendResponse {
        let message = json!({ "to": "operator", "kind": "message", "body": "\u{0}x", "dedupe": dedupe });
        let answer = door.post("/v1/send", &message).await;
        assert_eq!(answer.status(), StatusCode::OK, "{dedupe:?}");
        answer.json().await.unwrap()
    };
    assert!(!send(&alice, "a\u{0}b").await.duplicate);
    assert!(!send(&alice, "a\u{0}c").await.duplicate, "a NUL hides nothing");
    assert!(!send(&alice, "a").await.duplicate);
    assert!(send(&alice, "a\u{0}b").await.duplicate);
    assert!(
        !send(&bob, "a").await.duplicate,
        "nobody can use up another's ids"
    );
    for bad in [String::new(), "x".repeat(65), "\u{1f600}".repeat(65)] {
        let message = json!({ "to": "operator", "kind": "message", "body": "x", "dedupe": bad });
        let answer = alice.post("/v1/send", &message).await;
        assert_refused(answer, StatusCode::BAD_REQUEST, ErrorCode::BadRequest).await;
    }
}

#[tokio::test]
async fn an_agent_cannot_ask_itself_speak_for_another_or_to_the_system() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let alice = daemon.door("alice");
    for (to, kind, status, code) in [
        (
            "alice",
            "question",
            StatusCode::BAD_REQUEST,
            ErrorCode::BadRequest,
        ),
        (
            "system",
            "message",
            StatusCode::BAD_REQUEST,
            ErrorCode::BadRequest,
        ),
        ("bob", "system", StatusCode::BAD_REQUEST, ErrorCode::BadRequest),
        (
            "all",
            "message",
            StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::BadRequest,
        ),
        ("carol", "message", StatusCode::NOT_FOUND, ErrorCode::NotFound),
    ] {
        let message = json!({ "from": "operator", "to": to, "kind": kind, "body": "x" });
        assert_refused(alice.post("/v1/send", &message).await, status, code).await;
    }
}

#[tokio::test]
async fn a_flood_of_messages_to_the_operator_ends_in_a_refusal_and_nobody_else_is_held_up() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let (alice, bob) = (daemon.door("alice"), daemon.door("bob"));
    let large = json!({ "to": "operator", "kind": "message", "body": "x".repeat(256 * 1024) });
    let mut sent = 0;
    let refused = loop {
        let answer = alice.post("/v1/send", &large).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        sent += 1;
        assert!(sent < 1000, "the flood does not end");
    };
    let error = assert_refused(refused, StatusCode::TOO_MANY_REQUESTS, ErrorCode::Exhausted).await;
    assert!(error.message.contains("alice"), "{error:?}");
    let small = json!({ "to": "operator", "kind": "message", "body": "x" });
    assert_eq!(bob.post("/v1/send", &small).await.status(), StatusCode::OK);
    hive.world.advance(3600);
    assert_eq!(alice.post("/v1/send", &small).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_inbox_can_be_filled_but_not_beyond_and_not_those_of_others() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let alice = daemon.door("alice");
    let message = json!({ "to": "bob", "kind": "message", "body": "x" });
    for _ in 0..reconciler::broker::MAX_INBOX {
        assert_eq!(alice.post("/v1/send", &message).await.status(), StatusCode::OK);
    }
    let answer = alice.post("/v1/send", &message).await;
    assert_refused(answer, StatusCode::TOO_MANY_REQUESTS, ErrorCode::Exhausted).await;
    assert_eq!(
        alice.send("operator", MessageKind::Message, None).await,
        StatusCode::OK
    );
    // What the operator says reaches alice all the same.
    let id = daemon.message("operator", MessageKind::Message).await;
    assert_eq!(alice.recv(turn(1)).await, [(id, false)]);
}

#[tokio::test]
async fn ever_new_runs_write_nothing_and_lose_nothing() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let id = daemon.message("operator", MessageKind::Message).await;
    let before = hive.ledger.last_seq().await.unwrap();
    for run in 0..200 {
        let poll = Report {
            turn: TurnState::Thinking,
            ..idle(&format!("run{run}"), u64::MAX)
        };
        door.poll(poll, 0).await;
    }
    assert_eq!(
        hive.ledger.last_seq().await.unwrap(),
        before,
        "no event was written"
    );
    door.poll(leasing("last", 0, 1), 0).await;
    assert_eq!(door.recv(turn(1)).await, [(id, false)]);
}

#[tokio::test]
async fn the_door_of_an_agent_that_is_gone_ends_what_is_open_there() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let alice = daemon.door("alice");
    daemon.message("operator", MessageKind::Message).await;
    let mut stream = connect(&daemon, "alice").await;
    let get = b"GET /v1/proposals HTTP/1.1\r\nhost: hive\r\n\r\n";
    stream.write_all(get).await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    daemon.doors.close(&name("alice"));
    let mut rest = Vec::new();
    let _reset = stream.read_to_end(&mut rest).await;
    let again = stream.write_all(get).await;
    let mut more = Vec::new();
    let _reset = stream.read_to_end(&mut more).await;
    assert!(
        again.is_err() || more.is_empty(),
        "an answer through a closed door"
    );
    assert!(alice.http.get("http://hive/v1/proposals").send().await.is_err());
}

#[tokio::test]
async fn a_managers_door_does_not_lead_to_what_is_the_operators_alone() {
    let hive = Hive::new(json!({ "queen": { "role": "manager" }, "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("queen");
    for path in [
        "/v1/agents/alice/pause",
        "/v1/agents/alice/suspend",
        "/v1/agents/alice/instructions",
        "/v1/agents/alice/messages",
        "/v1/gates/1/decision",
    ] {
        let answer = door.post(path, &json!({ "approve": true, "reason": "" })).await;
        assert_refused(answer, StatusCode::NOT_FOUND, ErrorCode::NotFound).await;
    }
    let key = Key::Agent(name("alice"));
    daemon.reconciler.reconcile(&key).await.unwrap();
}
