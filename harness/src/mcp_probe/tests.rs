mod http;
mod tls;

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

fn config<const N: usize>(servers: [(ServerName, McpServerSpec); N]) -> AgentConfig {
    let config = serde_json::json!({
        "agent": "alice",
        "uid": "6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f",
        "hive": "home",
        "driver": { "kind": "scripted" },
        "maxTurnMinutes": 60,
        "commit": "0123456789abcdef0123456789abcdef01234567",
    });
    let mut config: AgentConfig = serde_json::from_value(config).expect("a config");
    config.mcp_servers = servers.into();
    config
}

fn means() -> Means {
    Means {
        children: Children::default(),
        folder: "/".into(),
        secrets: Secrets::default(),
        ways: crate::relay::Ways::default(),
        roots: None,
    }
}

async fn probed(server: &McpServerSpec) -> McpServerState {
    probed_in(server, TIME).await
}

async fn probed_in(server: &McpServerSpec, time: Duration) -> McpServerState {
    probe(&means(), &Arc::new(config([])), server, time).await
}

fn probes() -> (Probes, mpsc::UnboundedReceiver<Probed>) {
    let means = means();
    Probes::new(means.children, means.folder, means.secrets, means.ways)
}

#[tokio::test]
async fn a_working_server_is_healthy_with_its_tools() {
    let state = probed(&shell(SERVER)).await;
    assert_eq!(state.error, None);
    assert_eq!(state.health, McpHealth::Healthy);
    assert_eq!(state.tools, ["draw", "look"]);
    // Two names of four letters, two schemas of seventeen.
    assert_eq!((state.more_tools, state.schema_tokens), (0, Some(11)));
}

#[tokio::test]
async fn a_server_gets_its_declared_environment() {
    let mut server = shell(&format!("[ \"$GREETING\" = hello ] || exit 1\n{SERVER}"));
    server.env.insert("GREETING".into(), "hello".into());
    assert_eq!(probed(&server).await.health, McpHealth::Healthy);
}

/// Means with the secret `key`, which is `hush-hush`.
#[expect(clippy::disallowed_methods, reason = "a test's own file")]
fn means_with_secret() -> (tempfile::TempDir, Means) {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("UTF-8");
    std::fs::write(folder.join("key"), "hush-hush\n").expect("written");
    let means = Means {
        secrets: Secrets::new(Some(folder)),
        ..means()
    };
    (dir, means)
}

#[tokio::test]
async fn a_server_gets_the_agents_variables_and_what_it_says_of_them_is_not_told() {
    let (_dir, means) = means_with_secret();
    let mut config = config([]);
    config.secret_env = [("KEY".to_owned(), "key".to_owned())].into();
    let config = Arc::new(config);
    let good = shell(&format!("[ \"$KEY\" = hush-hush ] || exit 1\n{SERVER}"));
    let state = probe(&means, &config, &good, TIME).await;
    assert_eq!((state.health, state.error), (McpHealth::Healthy, None));

    let state = probe(
        &means,
        &config,
        &shell("echo \"bad key: $KEY\" >&2; exit 1"),
        TIME,
    )
    .await;
    let error = state.error.expect("an error");
    assert!(error.ends_with("; it wrote: bad key: [secret]"), "{error}");

    let state = probe(&self::means(), &config, &good, TIME).await;
    let error = state.error.expect("an error");
    assert!(
        error.starts_with("the agent was started without the secret key"),
        "{error}"
    );
}

#[tokio::test]
async fn other_variables_are_a_reason_to_probe_programs_again() {
    let (mut probes, mut results) = probes();
    let name = || "a".parse::<ServerName>().expect("name");
    let mut config = config([(name(), shell(SERVER))]);
    probes.declare(&Arc::new(config.clone()));
    probes.note(results.recv().await.expect("a result"));
    assert_eq!(probes.states()[&name()].health, McpHealth::Healthy);
    config.secret_env = [("KEY".to_owned(), "key".to_owned())].into();
    probes.declare(&Arc::new(config));
    probes.note(results.recv().await.expect("a result"));
    assert_eq!(
        probes.states()[&name()].health,
        McpHealth::Failed,
        "there is no such secret"
    );
}

#[tokio::test]
async fn a_server_that_never_answers_fails_in_time_and_is_ended() {
    let server = shell("echo thinking >&2; sleep 1000");
    let begun = Instant::now();
    let time = Duration::from_millis(300);
    let state = probed_in(&server, time).await;
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
    let state = probed_in(&server, time).await;
    assert_eq!(state.health, McpHealth::Failed);
    let error = state.error.expect("an error");
    assert!(
        error.len() < 4 * crate::children::LAST_WORDS,
        "{} bytes",
        error.len()
    );
}

#[tokio::test]
async fn an_empty_declaration_fails() {
    let state = probed(&McpServerSpec::default()).await;
    assert_eq!(state.health, McpHealth::Failed);
}

/// A server that answers `tools/list` with what this script prints.
fn lister(script: &str) -> McpServerSpec {
    let handshake = SERVER.split("*\\\"tools/list").next().expect("a beginning");
    shell(&format!(
        "{handshake}*\\\"tools/list\\\"*) {script}; continue;; *) continue;; esac\n\
         printf '{{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":%s}}\\n' \"$id\" \"$result\"\ndone"
    ))
}

