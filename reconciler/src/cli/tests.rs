//! Whole commands against a daemon that answers with the fixtures.

use std::io::Write as _;

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use clap::{CommandFactory as _, Parser as _};
use serde_json::{Value, json};

use super::exit::Exit;
use super::{Cli, fixtures};

mod events;
mod fake;

use fake::{Daemon, failed, run_on};

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_is_64_and_help_is_not_a_failure() {
    let exit = |args: &[&str]| Cli::try_parse_from(args).map_err(|error| Exit::of_usage(&error));
    for wrong in [
        &["hive"][..],
        &["hive", "dance"],
        &["hive", "status", "../etc"],
        &["hive", "gate", "show", "three"],
        &["hive", "gate", "approve", "3", "--digest", "short"],
        &["hive", "stop", "alice", "--for", "soon"],
        &["hive", "ask", "alice", "what?", "--default", "x"],
        &["hive", "answer", "three", "x"],
        &["hive", "loose-ends", "--drop", "task/3"],
        &["hive", "remind", "alice", "x"],
        &[
            "hive",
            "remind",
            "alice",
            "x",
            "--in",
            "2h",
            "--cron",
            "0 9 * * *",
        ],
        &[
            "hive",
            "remind",
            "alice",
            "x",
            "--in",
            "2h",
            "--time-zone",
            "Europe/Berlin",
        ],
        &["hive", "--json", "--quiet", "status"],
        &["hive", "serve", "--log", "a=b=c"],
    ] {
        assert_eq!(exit(wrong).err(), Some(Exit::Usage), "{wrong:?}");
    }
    assert_eq!(exit(&["hive", "--help"]).err(), Some(Exit::Done));
    assert_eq!(exit(&["hive", "--version"]).err(), Some(Exit::Done));
    assert!(exit(&["hive", "status", "alice"]).is_ok());
}

#[test]
fn help_tells_the_exit_statuses() {
    let help = Cli::command().render_help().to_string();
    for status in ["0 ", "1 ", "2 ", "3 ", "4 ", "64 "] {
        assert!(
            help.contains(&format!("\n  {status} ")),
            "{status} is missing in\n{help}"
        );
    }
}

