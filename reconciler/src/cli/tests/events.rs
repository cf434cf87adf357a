//! The event stream: pages, following, breaks, another ledger, readers that go away.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use shared::admin_api::EPOCH_HEADER;

use super::fake::{Buffer, Closed, Daemon, FixedClock, Ran, failed, parse};
use crate::cli::exit::Exit;
use crate::cli::ui::Ui;
use crate::cli::{fixtures, run_with};

/// An event stream that ends after these events.
fn stream(epoch: &str, seqs: impl IntoIterator<Item = u64>) -> Response {
    let mut body = String::from(": hello\n\n");
    for seq in seqs {
        body.push_str(&format!("id: {seq}\ndata: {}\n\n", fixtures::event_json(seq)));
    }
    ([(EPOCH_HEADER, epoch.to_owned())], Body::from(body)).into_response()
}

#[tokio::test]
async fn without_a_position_the_last_events_are_shown() {
    let daemon = Daemon::answering(|_, before| {
        let page = |events: Value| axum::Json(json!({ "epoch": "e1", "last": 30, "events": events }));
        Some(match before {
            0 => page(json!([fixtures::event_json(1)])).into_response(),
            _ => page((29..=30).map(fixtures::event_json).collect()).into_response(),
        })
    });
    let ran = daemon.run(&["events", "-n", "2"]).await;
    assert_eq!(
        daemon.lines(),
        [
            "GET /v1/events?after=0&limit=1",
            "GET /v1/events?after=28&limit=500"
        ]
    );
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
}

#[tokio::test]
async fn a_daemon_that_never_catches_up_does_not_hang_the_reader() {
    let daemon = Daemon::answering(|_, _| {
        let page = json!({ "epoch": "e1", "last": 99, "events": [fixtures::event_json(1)] });
        Some(axum::Json(page).into_response())
    });
    let ran = daemon.run(&["events", "--after", "0"]).await;
    assert_eq!((ran.exit, ran.out.lines().count()), (Exit::Done, 1));
}

/// Follows events until `done` likes the output.
async fn follow_until(daemon: &Daemon, args: &[&str], done: impl Fn(&str) -> bool) -> Ran {
    let (out, err) = (Buffer::default(), Buffer::default());
    let cli = parse(&daemon.socket(), args);
    let mut ui = Ui::of(cli.global.form(), Box::new(out.clone()), Box::new(err.clone()));
    let run = run_with(cli, &mut ui, Arc::new(FixedClock));
    let enough = async {
        while !done(&out.text()) {
            tokio::task::yield_now().await;
        }
    };
    let exit = tokio::time::timeout(Duration::from_secs(20), async {
        tokio::select! { exit = run => exit, () = enough => Exit::Done }
    });
    let exit = exit
        .await
        .unwrap_or_else(|_| panic!("still waiting: {:?} {:?}", out.text(), err.text()));
    Ran {
        exit,
        out: out.text(),
        err: err.text(),
    }
}

fn seqs(out: &str) -> Vec<u64> {
    out.lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("a JSON line")["seq"]
                .as_u64()
                .expect("a number")
        })
        .collect()
}

