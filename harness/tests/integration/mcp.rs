use serde_json::json;
use shared::status::McpHealth;

use crate::world::Nest;

#[tokio::test]
async fn declared_servers_are_probed_reported_and_probed_again_only_when_changed() {
    let nest = Nest::new(json!([]));
    let marks = nest.path("marks");
    let server = include_str!("../mcp-server.sh");
    let counted = format!("echo started >> {marks}\n{server}");
    let wiki = json!({ "command": "sh", "args": ["-c", counted] });
    nest.deploy_config(json!({ "mcpServers": {
        "wiki": wiki,
        "broken": { "command": "sh", "args": ["-c", "echo oops >&2; exit 3"] },
        "far": { "url": "https://127.0.0.1:1/mcp" },
    } }));
    let _harness = nest.start();
    nest.daemon
        .until("three results", |world| {
            world.reported(|report| report.mcp.len() == 3)
        })
        .await;
    {
        let world = nest.daemon.world();
        let mcp = &world.report().mcp;
        assert_eq!(mcp["wiki"].health, McpHealth::Healthy);
        assert_eq!(mcp["wiki"].tools, ["draw", "look"]);
        assert_eq!(mcp["broken"].health, McpHealth::Failed);
        assert!(mcp["broken"].error.as_ref().unwrap().ends_with("it wrote: oops"));
        assert_eq!(mcp["far"].health, McpHealth::Failed);
        assert!(mcp["far"].error.is_some());
    }

    let digest = nest.deploy_config(json!({ "mcpServers": {
        "wiki": wiki,
        "broken": { "command": "sh", "args": ["-c", server] },
    } }));
    nest.daemon
        .until("the repaired server", |world| {
            let report = world.report();
            report.config.as_ref() == Some(&digest)
                && report.mcp.len() == 2
                && report.mcp["broken"].health == McpHealth::Healthy
        })
        .await;
    assert_eq!(std::fs::read_to_string(marks).unwrap(), "started\n");
}

#[tokio::test]
async fn a_server_that_does_not_answer_keeps_nothing_waiting() {
    let nest = Nest::new(json!([]));
    let digest = nest.deploy_config(json!({
        "mcpServers": { "silent": { "command": "sh", "args": ["-c", "while read -r _; do :; done"] } },
        "driver": { "kind": "scripted", "script": [{ "on": "", "do": [{ "reply": "hi" }] }] },
    }));
    let _harness = nest.start();
    nest.until_idle(&digest).await;
    nest.daemon
        .message(shared::agent_api::MessageKind::Message, "operator", "hello");
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    assert!(
        nest.daemon.world().report().mcp.is_empty(),
        "the probe is still waiting"
    );
    nest.daemon
        .until("the verdict", |world| !world.report().mcp.is_empty())
        .await;
    let world = nest.daemon.world();
    assert_eq!(world.report().mcp["silent"].health, McpHealth::Failed);
}