#[tokio::test]
async fn every_verb_asks_for_its_document_and_ends_with_its_status() {
    for (args, request, exit) in [
        (&["status"][..], "GET /v1/status", Exit::Gate),
        (&["status", "alice"], "GET /v1/agents/alice", Exit::Gate),
        (&["diff"], "GET /v1/diff", Exit::Pending),
        (&["diff", "alice"], "GET /v1/diff?agent=alice", Exit::Pending),
        (&["plan"], "GET /v1/plan", Exit::Stalled),
        (&["plan", "alice"], "GET /v1/plan?agent=alice", Exit::Stalled),
        (&["explain", "hive"], "GET /v1/explain/hive", Exit::Done),
        (&["explain", "gate/3"], "GET /v1/explain/gate%2F3", Exit::Done),
        (&["gate", "list"], "GET /v1/gates", Exit::Done),
        (&["gate", "list", "--all"], "GET /v1/gates?all=true", Exit::Done),
        (&["gate", "show", "3"], "GET /v1/gates/3", Exit::Done),
        (&["history"], "GET /v1/history?limit=150", Exit::Done),
        (
            &["history", "alice", "-n", "5"],
            "GET /v1/history?limit=15&agent=alice",
            Exit::Done,
        ),
        (
            &["events", "--after", "1"],
            "GET /v1/events?after=1&limit=500",
            Exit::Done,
        ),
        (&["start", "alice"], "POST /v1/agents/alice/start", Exit::Done),
        (&["stop", "alice"], "POST /v1/agents/alice/stop", Exit::Done),
        (
            &["cancel", "alice"],
            "POST /v1/agents/alice/instructions",
            Exit::Done,
        ),
        (
            &["compact", "alice"],
            "POST /v1/agents/alice/instructions",
            Exit::Done,
        ),
        (
            &["nap", "alice", "--for", "2h", "--wake-on-message"],
            "POST /v1/agents/alice/instructions",
            Exit::Done,
        ),
        (
            &["wake", "alice"],
            "POST /v1/agents/alice/instructions",
            Exit::Done,
        ),
        (
            &["session", "new", "alice"],
            "POST /v1/agents/alice/instructions",
            Exit::Done,
        ),
        (&["restart", "alice"], "POST /v1/agents/alice/restart", Exit::Done),
        (&["rebuild", "alice"], "POST /v1/agents/alice/rebuild", Exit::Done),
        (&["suspend", "alice"], "POST /v1/agents/alice/suspend", Exit::Done),
        (&["resume", "alice"], "POST /v1/agents/alice/resume", Exit::Done),
        (&["retry", "alice"], "POST /v1/agents/alice/retry", Exit::Done),
        (
            &["send", "alice", "hi"],
            "POST /v1/agents/alice/messages",
            Exit::Done,
        ),
        (&["inbox"], "GET /v1/messages?limit=50&to=operator", Exit::Done),
        (
            &["logs", "alice", "-n", "5"],
            "GET /v1/agents/alice/logs?lines=5",
            Exit::Done,
        ),
        (&["turns"], "GET /v1/turns?limit=20", Exit::Done),
        (
            &["turns", "alice", "--before", "9", "-n", "5"],
            "GET /v1/turns?limit=5&agent=alice&before=9",
            Exit::Done,
        ),
        (
            &["inbox", "alice", "--search", "a b"],
            "GET /v1/messages?limit=50&to=alice&text=a%20b",
            Exit::Done,
        ),
        (
            &["inbox", "--all", "--state", "dead"],
            "GET /v1/messages?limit=50&state=dead",
            Exit::Done,
        ),
        (
            &["inbox", "--requeue", "7"],
            "POST /v1/messages/7/requeue",
            Exit::Done,
        ),
        (
            &["ask", "alice", "red or blue?"],
            "POST /v1/questions",
            Exit::Done,
        ),
        (&["questions"], "GET /v1/questions", Exit::Done),
        (&["questions", "--all"], "GET /v1/questions?all=true", Exit::Done),
        (
            &["answer", "41", "blue"],
            "POST /v1/questions/41/answer",
            Exit::Done,
        ),
        (
            &["remind", "alice", "water the plants", "--in", "2h"],
            "POST /v1/agents/alice/reminders",
            Exit::Done,
        ),
        (&["loose-ends"], "GET /v1/loose-ends", Exit::Done),
        (
            &["loose-ends", "--drop", "question/41"],
            "DELETE /v1/loose-ends/question/41",
            Exit::Done,
        ),
    ] {
        let daemon = Daemon::start();
        let ran = daemon.run(args).await;
        assert_eq!(ran.exit, exit, "{args:?}: {ran:?}");
        assert_eq!(daemon.lines()[0], request);
        assert_eq!(ran.err, "", "{args:?}");
        assert!(!ran.out.is_empty(), "{args:?}");

        let json = daemon.run(&[args, &["--json"]].concat()).await;
        assert_eq!(json.exit, exit, "{args:?}");
        let documents: Vec<_> = serde_json::Deserializer::from_str(&json.out)
            .into_iter::<Value>()
            .collect();
        assert!(
            !documents.is_empty() && documents.iter().all(Result::is_ok),
            "{}",
            json.out
        );

        let quiet = daemon.run(&[args, &["-q"]].concat()).await;
        assert_eq!((quiet.exit, quiet.out.as_str()), (exit, ""), "{args:?}");
    }
}

