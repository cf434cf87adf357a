//! A daemon in memory, as far as the tools of a turn see it: what they ask for is written down, and answered from a
//! small world.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Json, Path, Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, delete, get, post};
use camino::Utf8Path;
use serde_json::{Value, json};
use shared::TurnId;
use shared::agent_api::{Message, RecvRequest, RecvResponse};
use shared::wire_error::{ErrorCode, WireError};

use crate::in_memory::{self, Known};

pub(crate) const TIME: &str = "2026-01-02T03:04:05Z";

/// What the daemon knows. Public: tests look at it, and change it.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) inbox: Vec<Message>,
    /// What was leased to the turn, batch by batch.
    leased: Vec<(u64, Vec<Message>)>,
    pub(crate) recvs: Vec<RecvRequest>,
    /// How many wait at this moment, and how many ever did at once.
    waiting: usize,
    pub(crate) most_waiting: usize,
    /// So many leases happen, but their answers break off.
    pub(crate) lose_answers: usize,
    /// Everything else that was asked for: `METHOD /path`, and its body.
    pub(crate) asked: Vec<(String, Value)>,
    /// Ids that were sent, and the number that each got.
    dedupe: BTreeMap<String, u64>,
    last_id: u64,
    /// What has no behaviour of its own is not answered.
    pub(crate) deaf: bool,
    /// Instead of the usual answer, by `METHOD /path`.
    pub(crate) answers: BTreeMap<String, (u16, Value)>,
    /// The config repo, and every repo of a draft, as a bundle.
    pub(crate) bundle: Vec<u8>,
    pub(crate) offered: Vec<Vec<u8>>,
    pub(crate) drafts: BTreeMap<String, Value>,
    pub(crate) proposals: Vec<Value>,
}

impl Known for World {
    fn tell(&self) -> String {
        format!("recvs {:?}, asked {:?}", self.recvs, self.asked)
    }
}

impl World {
    pub(crate) fn bodies(&self, what: &str) -> Vec<&Value> {
        self.asked
            .iter()
            .filter(|(asked, _)| asked == what)
            .map(|(_, body)| body)
            .collect()
    }

    fn number(&mut self, dedupe: &str) -> (u64, bool) {
        if let Some(id) = self.dedupe.get(dedupe) {
            return (*id, true);
        }
        self.last_id += 1;
        self.dedupe.insert(dedupe.to_owned(), self.last_id);
        (self.last_id, false)
    }
}

type Shared = in_memory::Shared<World>;

/// A daemon on a socket.
pub(crate) type Daemon = in_memory::Daemon<World>;

impl Daemon {
    pub(crate) fn start(socket: &Utf8Path) -> Self {
        let routes = Router::new()
            .route("/v1/recv", post(recv))
            .route("/v1/send", post(send))
            .route("/v1/broadcast", post(broadcast))
            .route("/v1/questions", post(ask))
            .route("/v1/reminders", post(remind))
            .route("/v1/repo/bundle", get(bundle))
            .route("/v1/proposals", get(proposals).post(propose))
            .route("/v1/agents/{name}/repo/bundle", get(bundle))
            .route("/v1/agents/{name}/proposals", post(propose_for))
            .route("/v1/drafts", get(drafts).post(begin))
            .route("/v1/drafts/{name}", get(draft).delete(give_up))
            .route("/v1/drafts/{name}/bundle", get(bundle).post(commit))
            .route("/v1/loose-ends/{kind}/{number}", delete(gone))
            .fallback(any(scripted));
        Self::with(socket, routes)
    }

    /// Puts a message with these fields into the inbox.
    pub(crate) fn message(&self, fields: Value) -> u64 {
        self.change(|world| {
            world.last_id += 1;
            let mut message =
                json!({ "id": world.last_id, "from": "bob", "kind": "message", "at": TIME, "body": "hi" });
            for (name, value) in fields.as_object().expect("an object") {
                message[name] = value.clone();
            }
            let message = serde_json::from_value(message).expect("a message");
            world.inbox.push(message);
            world.last_id
        })
    }

    /// Answers this request so from now on.
    pub(crate) fn answers(&self, what: &str, status: u16, body: Value) {
        self.change(|world| world.answers.insert(what.to_owned(), (status, body)));
    }

