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

/// Questions, reminders, loose ends and what became of messages, at both doors.
fn mail(world: &World) {
    let (admin, alice) = (world.socket(), world.door("alice"));
    let post =
        |door: &Utf8Path, path: &str, body: Value| http::post(door, path, &body).unwrap().ok::<Value>();
    let delete = |door: &Utf8Path, path: &str, status| {
        assert_eq!(raw(door, "DELETE", path, b"").status, status, "{path}");
    };
    for (door, to) in [(&admin, "alice"), (&alice, "operator")] {
        let ask = |body: &str| {
            let question = json!({ "to": to, "body": body, "ttlSecs": 600, "default": "blue" });
            post(door, "/v1/questions", question)["id"].as_u64().unwrap()
        };
        let (answered, cancelled, dropped) = (ask("red or blue?"), ask("up or down?"), ask("left or right?"));
        let other = if to == "alice" { &alice } else { &admin };
        post(
            other,
            &format!("/v1/questions/{answered}/answer"),
            json!({ "body": "red" }),
        );
        delete(door, &format!("/v1/questions/{cancelled}"), 200);
        delete(door, &format!("/v1/loose-ends/question/{dropped}"), 204);
        for path in ["/v1/questions?all=true", "/v1/loose-ends"] {
            assert_eq!(http::get(door, path).unwrap().status, 200, "{path}");
        }
    }
    let reminder = json!({ "schedule": { "cron": { "expression": "0 9 * * 1-5" } }, "body": "good morning" });
    let id = post(&alice, "/v1/reminders", reminder)["id"].as_u64().unwrap();
    delete(&alice, &format!("/v1/reminders/{id}"), 204);
    let reminder = json!({ "schedule": { "afterSecs": 3600 }, "body": "good evening" });
    let id = post(&admin, "/v1/agents/alice/reminders", reminder)["id"]
        .as_u64()
        .unwrap();
    delete(&alice, &format!("/v1/reminders/{id}"), 403);
    delete(&admin, &format!("/v1/loose-ends/reminder/{id}"), 204);
    for path in ["/v1/reminders", "/v1/messages/sent", "/v1/whoami"] {
        assert_eq!(http::get(&alice, path).unwrap().status, 200, "{path}");
    }
    world.until("queen is a manager", || {
        let sent = http::post(
            &world.door("queen"),
            "/v1/broadcast",
            &json!({ "body": "all hands" }),
        )
        .unwrap();
        (sent.status == 200).then_some(())
    });
    let poison = post(
        &world.door("bob"),
        "/v1/send",
        json!({ "to": "alice", "kind": "message", "body": "x" }),
    );
    for number in 2..20 {
        let turn = format!("00000000-0000-4000-8000-0000000000{number:02}");
        let of = |path, body| assert!(world.ask("alice", path, &body).status < 300, "{path}");
        of("/v1/recv", json!({ "turn": turn, "max": 32 }));
        of("/v1/ack", json!({ "turn": turn, "done": false }));
    }
    let turn = json!({ "turn": "00000000-0000-4000-8000-000000000001", "startedAt": "2026-11-21T11:04:29Z",
        "durationMs": 1200, "result": "ok", "tokens": { "fresh": 10, "output": 5 }, "costUsd": 0.01 });
    let usage = json!({ "turn": turn["turn"], "tokens": 10, "costUsd": 0.005 });
    assert_eq!(world.ask("alice", "/v1/turns/usage", &usage).status, 200);
    assert_eq!(world.ask("alice", "/v1/turns", &turn).status, 204);
    let turns: Value = world.get("/v1/turns?agent=alice").ok();
    assert_eq!(
        (&turns[0]["agent"], &turns[0]["stats"]["result"]),
        (&json!("alice"), &json!("ok"))
    );
    let stats: Value = world.get("/v1/turns/stats?agent=alice&stepHours=24").ok();
    assert_eq!(stats[0]["durationMs"]["p95"], json!(1200), "{stats:#}");
    assert_eq!(stats[0]["points"][0]["turns"], json!(1));
    let stats: Value = world.get("/v1/turns/stats").ok();
    let of_bob = stats.as_array().unwrap().iter().find(|one| one["agent"] == "bob");
    assert_eq!(of_bob.unwrap()["turns"], json!(0), "{stats:#}");
    let told =
        json!({ "runId": "r", "events": [{ "seq": 1, "at": "2026-11-21T11:04:29Z", "kind": "started" }] });
    assert_eq!(world.ask("alice", "/v1/events", &told).status, 200);
    let page: Value = world.get("/v1/agents/alice/events").ok();
    assert_eq!(page["events"][0]["event"]["kind"], json!("started"));
    let dead: Value = world.get("/v1/messages?state=dead&text=X&agent=alice").ok();
    assert_eq!(dead[0]["id"], poison["id"], "{dead:#}");
    post(
        &admin,
        &format!("/v1/messages/{}/requeue", poison["id"]),
        Value::Null,
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

    let queens = world.door("queen");
    let bundle = "/v1/agents/carol/repo/bundle";
    let offered = committed(
        &world,
        &queens,
        bundle,
        r#"{ "prompt": "You look after the garden." }"#,
    );
    assert_eq!(
        raw(&queens, "POST", "/v1/agents/carol/proposals", &offered).status,
        200
    );

    let order = json!({ "reason": "because" });
    for verb in [
        "rollback", "rebuild", "suspend", "resume", "pause", "start", "restart", "retry", "stop",
    ] {
        let _done: Value = world.post(&format!("/v1/agents/carol/{verb}"), &order).ok();
    }
    let _model: Value = world
        .post("/v1/agents/alice/model", &json!({ "model": "haiku" }))
        .ok();
    for kind in ["compact", "nap", "wake", "newConversation"] {
        let instruction = json!({ "kind": kind, "reason": "because" });
        let _instructed: Value = world.post("/v1/agents/alice/instructions", &instruction).ok();
    }
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
        "/v1/agents/alice/config",
        "/v1/agents/alice/logs?lines=5&build=false",
    ] {
        assert_eq!(world.get(path).status, 200, "{path}");
    }
    mail(&world);
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
    let login: Value = world.post("/v1/agents/alice/login", &json!({})).ok();
    let mut told = report.clone();
    told["seq"] = json!(1);
    told["lease"] = json!(turn);
    told["login"] = json!({ "id": login["id"], "phase": "waitingForCode", "url": "https://claude.com/" });
    assert_eq!(asked("/v1/poll", json!({ "report": told, "waitSecs": 0 })), 200);
    let shown: Value = world.get("/v1/agents/alice/login").ok();
    assert_eq!(shown["url"], "https://claude.com/");
    let code = json!({ "id": login["id"], "code": "made-up" });
    let _tried: Value = world.post("/v1/agents/alice/login/code", &code).ok();
    assert_eq!(asked("/v1/recv", json!({ "turn": turn, "max": 1 })), 200);
    assert_eq!(asked("/v1/ack", json!({ "turn": turn, "done": true })), 204);
    assert_eq!(asked("/v1/send", message), 200);
    for path in [
        "/v1/proposals",
        "/v1/openapi.json",
        "/v1/agents/alice",
        "/v1/agents/alice/config",
        "/v1/agents/alice/logs",
    ] {
        assert_eq!(
            http::get(&world.door("alice"), path).unwrap().status,
            200,
            "{path}"
        );
    }

    let _spawned: Value = world.post("/v1/spawn", &json!({ "name": "fay" })).ok();
    world.until_agent("fay", "there", |fay| fay.generations.deployed.is_some());
    for (agent, verb) in [
        ("queen", "stop"),
        ("queen", "start"),
        ("queen", "restart"),
        ("queen", "rebuild"),
        ("queen", "update"),
        ("fay", "archive"),
    ] {
        let path = format!("/v1/agents/{agent}/{verb}");
        // What is stopped can be restarted once its start is in force.
        world.until(&format!("an order to {verb}"), || {
            let ordered = http::post(&world.door("queen"), &path, &order).unwrap();
            (ordered.status == 200).then_some(())
        });
    }
    assert_eq!(http::get(&world.door("queen"), "/v1/agents").unwrap().status, 200);
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
