//! Servers on loopback.

use std::sync::Mutex;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::serve::Listener;
use serde_json::{Value, json};

use super::*;

/// A server that runs until it is dropped, and what it was asked.
pub(super) struct Server {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<String>>>,
    /// With which keys.
    pub(super) authorized: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Shakes hands, and answers anything else with this.
    pub(super) async fn start(answer: impl Fn(&Value) -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
        Self::start_on(listener, url, answer)
    }

    /// The same on this listener, which is reached at this address.
    pub(super) fn start_on<L: Listener>(
        listener: L,
        url: String,
        answer: impl Fn(&Value) -> Response + Clone + Send + Sync + 'static,
    ) -> Self
    where
        L::Addr: std::fmt::Debug,
    {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        let authorized: Arc<Mutex<Vec<String>>> = Arc::default();
        let keys = Arc::clone(&authorized);
        let handler = move |headers: HeaderMap, body: Bytes| {
            let message: Value = serde_json::from_slice(&body).unwrap_or_default();
            let method = message["method"].as_str().unwrap_or("none").to_owned();
            log.lock().expect("lock").push(method.clone());
            if let Some(key) = headers.get(header::AUTHORIZATION) {
                let key = String::from_utf8_lossy(key.as_bytes()).into_owned();
                keys.lock().expect("lock").push(key);
            }
            let response = match method.as_str() {
                "initialize" => {
                    let result = json!({
                        "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
                        "serverInfo": { "name": "test", "version": "1" },
                    });
                    ([("mcp-session-id", "one")], json_of(&message, &result)).into_response()
                }
                "notifications/initialized" => StatusCode::ACCEPTED.into_response(),
                "none" => StatusCode::METHOD_NOT_ALLOWED.into_response(),
                _ if headers.get("mcp-session-id").is_none() => StatusCode::BAD_REQUEST.into_response(),
                _ => answer(&message),
            };
            std::future::ready(response)
        };
        let app = Router::new().route("/mcp", any(handler));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("serve") });
        Self {
            url,
            asked,
            authorized,
            task,
        }
    }

    async fn probed(&self, time: Duration) -> McpServerState {
        let server = McpServerSpec {
            url: Some(self.url.clone()),
            ..McpServerSpec::default()
        };
        probed_in(&server, time).await
    }
}

pub(super) fn json_of(message: &Value, result: &Value) -> Response {
    let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

fn events(body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], body.into()).into_response()
}

pub(super) fn tools() -> Value {
    json!({ "tools": [{ "name": "look", "inputSchema": { "type": "object" } }] })
}