#[tokio::test]
async fn json_keeps_what_this_build_does_not_know() {
    let daemon = Daemon::answering(|_, _| {
        let mut status = fixtures::hive_json();
        status["colour"] = "amber \u{202e}".into();
        Some(axum::Json(status).into_response())
    });
    let ran = daemon.run(&["status", "--json"]).await;
    let shown: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(shown["colour"], "amber \u{202e}");
    assert!(!ran.out.contains('\u{202e}'), "a hazard reached the terminal");
}

#[tokio::test]
async fn approving_shows_what_is_approved_and_posts_the_digest_it_showed() {
    let daemon = Daemon::start();
    let ran = daemon.run(&["gate", "approve", "3", "--reason", "fine"]).await;
    assert_eq!(ran.exit, Exit::Done);
    insta::assert_snapshot!(ran.out, @r"
        gate 3 · open · deployWidens · asked for by alice 3 m ago
          deploy proposal 2 of alice: 1 change widens what it can do
          ! widens mcpServers.search.command
          digest effect1-eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee
        ✓ gate 3 approved by unix:root
        ");
    let posted = &daemon.seen()[1];
    assert_eq!(posted.line, "POST /v1/gates/3/decision");
    let digest = fixtures::digest("effect1", 'e');
    assert_eq!(
        posted.body,
        json!({ "approve": true, "digest": digest, "reason": "fine" })
    );
}

#[tokio::test]
async fn denying_tells_the_reason() {
    let daemon = Daemon::start();
    let ran = daemon.run(&["gate", "deny", "3", "--reason", "too wide"]).await;
    assert_eq!(ran.exit, Exit::Done);
    assert!(ran.out.ends_with("✗ gate 3 denied by unix:root\n"), "{}", ran.out);
    assert_eq!(daemon.seen()[1].body["approve"], false);
    assert_eq!(daemon.seen()[1].body["reason"], "too wide");
}

#[tokio::test]
async fn another_digest_than_demanded_decides_nothing() {
    let daemon = Daemon::start();
    let other = fixtures::digest("effect1", 'f');
    let ran = daemon.run(&["gate", "approve", "3", "--digest", &other]).await;
    assert_eq!(ran.exit, Exit::Error);
    assert!(
        ran.err
            .contains("hint: see what it asks for now with `hive --socket "),
        "{}",
        ran.err
    );
    assert_eq!(daemon.lines(), ["GET /v1/gates/3"]);
}

#[tokio::test]
async fn a_gate_that_moves_between_showing_and_deciding_is_not_decided() {
    let daemon = Daemon::answering(|seen, _| {
        let moved = || failed(StatusCode::CONFLICT, "conflict", "gate 3 was superseded", None);
        seen.line.starts_with("POST").then(moved)
    });
    let ran = daemon.run(&["gate", "approve", "3"]).await;
    assert_eq!(ran.exit, Exit::Error);
    let hint = format!(
        "hint: see what it asks for now with `hive --socket {} gate show 3`\n",
        daemon.socket()
    );
    assert_eq!(
        ran.err,
        format!("error: gate 3 was not decided: gate 3 was superseded\n{hint}")
    );
    assert!(!ran.out.contains('✓'), "{}", ran.out);
}

#[tokio::test]
async fn a_gate_that_is_not_open_is_not_decided_again() {
    let daemon =
        Daemon::answering(|_, _| Some(axum::Json(fixtures::decided_gate_json(true)).into_response()));
    let ran = daemon.run(&["gate", "deny", "3"]).await;
    assert_eq!(ran.exit, Exit::Error);
    assert!(
        ran.err
            .starts_with("error: gate 3 was approved by unix:root 1 m ago: there is nothing to decide\n"),
        "{}",
        ran.err
    );
    assert_eq!(daemon.lines(), ["GET /v1/gates/3"]);
}

#[tokio::test]
async fn what_the_daemon_refuses_is_told_with_its_hint() {
    let daemon = Daemon::start();
    let ran = daemon.run(&["status", "bob"]).await;
    assert_eq!(ran.exit, Exit::Error);
    let hint = format!("hint: hive --socket {} status\n", daemon.socket());
    assert_eq!(ran.err, format!("error: there is no agent bob\n{hint}"));

    let ran = daemon.run(&["status", "bob", "--json"]).await;
    let error: Value = serde_json::from_str(&ran.err).expect("JSON");
    assert_eq!(
        error,
        json!({ "code": "notFound", "message": "there is no agent bob", "hint": "hive status" })
    );
    assert_eq!(ran.out, "");
}

#[tokio::test]
async fn an_answer_that_is_not_a_document_is_an_error_and_no_panic() {
    for (status, body) in [(200, "<html>"), (200, "{}"), (502, "<html>"), (200, "")] {
        let daemon = Daemon::answering(move |_, _| {
            let status = StatusCode::from_u16(status).expect("a status");
            Some((status, body).into_response())
        });
        let ran = daemon.run(&["status"]).await;
        assert_eq!(ran.exit, Exit::Error, "{status} {body:?}");
        assert!(
            ran.err.contains("/v1/status") && ran.err.contains("hint: "),
            "{}",
            ran.err
        );
    }
}

#[tokio::test]
async fn a_missing_daemon_and_a_dead_one_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("admin.sock").display().to_string();
    let ran = run_on(&socket, &["status"]).await;
    assert_eq!(ran.exit, Exit::Error);
    assert!(ran.err.contains("there is no socket at"), "{}", ran.err);

    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    let ran = run_on(&socket, &["status"]).await;
    assert_eq!(ran.exit, Exit::Error);
    assert!(ran.err.contains("nobody listens on"), "{}", ran.err);
}

