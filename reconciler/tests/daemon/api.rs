//! The admin door: decisions, what it refuses and how, events that resume.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use shared::admin_api::{EPOCH_HEADER, EventPage};
use shared::gate::{Gate, GateState};
use shared::wire_error::ErrorCode;

use super::http::{self, Request, Stream};
use super::world::{World, silent, spec, with};

/// A hive in which whatever the spec asks for waits for a decision.
fn asking(prompt: &str) -> Value {
    let mut spec = spec(&json!({ "alice": with(silent(), &json!({ "prompt": prompt })) }));
    spec["policy"] = json!({ "spec": { "deployWithin": "ask", "deployWidens": "ask" } });
    spec
}

fn decision(gate: &Gate, approve: bool) -> Value {
    json!({ "approve": approve, "digest": gate.digest, "reason": "because" })
}

fn decide_path(gate: &Gate) -> String {
    format!("/v1/gates/{}/decision", gate.id)
}

#[test]
fn a_decision_about_another_digest_is_refused_and_changes_nothing() {
    let world = World::serving(&asking("one"));
    let gate = world.until_gate("deployWidens");
    let mut other = gate.digest.to_string();
    let last = if other.ends_with('0') { "1" } else { "0" };
    other.replace_range(other.len() - 1.., last);
    let stale = json!({ "approve": true, "digest": other });
    world
        .post(&decide_path(&gate), &stale)
        .refused(409, ErrorCode::Conflict);
    assert_eq!(world.gate(gate.id), gate);
    assert_eq!(world.agent("alice").unwrap().generations.deployed, None);
}

#[test]
fn a_gate_whose_effect_moved_cannot_be_approved_any_more() {
    let world = World::serving(&asking("one"));
    let first = world.until_gate("deployWidens");
    world.spec(&asking("two"));
    let second = world.until("another gate", || {
        Some(world.until_gate("deployWidens")).filter(|gate| gate.id != first.id)
    });
    assert_ne!(first.digest, second.digest);
    world
        .post(&decide_path(&first), &decision(&first, true))
        .refused(409, ErrorCode::Conflict);
    // The old digest does not open the new gate either.
    world
        .post(&decide_path(&second), &decision(&first, true))
        .refused(409, ErrorCode::Conflict);
    assert_eq!(world.gate(first.id).state, GateState::Superseded);
    assert_eq!(world.gate(second.id).state, GateState::Open);
    // The command line says what to look at next, and decides nothing.
    let told = world.hive(&[
        "gate",
        "approve",
        &second.id.to_string(),
        "--digest",
        first.digest.as_str(),
    ]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.err.contains(first.digest.as_str()), "{}", told.err);
    assert_eq!(world.gate(second.id).state, GateState::Open);
    world.does(&["gate", "approve", &second.id.to_string()]);
    world.until_agent("alice", "deployed", |alice| alice.generations.deployed.is_some());
    assert_eq!(world.gate(second.id).state, GateState::Consumed);
}

