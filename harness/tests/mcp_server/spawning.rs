use serde_json::{Value, json};
use shared::wire_error::ErrorCode;

use crate::config::{import, repo};
use crate::daemon::TIME;
use crate::git::git;
use crate::nest::Nest;

fn draft(more: Value) -> Value {
    let mut draft = json!({ "name": "carol", "uid": "6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f", "owner": "alice",
                            "since": TIME, "phase": "offered", "seed": "0".repeat(40), "files": {} });
    for (name, value) in more.as_object().unwrap() {
        draft[name] = value.clone();
    }
    draft
}

#[tokio::test]
async fn an_agent_is_asked_for_in_one_go() {
    let nest = Nest::manager();
    nest.daemon
        .answers("POST /v1/spawn", 200, draft(json!({ "gate": 4 })));
    let client = nest.client().await;
    let arguments = json!({ "name": "carol", "config": { "prompt": "Sing." }, "files": { "notes.md": "a" }, "reason": "fun" });
    let text = client.does("spawn", arguments.clone()).await;
    assert!(
        text.starts_with("draft carol: offered, waits for the operator at gate 4"),
        "{text}"
    );
    let world = nest.daemon.world();
    let asked = world.bodies("POST /v1/spawn")[0];
    assert_eq!(
        (&asked["name"], &asked["files"], &asked["reason"]),
        (&arguments["name"], &arguments["files"], &json!("fun"))
    );
    assert_eq!(asked["config"]["prompt"], "Sing.");
}

#[tokio::test]
async fn a_draft_is_prepared_step_by_step_and_offered() {
    let nest = Nest::manager();
    let folder = repo(&nest);
    let client = nest.client().await;
    for what in [
        "PUT /v1/drafts/carol/files/notes/a.md",
        "DELETE /v1/drafts/carol/files/b.md",
    ] {
        nest.daemon.answers(what, 200, draft(json!({ "phase": "draft" })));
    }
    let text = client.does("spawn_draft", json!({ "name": "carol" })).await;
    assert!(
        text.starts_with("draft carol: being prepared, not offered, config as the hive's defaults"),
        "{text}"
    );
    let arguments = json!({ "name": "carol", "files": { "notes/a.md": "a\n" }, "remove": ["b.md"],
                            "config": { "agent.json": "{\"prompt\":\"Sing.\"}\n" } });
    let text = client.does("spawn_draft", arguments).await;
    assert!(text.contains("config 1111111111"), "{text}");
    let commit = import(&nest, &folder, 0);
    assert_eq!(
        git(&folder, &["show", &format!("{commit}:agent.json")]),
        "{\"prompt\":\"Sing.\"}\n"
    );
    nest.daemon
        .answers("POST /v1/drafts/carol/commit", 200, draft(json!({})));
    let text = client
        .does("spawn_commit", json!({ "name": "carol", "reason": "fun" }))
        .await;
    assert!(text.starts_with("draft carol: offered"), "{text}");
    {
        let world = nest.daemon.world();
        assert_eq!(world.bodies("POST /v1/drafts").len(), 1, "it is begun once");
        assert_eq!(
            world.bodies("PUT /v1/drafts/carol/files/notes/a.md"),
            [&json!("a\n")]
        );
        assert_eq!(world.bodies("DELETE /v1/drafts/carol/files/b.md").len(), 1);
        assert_eq!(
            world.bodies("POST /v1/drafts/carol/commit"),
            [&json!({ "reason": "fun" })]
        );
    }
    let listed = client.does("list_agents", json!({})).await;
    assert!(
        listed.starts_with("bob: worker\nqueen: manager\ndraft carol: being prepared"),
        "{listed}"
    );
    assert_eq!(
        client
            .does("spawn_draft", json!({ "name": "carol", "giveUp": true }))
            .await,
        "The draft carol is given up."
    );
    assert!(nest.daemon.world().drafts.is_empty());
}

#[tokio::test]
async fn what_the_daemon_does_not_allow_is_said_in_its_words() {
    let nest = Nest::manager();
    let client = nest.client().await;
    for (tool, what) in [
        ("spawn", "POST /v1/spawn"),
        ("spawn_draft", "POST /v1/drafts"),
        ("spawn_commit", "POST /v1/drafts/carol/commit"),
    ] {
        nest.daemon
            .refuses(what, 403, ErrorCode::Forbidden, "alice is no manager any more");
        let refused = client.refuses(tool, json!({ "name": "carol" })).await;
        assert!(
            refused.contains("alice is no manager any more (ask the operator)"),
            "{tool}: {refused}"
        );
    }
    let refused = client
        .refuses(
            "spawn_draft",
            json!({ "name": "carol", "giveUp": true, "files": { "a": "b" } }),
        )
        .await;
    assert!(refused.contains("keeps nothing"), "{refused}");
}

#[tokio::test]
async fn a_manager_writes_to_everybody_once() {
    let nest = Nest::manager();
    let client = nest.client().await;
    let arguments = json!({ "body": "hello all" });
    let mut texts = Vec::new();
    for _ in 0..2 {
        let said = client
            .call_as("broadcast", arguments.clone(), Some("toolu_1"))
            .await;
        texts.push(said.unwrap());
    }
    let expected = [
        "Stored. Recipients: 3. Not to bob: their inboxes are full.",
        "It had been sent before, and was not sent twice.",
    ];
    assert_eq!(texts, expected);
    let expected = json!({ "body": "hello all", "dedupe": "toolu_1" });
    assert_eq!(nest.daemon.world().bodies("POST /v1/broadcast")[0], &expected);
}