#[tokio::test]
async fn a_suspension_can_end_by_itself() {
    let daemon = Daemon::start();
    daemon
        .run(&["suspend", "alice", "--for", "2h", "--reason", "lunch"])
        .await;
    let body = &daemon.seen()[0].body;
    assert_eq!(
        body,
        &json!({ "reason": "lunch", "until": "2026-01-02T14:00:00Z" })
    );
}

#[tokio::test]
async fn an_empty_or_endless_message_is_not_sent() {
    let daemon = Daemon::start();
    let long = "x".repeat(shared::agent_api::MAX_BODY_BYTES + 1);
    for text in ["", " \n", &long] {
        let ran = daemon.run(&["send", "alice", text]).await;
        assert_eq!(ran.exit, Exit::Error);
        assert!(ran.err.contains("the message to alice is "), "{}", ran.err);
    }
    assert_eq!(daemon.seen(), []);
}

#[tokio::test]
async fn a_question_carries_its_time_limit_and_what_holds_then() {
    let daemon = Daemon::start();
    daemon
        .run(&["ask", "alice", "red or blue?", "--ttl", "2h", "--default", "blue"])
        .await;
    assert_eq!(
        daemon.seen()[0].body,
        json!({ "to": "alice", "body": "red or blue?", "ttlSecs": 7200, "default": "blue", "dedupe": null })
    );
}

#[tokio::test]
async fn a_spec_is_checked_without_a_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hive.json");
    let path = file.display().to_string();
    let mut handle = std::fs::File::create(&file).expect("a file");
    handle
        .write_all(br#"{"version":1,"hive":{"nam":"h"}}"#)
        .expect("written");
    let ran = run_on("/nonexistent.sock", &["spec", "check", &path]).await;
    assert_eq!(ran.exit, Exit::Error);
    assert!(ran.out.contains("hive.nam: unknown field"), "{}", ran.out);
    assert!(ran.err.contains("is not a valid spec: 2 faults"), "{}", ran.err);

    let missing = folder.path().join("missing.json").display().to_string();
    let ran = run_on("/nonexistent.sock", &["spec", "check", &missing]).await;
    assert_eq!(ran.exit, Exit::Error);
    assert!(ran.err.contains("there is no spec at "), "{}", ran.err);
}
