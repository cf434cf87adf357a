use shared::spec::Network;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::resolve::testing::{Names, leading_to};
use super::super::tally::Outside;
use super::super::testing::{Door, head, policy};
use super::*;
use crate::host::clock::SystemClock;

fn outside(names: Names) -> Arc<Outside> {
    Arc::new(Outside::new(Arc::new(names), Arc::new(SystemClock)))
}

fn open(outside: &Arc<Outside>, network: Network, hosts: &[&str]) -> Door {
    Door::open(outside, policy(network, hosts), 2, connection)
}

fn told(outside: &Outside) -> Vec<(String, u16, RefusalReason, u64)> {
    let page = outside.take();
    page.refusals
        .into_iter()
        .map(|r| (r.host, r.port, r.reason, r.count))
        .collect()
}

const CONNECT: &str = "CONNECT good.example:443 HTTP/1.1\r\nhost: good.example:443\r\n\r\n";

#[tokio::test]
async fn a_host_that_is_not_listed_is_refused_with_what_to_ask_for_and_told() {
    for network in [Network::Model, Network::Hosts] {
        let outside = outside(leading_to(&["1.1.1.1:443"]));
        let door = open(&outside, network, &["other.example"]);
        for _ in 0..2 {
            let answer = door.ask(CONNECT).await;
            assert!(
                answer.starts_with("HTTP/1.1 403 alice may not connect to good.example:443"),
                "{answer}"
            );
            assert!(
                answer.contains("\r\n\r\nhyperhive: alice may not connect"),
                "{answer}"
            );
            assert!(
                answer.contains("hive egress allow alice good.example"),
                "{answer}"
            );
        }
        let expected = ("good.example".to_owned(), 443, RefusalReason::NotListed, 2);
        assert_eq!(told(&outside), [expected]);
    }
}

#[tokio::test]
async fn a_listed_name_that_leads_inside_is_refused_and_told() {
    for inside in ["127.0.0.1:443", "[::ffff:10.0.0.1]:443", "169.254.169.254:443"] {
        let outside = outside(leading_to(&["1.1.1.1:443", inside]));
        let door = open(&outside, Network::Hosts, &["good.example"]);
        let answer = door.ask(CONNECT).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(
            answer.contains("only addresses of the public Internet"),
            "{answer}"
        );
        let expected = ("good.example".to_owned(), 443, RefusalReason::PrivateAddress, 1);
        assert_eq!(told(&outside), [expected]);
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_no_refusal() {
    let outside = outside(leading_to(&[]));
    let door = open(&outside, Network::Hosts, &["good.example"]);
    let answer = door.ask(CONNECT).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 good.example cannot be resolved"),
        "{answer}"
    );
    assert!(told(&outside).is_empty());
}

#[tokio::test]
async fn anything_but_connect_is_refused() {
    let outside = outside(leading_to(&[]));
    let door = open(&outside, Network::Hosts, &["good.example"]);
    for (words, status) in [
        (
            "GET http://good.example/ HTTP/1.1\r\nhost: good.example\r\n\r\n",
            "405",
        ),
        ("GET / HTTP/1.1\r\nhost: good.example\r\n\r\n", "405"),
        ("CONNECT good.example HTTP/1.1\r\n\r\n", "400"),
        ("CONNECT good.example:99999 HTTP/1.1\r\n\r\n", "400"),
        ("CONNECT 127.1:443 HTTP/1.1\r\n\r\n", "400"),
        ("\0\0\0\0\r\n\r\n", "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
    ] {
        let answer = door.ask(words).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{words:?}: {answer}");
        assert!(answer.contains(status), "{words:?}: {answer}");
    }
    let endless = format!("CONNECT good.example:443 HTTP/1.1\r\nx: {}", "x".repeat(100_000));
    let answer = door.ask(endless).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(told(&outside).is_empty());
}

/// A proxy that takes this machine for the Internet, and a server that says what it hears.
async fn echoing() -> (Arc<Outside>, Door, String) {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = server.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _gone = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let names = Names {
        answers: vec![vec![address]; 8],
        ..Names::default()
    };
    let outside = Outside::new(Arc::new(names), Arc::new(SystemClock)).judging(|_| None);
    let outside = Arc::new(outside);
    let host = format!("good.example:{}", address.port());
    let door = open(&outside, Network::Hosts, &[&host]);
    (
        outside,
        door,
        format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
    )
}

async fn echoes(stream: &mut UnixStream, words: &[u8]) -> bool {
    let mut heard = vec![0; words.len()];
    stream.write_all(words).await.is_ok() && stream.read_exact(&mut heard).await.is_ok() && heard == words
}

#[tokio::test]
async fn a_listed_host_is_spoken_to_both_ways_and_every_byte_is_counted() {
    let (outside, door, connect) = echoing().await;
    let mut stream = door.connect().await;
    // Whoever does not wait for the answer loses nothing.
    stream
        .write_all(format!("{connect}early").as_bytes())
        .await
        .expect("written");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    let mut early = [0; 5];
    stream.read_exact(&mut early).await.expect("an echo");
    assert_eq!(&early, b"early");
    assert!(echoes(&mut stream, &[7; 100_000]).await);
    stream.shutdown().await.expect("shut down");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("an end");
    assert!(rest.is_empty());
    let traffic = outside.take().traffic;
    let of_alice = traffic.values().next().expect("counted");
    assert_eq!((of_alice.sent, of_alice.received), (100_005, 100_005));
}

#[tokio::test]
async fn a_tunnel_ends_when_its_host_is_taken_from_the_list() {
    let (_outside, door, connect) = echoing().await;
    let mut stream = door.connect().await;
    stream.write_all(connect.as_bytes()).await.expect("written");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert!(echoes(&mut stream, b"hello").await);
    // A change that leaves it allowed leaves it open.
    door.policy.send_modify(|policy| {
        policy.hosts.insert("another.example".to_owned());
    });
    assert!(echoes(&mut stream, b"hello").await);
    door.policy.send_modify(|policy| policy.hosts.clear());
    let mut rest = Vec::new();
    let _reset = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_leaves_the_others_alone() {
    let (_outside, door, connect) = echoing().await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = door.connect().await;
        stream.write_all(connect.as_bytes()).await.expect("written");
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
        open.push(stream);
    }
    let answer = door.ask("").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    for stream in &mut open {
        assert!(echoes(stream, b"still here").await);
    }
}