#[tokio::test]
async fn a_working_server_is_healthy_whether_it_answers_at_once_or_by_events() {
    let at_once = Server::start(|message| json_of(message, &tools())).await;
    let by_events = Server::start(|message| {
        let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": tools() });
        events(format!("event: message\ndata: {answer}\n\n"))
    })
    .await;
    for server in [at_once, by_events] {
        let state = server.probed(TIME).await;
        assert_eq!((state.health, state.error), (McpHealth::Healthy, None));
        assert_eq!(
            (state.tools.as_slice(), state.schema_tokens),
            (["look".to_owned()].as_slice(), Some(6))
        );
        let asked = server.asked.lock().expect("lock").clone();
        let methods: Vec<_> = asked.iter().filter(|method| *method != "none").collect();
        assert_eq!(methods, ["initialize", "notifications/initialized", "tools/list"]);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_fails_and_is_named() {
    let server = McpServerSpec {
        url: Some("http://127.0.0.1:1/mcp".into()),
        ..McpServerSpec::default()
    };
    let state = probed(&server).await;
    assert_eq!(state.health, McpHealth::Failed);
    let error = state.error.expect("an error");
    assert!(
        error.starts_with("initialize failed") && error.contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_never_answers_or_never_ends_its_answer_fails_in_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}/mcp", silent.local_addr().expect("an address"));
    let deaf = McpServerSpec {
        url: Some(url),
        ..McpServerSpec::default()
    };
    let time = Duration::from_millis(300);
    let state = probed_in(&deaf, time).await;
    let late = "did not answer initialize and tools/list within 0.3 s";
    assert_eq!(
        (state.health, state.error.as_deref()),
        (McpHealth::Failed, Some(late))
    );

    let endless = || {
        let ping = Bytes::from_static(b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\n");
        futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(ping.clone()))
    };
    let chatty = Server::start(move |_| events(Body::from_stream(endless()))).await;
    let state = chatty.probed(time).await;
    assert_eq!(
        (state.health, state.error.as_deref()),
        (McpHealth::Failed, Some(late))
    );
}

#[tokio::test]
async fn garbage_huge_answers_and_refusals_are_failures() {
    type Answer = fn(&Value) -> Response;
    let table: [(&str, Answer); 5] = [
        ("garbage", |_| {
            ([(header::CONTENT_TYPE, "application/json")], "{").into_response()
        }),
        ("no tools", |message| json_of(message, &json!({ "tools": 7 }))),
        ("another type", |_| "hello".into_response()),
        ("refused", |_| {
            (StatusCode::FORBIDDEN, "go away\u{1b}[31m").into_response()
        }),
        ("endless list", |message| {
            json_of(message, &json!({ "tools": [], "nextCursor": "again" }))
        }),
    ];
    for (what, answer) in table {
        let state = Server::start(answer).await.probed(TIME).await;
        assert_eq!(state.health, McpHealth::Failed, "{what}: {state:?}");
        let error = state.error.expect("an error");
        assert!(error.starts_with("tools/list"), "{what}: {error}");
        assert!(
            !error.contains('\u{1b}') && error.chars().count() <= 1001,
            "{what}: {error}"
        );
    }
    let huge = || Body::from(vec![b'x'; 40 * 1024 * 1024]);
    let line = Server::start(move |_| events(huge())).await;
    let document =
        Server::start(move |_| ([(header::CONTENT_TYPE, "application/json")], huge()).into_response());
    for server in [line, document.await] {
        let state = server.probed(TIME).await;
        assert_eq!(state.health, McpHealth::Failed, "{state:?}");
        assert!(state.error.expect("an error").chars().count() <= 1001);
    }
}

#[tokio::test]
async fn a_server_gets_its_secret_headers_and_what_it_says_of_them_is_not_told() {
    let (_dir, means) = means_with_secret();
    let config = Arc::new(config([]));
    let good = Server::start(|message| json_of(message, &tools())).await;
    let probed = |url: &str, header: &str| {
        let server = McpServerSpec {
            url: Some(url.to_owned()),
            secret_headers: [(header.to_owned(), "key".to_owned())].into(),
            ..McpServerSpec::default()
        };
        let (means, config) = (means.clone(), Arc::clone(&config));
        async move { probe(&means, &config, &server, TIME).await }
    };
    assert_eq!(
        probed(&good.url, "Authorization").await.health,
        McpHealth::Healthy
    );
    let seen = good.authorized.lock().expect("lock").clone();
    assert!(
        seen.len() >= 3 && seen.iter().all(|seen| seen == "hush-hush"),
        "{seen:?}"
    );

    let telltale = Server::start(|_| (StatusCode::FORBIDDEN, "no such key: hush-hush").into_response()).await;
    let error = probed(&telltale.url, "X-Key").await.error.expect("an error");
    assert!(error.contains("no such key: [secret]"), "{error}");
}

/// A server that is taken over must not have the secrets of its agents sent elsewhere.
#[tokio::test]
async fn a_secret_header_goes_nowhere_but_to_the_declared_address() {
    let (_dir, means) = means_with_secret();
    let elsewhere = Server::start(|message| json_of(message, &tools())).await;
    let target = elsewhere.url.clone();
    let pointing = move || {
        std::future::ready((
            StatusCode::TEMPORARY_REDIRECT,
            [(header::LOCATION, target.clone())],
        ))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let server = McpServerSpec {
        url: Some(format!(
            "http://{}/mcp",
            listener.local_addr().expect("an address")
        )),
        secret_headers: [("X-Key".to_owned(), "key".to_owned())].into(),
        ..McpServerSpec::default()
    };
    let app = Router::new().route("/mcp", any(pointing));
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    let state = probe(&means, &Arc::new(config([])), &server, TIME).await;
    serving.abort();
    assert_eq!(state.health, McpHealth::Failed, "{state:?}");
    assert!(elsewhere.asked.lock().expect("lock").is_empty());
}
