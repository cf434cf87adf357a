use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::json;
use shared::agent_api::MessageKind;
use shared::agent_event::{AgentEvent, AgentEventKind};
use shared::status::TurnState;

use crate::world::{Nest, PROGRAM};

/// What the log holds, as whoever is in the container sees it.
fn kept(nest: &Nest) -> Vec<AgentEvent> {
    let state = nest.path("state");
    let output = std::process::Command::new(PROGRAM)
        .args(["events", "--state", state.as_str()])
        .env_clear()
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("an event"))
        .collect()
}

fn kinds(events: &[AgentEvent]) -> Vec<AgentEventKind> {
    events.iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn what_happened_in_a_turn_is_kept() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "send": { "to": "carol", "body": "psst" } }] }]));
    nest.daemon
        .change(|world| world.forbidden.insert("carol".parse().expect("address")));
    let harness = nest.start();
    nest.until_idle(&nest.announced()).await;
    assert!(kept(&nest).is_empty());
    let log = nest.path("state/log");
    assert!(
        !std::fs::exists(&log).expect("a look"),
        "nothing is written before the first turn"
    );
    nest.daemon.message(MessageKind::Message, "operator", "go");
    nest.daemon.until("a turn", |world| world.turns.len() == 1).await;
    assert!(harness.terminated().await.0.success());

    let events = kept(&nest);
    let expected = [
        AgentEventKind::Started,
        AgentEventKind::Notice,
        AgentEventKind::Ended,
    ];
    assert_eq!(kinds(&events), expected);
    assert_eq!(events[0].text, "operator");
    assert!(
        events[1].text.starts_with("message to carol not sent"),
        "{}",
        events[1].text
    );
    assert_eq!((events[2].text.as_str(), events[2].ok), ("ok", Some(true)));
    let turn = nest.daemon.world().turns[0].turn;
    assert_eq!(nest.daemon.world().turns[0].notes_bytes, Some(0));
    assert!(events.iter().all(|event| event.turn == Some(turn)));
    // A turn that is over holds no file open, and leaves none besides the log.
    let names: Vec<_> = std::fs::read_dir(&log)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["events.sqlite"]);
}

#[tokio::test]
async fn a_log_that_cannot_be_kept_is_reported_and_holds_up_no_turn() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    let in_the_way = nest.path("state/log/events.sqlite");
    std::fs::create_dir_all(&in_the_way).expect("a folder");
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon
        .until("a report of it, and a turn that went well", |world| {
            world.dones() == [true]
                && world.reported(|report| {
                    let error = report.events_error.as_deref().unwrap_or_default();
                    error.contains("is no file: remove what is there") && report.turn == TurnState::Idle
                })
        })
        .await;
    std::fs::remove_dir(&in_the_way).expect("out of the way");
    nest.daemon
        .until("it is kept again", |world| world.report().events_error.is_none())
        .await;
    assert_eq!(
        kinds(&kept(&nest)),
        [AgentEventKind::Started, AgentEventKind::Ended]
    );
}

#[tokio::test]
async fn what_happens_is_streamed_once_and_an_idle_harness_streams_nothing() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    nest.daemon
        .change(|world| world.refuse_events = Some(StatusCode::SERVICE_UNAVAILABLE));
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon
        .until("a turn, and two attempts to tell", |world| {
            world.dones() == [true] && world.batches >= 2
        })
        .await;
    nest.daemon.change(|world| world.refuse_events = None);
    nest.daemon
        .until("its events", |world| world.events.len() == 2)
        .await;
    let batches = nest.daemon.world().batches;
    let told = kinds(&nest.daemon.world().events);
    assert_eq!(told, [AgentEventKind::Started, AgentEventKind::Ended]);
    let quiet = nest
        .daemon
        .never(Duration::from_millis(1500), |world| world.batches > batches);
    assert!(quiet.await, "nothing happens, and something is told");
}

#[tokio::test]
async fn a_daemon_that_does_not_listen_holds_up_no_turn_and_no_end() {
    for refuse in [None, Some(StatusCode::NOT_FOUND)] {
        let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
        nest.daemon.change(|world| {
            world.deaf_to_events = refuse.is_none();
            world.refuse_events = refuse;
        });
        let harness = nest.start();
        for turns in 1..=2 {
            nest.daemon.message(MessageKind::Message, "operator", "hello");
            nest.daemon
                .until("a turn that went well", |world| {
                    world.dones() == vec![true; turns]
                })
                .await;
        }
        let begun = Instant::now();
        assert!(harness.terminated().await.0.success());
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert!(nest.daemon.world().events.is_empty());
        assert_eq!(kept(&nest).len(), 4, "the log has them all");
    }
}
