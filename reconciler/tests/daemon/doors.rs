//! An agent's door: who speaks is decided by the socket, and what comes in is bounded.

use std::fs;

use serde_json::{Value, json};
use shared::agent_api::{MAX_BUNDLE_BYTES, Message, RecvResponse, SendResponse};
use shared::wire_error::ErrorCode;

use super::http::{self, Answer, Request};
use super::world::{World, silent, spec, with, within};

const TURN: &str = "00000000-0000-4000-8000-000000000001";

/// alice may write to the operator alone; queen is a manager; bob may write to anybody.
fn hive() -> Value {
    spec(&json!({
        "queen": with(silent(), &json!({ "role": "manager" })),
        "alice": with(silent(), &json!({ "recipients": ["operator"] })),
        "bob": silent(),
    }))
}

fn serving() -> World {
    let world = World::serving(&hive());
    for agent in ["queen", "alice", "bob"] {
        world.until_stopped(agent);
    }
    world
}

fn send(world: &World, from: &str, to: &str, more: &Value) -> Answer {
    let message = with(json!({ "to": to, "kind": "message", "body": "hello" }), more);
    world.ask(from, "/v1/send", &message)
}

fn received(world: &World, agent: &str) -> Vec<Message> {
    let request = json!({ "turn": TURN, "max": 32 });
    let response: RecvResponse = world.ask(agent, "/v1/recv", &request).ok();
    response.messages
}

fn raw(world: &World, agent: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let request = Request {
        method: "POST",
        path: "/v1/proposals",
        headers,
        body,
    };
    http::send(&world.door(agent), &request).unwrap()
}

#[test]
fn an_agent_cannot_name_itself() {
    let world = serving();
    let forged = json!({ "from": "queen", "sender": "operator", "kind": "question", "id": 1, "at": "2000-01-01T00:00:00Z" });
    let sent: SendResponse = send(&world, "bob", "alice", &forged).ok();
    let got = received(&world, "alice");
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].from.to_string(), "bob");
    assert_eq!(got[0].id, sent.id);
    assert!(
        got[0].at.to_string().as_str() > "2020",
        "the time is the daemon's"
    );
    for kind in ["system", "operator", "decree"] {
        send(&world, "bob", "alice", &json!({ "kind": kind })).refused(400, ErrorCode::BadRequest);
    }
}

#[test]
fn an_agents_door_does_not_lead_to_the_admin_api() {
    let world = serving();
    for path in [
        "/v1/status",
        "/v1/gates",
        "/v1/history",
        "/v1/agents/alice/pause",
        "/../admin.sock",
    ] {
        http::get(&world.door("alice"), path)
            .unwrap()
            .refused(404, ErrorCode::NotFound);
    }
    // Its own events are told there, and the hive's are not read.
    http::get(&world.door("alice"), "/v1/events")
        .unwrap()
        .refused(405, ErrorCode::BadRequest);
    // It sees itself, and nobody else.
    http::get(&world.door("alice"), "/v1/agents/bob")
        .unwrap()
        .refused(403, ErrorCode::Forbidden);
    world
        .ask("alice", "/v1/gates/1/decision", &json!({ "approve": true }))
        .refused(404, ErrorCode::NotFound);
}

#[test]
fn recipients_are_enforced_but_for_managers_and_whoever_asked() {
    let world = serving();
    send(&world, "alice", "bob", &json!({})).refused(403, ErrorCode::Forbidden);
    let _to_operator: SendResponse = send(&world, "alice", "operator", &json!({})).ok();
    let _to_manager: SendResponse = send(&world, "alice", "queen", &json!({})).ok();
    let note: SendResponse = send(&world, "bob", "alice", &json!({})).ok();
    let question: SendResponse = send(&world, "bob", "alice", &json!({ "kind": "question" })).ok();
    let asked_queen: SendResponse = send(&world, "bob", "queen", &json!({ "kind": "question" })).ok();
    // Only a question opens the way, only one asked of alice, and only back to whoever asked.
    for reply_to in [note.id, asked_queen.id, 4711] {
        send(
            &world,
            "alice",
            "bob",
            &json!({ "replyTo": reply_to, "kind": "answer" }),
        )
        .refused(403, ErrorCode::Forbidden);
    }
    let _answered: SendResponse = send(
        &world,
        "alice",
        "bob",
        &json!({ "replyTo": question.id, "kind": "answer" }),
    )
    .ok();
    let got = received(&world, "bob");
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].reply_to, Some(question.id));
}