    /// Refuses this request from now on.
    pub(crate) fn refuses(&self, what: &str, status: u16, code: ErrorCode, message: &str) {
        let error = WireError::new(code, message).with_hint("ask the operator");
        self.answers(what, status, serde_json::to_value(error).expect("JSON"));
    }
}

/// Writes a request down, and answers as a test said, else as usual.
fn answer(
    shared: &Shared,
    what: String,
    body: Value,
    usual: impl FnOnce(&mut World, &Value) -> Value,
) -> Response {
    shared.change(|world| {
        world.asked.push((what.clone(), body.clone()));
        match world.answers.get(&what) {
            Some((status, body)) => {
                let status = StatusCode::from_u16(*status).expect("a status");
                (status, Json(body.clone())).into_response()
            }
            None => Json(usual(world, &body)).into_response(),
        }
    })
}

/// As the broker: what was leased after the batch that is named is given again.
async fn recv(State(shared): State<Shared>, Json(request): Json<RecvRequest>) -> Response {
    let received = request.received.expect("every recv names the last batch");
    let turn: TurnId = request.turn;
    shared.change(|world| {
        assert!(world.recvs.iter().all(|recv| recv.turn == turn), "one turn");
        world.recvs.push(request.clone());
        world.waiting += 1;
        world.most_waiting = world.most_waiting.max(world.waiting);
    });
    let there = shared
        .wait(|world| !world.inbox.is_empty() || world.leased.iter().any(|(batch, _)| *batch > received));
    let _over = tokio::time::timeout(Duration::from_secs(request.wait_secs.into()), there).await;
    let (batch, messages, lost) = shared.change(|world| {
        world.waiting -= 1;
        let again = world.leased.iter().find(|(batch, _)| *batch > received).cloned();
        let (batch, messages) = again.unwrap_or_else(|| {
            let count = world.inbox.len().min(request.max as usize);
            let messages: Vec<Message> = world.inbox.drain(..count).collect();
            let batch = world.leased.len() as u64 + 1;
            if count > 0 {
                world.leased.push((batch, messages.clone()));
            }
            (batch, messages)
        });
        let lost = world.lose_answers > 0;
        world.lose_answers = world.lose_answers.saturating_sub(1);
        (batch, messages, lost)
    });
    if lost {
        // The length promises more than comes: the connection breaks off in the middle of the body.
        let broken = axum::body::Body::from_stream(Broken::default());
        return (StatusCode::OK, broken).into_response();
    }
    Json(RecvResponse { batch, messages }).into_response()
}

/// Half an answer, then an error.
#[derive(Default)]
struct Broken {
    begun: bool,
}

impl futures_util::Stream for Broken {
    type Item = std::io::Result<Bytes>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let item = if self.begun {
            Err(std::io::Error::other("the answer is lost"))
        } else {
            Ok(Bytes::from_static(b"{\"batch\":"))
        };
        self.begun = true;
        std::task::Poll::Ready(Some(item))
    }
}

async fn send(State(shared): State<Shared>, Json(body): Json<Value>) -> Response {
    answer(&shared, "POST /v1/send".into(), body, |world, body| {
        let (id, duplicate) = world.number(body["dedupe"].as_str().expect("every message carries an id"));
        json!({ "id": id, "duplicate": duplicate })
    })
}

async fn broadcast(State(shared): State<Shared>, Json(body): Json<Value>) -> Response {
    answer(&shared, "POST /v1/broadcast".into(), body, |world, body| {
        let (_, duplicate) = world.number(body["dedupe"].as_str().expect("every message carries an id"));
        json!({ "count": if duplicate { 0 } else { 3 }, "full": ["bob"], "duplicate": duplicate })
    })
}

async fn ask(State(shared): State<Shared>, Json(body): Json<Value>) -> Response {
    answer(&shared, "POST /v1/questions".into(), body, |world, body| {
        let (id, _) = world.number(body["dedupe"].as_str().expect("every question carries an id"));
        json!({
            "id": id, "from": "alice", "to": body["to"], "body": body["body"], "state": "open", "askedAt": TIME,
            "expiresAt": body["ttlSecs"].as_u64().map(|_| TIME), "default": body["default"],
        })
    })
}

