//! A daemon that answers with the fixtures, and a command line run against it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use clap::Parser as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::exit::Exit;
use crate::cli::ui::Ui;
use crate::cli::{Cli, fixtures, run_with};
use crate::host::Clock;

pub(super) struct FixedClock;

impl Clock for FixedClock {
    fn steady(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    fn now(&self) -> Timestamp {
        fixtures::now()
    }
}

/// A request as the daemon saw it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) line: String,
    pub(super) last_event: Option<String>,
    pub(super) body: Value,
}

type Answer = Box<dyn Fn(&Seen, usize) -> Option<Response> + Send + Sync>;

struct Shared {
    seen: Mutex<Vec<Seen>>,
    /// Answers before the fixtures do; told how many requests came before.
    answer: Answer,
}

/// A daemon on a socket of its own. Ends when dropped.
pub(super) struct Daemon {
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
    pub(super) fn start() -> Self {
        Self::answering(|_, _| None)
    }

    pub(super) fn answering(
        answer: impl Fn(&Seen, usize) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
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

    pub(super) fn socket(&self) -> String {
        self.folder.path().join("admin.sock").display().to_string()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("a lock").clone()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    pub(super) async fn run(&self, args: &[&str]) -> Ran {
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
        "/v1/messages" => json!([fixtures::message_json()]),
        "/v1/messages/7/requeue" => fixtures::message_json(),
        "/v1/questions" if body.is_null() => json!([fixtures::question_json("open")]),
        "/v1/questions" => fixtures::question_json("open"),
        "/v1/questions/41/answer" => fixtures::question_json("answered"),
        "/v1/loose-ends" => json!([fixtures::loose_end_json()]),
        "/v1/turns" => fixtures::turns_json(),
        "/v1/agents/alice/reminders" => fixtures::reminder_json(),
        "/v1/agents/alice/logs" => fixtures::log_json(),
        "/v1/loose-ends/question/41" => return StatusCode::NO_CONTENT.into_response(),
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

pub(super) fn failed(status: StatusCode, code: &str, message: &str, hint: Option<&str>) -> Response {
    let body = json!({ "code": code, "message": message, "hint": hint });
    (status, axum::Json(body)).into_response()
}

/// A stream for output that a test can read while it is written.
#[derive(Clone, Default)]
pub(super) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    pub(super) fn text(&self) -> String {
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
pub(super) struct Closed;

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
pub(super) struct Ran {
    pub(super) exit: Exit,
    pub(super) out: String,
    pub(super) err: String,
}

pub(super) fn parse(socket: &str, args: &[&str]) -> Cli {
    let program = ["hive", "--socket", socket];
    let all = program.iter().chain(args);
    Cli::try_parse_from(all).expect("a valid command line")
}

pub(super) async fn run_on(socket: &str, args: &[&str]) -> Ran {
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
