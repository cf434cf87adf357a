use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::look::{AgentLog, ConfigInfo};
use shared::status::{AgentStatus, Origin};
use shared::wire_error::{ErrorCode, WireError};

use super::world::{Daemon, Door, Hive, name};

async fn hive() -> Hive {
    let env = json!({ "mcpServers": { "wiki": { "command": "/bin/wiki", "env": { "WIKI_HOME": "/srv/private" } } } });
    Hive::new(json!({ "queen": { "role": "manager" }, "alice": env, "bob": {} })).await
}

async fn get(door: &Door, path: &str) -> reqwest::Response {
    door.http.get(format!("http://hive{path}")).send().await.unwrap()
}

/// What each agent's daemon saw, as it has after its first passes.
async fn looked(daemon: &Daemon) {
    for agent in ["queen", "alice", "bob"] {
        let key = reconciler::control::Key::Agent(name(agent));
        daemon.reconciler.reconcile(&key).await.unwrap();
    }
}

async fn seeing(hive: &Hive) -> Daemon {
    let daemon = hive.daemon();
    daemon
        .reconciler
        .reconcile(&reconciler::control::Key::Hive)
        .await
        .unwrap();
    looked(&daemon).await;
    daemon
}

#[tokio::test]
async fn an_agent_sees_itself_and_a_manager_sees_all() {
    let hive = hive().await;
    let mut daemon = seeing(&hive).await;
    let (queen, alice) = (daemon.door("queen"), daemon.door("alice"));
    for (door, agent) in [(&queen, "queen"), (&queen, "alice"), (&alice, "alice")] {
        for what in ["", "/config", "/logs"] {
            let answer = get(door, &format!("/v1/agents/{agent}{what}")).await;
            assert_eq!(answer.status(), StatusCode::OK, "{agent}{what}");
        }
    }
    // Neither who is there nor how it is is told to those who may not know.
    for path in [
        "/v1/agents/bob",
        "/v1/agents/bob/config",
        "/v1/agents/bob/logs",
        "/v1/agents/nobody",
        "/v1/agents",
    ] {
        let answer = get(&alice, path).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
        let error: WireError = answer.json().await.unwrap();
        assert!(
            error.message.starts_with("alice is no manager"),
            "{path}: {error}"
        );
    }
    let answer = get(&queen, "/v1/agents/nobody/logs").await;
    assert_eq!(
        answer.json::<WireError>().await.unwrap().code,
        ErrorCode::NotFound
    );
    let all: Vec<AgentStatus> = get(&queen, "/v1/agents").await.json().await.unwrap();
    let names: Vec<&str> = all.iter().map(|status| status.name.as_str()).collect();
    assert_eq!(names, ["alice", "bob", "queen"]);
    assert!(all.iter().all(|status| status.config.is_none()));
}

#[tokio::test]
async fn a_config_is_shown_without_the_values_of_environments() {
    let hive = hive().await;
    let mut daemon = seeing(&hive).await;
    let text = get(&daemon.door("queen"), "/v1/agents/alice/config")
        .await
        .text()
        .await
        .unwrap();
    assert!(!text.contains("/srv/private"), "{text}");
    let info: ConfigInfo = serde_json::from_str(&text).unwrap();
    assert!(
        info.config
            .unwrap()
            .mcp_servers
            .values()
            .all(|server| server.env.contains_key("WIKI_HOME"))
    );
    assert_eq!(info.origins.get("mcpServers"), Some(&Origin::Spec));
    assert_eq!(info.overlay.as_deref().map(str::trim), Some("{}"));
    assert_eq!(info.proposal.unwrap().0, 0);
}

#[tokio::test]
async fn a_log_is_bounded_tamed_and_masked() {
    let hive = hive().await;
    let printed: String = (0..3_000)
        .map(|line| format!("{line} {}\n", "x".repeat(60)))
        .collect();
    let printed = printed + "\u{1b}[31mkey sk-ant-api03-0123456789\n";
    hive.world
        .lock()
        .printed
        .insert(name("alice"), printed.into_bytes());
    let mut daemon = seeing(&hive).await;
    let alice = daemon.door("alice");
    let log = |path: &'static str| {
        let alice = alice.clone();
        async move { get(&alice, path).await.json::<AgentLog>().await.unwrap() }
    };
    let usual = log("/v1/agents/alice/logs").await;
    assert_eq!((usual.lines.len(), usual.cut), (100, true));
    assert_eq!(usual.lines.last().unwrap(), "\u{fffd}[31mkey (masked)");
    assert!(
        usual.events.iter().any(|event| event.kind == "deployed"),
        "{:?}",
        usual.events
    );
    assert!(usual.events.is_sorted_by_key(|event| event.seq));
    assert!(usual.events.iter().all(|event| event.data == Value::Null));
    let most = log("/v1/agents/alice/logs?lines=99999&events=0").await;
    assert_eq!((most.lines.len(), most.events.len()), (1_000, 0));
}
