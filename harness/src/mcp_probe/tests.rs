use std::time::Instant;

use super::*;

const SERVER: &str = include_str!("../../tests/mcp-server.sh");

fn shell(script: &str) -> McpServerSpec {
    McpServerSpec {
        command: Some("sh".into()),
        args: vec!["-c".into(), script.into()],
        ..McpServerSpec::default()
    }
}

async fn probed(server: &McpServerSpec) -> McpServerState {
    probe(&Children::default(), Utf8Path::new("/"), server, TIME).await
}

#[tokio::test]
async fn a_working_server_is_healthy_with_its_tools() {
    let state = probed(&shell(SERVER)).await;
    assert_eq!(state.error, None);
    assert_eq!(state.health, McpHealth::Healthy);
    assert_eq!(state.tools, ["draw", "look"]);
}

#[tokio::test]
async fn a_server_gets_its_declared_environment() {
    let mut server = shell(&format!("[ \"$GREETING\" = hello ] || exit 1\n{SERVER}"));
    server.env.insert("GREETING".into(), "hello".into());
    assert_eq!(probed(&server).await.health, McpHealth::Healthy);
}

#[tokio::test]
async fn a_server_that_never_answers_fails_in_time_and_is_ended() {
    let children = Children::default();
    let server = shell("echo thinking >&2; sleep 1000");
    let begun = Instant::now();
    let time = Duration::from_millis(300);
    let state = probe(&children, Utf8Path::new("/"), &server, time).await;
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert_eq!(state.health, McpHealth::Failed);
    assert_eq!(
        state.error.as_deref(),
        Some("did not answer initialize and tools/list within 0.3 s; it wrote: thinking")
    );
}

#[tokio::test]
async fn a_server_that_ends_at_once_fails_with_its_last_words() {
    let state = probed(&shell("echo 'no such wiki' >&2; exit 1")).await;
    assert_eq!(state.health, McpHealth::Failed);
    let error = state.error.expect("an error");
    assert!(error.starts_with("initialize failed"), "{error}");
    assert!(error.ends_with("; it wrote: no such wiki"), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_be_started_is_named() {
    let server = McpServerSpec {
        command: Some("/nonexistent/wiki\u{1b}".into()),
        ..McpServerSpec::default()
    };
    let error = probed(&server).await.error.expect("an error");
    assert!(error.starts_with("cannot start /nonexistent/wiki"), "{error}");
}

#[tokio::test]
async fn a_flood_on_both_streams_neither_blocks_nor_fills_memory() {
    let server = shell("yes noise >&2 & yes '{}' & wait");
    let time = Duration::from_millis(500);
    let state = probe(&Children::default(), Utf8Path::new("/"), &server, time).await;
    assert_eq!(state.health, McpHealth::Failed);
    let error = state.error.expect("an error");
    assert!(error.len() < 4 * children::LAST_WORDS, "{} bytes", error.len());
}

#[tokio::test]
async fn http_servers_are_unprobed_and_empty_declarations_fail() {
    let http = McpServerSpec {
        url: Some("http://127.0.0.1:1/mcp".into()),
        ..McpServerSpec::default()
    };
    let state = probed(&http).await;
    assert_eq!(state.health, McpHealth::Unprobed);
    assert_eq!(
        state.error.as_deref(),
        Some("this harness cannot probe HTTP servers yet")
    );
    assert_eq!(probed(&McpServerSpec::default()).await.health, McpHealth::Failed);
}

#[tokio::test]
async fn only_new_and_changed_servers_are_probed_again() {
    let (mut probes, mut results) = Probes::new(Children::default(), "/".into());
    let name = |text: &str| text.parse::<ServerName>().expect("name");
    let mut servers = BTreeMap::from([(name("a"), shell(SERVER)), (name("b"), shell("exit 1"))]);
    probes.declare(&servers);
    assert!(
        probes.states().is_empty(),
        "nothing is known before the probes end"
    );
    for _ in 0..2 {
        probes.note(results.recv().await.expect("a result"));
    }
    let states = probes.states();
    assert_eq!(states[&name("a")].health, McpHealth::Healthy);
    assert_eq!(states[&name("b")].health, McpHealth::Failed);

    servers.insert(name("b"), shell(SERVER));
    probes.declare(&servers);
    assert_eq!(probes.states().into_keys().collect::<Vec<_>>(), [name("a")]);
    let result = results.recv().await.expect("a result");
    assert_eq!(result.name, name("b"));
    probes.note(result);
    assert_eq!(probes.states()[&name("b")].health, McpHealth::Healthy);
    assert!(results.try_recv().is_err(), "a was probed again");

    probes.declare(&BTreeMap::new());
    assert!(probes.states().is_empty());
}

#[tokio::test]
async fn a_result_that_is_older_than_the_declaration_is_dropped() {
    let (mut probes, mut results) = Probes::new(Children::default(), "/".into());
    let name: ServerName = "a".parse().expect("name");
    probes.declare(&BTreeMap::from([(name.clone(), shell("exit 1"))]));
    let old = results.recv().await.expect("a result");
    probes.declare(&BTreeMap::from([(name, shell(SERVER))]));
    probes.note(old);
    assert!(probes.states().is_empty());
}
