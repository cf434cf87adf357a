//! Secrets, with the real program.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};
use shared::status::{McpHealth, TurnState};
use shared::turn::TurnResult;

use crate::acp;
use crate::bee::Bee;
use crate::servers::{answer, calls, until_probed};

/// Every file below this folder that holds the text.
fn holders(folder: &Utf8Path, text: &str, found: &mut Vec<Utf8PathBuf>) {
    for entry in folder.read_dir_utf8().unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            holders(entry.path(), text, found);
        } else if kind.is_file() {
            let content = std::fs::read(entry.path()).unwrap();
            if content.windows(text.len()).any(|part| part == text.as_bytes()) {
                found.push(entry.path().to_owned());
            }
        }
    }
}

fn assert_kept(bee: &Bee, secret: &str) {
    let mut found = Vec::new();
    holders(&bee.nest.path("state"), secret, &mut found);
    assert_eq!(found, Vec::<Utf8PathBuf>::new());
}

#[tokio::test]
async fn a_key_from_a_secret_is_the_one_that_the_provider_is_shown_and_lies_in_no_file() {
    let mut bee = Bee::real(Bee::replies()).await;
    bee.secret("provider", "sk-from-a-secret\n");
    bee.config(&json!({ "secretEnv": { "ANTHROPIC_API_KEY": "provider" } }));
    bee.start();
    bee.message("water the roses");
    let turns = bee.turns(1).await;
    assert_eq!(
        (turns[0].result, turns[0].error.as_deref()),
        (TurnResult::Ok, None)
    );
    for asked in bee.model.log() {
        assert_eq!(asked.key.as_deref(), Some("sk-from-a-secret"));
    }
    // Another value is taken up with the next turn.
    bee.secret("provider", "sk-another-one");
    bee.message("and the lilies");
    bee.turns(2).await;
    let log = bee.model.log();
    assert_eq!(log.last().unwrap().key.as_deref(), Some("sk-another-one"));
    assert_kept(&bee, "sk-from-a-secret");
    assert_kept(&bee, "sk-another-one");
}

#[tokio::test]
async fn the_last_words_of_a_program_are_told_without_its_secrets() {
    let mut bee = Bee::fake("init; result true \"the key $MY_KEY was refused\"").await;
    bee.secret("provider", "sk-from-a-secret\n");
    bee.config(&json!({ "secretEnv": { "MY_KEY": "provider" } }));
    let turn = bee.first_turn().await;
    assert_eq!(turn.result, TurnResult::Crashed);
    let error = turn.error.unwrap();
    assert!(
        error.contains("the key ") && error.contains(" was refused"),
        "it is told all the same: {error}"
    );
    assert!(!error.contains("sk-from"), "{error}");
}

#[tokio::test]
async fn an_agent_without_a_secret_that_it_needs_takes_no_turn_and_says_why() {
    let mut bee = Bee::real(Bee::replies()).await;
    bee.config(&json!({ "secretEnv": { "ANTHROPIC_API_KEY": "provider" } }));
    bee.start();
    bee.message("water the roses");
    bee.until("a complaint", |world| {
        world.reported(|report| {
            let error = report.config_error.as_deref().unwrap_or_default();
            error.contains("started without the secret provider")
        })
    })
    .await;
    assert!(bee.model.log().is_empty() && bee.nest.daemon.world().turns.is_empty());
}

/// A server that answers whoever has the key, and notes what others show.
async fn guarded() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let others: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&others);
    let guard = move |headers: HeaderMap, message: Json<Value>| async move {
        let key = headers
            .get(header::AUTHORIZATION)
            .map(|key| String::from_utf8_lossy(key.as_bytes()));
        if key.as_deref() == Some("Bearer hush-hush") {
            return answer(message).await;
        }
        noted.lock().unwrap().push(key.unwrap_or_default().into_owned());
        Response::into_response((StatusCode::FORBIDDEN, "who are you?").into_response())
    };
    let app = Router::new().route("/mcp", post(guard));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, others)
}

