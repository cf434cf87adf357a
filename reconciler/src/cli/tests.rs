//! Whole commands against a daemon that answers with the fixtures.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use clap::{CommandFactory as _, Parser as _};
use jiff::Timestamp;
use serde_json::{Value, json};
use shared::admin_api::EPOCH_HEADER;

use super::exit::Exit;
use super::ui::Ui;
use super::{Cli, fixtures, run_with};
use crate::host::Clock;

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        fixtures::now()
    }
}

/// A request as the daemon saw it.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    line: String,
    last_event: Option<String>,
    body: Value,
}

type Answer = Box<dyn Fn(&Seen, usize) -> Option<Response> + Send + Sync>;

struct Shared {
    seen: Mutex<Vec<Seen>>,
    /// Answers before the fixtures do; told how many requests came before.
    answer: Answer,
}

/// A daemon on a socket of its own. Ends when dropped.
struct Daemon {
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Daemon {
    fn start() -> Self {
        Self::answering(|_, _| None)
    }

    fn answering(answer: impl Fn(&Seen, usize) -> Option<Response> + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = tokio::net::UnixListener::bind(folder.path().join("admin.sock")).expect("a socket");
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            answer: Box::new(answer),
        });
        let router = Router::new().fallback(answer_one).with_state(shared.clone());
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("a server");
        });
        Self { folder, shared, task }
    }

    fn socket(&self) -> String {
        self.folder.path().join("admin.sock").display().to_string()
    }

    fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("a lock").clone()
    }

    fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    async fn run(&self, args: &[&str]) -> Ran {
        run_on(&self.socket(), args).await
    }
}

async fn answer_one(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let seen = Seen {
        line: format!("{method} {uri}"),
        last_event: headers
            .get("last-event-id")
            .map(|value| value.to_str().expect("text").to_owned()),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    let before = {
        let mut all = shared.seen.lock().expect("a lock");
        all.push(seen.clone());
        all.len() - 1
    };
    (shared.answer)(&seen, before).unwrap_or_else(|| fixture(uri.path(), &seen.body))
}

fn fixture(path: &str, body: &Value) -> Response {
    let answer = match path {
        "/v1/status" => fixtures::hive_json(),
        "/v1/agents/alice" => fixtures::agent_json(),
        "/v1/plan" => fixtures::plans_json(),
        "/v1/diff" => fixtures::diff_json(),
        "/v1/gates" => json!([fixtures::gate_json()]),
        "/v1/gates/3" => fixtures::gate_json(),
        "/v1/gates/3/decision" => fixtures::decided_gate_json(body["approve"] == true),
        "/v1/history" => fixtures::history_json(),
        "/v1/agents/alice/messages" => json!({ "id": 12 }),
        "/v1/events" => {
            json!({ "epoch": "e1", "last": 2, "events": [fixtures::event_json(1), fixtures::event_json(2)] })
        }
        path if path.starts_with("/v1/explain/") => fixtures::explanation_json(),
        path if path.starts_with("/v1/agents/alice/") => {
            json!({ "message": "alice: recorded", "changed": true })
        }
        _ => {
            return failed(
                StatusCode::NOT_FOUND,
                "notFound",
                "there is no agent bob",
                Some("hive status"),
            );
        }
    };
    axum::Json(answer).into_response()
}

fn failed(status: StatusCode, code: &str, message: &str, hint: Option<&str>) -> Response {
    let body = json!({ "code": code, "message": message, "hint": hint });
    (status, axum::Json(body)).into_response()
}

/// An event stream that ends after these events.
fn stream(epoch: &str, seqs: impl IntoIterator<Item = u64>) -> Response {
    let mut body = String::from(": hello\n\n");
    for seq in seqs {
        body.push_str(&format!("id: {seq}\ndata: {}\n\n", fixtures::event_json(seq)));
    }
    ([(EPOCH_HEADER, epoch.to_owned())], Body::from(body)).into_response()
}

/// A stream for output that a test can read while it is written.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        let bytes = self.0.lock().expect("a lock").clone();
        anstream::adapter::strip_str(&String::from_utf8(bytes).expect("text")).to_string()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream whose reader has gone.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a command did.
#[derive(Debug)]
struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

fn parse(socket: &str, args: &[&str]) -> Cli {
    let program = ["hive", "--socket", socket];
    let all = program.iter().chain(args);
    Cli::try_parse_from(all).expect("a valid command line")
}

async fn run_on(socket: &str, args: &[&str]) -> Ran {
    let (out, err) = (Buffer::default(), Buffer::default());
    let cli = parse(socket, args);
    let mut ui = Ui::of(cli.global.form(), Box::new(out.clone()), Box::new(err.clone()));
    let exit = run_with(cli, &mut ui, Arc::new(FixedClock)).await;
    Ran {
        exit,
        out: out.text(),
        err: err.text(),
    }
}

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
        (&["history"], "GET /v1/history?limit=50", Exit::Done),
        (
            &["history", "alice", "-n", "5"],
            "GET /v1/history?limit=5&agent=alice",
            Exit::Done,
        ),
        (
            &["events", "--after", "1"],
            "GET /v1/events?after=1&limit=500",
            Exit::Done,
        ),
        (&["start", "alice"], "POST /v1/agents/alice/start", Exit::Done),
        (&["stop", "alice"], "POST /v1/agents/alice/stop", Exit::Done),
        (&["restart", "alice"], "POST /v1/agents/alice/restart", Exit::Done),
        (&["suspend", "alice"], "POST /v1/agents/alice/suspend", Exit::Done),
        (&["resume", "alice"], "POST /v1/agents/alice/resume", Exit::Done),
        (&["retry", "alice"], "POST /v1/agents/alice/retry", Exit::Done),
        (
            &["send", "alice", "hi"],
            "POST /v1/agents/alice/messages",
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
        ran.err.contains("hint: it moved: run `hive gate show 3` again"),
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
    assert_eq!(
        ran.err,
        "error: gate 3 was not decided: gate 3 was superseded\nhint: it moved: run `hive gate show 3` again\n"
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
            .starts_with("error: gate 3 is approved: there is nothing to decide\n"),
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
    assert_eq!(ran.err, "error: there is no agent bob\nhint: hive status\n");

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
    assert!(ran.out.contains("✗ hive.nam: "), "{}", ran.out);
    assert!(ran.err.contains("is not a valid spec: 1 fault"), "{}", ran.err);

    let missing = folder.path().join("missing.json").display().to_string();
    let ran = run_on("/nonexistent.sock", &["spec", "check", &missing]).await;
    assert_eq!(ran.exit, Exit::Error);
    assert!(ran.err.contains("could not be read: "), "{}", ran.err);
}
