//! What happens in turns, from the harness to whoever watches.

use serde_json::{Value, json};
use shared::admin_api::EPOCH_HEADER;
use shared::agent_event::{AgentEventKind, AgentEventPage, EventBatchAnswer};
use shared::wire_error::ErrorCode;

use super::contract::{hold, schema_of};
use super::http::Stream;
use super::world::{World, scripted, silent, spec};

const FOLLOW: &str = "/v1/agents/alice/events?follow=true";

fn tell(world: &World, run: &str, seqs: &[u64]) -> EventBatchAnswer {
    let event = |seq: &u64| json!({ "seq": seq, "at": "2026-11-21T11:04:29Z", "kind": "text", "text": format!("{run} {seq} \u{1b}[2J") });
    let events: Vec<Value> = seqs.iter().map(event).collect();
    world
        .ask("alice", "/v1/events", &json!({ "runId": run, "events": events }))
        .ok()
}

#[test]
fn a_turn_can_be_watched_and_leaves_nothing_in_the_ledger() {
    let mut world = World::serving(&spec(&json!({ "alice": silent() })));
    world.until_stopped("alice");
    let before = world.status().seq;
    assert!(!tell(&world, "one", &[1, 2]).watched);
    let schema = schema_of(&world.socket(), "StreamedEvent");
    let mut stream = Stream::open(&world.socket(), FOLLOW, None).unwrap();
    let next = |stream: &mut Stream| {
        let (id, event) = stream.next_named().expect("an event");
        hold(&schema, &event, "the stream of an agent");
        (id, event["event"]["text"].as_str().unwrap().to_owned())
    };
    let (_, first) = next(&mut stream);
    assert_eq!(
        first, "one 1 \u{fffd}[2J",
        "what would act on a terminal is made safe"
    );
    let (second, _) = next(&mut stream);
    let told_again = tell(&world, "one", &[2, 3]);
    assert!(told_again.watched);
    assert_eq!(next(&mut stream).1, "one 3 \u{fffd}[2J");

    let epoch = stream.header(EPOCH_HEADER).unwrap().to_owned();
    let mut resumed = Stream::open(&world.socket(), FOLLOW, Some(&second)).unwrap();
    assert_eq!(next(&mut resumed).0, format!("{epoch}.3"));
    assert_eq!(world.status().seq, before, "the ledger has heard nothing of it");

    // Of what a daemon told that is gone, the next one knows nothing.
    world.kill();
    assert!(stream.next_named().is_none());
    world.start();
    world.until_stopped("alice");
    tell(&world, "one", &[4]);
    let mut resumed = Stream::open(&world.socket(), FOLLOW, Some(&second)).unwrap();
    assert_ne!(resumed.header(EPOCH_HEADER), Some(epoch.as_str()));
    assert_eq!(next(&mut resumed).1, "one 4 \u{fffd}[2J");
}

#[test]
fn a_real_turn_is_told_and_shown() {
    let rules = json!([{ "on": "", "do": [{ "send": { "to": "nobody", "body": "psst" } }] }]);
    let world = World::serving(&spec(&json!({ "alice": scripted(&rules) })));
    world.until_healthy("alice");
    let _sent: Value = world
        .post("/v1/agents/alice/messages", &json!({ "body": "go" }))
        .ok();
    let kinds = [
        AgentEventKind::Started,
        AgentEventKind::Notice,
        AgentEventKind::Ended,
    ];
    world.until("the turn is told", || {
        let page: AgentEventPage = world.get("/v1/agents/alice/events").ok();
        let told: Vec<_> = page.events.iter().map(|streamed| streamed.event.kind).collect();
        (told == kinds).then_some(())
    });
    let shown = super::world::program(env!("CARGO_BIN_EXE_hive"))
        .args(["--socket", world.socket().as_str(), "events", "alice"])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert!(shown.contains("turn begins operator"), "{shown}");
    let error = world
        .get("/v1/agents/nobody/events")
        .refused(404, ErrorCode::NotFound);
    assert!(error.message.contains("there is no agent nobody"), "{error}");
}
