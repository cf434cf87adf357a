use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// One request; gives all that comes back.
async fn ask(server: &ModelServer, method: &str, path: &str, body: &Value) -> String {
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    let body = body.to_string();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         x-api-key: key\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("write");
    stream.write_all(body.as_bytes()).await.expect("write");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}

fn question(text: &str, stream: bool) -> Value {
    json!({ "model": "m", "stream": stream, "system": [{ "type": "text", "text": "be brief" }],
        "tools": [{ "name": "Bash" }], "messages": [{ "role": "user", "content": text }] })
}

#[tokio::test]
async fn a_rule_answers_what_it_fits_as_often_as_it_may() {
    let rules = vec![Rule::text("colour", "blue").times(1), Rule::text("", "hm")];
    let server = ModelServer::start(rules).await.expect("start");
    for expected in ["blue", "hm"] {
        let answer = ask(
            &server,
            "POST",
            "/v1/messages?beta=true",
            &question("which colour?", false),
        )
        .await;
        assert!(answer.contains(&format!("\"text\":\"{expected}\"")), "{answer}");
    }
    let log = server.log();
    assert_eq!(log.len(), 2);
    assert_eq!(
        (log[0].last.trim(), log[0].system.trim()),
        ("which colour?", "be brief")
    );
    assert_eq!(
        (log[0].tools.as_slice(), log[0].key.as_deref()),
        (["Bash".to_owned()].as_slice(), Some("key"))
    );
}

#[tokio::test]
async fn a_stream_has_its_events_in_the_order_of_the_api() {
    let rule =
        Rule::tool("", "Bash", json!({ "command": "ls" })).with(|reply| reply.text = Some("so".to_owned()));
    let server = ModelServer::start(vec![rule]).await.expect("start");
    let answer = ask(&server, "POST", "/v1/messages", &question("go", true)).await;
    let kinds: Vec<&str> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    let expected = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(kinds, expected);
    assert!(answer.contains("\"stop_reason\":\"tool_use\""), "{answer}");
}

#[tokio::test]
async fn errors_have_their_status_their_headers_and_the_providers_words() {
    let rule = Rule::error("", 429, "rate_limit_error", "slow down")
        .with(|reply| drop(reply.headers.insert("retry-after".to_owned(), "7".to_owned())));
    let server = ModelServer::start(vec![rule]).await.expect("start");
    let answer = ask(&server, "POST", "/v1/messages", &question("go", true)).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(
        answer.contains("retry-after: 7") && answer.contains("slow down"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_stream_can_break_off_or_tell_of_an_error() {
    let rules = vec![
        Rule::text("cut", "never whole").with(|reply| reply.cut = true),
        Rule::text("broken", "never whole").with(|reply| reply.broken = Some("overloaded_error".to_owned())),
    ];
    let server = ModelServer::start(rules).await.expect("start");
    for (text, error) in [("cut", false), ("broken", true)] {
        let answer = ask(&server, "POST", "/v1/messages", &question(text, true)).await;
        assert!(!answer.contains("message_stop"), "{answer}");
        assert_eq!(answer.contains("overloaded_error"), error, "{answer}");
    }
}

#[tokio::test]
async fn another_script_can_be_put_in_place_and_the_log_read_from_outside() {
    let server = ModelServer::start(Vec::new()).await.expect("start");
    let put = ask(&server, "PUT", "/script", &json!([{ "on": "", "text": "new" }])).await;
    assert!(put.starts_with("HTTP/1.1 204"), "{put}");
    let answer = ask(&server, "POST", "/v1/messages", &question("x", false)).await;
    assert!(answer.contains("\"new\""), "{answer}");
    let log = ask(&server, "GET", "/log", &Value::Null).await;
    assert!(log.contains("\"last\":\"x\\n\""), "{log}");
    assert!(
        ask(&server, "GET", "/v1/models", &Value::Null)
            .await
            .starts_with("HTTP/1.1 404")
    );
    let put = ask(&server, "PUT", "/script", &json!([{ "on": "", "typo": 1 }])).await;
    assert!(put.starts_with("HTTP/1.1 422"), "{put}");
}
