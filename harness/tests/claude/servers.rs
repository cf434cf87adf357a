//! Declared MCP servers, with the real program.

use std::time::Duration;

use axum::Router;
use axum::extract::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use model_server::Rule;
use serde_json::{Value, json};
use shared::status::McpHealth;
use shared::turn::TurnResult;

use crate::bee::{Bee, about};

/// A server with the tools `look` and `draw`.
fn server() -> Value {
    let script = format!("exec sh {}/tests/mcp-server.sh", env!("CARGO_MANIFEST_DIR"));
    json!({ "command": "sh", "args": ["-c", script] })
}

/// Messages that make the model call this tool, then another.
pub(crate) fn calls(first: &str, second: &str) -> Vec<Rule> {
    about([
        Rule::tool("from operator", first, json!({})).times(1),
        Rule::tool("", second, json!({})).times(1),
    ])
}

pub(crate) async fn until_probed(bee: &Bee, count: usize) {
    bee.until("the probes", |world| {
        world.reported(|report| report.mcp.len() == count)
    })
    .await;
}

#[tokio::test]
async fn a_tool_that_is_not_allowed_is_neither_offered_to_the_model_nor_called() {
    let mut bee = Bee::real(calls("mcp__drawing__draw", "mcp__drawing__look")).await;
    let mut drawing = server();
    drawing["allowedTools"] = json!(["look", "x,mcp__drawing__draw"]);
    bee.config(&json!({ "mcpServers": { "drawing": drawing } }));
    bee.start();
    until_probed(&bee, 1).await;
    bee.message("draw");
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Ok, "{turns:?}");
    let log = bee.model.log();
    let of_server: Vec<_> = log[0]
        .tools
        .iter()
        .filter(|tool| tool.starts_with("mcp__drawing"))
        .collect();
    assert_eq!(of_server, ["mcp__drawing__look"]);
    assert!(
        log[2].last.contains("No such tool available: mcp__drawing__draw"),
        "{}",
        log[2].last
    );
    assert!(log[3].last.contains("looked"), "{}", log[3].last);
    assert_eq!(
        bee.nest.daemon.world().report().mcp["drawing"].health,
        McpHealth::Healthy
    );
}

#[tokio::test]
async fn a_tool_that_is_not_allowed_is_refused_before_the_probe_knows_of_it() {
    let mut bee = Bee::real(calls("mcp__drawing__draw", "mcp__drawing__look")).await;
    // The probe's run is the first.
    let first = bee.nest.path("first");
    let mut drawing = server();
    let script = drawing["args"][1].as_str().unwrap();
    drawing["args"][1] = json!(format!("mkdir {first} && exec sleep 1000; {script}"));
    drawing["allowedTools"] = json!(["look"]);
    bee.config(&json!({ "mcpServers": { "drawing": drawing } }));
    bee.start();
    bee.until("a report", |world| {
        world.reported(|report| report.config.is_some())
    })
    .await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !first.is_dir() {
        assert!(std::time::Instant::now() < deadline, "the probe never began");
        tokio::task::yield_now().await;
    }
    bee.message("draw");
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Ok, "{turns:?}");
    let log = bee.model.log();
    assert!(
        log[2]
            .last
            .contains("Permission to use mcp__drawing__draw has been denied"),
        "{}",
        log[2].last
    );
    assert!(log[3].last.contains("looked"), "{}", log[3].last);
}

/// The health of the server `drawing` after one turn, and its error. A first run of it does `first`, further ones `then`.
async fn after_a_turn(first: &str, then: &str) -> (McpHealth, Option<String>) {
    let mut bee = Bee::real(Bee::replies()).await;
    let mark = bee.nest.path("mark");
    let script = format!("if mkdir {mark}; then {first}; else {then}; fi");
    bee.config(&json!({ "mcpServers": { "drawing": { "command": "sh", "args": ["-c", script] } } }));
    bee.start();
    until_probed(&bee, 1).await;
    bee.message("work");
    // The program asks once it has given up a server that does not answer, which takes it 20 s.
    let asks = bee.model.until(|log| !log.is_empty());
    assert!(tokio::time::timeout(Duration::from_secs(60), asks).await.is_ok());
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Ok, "{turns:?}");
    bee.until("idle", |world| {
        world.reported(|report| report.turn == shared::status::TurnState::Idle)
    })
    .await;
    let state = bee.nest.daemon.world().report().mcp["drawing"].clone();
    (state.health, state.error)
}