async fn remind(State(shared): State<Shared>, Json(body): Json<Value>) -> Response {
    answer(&shared, "POST /v1/reminders".into(), body, |world, body| {
        let (id, _) = world.number(body["dedupe"].as_str().expect("every reminder carries an id"));
        json!({
            "id": id, "owner": "alice", "body": body["body"], "schedule": body["schedule"],
            "missed": body["missed"], "setAt": TIME, "due": TIME,
        })
    })
}

async fn gone(State(shared): State<Shared>, Path((kind, number)): Path<(String, u64)>) -> Response {
    let what = format!("DELETE /v1/loose-ends/{kind}/{number}");
    match answer(&shared, what, Value::Null, |_, _| Value::Null) {
        refused if !refused.status().is_success() => refused,
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn bundle(State(shared): State<Shared>) -> Response {
    shared.look().bundle.clone().into_response()
}

async fn proposals(State(shared): State<Shared>) -> Response {
    Json(shared.look().proposals.clone()).into_response()
}

async fn propose(State(shared): State<Shared>, body: Bytes) -> Response {
    offered(&shared, "POST /v1/proposals".into(), &body)
}

async fn propose_for(State(shared): State<Shared>, Path(name): Path<String>, body: Bytes) -> Response {
    offered(&shared, format!("POST /v1/agents/{name}/proposals"), &body)
}

fn offered(shared: &Shared, what: String, bundle: &Bytes) -> Response {
    answer(shared, what, json!(bundle.len()), |world, _| {
        world.offered.push(bundle.to_vec());
        json!({
            "number": world.offered.len(), "commit": "0".repeat(40), "title": "a title", "phase": "proposed",
            "at": TIME,
        })
    })
}

fn draft_info(name: &str) -> Value {
    json!({
        "name": name, "uid": "6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f", "owner": "alice", "since": TIME,
        "phase": "draft", "seed": "0".repeat(40), "files": {},
    })
}

async fn drafts(State(shared): State<Shared>) -> Response {
    let world = shared.look();
    Json(world.drafts.values().cloned().collect::<Vec<_>>()).into_response()
}

async fn begin(State(shared): State<Shared>, Json(body): Json<Value>) -> Response {
    answer(&shared, "POST /v1/drafts".into(), body, |world, body| {
        let name = body["name"].as_str().expect("a name");
        world.drafts.insert(name.to_owned(), draft_info(name));
        draft_info(name)
    })
}

async fn draft(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    match shared.look().drafts.get(&name) {
        Some(draft) => Json(draft.clone()).into_response(),
        None => {
            let error = WireError::new(ErrorCode::NotFound, format!("no draft {name}"));
            (StatusCode::NOT_FOUND, Json(error)).into_response()
        }
    }
}

async fn give_up(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    shared.change(|world| world.drafts.remove(&name));
    StatusCode::NO_CONTENT.into_response()
}

async fn commit(State(shared): State<Shared>, Path(name): Path<String>, body: Bytes) -> Response {
    let what = format!("POST /v1/drafts/{name}/bundle");
    answer(&shared, what, json!(body.len()), |world, _| {
        world.offered.push(body.to_vec());
        let mut draft = draft_info(&name);
        draft["commit"] = json!("1".repeat(40));
        draft
    })
}

/// What has no behaviour of its own: a test says what is answered.
async fn scripted(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    query: Query<Value>,
    body: Bytes,
) -> Response {
    let what = format!("{method} {}", uri.path());
    let mut body = serde_json::from_slice(&body).unwrap_or(json!(String::from_utf8_lossy(&body)));
    if query.0.as_object().is_some_and(|query| !query.is_empty()) {
        body = query.0;
    }
    if shared.look().deaf {
        shared.change(|world| world.asked.push((what, body)));
        return std::future::pending().await;
    }
    let known = shared.look().answers.contains_key(&what);
    if known {
        return answer(&shared, what, body, |_, _| Value::Null);
    }
    shared.change(|world| world.asked.push((what.clone(), body)));
    let error = WireError::new(ErrorCode::NotFound, format!("there is no {what}"));
    (StatusCode::NOT_FOUND, Json(error)).into_response()
}
