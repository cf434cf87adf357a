use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::nest::Nest;

const EVERYBODY: [&str; 13] = [
    "recv",
    "send",
    "sent",
    "ask",
    "answer",
    "remind",
    "loose_ends",
    "cancel_loose_end",
    "whoami",
    "nap",
    "propose_config",
    "config_status",
    "get_logs",
];
const MANAGERS: [&str; 13] = [
    "list_agents",
    "agent_status",
    "get_config",
    "start",
    "stop",
    "restart",
    "rebuild",
    "update",
    "archive",
    "broadcast",
    "spawn",
    "spawn_draft",
    "spawn_commit",
];

/// The server, spoken to line by line.
struct Raw {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Raw {
    fn start(nest: &Nest) -> Self {
        let mut child = nest
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Self {
            child,
            input,
            output: BufReader::new(output),
        }
    }

    async fn say(&mut self, line: &[u8]) {
        let input = self.input.as_mut().unwrap();
        input.write_all(line).await.unwrap();
        input.write_all(b"\n").await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(30), self.output.read_line(&mut line));
        read.await.expect("an answer in time").unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    async fn ask(&mut self, request: Value) -> Value {
        self.say(request.to_string().as_bytes()).await;
        self.hear().await
    }

    /// Closes its input; gives its status, the rest of what it said and its log.
    async fn ended(mut self) -> (std::process::ExitStatus, String, String) {
        drop(self.input.take());
        let end = async {
            let (mut rest, mut log) = (String::new(), String::new());
            self.output.read_to_string(&mut rest).await.unwrap();
            let mut stderr = self.child.stderr.take().unwrap();
            stderr.read_to_string(&mut log).await.unwrap();
            (self.child.wait().await.unwrap(), rest, log)
        };
        tokio::time::timeout(Duration::from_secs(30), end)
            .await
            .expect("the server ends with its client")
    }
}

fn initialize(version: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": version, "capabilities": {}, "clientInfo": { "name": "raw", "version": "1" } } })
}

#[tokio::test]
async fn who_initializes_and_who_discovers_are_served_alike() {
    let nest = Nest::agent();
    let initialized = nest.client().await;
    let discovered = nest.stateless_client().await;
    for client in [&initialized, &discovered] {
        let info = client.service.peer_info().unwrap();
        let server = info.server_info.as_ref().unwrap();
        assert_eq!(
            (server.name.as_str(), server.version.as_str()),
            ("hive", env!("CARGO_PKG_VERSION"))
        );
        assert!(info.instructions.as_ref().unwrap().contains("no more authority"));
        assert_eq!(client.tool_names().await, EVERYBODY);
        assert!(
            client
                .does("whoami", json!({}))
                .await
                .starts_with("You are alice")
        );
    }
    let versions = [&initialized, &discovered].map(|client| {
        let info = client.service.peer_info().unwrap();
        info.protocol_version.to_string()
    });
    assert_eq!(versions, ["2025-11-25", "2026-07-28"]);
}

#[tokio::test]
async fn managers_are_offered_their_tools_and_nobody_else_can_call_them() {
    let manager = Nest::manager();
    let names = manager.client().await.tool_names().await;
    assert_eq!(names, [&EVERYBODY[..], &MANAGERS[..]].concat());
    let agent = Nest::agent();
    let client = agent.client().await;
    for tool in MANAGERS {
        let error = client.unknown(tool).await.to_string();
        assert!(error.contains("there is no tool"), "{error}");
    }
    assert_eq!(agent.daemon.world().asked, []);
}

#[tokio::test]
async fn without_a_readable_config_the_tools_of_every_agent_are_offered() {
    let nest = Nest::manager();
    std::fs::write(nest.path("config/agent.json"), "{").unwrap();
    assert_eq!(nest.client().await.tool_names().await, EVERYBODY);
}

#[tokio::test]
async fn tools_are_always_loaded_and_say_whether_they_only_look() {
    let nest = Nest::manager();
    let mut looking = Vec::new();
    for tool in nest.client().await.tools().await {
        assert_eq!(tool.meta.unwrap().0["anthropic/alwaysLoad"], json!(true));
        assert_eq!(tool.output_schema, None);
        if tool.annotations.unwrap().read_only_hint == Some(true) {
            looking.push(tool.name.to_string());
        }
    }
    let expected = [
        "sent",
        "loose_ends",
        "whoami",
        "get_logs",
        "list_agents",
        "agent_status",
        "get_config",
    ];
    assert_eq!(looking, expected);
}

#[tokio::test]
async fn bad_arguments_are_the_tools_error_and_name_the_place() {
    let nest = Nest::manager();
    let client = nest.client().await;
    let bad = [
        ("send", json!({ "body": "x" }), "missing field `to`"),
        ("send", json!({ "to": "Bob", "body": "x" }), "bad arguments at to"),
        (
            "send",
            json!({ "to": "bob", "body": "x", "subject": "y" }),
            "unknown field `subject`",
        ),
        ("send", json!({ "to": "bob", "body": " " }), "the text is empty"),
        ("send", json!({ "to": "system", "body": "x" }), "nobody reads"),
        (
            "send",
            json!({ "to": "bob", "body": "x".repeat(262_145) }),
            "more than 262144",
        ),
        (
            "send",
            json!({ "to": "bob", "body": "x", "replyTo": -1 }),
            "bad arguments at replyTo",
        ),
        ("recv", json!({ "waitSecs": 181 }), "waitSecs is at most 180"),
        ("recv", json!({ "max": 0 }), "max is 1 to 32"),
        ("recv", json!({ "max": 33 }), "max is 1 to 32"),
        ("recv", json!({ "max": "many" }), "bad arguments at max"),
        ("sent", json!({ "limit": 51 }), "limit is 1 to 50"),
        (
            "ask",
            json!({ "to": "bob", "question": "?", "ttlSecs": 2_592_001 }),
            "ttlSecs is 1 to 2592000",
        ),
        (
            "remind",
            json!({ "body": "x", "at": "tomorrow" }),
            "bad arguments at at",
        ),
        (
            "remind",
            json!({ "body": "x", "afterSecs": 1, "missed": "never" }),
            "bad arguments at missed",
        ),
        ("loose_ends", json!({ "limit": 0 }), "limit is 1 to 100"),
        ("whoami", json!({ "x": 1 }), "unknown field `x`"),
        (
            "propose_config",
            json!({ "files": { "../x": "" }, "title": "x" }),
            "bad arguments at files",
        ),
        (
            "spawn",
            json!({ "name": "carol", "config": { "colour": 1 } }),
            "bad arguments at config",
        ),
        ("spawn", json!({ "name": "operator" }), "reserved"),
        (
            "spawn",
            json!({ "name": "carol", "files": { ".bashrc": "x" } }),
            "no part begins with a dot",
        ),
        (
            "spawn",
            json!({ "name": "carol", "reason": "x".repeat(4097) }),
            "more than 4096",
        ),
    ];
    for (tool, arguments, why) in bad {
        let refused = client.refuses(tool, arguments.clone()).await;
        assert!(refused.contains(why), "{tool} {arguments}: {refused}");
        assert!(refused.contains("Nothing was done"), "{tool}: {refused}");
    }
    assert_eq!(nest.daemon.world().asked, [], "the daemon was not bothered");
    assert!(nest.daemon.world().recvs.is_empty());
}

#[tokio::test]
async fn garbage_between_requests_disturbs_nobody_and_standard_output_is_the_protocols() {
    let nest = Nest::agent();
    let mut raw = Raw::start(&nest);
    let garbage: [&[u8]; 4] = [b"hello", b"{", b"\xff\xfe\x00", b""];
    for line in garbage {
        raw.say(line).await;
    }
    let answer = raw.ask(initialize("2025-11-25")).await;
    assert_eq!(answer["result"]["serverInfo"]["name"], "hive");
    raw.say(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
        .await;
    for line in garbage {
        raw.say(line).await;
    }
    // Well-formed, but no request.
    assert_eq!(
        raw.ask(json!({ "jsonrpc": "2.0", "id": [], "method": 7 })).await["error"]["code"],
        -32600
    );
    let unknown = raw
        .ask(json!({ "jsonrpc": "2.0", "id": 2, "method": "no/such" }))
        .await;
    assert_eq!(
        (&unknown["id"], &unknown["error"]["code"]),
        (&json!(2), &json!(-32601))
    );
    let nameless = json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {} });
    assert!(raw.ask(nameless).await["error"].is_object());
    let call = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": { "name": "whoami" } });
    let answer = raw.ask(call).await;
    assert_eq!(answer["id"], 4);
    assert!(
        answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap()
            .starts_with("You are alice")
    );
    let (status, rest, _log) = raw.ended().await;
    assert!(status.success() && rest.is_empty(), "{status}: {rest:?}");
}

#[tokio::test]
async fn a_client_that_does_not_speak_mcp_is_named_in_the_log() {
    let nest = Nest::agent();
    let mut raw = Raw::start(&nest);
    raw.say(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
        .await;
    let (status, rest, log) = raw.ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("does not speak MCP") && rest.is_empty(), "{log}");
    // One that only looks whether the program starts is no fault.
    let (status, rest, log) = Raw::start(&nest).ended().await;
    assert!(status.success() && rest.is_empty() && log.is_empty(), "{log}");
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_of_a_wait_ends_the_server() {
    let nest = Nest::agent();
    let mut raw = Raw::start(&nest);
    raw.ask(initialize("2025-11-25")).await;
    let call = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
        "name": "recv", "arguments": { "waitSecs": 180 } } });
    raw.say(call.to_string().as_bytes()).await;
    nest.daemon.until("a wait", |world| world.recvs.len() == 1).await;
    let begin = std::time::Instant::now();
    let (status, ..) = raw.ended().await;
    assert!(status.success());
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}