#[tokio::test]
async fn a_server_that_answers_the_probe_and_fails_in_the_turn_does_not_work() {
    let good = format!("exec sh {}/tests/mcp-server.sh", env!("CARGO_MANIFEST_DIR"));
    let (health, error) = after_a_turn(&good, "exit 1").await;
    assert_eq!(health, McpHealth::Failed);
    let error = error.unwrap();
    assert!(
        error.starts_with("does not work in turns (failed), although"),
        "{error}"
    );

    // And the other way round: the probe was only too early.
    assert_eq!(after_a_turn("exit 1", &good).await, (McpHealth::Healthy, None));
}

#[tokio::test]
async fn a_server_that_floods_its_errors_and_never_answers_holds_up_no_turn() {
    let good = format!("exec sh {}/tests/mcp-server.sh", env!("CARGO_MANIFEST_DIR"));
    let mute = "head -c 20000000 /dev/zero | tr '\\0' x >&2; exec sleep 1000";
    let (health, error) = after_a_turn(&good, mute).await;
    assert_eq!(health, McpHealth::Failed, "{error:?}");
    let error = error.unwrap();
    assert!(error.starts_with("does not work in turns ("), "{error}");
}

#[tokio::test]
async fn a_server_that_offers_the_turn_other_tools_than_the_probe_is_pointed_out() {
    let path = format!("{}/tests/mcp-server.sh", env!("CARGO_MANIFEST_DIR"));
    let other = format!("exec sh -c \"$(sed 's/draw/erase/' {path})\"");
    let found = after_a_turn(&format!("exec sh {path}"), &other).await;
    let error = "turns find other tools than the probe: without draw, besides erase";
    assert_eq!(found, (McpHealth::Differs, Some(error.to_owned())));
}

/// Answers a message of MCP; a notification gets no answer.
pub(crate) async fn answer(Json(message): Json<Value>) -> Response {
    let result = match message["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
            "serverInfo": { "name": "test", "version": "1" },
        }),
        Some("tools/list") => json!({ "tools": [{ "name": "look", "inputSchema": { "type": "object" } }] }),
        Some("tools/call") => json!({ "content": [{ "type": "text", "text": "seen from afar" }] }),
        _ if message["id"].is_null() => return StatusCode::ACCEPTED.into_response(),
        _ => {
            let error = json!({ "code": -32601, "message": "no such method" });
            return Json(json!({ "jsonrpc": "2.0", "id": message["id"], "error": error })).into_response();
        }
    };
    let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

#[tokio::test]
async fn a_server_over_http_is_probed_and_used() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let app = Router::new().route("/mcp", post(answer));
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut bee = Bee::real(calls("mcp__far__look", "mcp__hive__whoami")).await;
    bee.config(
        &json!({ "mcpServers": { "far": { "url": url }, "safe": { "url": "https://127.0.0.1:1/mcp" } } }),
    );
    bee.start();
    until_probed(&bee, 2).await;
    let health = |name: &str| bee.nest.daemon.world().report().mcp[name].health;
    assert_eq!(
        (health("far"), health("safe")),
        (McpHealth::Healthy, McpHealth::Failed)
    );
    bee.message("look");
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Ok, "{turns:?}");
    let log = bee.model.log();
    assert!(log[2].last.contains("seen from afar"), "{}", log[2].last);
    assert_eq!(
        (health("far"), health("safe")),
        (McpHealth::Healthy, McpHealth::Failed)
    );
    serving.abort();
}