#[tokio::test]
async fn a_server_is_shown_its_secret_header_which_lies_in_no_file() {
    let (url, others) = guarded().await;
    let mut bee = Bee::real(calls("mcp__far__look", "mcp__hive__whoami")).await;
    bee.secret("the-key", "Bearer hush-hush\n");
    let far = json!({ "url": url, "secretHeaders": { "Authorization": "the-key" } });
    bee.config(&json!({ "mcpServers": { "far": far } }));
    bee.start();
    until_probed(&bee, 1).await;
    bee.message("look");
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Ok, "{turns:?}");
    let log = bee.model.log();
    assert!(log[2].last.contains("seen from afar"), "{}", log[2].last);
    assert_eq!(
        bee.nest.daemon.world().report().mcp["far"].health,
        McpHealth::Healthy
    );
    assert_eq!(*others.lock().unwrap(), Vec::<String>::new());
    assert_kept(&bee, "hush-hush");
}

#[tokio::test]
async fn a_server_whose_secret_is_not_there_does_not_work_and_holds_nothing_up() {
    let (url, others) = guarded().await;
    let mut bee = Bee::real(Bee::replies()).await;
    let far = json!({ "url": url, "secretHeaders": { "Authorization": "the-key" } });
    bee.config(&json!({ "mcpServers": { "far": far } }));
    bee.start();
    until_probed(&bee, 1).await;
    bee.message("look");
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Ok, "{turns:?}");
    bee.until("idle", |world| {
        world.reported(|report| report.turn == TurnState::Idle)
    })
    .await;
    let state = bee.nest.daemon.world().report().mcp["far"].clone();
    assert_eq!(state.health, McpHealth::Failed);
    let error = state.error.unwrap();
    assert!(
        error.starts_with("the agent was started without the secret the-key"),
        "{error}"
    );
    assert!(
        others.lock().unwrap().iter().all(|key| !key.contains("hush")),
        "{others:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_a_program_has_the_agents_variables() {
    let mut bee = Bee::real(calls("mcp__drawing__look", "mcp__hive__whoami")).await;
    bee.secret("the-key", "hush-hush");
    let script = format!(
        "case $WIKI_KEY in hush?hush) exec sh {}/tests/mcp-server.sh;; esac",
        env!("CARGO_MANIFEST_DIR")
    );
    bee.config(&json!({
        "secretEnv": { "WIKI_KEY": "the-key" },
        "mcpServers": { "drawing": { "command": "sh", "args": ["-c", script] } },
    }));
    bee.start();
    until_probed(&bee, 1).await;
    bee.message("look");
    let turns = bee.turns(1).await;
    assert_eq!(turns[0].result, TurnResult::Ok, "{turns:?}");
    let log = bee.model.log();
    assert!(log[2].last.contains("looked"), "{}", log[2].last);
    assert_eq!(
        bee.nest.daemon.world().report().mcp["drawing"].health,
        McpHealth::Healthy
    );
    assert_kept(&bee, "hush-hush");
}

/// The protocol takes values of headers alone, and a program may pass them on in arguments.
#[tokio::test]
async fn a_program_that_speaks_acp_has_the_variables_and_is_told_of_no_secret_header() {
    let mut bee = acp::fake(
        "case $WIKI_KEY in hush?hush) ;; *) exit 9;; esac\n\
         greet; case $line in *far*|*hush*) exit 8;; esac; env | grep -q HIVE_SECRET && exit 7\n\
         answer \"$id\" '{\"sessionId\":\"s1\"}'; next; prompt=$id; finish",
    )
    .await;
    let (url, _others) = guarded().await;
    bee.secret("the-key", "hush-hush");
    let far = json!({ "url": url, "secretHeaders": { "X-Key": "the-key" } });
    let fields = json!({ "secretEnv": { "WIKI_KEY": "the-key" }, "mcpServers": { "far": far } });
    acp::driver(&bee, &fields);
    bee.start();
    until_probed(&bee, 1).await;
    bee.message("look");
    let turns = bee.turns(1).await;
    assert_eq!(
        (turns[0].result, turns[0].error.as_deref()),
        (TurnResult::Ok, None)
    );
    bee.until("the fault", |world| {
        world.reported(|report| {
            let error = report.mcp["far"].error.as_deref().unwrap_or_default();
            error.contains("its headers are secrets")
        })
    })
    .await;
    assert_kept(&bee, "hush-hush");
}