#[test]
fn recipients_are_enforced_from_the_first_moment_of_a_daemon() {
    let mut world = serving();
    for round in 0..5 {
        world.kill();
        let command = world.serve();
        world.launch(command);
        let door = world.door("alice");
        let message = json!({ "to": "bob", "kind": "message", "body": "first!" });
        // The very first answers that the door gives.
        for _ in 0..20 {
            let answer = within(super::world::DEADLINE, || {
                http::post(&door, "/v1/send", &message).ok()
            });
            let answer = answer.expect("the door opens");
            assert_eq!(answer.status, 403, "round {round}: {}", answer.text());
        }
        world.up();
    }
    assert_eq!(received(&world, "bob").len(), 0);
}

#[test]
fn a_message_that_cannot_be_delivered_is_refused_with_the_reason() {
    let world = serving();
    let unknown = send(&world, "bob", "nobody", &json!({})).refused(404, ErrorCode::NotFound);
    assert!(unknown.message.contains("nobody"), "{unknown}");
    send(&world, "bob", "system", &json!({})).refused(400, ErrorCode::BadRequest);
    send(&world, "bob", "../admin", &json!({})).refused(422, ErrorCode::BadRequest);
    send(&world, "bob", "alice", &json!({ "dedupe": "x".repeat(65) })).refused(400, ErrorCode::BadRequest);
    send(
        &world,
        "bob",
        "alice",
        &json!({ "body": "x".repeat(256 * 1024 + 1) }),
    )
    .refused(413, ErrorCode::TooLarge);
    send(
        &world,
        "bob",
        "alice",
        &json!({ "body": "x".repeat(4 * 1024 * 1024) }),
    )
    .refused(413, ErrorCode::TooLarge);
    world
        .ask("bob", "/v1/send", &json!([]))
        .refused(422, ErrorCode::BadRequest);
    world
        .ask("bob", "/v1/recv", &json!({ "turn": "x", "max": 1 }))
        .refused(422, ErrorCode::BadRequest);
    assert_eq!(received(&world, "alice").len(), 0);
    let first: SendResponse = send(&world, "bob", "alice", &json!({ "dedupe": "once" })).ok();
    let again: SendResponse = send(
        &world,
        "bob",
        "alice",
        &json!({ "dedupe": "once", "body": "other" }),
    )
    .ok();
    assert_eq!((again.id, again.duplicate), (first.id, true));
    assert_eq!(received(&world, "alice").len(), 1);
}

#[test]
fn a_bundle_of_garbage_proposes_nothing() {
    let world = serving();
    let garbage: [&[u8]; 4] = [
        b"",
        b"garbage",
        b"# v2 git bundle\n",
        b"# v2 git bundle\n-0000\n\nPACK\0\0\0\x02",
    ];
    for bytes in garbage {
        raw(&world, "alice", &[], bytes).refused(400, ErrorCode::BadRequest);
    }
    let proposals = http::get(&world.door("alice"), "/v1/proposals").unwrap();
    assert_eq!(proposals.ok::<Value>(), json!([]));
    let left = fs::read_dir(world.layout.incoming()).unwrap().count();
    assert_eq!(left, 0, "nothing is left behind");
    world.until_stopped("alice");
}

#[test]
fn a_bundle_that_is_too_large_is_refused_before_it_fills_the_disk() {
    let world = serving();
    let bytes = vec![b'x'; usize::try_from(MAX_BUNDLE_BYTES).unwrap() + 1024 * 1024];
    // One that says so is refused unread.
    let length = bytes.len().to_string();
    raw(&world, "alice", &[("content-length", &length)], b"").refused(413, ErrorCode::TooLarge);
    // One that does not say how long it is, is read up to the limit.
    let mut chunked = Vec::new();
    for chunk in bytes.chunks(1024 * 1024) {
        chunked.extend(format!("{:x}\r\n", chunk.len()).bytes());
        chunked.extend(chunk);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    let answer = http::send_chunked(&world.door("alice"), "/v1/proposals", &chunked).unwrap();
    answer.refused(413, ErrorCode::TooLarge);
    world.until("nothing is left behind", || {
        let left = fs::read_dir(world.layout.incoming()).unwrap().count();
        (left == 0).then_some(())
    });
}