#[test]
fn of_decisions_that_race_exactly_one_counts() {
    let world = World::serving(&asking("one"));
    let gate = world.until_gate("deployWidens");
    let (socket, path) = (world.socket(), decide_path(&gate));
    let start = Barrier::new(8);
    let answers: Vec<(bool, http::Answer)> = thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let (socket, path, gate, start) = (&socket, &path, &gate, &start);
                scope.spawn(move || {
                    let approve = racer % 2 == 0;
                    start.wait();
                    (
                        approve,
                        http::post(socket, path, &decision(gate, approve)).unwrap(),
                    )
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|(_, answer)| answer.status == 200);
    assert_eq!(won.len(), 1, "{answers:?}");
    for (_, answer) in lost {
        answer.refused(409, ErrorCode::Conflict);
    }
    let stored = world.gate(gate.id).decision.expect("a decision");
    assert_eq!(
        stored.approve, won[0].0,
        "the one that was told it won is the one that is kept"
    );
    let by = stored.by;
    assert!(by.starts_with("unix:"), "who decided comes from the socket: {by}");
    let decisions = world.events();
    let decisions = decisions
        .iter()
        .filter(|event| matches!(event.kind.as_str(), "gateApproved" | "gateDenied"));
    assert_eq!(decisions.count(), 1);
}

#[test]
fn what_is_not_there_is_not_found() {
    let world = World::serving(&spec(&json!({ "alice": silent() })));
    world.until_stopped("alice");
    let digest = format!("effect1-{}", "0".repeat(64));
    let decision = json!({ "approve": true, "digest": digest });
    world
        .post("/v1/gates/4711/decision", &decision)
        .refused(404, ErrorCode::NotFound);
    for path in [
        "/v1/gates/4711",
        "/v1/agents/nobody",
        "/v1/plan?agent=nobody",
        "/v1/explain/nobody",
        "/v1/explain/gate%2F4711",
        "/v2/status",
        "/",
        "/v1",
    ] {
        world.get(path).refused(404, ErrorCode::NotFound);
    }
    for path in [
        "/v1/agents/nobody/stop",
        "/v1/agents/alice/explode",
        "/v1/nothing",
    ] {
        world.post(path, &json!({})).refused(404, ErrorCode::NotFound);
    }
    world
        .post("/v1/agents/nobody/messages", &json!({ "body": "x" }))
        .refused(404, ErrorCode::NotFound);
}

#[test]
fn what_is_malformed_is_refused_in_the_one_shape_of_refusals() {
    let world = World::serving(&spec(&json!({ "alice": silent() })));
    world.until_stopped("alice");
    let names = [
        "/v1/agents/..%2f..%2fetc%2fpasswd",
        "/v1/agents/%2e%2e",
        "/v1/agents/%00",
        "/v1/agents/%ff%fe",
        "/v1/agents/Alice",
        "/v1/gates/-1",
        "/v1/gates/1%3b",
        "/v1/gates/99999999999999999999",
        "/v1/explain/..%2f..",
        "/v1/explain/gate%2Fx",
        "/v1/plan?agent=..%2f",
        "/v1/events?after=-1",
        "/v1/events?limit=x",
        "/v1/history?limit=-5",
    ];
    for path in names {
        let error = world.get(path).refused(400, ErrorCode::BadRequest);
        assert!(!error.message.contains("root:"), "{path}: {error}");
    }
    let bodies: [(u16, &str, &[u8]); 6] = [
        (400, "application/json", b"{"),
        (400, "application/json", b""),
        (422, "application/json", b"[]"),
        (422, "application/json", b"{\"body\": 7}"),
        (400, "application/json", b"{\"body\": \"\xff\"}"),
        (415, "text/plain", b"{\"body\": \"hello\"}"),
    ];
    for (status, content_type, body) in bodies {
        let request = Request {
            method: "POST",
            path: "/v1/agents/alice/messages",
            headers: &[("content-type", content_type)],
            body,
        };
        http::send(&world.socket(), &request)
            .unwrap()
            .refused(status, ErrorCode::BadRequest);
    }
    for (method, path) in [
        ("DELETE", "/v1/status"),
        ("GET", "/v1/gates/1/decision"),
        ("POST", "/v1/status"),
    ] {
        let request = Request {
            method,
            path,
            headers: &[],
            body: b"",
        };
        http::send(&world.socket(), &request)
            .unwrap()
            .refused(405, ErrorCode::BadRequest);
    }
    assert_eq!(
        world.messages("SELECT body FROM messages"),
        [""; 0],
        "nothing was taken in"
    );
}

#[test]
fn what_is_too_large_is_refused_as_such() {
    let world = World::serving(&spec(&json!({ "alice": silent() })));
    world.until_stopped("alice");
    let path = "/v1/agents/alice/messages";
    // Larger than a message may be, and larger than any request may be.
    for bytes in [256 * 1024 + 1, 4 * 1024 * 1024] {
        let body = json!({ "body": "x".repeat(bytes) });
        world.post(path, &body).refused(413, ErrorCode::TooLarge);
    }
    // The largest one fits, even when each of its bytes is escaped.
    let body = "\u{1}".repeat(256 * 1024);
    let _sent: Value = world.post(path, &json!({ "body": body })).ok();
    let stored = world.messages("SELECT length(body), to_addr, state FROM messages");
    assert_eq!(stored, ["262144 alice queued"]);
}

#[test]
fn a_stream_of_events_resumes_where_it_was_left_without_loss_or_doubling() {
    let mut world = World::serving(&spec(&json!({ "alice": silent() })));
    world.until_stopped("alice");
    let page: EventPage = world.get("/v1/events").ok();
    let mut seen: Vec<(u64, Value)> = Vec::new();
    // Each suspension is an event, whoever suspended it before.
    let make_one = |world: &World| world.does(&["suspend", "alice"]);
    for round in 0..4 {
        if round == 2 {
            // The stream is durable: another daemon goes on with it.
            world.kill();
            world.start();
        }
        let mut stream = Stream::follow(&world.socket(), seen.last().map(|(id, _)| *id)).unwrap();
        assert_eq!(stream.header(EPOCH_HEADER), Some(page.epoch.as_str()));
        assert!(
            stream
                .header("content-type")
                .unwrap()
                .starts_with("text/event-stream")
        );
        make_one(&world);
        let last = world.status().seq;
        while seen.last().is_none_or(|(id, _)| *id < last) {
            seen.push(stream.next().expect("the stream goes on"));
        }
        // What happens while nobody reads comes with the next connection.
        drop(stream);
        make_one(&world);
    }
    let ids: Vec<u64> = seen.iter().map(|(id, _)| *id).collect();
    let expected: Vec<u64> = (1..=ids.len() as u64).collect();
    assert_eq!(ids, expected);
    for (id, event) in &seen {
        assert_eq!(event["seq"], json!(id));
    }
    let answer = world.get("/v1/events");
    assert_eq!(answer.header(EPOCH_HEADER), Some(page.epoch.as_str()));
    let page: EventPage = answer.ok();
    let paged = page
        .events
        .iter()
        .map(|event| serde_json::to_value(event).unwrap());
    let streamed = seen.into_iter().map(|(_, event)| event);
    assert!(paged.zip(streamed).all(|(paged, streamed)| paged == streamed));
}
