//! Bytes at an agent's door that no HTTP client would send. Whatever they are: a refusal within bounds, and every other
//! door stays open.

use reconciler::api::connections::Limits;
use reqwest::StatusCode;
use shared::agent_api::MessageKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::world::{Daemon, Door, Hive, name, turn};

const TWO: &str = r#"{ "alice": {}, "bob": {} }"#;

pub(super) async fn two() -> Hive {
    Hive::new(serde_json::from_str(TWO).unwrap()).await
}

pub(super) async fn connect(daemon: &Daemon, agent: &str) -> UnixStream {
    UnixStream::connect(daemon.layout.agent_socket(&name(agent)))
        .await
        .unwrap()
}

/// Whether a door answers.
async fn answers(door: &Door) -> bool {
    let proposals = door.http.get("http://hive/v1/proposals").send().await.unwrap();
    proposals.status() == StatusCode::OK
}

#[tokio::test]
async fn a_flood_of_connections_by_one_agent_leaves_every_other_door_open() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let (alice, bob) = (daemon.door("alice"), daemon.door("bob"));
    let mut flood = Vec::new();
    for _ in 0..Limits::AGENT.connections * 4 {
        let mut stream = connect(&daemon, "alice").await;
        stream
            .write_all(b"POST /v1/send HTTP/1.1\r\nhost: hive\r\n")
            .await
            .unwrap();
        flood.push(stream);
    }
    assert!(answers(&bob).await);
    let id = daemon.message("operator", MessageKind::Message).await;
    // Alice only harms herself, and no longer than she means to.
    flood.clear();
    assert!(answers(&alice).await);
    assert_eq!(alice.recv(turn(1)).await, [(id, false)]);
}

#[tokio::test]
async fn a_body_that_never_comes_holds_one_connection_and_no_more() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let (alice, bob) = (daemon.door("alice"), daemon.door("bob"));
    let heads = [
        "POST /v1/send HTTP/1.1\r\nhost: hive\r\ncontent-length: 1000\r\n\r\n{",
        "POST /v1/send HTTP/1.1\r\nhost: hive\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
        "POST /v1/poll HTTP/1.1\r\nhost: hive\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        "POST /v1/proposals HTTP/1.1\r\nhost: hive\r\ntransfer-encoding: chunked\r\n\r\n1\r\n#\r\n",
    ];
    let mut held = Vec::new();
    for head in heads {
        let mut stream = connect(&daemon, "alice").await;
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    assert!(answers(&alice).await);
    assert!(answers(&bob).await);
}

#[tokio::test]
async fn a_body_without_end_is_refused_at_the_bound() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let mut stream = connect(&daemon, "alice").await;
    stream
        .write_all(b"POST /v1/send HTTP/1.1\r\nhost: hive\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let endless = tokio::spawn(async move {
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        let mut sent = 0_usize;
        while writer.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
        }
        sent
    });
    let mut answer = Vec::new();
    // It hangs up on what it did not read.
    let _reset = reader.read_to_end(&mut answer).await;
    drop(reader);
    let sent = endless.await.unwrap();
    assert!(sent < 8 * 1024 * 1024, "{sent} bytes were taken");
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 413"),
        "{answer}"
    );
    assert!(answers(&door).await);
}

#[tokio::test]
async fn a_length_that_is_a_lie_is_refused() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let body = r#"{"to":"bob","kind":"message","body":"x"}"#;
    for (length, expected) in [
        ("99999999999", "HTTP/1.1 413"),
        ("18446744073709551615", "HTTP/1.1 4"),
        ("99999999999999999999999", "HTTP/1.1 400"),
        ("-1", "HTTP/1.1 400"),
        ("0x10", "HTTP/1.1 400"),
    ] {
        let mut stream = connect(&daemon, "alice").await;
        let head = format!(
            "POST /v1/send HTTP/1.1\r\nhost: hive\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(expected), "{length}: {answer}");
    }
    // Shorter than it is: the rest is taken for a request of its own, which it is not.
    let mut stream = connect(&daemon, "alice").await;
    let head = format!(
        "POST /v1/send HTTP/1.1\r\nhost: hive\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    let _reset = stream.read_to_string(&mut answer).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    assert!(answers(&door).await);
    assert_eq!(daemon.door("bob").recv(turn(1)).await, []);
}

#[tokio::test]
async fn requests_in_one_breath_are_answered_one_by_one_and_garbage_ends_them() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    daemon.door("alice");
    let mut stream = connect(&daemon, "alice").await;
    let get = "GET /v1/proposals HTTP/1.1\r\nhost: hive\r\n\r\n";
    let breath = format!("{get}{get}\x01\x02garbage\r\n\r\n{get}");
    stream.write_all(breath.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    assert!(answer.matches("HTTP/1.1").count() <= 3, "{answer}");
}

#[tokio::test]
async fn no_path_leads_out_of_the_agent_api() {
    let hive = two().await;
    let mut daemon = hive.daemon();
    daemon.door("alice");
    for path in [
        "/",
        "//",
        "/v1",
        "/v1/../v1/gates",
        "/v1/%2e%2e/gates",
        "/v1/proposals/../../admin.sock",
        "/v1/proposals%00",
        "/v1/repo/bundle/../../../hive.db",
        "/v1/agents/bob/messages",
        "/v1/gates/1/decision",
        "http://bob/v1/gates",
        "*",
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            let mut stream = connect(&daemon, "alice").await;
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: hive\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _reset = stream.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 4"), "{method} {path}: {answer}");
        }
    }
}