#[tokio::test]
async fn of_ten_thousand_tools_the_first_are_named_and_all_are_counted() {
    let state = probed(&lister(
        r#"printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[' "$id"
           seq -f '{"name":"t%05.0f","description":"ten words ","inputSchema":{"type":"object"}},' 9999 | tr -d '\n'
           printf '{"name":"last","inputSchema":{"type":"object"}}]}}\n'"#,
    ))
    .await;
    assert_eq!((state.health, state.error), (McpHealth::Healthy, None));
    assert_eq!(
        (state.tools.len(), state.more_tools),
        (MAX_TOOLS, 10_000 - MAX_TOOLS as u64)
    );
    // Six letters, ten, and seventeen of schema; four and seventeen.
    assert_eq!(
        state.schema_tokens,
        Some((9999 * (6 + 10 + 17) + 4 + 17u64).div_ceil(4))
    );
}

#[tokio::test]
async fn a_list_without_end_is_a_failure() {
    let state = probed(&lister(
        r#"printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[],"nextCursor":"again"}}\n' "$id""#,
    ))
    .await;
    assert_eq!(state.health, McpHealth::Failed);
    let error = state.error.expect("an error");
    assert!(
        error.contains("more than 20000 tools, or has more than 1000 pages"),
        "{error}"
    );
}

#[tokio::test]
async fn a_line_that_is_too_long_is_a_failure() {
    let begun = Instant::now();
    let state = probed(&lister("head -c 9000000 /dev/zero | tr '\\0' x; sleep 1000")).await;
    assert_eq!(state.health, McpHealth::Failed, "{state:?}");
    assert!(begun.elapsed() < TIME, "it was not waited for any longer");
}

#[tokio::test]
async fn garbage_is_no_tool() {
    for answer in [
        r#"printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":7}}\n' "$id""#,
        r#"printf '{"jsonrpc":"2.0","id":%s,"error":{"code":1,"message":"no\\u001b[31m"}}\n' "$id""#,
        "exit 3",
    ] {
        let state = probed(&lister(answer)).await;
        assert_eq!(state.health, McpHealth::Failed, "{answer}: {state:?}");
        let error = state.error.expect("an error");
        assert!(
            error.starts_with("tools/list failed") && !error.contains('\u{1b}'),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_a_turn_finds_is_held_against_the_probe_until_the_declaration_changes() {
    let (mut probes, mut results) = probes();
    let name = || "wiki".parse::<ServerName>().expect("name");
    let mut servers = config([(name(), shell(SERVER))]);
    servers.tools.deny.insert("mcp__wiki__draw".to_owned());
    probes.declare(&Arc::new(servers.clone()));
    probes.note(results.recv().await.expect("a result"));
    let found = |fault: Option<&str>, tools: &[&str]| {
        let in_turn = ServerInTurn {
            fault: fault.map(str::to_owned),
            tools: Some(tools.iter().map(|&tool| tool.to_owned()).collect()),
        };
        BTreeMap::from([
            ("wiki".to_owned(), in_turn.clone()),
            ("unheard of".to_owned(), in_turn),
        ])
    };
    probes.note_turn(found(None, &["look"]));
    assert_eq!(
        probes.states()[&name()].health,
        McpHealth::Healthy,
        "what is denied is not missed"
    );
    probes.note_turn(found(None, &[]));
    assert_eq!(probes.states()[&name()].health, McpHealth::Differs);
    probes.note_turn(found(Some("failed"), &[]));
    assert_eq!(probes.states()[&name()].health, McpHealth::Failed);
    assert_eq!(probes.offered()[&name()], ["draw", "look"]);

    servers.mcp_servers.insert(name(), shell(&format!("\n{SERVER}")));
    probes.declare(&Arc::new(servers.clone()));
    probes.note(results.recv().await.expect("a result"));
    assert_eq!(probes.states()[&name()].health, McpHealth::Healthy);
}

#[tokio::test]
async fn only_new_and_changed_servers_are_probed_again() {
    let (mut probes, mut results) = probes();
    let name = |text: &str| text.parse::<ServerName>().expect("name");
    let mut servers = config([(name("a"), shell(SERVER)), (name("b"), shell("exit 1"))]);
    probes.declare(&Arc::new(servers.clone()));
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

    servers.mcp_servers.insert(name("b"), shell(SERVER));
    probes.declare(&Arc::new(servers.clone()));
    assert_eq!(probes.states().into_keys().collect::<Vec<_>>(), [name("a")]);
    let result = results.recv().await.expect("a result");
    assert_eq!(result.name, name("b"));
    probes.note(result);
    assert_eq!(probes.states()[&name("b")].health, McpHealth::Healthy);
    assert!(results.try_recv().is_err(), "a was probed again");

    probes.declare(&Arc::new(config([])));
    assert!(probes.states().is_empty());
}

#[tokio::test]
async fn a_result_that_is_older_than_the_declaration_is_dropped() {
    let (mut probes, mut results) = probes();
    let name: ServerName = "a".parse().expect("name");
    probes.declare(&Arc::new(config([(name.clone(), shell("exit 1"))])));
    let old = results.recv().await.expect("a result");
    probes.declare(&Arc::new(config([(name, shell(SERVER))])));
    probes.note(old);
    assert!(probes.states().is_empty());
}