#[tokio::test]
async fn a_broken_stream_goes_on_where_it_ended() {
    let daemon = Daemon::answering(|_, before| {
        Some(match before {
            0 => stream("e1", 1..=2),
            1 => failed(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "starting", None),
            // Repeats an event, as a daemon may after a crash.
            _ => stream("e1", 2..=3),
        })
    });
    let args = ["events", "-f", "--after", "0", "--json"];
    let ran = follow_until(&daemon, &args, |out| out.lines().count() >= 3).await;
    assert_eq!(seqs(&ran.out), [1, 2, 3]);
    let seen = daemon.seen();
    assert_eq!(seen[0].last_event.as_deref(), Some("0"));
    assert_eq!(seen[2].last_event.as_deref(), Some("2"));
    assert_eq!(seen[2].line, "GET /v1/events?after=2&follow=true");
    assert!(
        ran.err.contains("the connection to the daemon was lost"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn another_ledger_is_told_and_read_from_its_start() {
    let daemon = Daemon::answering(|seen, before| {
        Some(match before {
            0 => stream("e1", 7..=8),
            _ if seen.last_event.as_deref() == Some("0") => stream("e2", 1..=1),
            _ => stream("e2", []),
        })
    });
    let args = ["events", "-f", "--after", "6", "--json"];
    let ran = follow_until(&daemon, &args, |out| out.lines().count() >= 3).await;
    assert_eq!(seqs(&ran.out), [7, 8, 1]);
    assert!(ran.err.contains("another ledger"), "{}", ran.err);
}

#[tokio::test]
async fn an_event_that_is_none_ends_the_stream_with_an_error() {
    let daemon = Daemon::answering(|_, _| Some("data: {\"seq\":\n\n".into_response()));
    let ran = follow_until(&daemon, &["events", "-f", "--after", "0"], |_| false).await;
    assert_eq!(ran.exit, Exit::Error);
    assert!(ran.err.contains("could not be understood"), "{}", ran.err);
}

#[tokio::test]
async fn a_reader_that_goes_away_is_not_an_error() {
    let daemon = Daemon::answering(|seen, _| seen.line.contains("follow").then(|| stream("e1", 1..=2)));
    for args in [
        &["status"][..],
        &["events"],
        &["events", "-f", "--after", "0"],
        &["spec", "schema"],
    ] {
        let err = Buffer::default();
        let cli = parse(&daemon.socket(), args);
        let mut ui = Ui::of(cli.global.form(), Box::new(Closed), Box::new(err.clone()));
        let exit = run_with(cli, &mut ui, Arc::new(FixedClock)).await;
        assert_eq!((exit, err.text().as_str()), (Exit::Done, ""), "{args:?}");
    }
}

/// What the daemon remembers of an agent's turns, or a stream that ends after these events.
fn streamed(epoch: &str, positions: impl IntoIterator<Item = u64>) -> Response {
    let mut body = String::new();
    for position in positions {
        let event = json!({ "position": position, "event": { "seq": position, "at": "2026-01-02T11:57:00Z", "kind": "notice" } });
        body.push_str(&format!("id: {epoch}.{position}\ndata: {event}\n\n"));
    }
    ([(EPOCH_HEADER, epoch.to_owned())], Body::from(body)).into_response()
}

#[tokio::test]
async fn an_agent_is_watched_across_breaks_and_restarts() {
    let daemon = Daemon::answering(|_, before| {
        Some(match before {
            0 => axum::Json(json!({ "epoch": "e1", "last": 4, "events": [
                { "position": 4, "event": { "seq": 4, "at": "2026-01-02T11:57:00Z", "kind": "from the future" } }] }))
            .into_response(),
            1 => streamed("e1", [5, 6]),
            2 => failed(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "starting", None),
            _ => streamed("e2", [1]),
        })
    });
    let args = ["events", "-f", "-n", "7", "alice", "--json"];
    let ran = follow_until(&daemon, &args, |out| out.lines().count() >= 4).await;
    let positions: Vec<_> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a JSON line")["position"].clone())
        .collect();
    assert_eq!(positions, [4, 5, 6, 1]);
    let seen = daemon.seen();
    assert_eq!(seen[0].line, "GET /v1/agents/alice/events?limit=7");
    assert_eq!(seen[1].line, "GET /v1/agents/alice/events?follow=true");
    let named = |n: usize| seen[n].last_event.as_deref();
    assert_eq!(
        (named(1), named(2), named(3)),
        (Some("e1.4"), Some("e1.6"), Some("e1.6"))
    );
    assert!(
        ran.err.contains("the connection to the daemon was lost"),
        "{}",
        ran.err
    );
}
