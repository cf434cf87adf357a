use serde_json::{Value, json};
use shared::wire_error::ErrorCode;

use crate::daemon::TIME;
use crate::nest::Nest;

fn axis(value: &str, message: &str) -> Value {
    json!({ "value": value, "reason": "r", "message": message, "since": TIME })
}

/// Bob, as a daemon shows him; part of it he wrote himself.
fn bob() -> Value {
    json!({
        "name": "bob", "role": "worker", "inbox": 3, "turn": "thinking",
        "sync": axis("outOfSync", "restart"), "health": axis("degraded", "MCP server wiki: \u{1b}[2Jgone"),
        "activity": axis("awaitingGate", "gate 4 (restart): restart"),
        "waiting": [{ "what": "restart", "on": { "on": "gate", "gate": 4, "class": "restart" } }],
        "generations": { "commit": "0123456789abcdef0123456789abcdef01234567", "proposal": 2,
                         "desired": "/a", "deployed": "/b" },
        "mcp": { "wiki": { "health": "failed", "error": "no\nanswer" } },
        "notices": ["kept stopped by unix:root"],
    })
}

#[tokio::test]
async fn a_manager_sees_how_an_agent_is_and_what_it_wrote_is_quoted() {
    let nest = Nest::manager();
    nest.daemon.answers("GET /v1/agents/bob", 200, bob());
    nest.daemon.answers("GET /v1/agents", 200, json!([bob()]));
    nest.daemon.answers("GET /v1/drafts", 200, json!([]));
    let client = nest.client().await;
    let text = client.does("agent_status", json!({ "agent": "bob" })).await;
    let expected = "bob: worker\n\
        sync: out of sync since 2026-01-02T03:04:05Z: \"restart\"\n\
        health: degraded since 2026-01-02T03:04:05Z: \"MCP server wiki:  [2Jgone\"\n\
        activity: awaiting gate since 2026-01-02T03:04:05Z: \"gate 4 (restart): restart\"\n\
        turn loop: thinking; unread messages: 3\n\
        deployed: commit 0123456789 of proposal 2; what is wanted is another system\n\
        waits: \"restart\" (the operator's decision at gate 4, class restart)\n\
        MCP server wiki: failed: \"no answer\"\n\
        notice: \"kept stopped by unix:root\"\n";
    assert_eq!(text, expected);
    let listed = client.does("list_agents", json!({})).await;
    let expected = "bob: worker; degraded, awaiting gate, thinking\nqueen: manager\n";
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_config_is_shown_with_where_its_values_come_from() {
    let nest = Nest::manager();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let config = json!({
        "agent": "bob", "uid": "6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f", "hive": "home", "prompt": "Sing.",
        "driver": { "kind": "scripted" }, "maxTurnMinutes": 60, "commit": commit,
    });
    let proposal = json!({ "number": 1, "commit": commit, "title": "sing", "phase": "deployed", "at": TIME });
    let info = json!({
        "agent": "bob", "commit": commit, "proposal": 1, "config": config, "origins": { "prompt": "granted" },
        "overlay": "{ \"prompt\": \"Sing.\" }", "proposals": [proposal],
    });
    nest.daemon.answers("GET /v1/agents/bob/config", 200, info);
    let client = nest.client().await;
    let text = client.does("get_config", json!({ "agent": "bob" })).await;
    for said in [
        &format!("bob: commit {commit} of proposal 1 is deployed.\n"),
        "\"prompt\": \"Sing.\",",
        "prompt: from its commit, granted by the operator beyond what is declared\n",
        "----- agent.json, begin ",
        "proposal 1 (\"sing\", 0123456789) 2026-01-02T03:04:05Z: deployed\n",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
}

#[tokio::test]
async fn a_log_stands_between_borders_and_is_ones_own_unless_said_otherwise() {
    let nest = Nest::agent();
    let event = json!({ "seq": 1, "at": TIME, "agent": "alice", "level": "warning", "kind": "ended",
                        "message": "alice exited with\nstatus 1", "data": null });
    let log =
        json!({ "agent": "alice", "lines": ["one", "----- end -----"], "cut": true, "events": [event] });
    nest.daemon.answers("GET /v1/agents/alice/logs", 200, log);
    let client = nest.client().await;
    let text = client.does("get_logs", json!({ "lines": 2 })).await;
    assert!(
        text.starts_with("The last 2 lines; there is more before them.\n----- log of alice, begin "),
        "{text}"
    );
    let end =
        "What happened last, oldest first:\n2026-01-02T03:04:05Z ended: \"alice exited with status 1\"\n";
    assert!(text.ends_with(end), "{text}");
    let asked = nest.daemon.world().bodies("GET /v1/agents/alice/logs")[0].clone();
    assert_eq!(asked, json!({ "lines": "2", "events": "20" }));

    let why = "alice is no manager of this hive: it sees itself alone";
    nest.daemon
        .refuses("GET /v1/agents/bob/logs", 403, ErrorCode::Forbidden, why);
    let refused = client.refuses("get_logs", json!({ "agent": "bob" })).await;
    assert!(refused.contains(why), "{refused}");
    let refused = client.refuses("get_logs", json!({ "lines": 0 })).await;
    assert!(refused.contains("lines is 1 to 500"), "{refused}");
}

#[tokio::test]
async fn a_long_log_is_shown_from_its_end() {
    let nest = Nest::agent();
    let lines: Vec<String> = (0..100)
        .map(|number| format!("{number} {}", "x".repeat(1_000)))
        .collect();
    let log = json!({ "agent": "alice", "lines": lines, "cut": false });
    nest.daemon.answers("GET /v1/agents/alice/logs", 200, log);
    let text = nest
        .client()
        .await
        .does("get_logs", json!({ "lines": 100 }))
        .await;
    assert!(
        text.contains("\n99 x") && !text.contains("\n60 x"),
        "{}",
        text.len()
    );
    assert!(
        text.starts_with("The last 32 lines; there is more before them.\n"),
        "{}",
        &text[..60]
    );
    assert!(text.ends_with("Nothing has happened to it.\n"));
}

#[tokio::test]
async fn an_order_carries_an_id_and_is_answered_in_the_daemons_words() {
    let nest = Nest::manager();
    let client = nest.client().await;
    for verb in ["start", "stop", "restart", "rebuild", "archive"] {
        let path = format!("POST /v1/agents/bob/{verb}");
        let answer = json!({ "message": format!("bob is to {verb}: the policy allows it"), "changed": true });
        nest.daemon.answers(&path, 200, answer);
        let arguments = json!({ "agent": "bob", "reason": "it hangs" });
        let text = client.call_as(verb, arguments, Some("toolu_7")).await.unwrap();
        assert_eq!(text, format!("bob is to {verb}: the policy allows it."));
        let asked = nest.daemon.world().bodies(&path)[0].clone();
        assert_eq!(asked, json!({ "reason": "it hangs", "dedupe": "toolu_7" }));
    }
    let answer = json!({ "message": "bob is to be built once more", "changed": true });
    nest.daemon.answers("POST /v1/agents/bob/update", 200, answer);
    let text = client.does("update", json!({ "agent": "bob" })).await;
    assert!(
        text.starts_with("bob is to be built once more. An update is a rebuild"),
        "{text}"
    );
    let why = "the policy agent.stop=never forbids managers to stop agents: only the operator can";
    nest.daemon
        .refuses("POST /v1/agents/bob/stop", 403, ErrorCode::Forbidden, why);
    let refused = client.refuses("stop", json!({ "agent": "bob" })).await;
    assert!(refused.contains(why), "{refused}");
    let refused = client
        .refuses("stop", json!({ "agent": "bob", "reason": "x".repeat(5_000) }))
        .await;
    assert!(refused.contains("shorten it"), "{refused}");
    let error = Nest::agent().client().await.unknown("restart").await;
    assert!(error.to_string().contains("there is no tool"), "{error}");
}
