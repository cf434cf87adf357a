//! A made-up model provider on loopback that speaks as much of the Messages API as an agent's program needs.
//!
//! Each request to `POST /v1/messages` takes the first rule of the script that fits its last message and has not been
//! used up. What was asked is kept. Nothing is decided by a model, and nothing leaves the machine.
//!
//! | Method and path | What |
//! | --- | --- |
//! | `POST /v1/messages` | a reply of the script, as server-sent events or as one JSON document |
//! | `POST /v1/messages/count_tokens` | a made-up count |
//! | `PUT /script` | a new script: a list of [`Rule`]s |
//! | `GET /log` | what was asked so far: a list of [`Asked`] |
//!
//! Everything else is 404.
#![warn(missing_docs)]

mod script;
mod stream;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use script::{Asked, Block, Reply, Rule, Usage};

/// The largest request that is read.
const MAX_REQUEST: usize = 64 * 1024 * 1024;

/// A provider that runs until it is dropped.
#[derive(Debug)]
pub struct ModelServer {
    shared: Shared,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

type Shared = Arc<Inner>;

#[derive(Debug)]
struct Inner {
    world: Mutex<World>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct World {
    rules: Vec<Rule>,
    log: Vec<Asked>,
    replies: u64,
}

impl ModelServer {
    /// A provider with this script, on a port of loopback that was free.
    ///
    /// # Errors
    /// When there is no such port.
    pub async fn start(rules: Vec<Rule>) -> std::io::Result<Self> {
        Self::bind("127.0.0.1:0", rules).await
    }

    /// A provider with this script at this address.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn bind(address: &str, rules: Vec<Rule>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Inner {
            world: Mutex::new(World {
                rules,
                ..World::default()
            }),
            changed: watch::Sender::new(()),
        });
        let app = Router::new()
            .route("/v1/messages", post(messages))
            .route("/v1/messages/count_tokens", post(count_tokens))
            .route("/script", put(new_script))
            .route("/log", get(log))
            .layer(axum::extract::DefaultBodyLimit::max(MAX_REQUEST))
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // It ends with its task; a listener that fails makes every request fail, which is seen where it is asked.
            drop(axum::serve(listener, app).await);
        });
        Ok(Self {
            shared,
            address,
            server,
        })
    }

    /// Where it is, as in `http://127.0.0.1:4711`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts another script in the place of the one there is.
    pub fn script(&self, rules: Vec<Rule>) {
        self.shared.world().rules = rules;
    }

    /// What was asked so far.
    pub fn log(&self) -> Vec<Asked> {
        self.shared.world().log.clone()
    }

    /// Waits until what was asked is like this.
    pub async fn until(&self, like: impl Fn(&[Asked]) -> bool) {
        let mut changes = self.shared.changed.subscribe();
        while !like(&self.shared.world().log) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Inner {
    fn world(&self) -> MutexGuard<'_, World> {
        // Each operation leaves it whole.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn messages(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return error(400, "invalid_request_error", "not JSON").into_response();
    };
    let asked = Asked::new(&request, &headers);
    let (reply, number) = {
        let mut world = shared.world();
        let reply = script::choose(&mut world.rules, &asked);
        world.log.push(asked.clone());
        world.replies += 1;
        (reply, world.replies)
    };
    shared.changed.send_replace(());
    if let Some(delay) = reply.delay_ms {
        tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
    }
    if let Some(status) = reply.status {
        let kind = reply.error.as_deref().unwrap_or("api_error");
        let mut response = error(status, kind, reply.text.as_deref().unwrap_or("scripted")).into_response();
        script::put_headers(&reply, response.headers_mut());
        return response;
    }
    let message = stream::Message::new(&reply, &asked.model, number);
    let mut response = if asked.stream {
        (
            [(header::CONTENT_TYPE, "text/event-stream")],
            Body::from_stream(message.stream()),
        )
            .into_response()
    } else {
        Json(message.document()).into_response()
    };
    script::put_headers(&reply, response.headers_mut());
    response
}

/// An error as the provider words it.
fn error(status: u16, kind: &str, message: &str) -> (StatusCode, Json<Value>) {
    let body = json!({ "type": "error", "error": { "type": kind, "message": message } });
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(body))
}

async fn count_tokens(body: Bytes) -> Json<Value> {
    Json(json!({ "input_tokens": body.len() / 4 }))
}

async fn new_script(State(shared): State<Shared>, Json(rules): Json<Vec<Rule>>) -> StatusCode {
    shared.world().rules = rules;
    StatusCode::NO_CONTENT
}

async fn log(State(shared): State<Shared>) -> Json<Vec<Asked>> {
    Json(shared.world().log.clone())
}

#[cfg(test)]
mod tests;
