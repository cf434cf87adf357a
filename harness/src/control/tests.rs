use std::os::unix::fs::PermissionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::*;

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let socket = Utf8Path::from_path(dir.path()).expect("UTF-8 path").join(SOCKET);
    (dir, socket)
}

fn received(batch: u64) -> Said {
    Said::Received {
        turn: crate::ids::turn_id(),
        batch,
        messages: 2,
    }
}

#[tokio::test]
async fn what_is_said_is_with_the_loop_once_it_is_answered() {
    let (_dir, socket) = folder();
    let mut heard = listen(&socket).expect("listens");
    let client = ControlClient::new(&socket);
    let nap = Said::Nap {
        until: "2026-01-02T03:04:05Z".parse().expect("time"),
        wake_on_message: true,
    };
    let waiting = Said::Waiting {
        turn: crate::ids::turn_id(),
        waits: true,
    };
    for said in [received(1), nap, waiting] {
        client.say(&said).await.expect("answered");
        assert_eq!(heard.try_recv().expect("is there"), said);
    }
}

#[tokio::test]
async fn only_the_same_user_can_connect_and_what_a_dead_harness_left_is_replaced() {
    let (_dir, socket) = folder();
    drop(listen(&socket).expect("listens"));
    let mut heard = listen(&socket).expect("listens again");
    let mode = |path: &Utf8Path| std::fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(socket.parent().expect("a folder")), 0o700);
    let said = received(1);
    ControlClient::new(&socket).say(&said).await.expect("answered");
    assert_eq!(heard.recv().await, Some(said));
}

#[tokio::test]
async fn garbage_is_answered_by_an_error_and_the_connection_ends() {
    let (_dir, socket) = folder();
    let mut heard = listen(&socket).expect("listens");
    let long = format!("{}\n", "x".repeat(2 * usize::try_from(MAX_LINE).expect("small")));
    let garbage = [
        "hello\n",
        "\n",
        "{}\n",
        "{\"shutdown\":null}\n",
        "\u{0}\n",
        "{\"received\":{\"turn\":\"x\",\"batch\":1,\"messages\":1}}\n",
        &long,
    ];
    for line in garbage {
        let stream = UnixStream::connect(&socket).await.expect("connects");
        let mut stream = BufReader::new(stream);
        // What is too long may be cut off while it is being written.
        let _written = stream.get_mut().write_all(line.as_bytes()).await;
        let mut reply = String::new();
        stream.read_line(&mut reply).await.expect("an answer");
        assert!(reply.starts_with("{\"error\":"), "{line:?}: {reply:?}");
        let mut rest = Vec::new();
        // A reset is an end too: not all of the line was read.
        let _ended = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{line:?}: {rest:?}");
    }
    assert!(heard.try_recv().is_err(), "nothing of it was believed");
    ControlClient::new(&socket)
        .say(&received(1))
        .await
        .expect("others are still served");
}

#[tokio::test]
async fn who_cannot_be_heard_is_told() {
    let (_dir, socket) = folder();
    let client = ControlClient::new(&socket);
    let error = client.say(&received(1)).await.expect_err("nobody listens");
    assert!(matches!(error, SayError::Unreachable { .. }), "{error:?}");
    drop(listen(&socket).expect("listens"));
    let error = client.say(&received(1)).await.expect_err("the loop has ended");
    assert!(
        matches!(error, SayError::Unreachable { .. } | SayError::Refused(_)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_path_that_cannot_be_a_socket_is_refused_in_words() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let root = Utf8Path::from_path(dir.path()).expect("UTF-8 path");
    let error = listen(&root.join("x".repeat(120))).expect_err("too long");
    assert!(error.to_string().contains("may be too long"), "{error}");
}
