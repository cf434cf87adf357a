//! Declared MCP servers, with the real program.

use model_server::Rule;
use serde_json::{Value, json};
use shared::status::McpHealth;
use shared::turn::TurnResult;

use crate::bee::Bee;

/// A server with the tools `look` and `draw`.
fn server() -> Value {
    let script = format!("exec sh {}/tests/mcp-server.sh", env!("CARGO_MANIFEST_DIR"));
    json!({ "command": "sh", "args": ["-c", script] })
}

/// Messages that make the model call this tool, then another.
fn calls(first: &str, second: &str) -> Vec<Rule> {
    vec![
        Rule::tool("You have messages", "mcp__hive__recv", json!({})),
        Rule::tool("from operator", first, json!({})).times(1),
        Rule::tool("", second, json!({})).times(1),
        Rule::text("", "done"),
    ]
}

async fn until_probed(bee: &Bee, count: usize) {
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
