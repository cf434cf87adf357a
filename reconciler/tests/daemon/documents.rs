//! Both doors and their documents, metrics included. Every other test holds what it is answered against them, too.

use camino::Utf8Path;
use serde_json::{Value, json};
use shared::draft::{DraftInfo, DraftPhase};
use shared::gate::{Gate, GateState};
use shared::status::HiveStatus;

use super::config_repo::{committed, propose};
use super::contract::{self, hold};
use super::http::{self, Answer, Request, Stream};
use super::world::{World, name, scripted, silent, spec, with};

/// A request without a document.
fn raw(socket: &Utf8Path, method: &str, path: &str, body: &[u8]) -> Answer {
    let request = Request {
        method,
        path,
        headers: &[],
        body,
    };
    http::send(socket, &request).unwrap()
}

/// Drafts by every way there is, at one door.
fn prepare(world: &World, socket: &Utf8Path, name: &str) {
    let post = |path: &str, body: &Value| http::post(socket, path, body).unwrap().ok::<Value>();
    let draft = format!("/v1/drafts/{name}");
    post("/v1/drafts", &json!({ "name": name }));
    world.until("the draft has a repo", || {
        let info: DraftInfo = http::get(socket, &draft).unwrap().ok();
        (info.phase == DraftPhase::Draft && info.seed.is_some()).then_some(())
    });
    let file = format!("{draft}/files/notes/first.md");
    for (method, body) in [("PUT", &b"begin here"[..]), ("GET", b""), ("DELETE", b"")] {
        assert_eq!(raw(socket, method, &file, body).status, 200, "{method}");
    }
    let bundle = format!("{draft}/bundle");
    let commit = committed(world, socket, &bundle, r#"{ "prompt": "You help." }"#);
    let _set: DraftInfo = raw(socket, "POST", &bundle, &commit).ok();
    post(&format!("{draft}/commit"), &json!({ "reason": "much to do" }));
    let _all: Value = http::get(socket, "/v1/drafts").unwrap().ok();
    assert_eq!(raw(socket, "DELETE", &draft, b"").status, 204);
    post(
        "/v1/spawn",
        &json!({ "name": format!("{name}-two"), "reason": "even more" }),
    );
}

#[test]
fn every_operation_can_succeed_and_answers_as_documented() {
    let queen = with(silent(), &json!({ "role": "manager" }));
    let mut declared =
        spec(&json!({ "alice": silent(), "bob": silent(), "carol": scripted(&json!([])), "queen": queen }));
    declared["spawnDefaults"] = json!({ "driver": { "kind": "scripted" } });
    let world = World::serving(&declared);
    let seed = world.until_healthy("carol").generations.commit;
    for agent in ["alice", "bob", "queen"] {
        world.until_stopped(agent);
    }
    prepare(&world, &world.socket(), "dora");
    prepare(&world, &world.door("queen"), "eve");

    propose(&world, "carol", r#"{ "prompt": "You look after the wiki." }"#);
    let gate = world.until("a gate about the proposal", || {
        let gates: Vec<Gate> = world.get("/v1/gates").ok();
        let mut about = gates.into_iter();
        about.find(|gate| gate.agent == Some(name("carol")) && gate.state == GateState::Open)
    });
    let _gate: Gate = world.get(&format!("/v1/gates/{}", gate.id)).ok();
    let approval = json!({ "approve": true, "digest": gate.digest });
    let _approved: Gate = world
        .post(&format!("/v1/gates/{}/decision", gate.id), &approval)
        .ok();
    world.until_agent("carol", "at another commit", |carol| {
        carol.generations.commit != seed
    });

    let order = json!({ "reason": "because" });
    for verb in [
        "rollback", "suspend", "resume", "pause", "start", "restart", "retry", "stop",
    ] {
        let _done: Value = world.post(&format!("/v1/agents/carol/{verb}"), &order).ok();
    }
    let _model: Value = world
        .post("/v1/agents/alice/model", &json!({ "model": "haiku" }))
        .ok();
    let _sent: Value = world
        .post("/v1/agents/alice/messages", &json!({ "body": "hello" }))
        .ok();
    for path in [
        "/v1/plan",
        "/v1/diff",
        "/v1/explain/alice",
        "/v1/export",
        "/v1/history",
        "/v1/events",
        "/v1/openapi.json",
        "/v1/metrics",
        "/v1/archive",
    ] {
        assert_eq!(world.get(path).status, 200, "{path}");
    }
    declared["agents"].as_object_mut().unwrap().remove("bob");
    world.spec(&declared);
    world.until_gate("archive");
    let _back: Value = world.post("/v1/agents/bob/restore", &order).ok();
    let _gone: Value = world.post("/v1/agents/bob/destroy", &order).ok();

    let turn = "00000000-0000-4000-8000-000000000001";
    let report = json!({ "version": "0", "runId": "r", "turn": "idle" });
    let message = json!({ "to": "operator", "kind": "message", "body": "hello" });
    let asked = |path: &str, body: Value| world.ask("alice", path, &body).status;
    assert_eq!(asked("/v1/poll", json!({ "report": report, "waitSecs": 0 })), 200);
    assert_eq!(asked("/v1/recv", json!({ "turn": turn, "max": 1 })), 200);
    assert_eq!(asked("/v1/ack", json!({ "turn": turn, "done": true })), 204);
    assert_eq!(asked("/v1/send", message), 200);
    for path in ["/v1/proposals", "/v1/openapi.json"] {
        assert_eq!(
            http::get(&world.door("alice"), path).unwrap().status,
            200,
            "{path}"
        );
    }

    let unseen = [world.socket(), world.door("alice")].map(|socket| contract::unseen(&socket));
    assert_eq!(
        unseen.concat(),
        [""; 0],
        "no test has seen these succeed: ask for them above"
    );
}

#[test]
fn a_stream_carries_events_as_documented() {
    let world = World::serving(&spec(&json!({ "alice": silent() })));
    world.until_stopped("alice");
    let schema = contract::schema_of(&world.socket(), "Event");
    let last = world.status().seq;
    let mut stream = Stream::follow(&world.socket(), None).unwrap();
    loop {
        let (id, event) = stream.next().expect("an event");
        hold(&schema, &event, "the stream of events");
        if id == last {
            break;
        }
    }
}

#[test]
fn the_documents_that_are_served_are_those_that_are_printed_offline() {
    let world = World::serving(&spec(&json!({ "alice": silent() })));
    world.until_stopped("alice");
    let served: Value = world.get("/v1/openapi.json").ok();
    assert_eq!(world.does(&["api", "admin"]), served);
    let served: Value = http::get(&world.door("alice"), "/v1/openapi.json").unwrap().ok();
    assert_eq!(world.does(&["api", "agent"]), served);
}

/// The value of a metric.
fn metric(text: &str, series: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{series} ")))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn metrics_follow_what_happens() {
    let world = World::serving(&spec(&json!({ "alice": silent(), "bob": silent() })));
    world.until_stopped("alice");
    world.until_stopped("bob");
    let answer = world.get("/v1/metrics");
    let before = answer.text();
    assert_eq!(
        metric(&before, "hyperhive_agent_inbox_messages{agent=\"alice\"}"),
        Some(0.0)
    );
    assert!(
        metric(&before, "process_resident_memory_bytes") > Some(1e6),
        "{before}"
    );
    let events = |text: &str, kind: &str| {
        metric(
            text,
            &format!("hyperhive_events_total{{kind=\"{kind}\",level=\"info\"}}"),
        )
    };
    assert_eq!(events(&before, "spawned"), Some(2.0), "{before}");

    let body = "it says \" agent=\"mallory\"} 1\nhyperhive_evil 1";
    let _sent: Value = world
        .post("/v1/agents/alice/messages", &json!({ "body": body }))
        .ok();
    let after = world.get("/v1/metrics").text();
    assert_eq!(
        metric(&after, "hyperhive_agent_inbox_messages{agent=\"alice\"}"),
        Some(1.0),
        "{after}"
    );
    assert_eq!(
        metric(&after, "hyperhive_messages_total{kind=\"message\"}"),
        Some(1.0),
        "{after}"
    );
    assert!(!after.contains("mallory") && !after.contains("evil"), "{after}");
    let status: HiveStatus = world.status();
    let in_sync = metric(&after, "hyperhive_agents_by_sync{sync=\"inSync\"}").unwrap();
    let counted = status
        .agents
        .iter()
        .filter(|agent| agent.sync.value == shared::status::Sync::InSync);
    assert!(
        (in_sync - f64::from(u32::try_from(counted.count()).unwrap())).abs() < 0.5,
        "{after}"
    );

    let output = super::world::program(env!("CARGO_BIN_EXE_hive"))
        .args(["--socket", world.socket().as_str(), "metrics"])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(metric(&printed, "hyperhive_queue_depth").is_some(), "{printed}");
}
