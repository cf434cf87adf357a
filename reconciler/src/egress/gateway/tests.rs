use std::net::SocketAddr;

use hyper::header::HeaderMap;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use shared::spec::Network;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

use super::super::provider::Tls;
use super::super::resolve::testing::leading_to;
use super::super::tally::Outside;
use super::super::testing::{Door, head, policy, put};
use super::*;
use crate::host::clock::SystemClock;

const KEY: &str = "sk-the-real-one";

/// What a provider heard, and what it is to say.
struct Fake {
    address: SocketAddr,
    heard: mpsc::UnboundedReceiver<(String, Vec<u8>)>,
    say: mpsc::UnboundedSender<Vec<u8>>,
}

impl Fake {
    async fn start(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (tell, heard) = mpsc::unbounded_channel();
        let (say, mut said) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &acceptor {
                    None => talk(stream, &tell, &mut said).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            talk(stream, &tell, &mut said).await;
                        }
                    }
                }
            }
        });
        Self { address, heard, say }
    }

    async fn heard(&mut self) -> (String, Vec<u8>) {
        self.heard.recv().await.expect("a request")
    }

    fn say(&self, words: &str) {
        self.say
            .send(words.as_bytes().to_vec())
            .expect("the provider is there");
    }
}

/// Requests one after the other, each answered with what is said until an empty piece.
async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    tell: &mpsc::UnboundedSender<(String, Vec<u8>)>,
    said: &mut mpsc::UnboundedReceiver<Vec<u8>>,
) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next());
        let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
        if stream.read_exact(&mut body).await.is_err() || tell.send((lower, body)).is_err() {
            return;
        }
        while let Some(piece) = said.recv().await.filter(|piece| !piece.is_empty()) {
            if stream.write_all(&piece).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

struct World {
    door: Door,
    outside: Arc<Outside>,
    key: tempfile::NamedTempFile,
    _upstream: watch::Sender<Upstream>,
}

fn world(url: &str, tls: Option<Tls>) -> World {
    let mut outside = Outside::new(Arc::new(leading_to(&[])), Arc::new(SystemClock));
    if let Some(tls) = tls {
        outside = outside.trusting(tls);
    }
    let outside = Arc::new(outside);
    let key = tempfile::NamedTempFile::new().expect("a file");
    put(key.path(), KEY);
    let file = camino::Utf8PathBuf::from_path_buf(key.path().to_owned()).expect("UTF-8");
    let (upstream, told) = watch::channel(Upstream {
        provider: Provider::parse(url),
        key: KeySource {
            credentials: None,
            file: Some(file),
        },
    });
    let door = Door::open(&outside, policy(Network::Model, &[]), 4, move |stream, caller| {
        connection(stream, caller, told.clone())
    });
    World {
        door,
        outside,
        key,
        _upstream: upstream,
    }
}

fn post(body: &str) -> String {
    format!(
        "POST /v1/messages?beta=true HTTP/1.1\r\nhost: 127.0.0.1:1\r\nx-api-key: placeholder\r\ncontent-length: \
         {}\r\n\r\n{body}",
        body.len()
    )
}

const DONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: a\r\n\r\nok";

async fn read(stream: &mut UnixStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.expect("as much as that");
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn a_request_goes_to_the_provider_with_the_key_and_comes_back_without_it() {
    let mut fake = Fake::start(None).await;
    let world = world(&format!("http://{}/prefix", fake.address), None);
    let mut stream = world.door.connect().await;
    stream.write_all(post("hello").as_bytes()).await.expect("written");
    let (request, body) = fake.heard().await;
    assert!(
        request.starts_with("post /prefix/v1/messages?beta=true http/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains(&format!("x-api-key: {KEY}\r\n")), "{request}");
    assert!(
        request.contains(&format!("host: {}\r\n", fake.address)),
        "{request}"
    );
    assert!(!request.contains("placeholder"), "{request}");
    assert_eq!(body, b"hello");
    fake.say(DONE);
    fake.say("");
    let answer = head(&mut stream).await + &read(&mut stream, 2).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"),
        "{answer}"
    );
    assert!(
        !answer.contains(KEY) && !answer.contains("set-cookie"),
        "{answer}"
    );
    let traffic = world.outside.take().traffic;
    assert!(
        traffic
            .values()
            .all(|bytes| bytes.sent > 50 && bytes.received > 20)
            && traffic.len() == 1
    );

    // A new key holds for the next request on the same connection.
    put(world.key.path(), "sk-new");
    stream.write_all(post("again").as_bytes()).await.expect("written");
    assert!(fake.heard().await.0.contains("x-api-key: sk-new\r\n"));
}

#[tokio::test]
async fn an_answer_is_passed_on_piece_by_piece_as_it_comes() {
    let mut fake = Fake::start(None).await;
    let world = world(&format!("http://{}", fake.address), None);
    let mut stream = world.door.connect().await;
    stream.write_all(post("{}").as_bytes()).await.expect("written");
    fake.heard().await;
    fake.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    assert!(head(&mut stream).await.contains("text/event-stream"));
    // Each piece is there before the next is sent.
    for piece in ["event: one", "event: two", "event: three"] {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        fake.say(&chunk);
        assert_eq!(read(&mut stream, chunk.len()).await.to_ascii_lowercase(), chunk);
    }
}

#[tokio::test]
async fn what_is_no_model_request_does_not_reach_the_provider() {
    let mut fake = Fake::start(None).await;
    let world = world(&format!("http://{}", fake.address), None);
    for (words, status) in [
        (
            "GET /v1/organizations HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(),
            "404",
        ),
        (
            "GET /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(),
            "405",
        ),
        (
            "GET http://169.254.169.254/v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
                .to_owned(),
            "405",
        ),
        (
            "CONNECT x:443 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(),
            "404",
        ),
        (
            format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000)),
            "",
        ),
    ] {
        let mut stream = world.door.connect().await;
        // It may be refused before all of it is written.
        let _refused = stream.write_all(words.as_bytes()).await;
        let answer = head(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert!(answer.contains(status), "{answer}");
    }
    let too_long = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        MAX_BODY + 1
    );
    let mut stream = world.door.connect().await;
    stream.write_all(too_long.as_bytes()).await.expect("written");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 413"));
    assert!(fake.heard.try_recv().is_err());
}

#[tokio::test]
async fn a_provider_that_is_away_is_a_clear_error_without_the_key() {
    // Nobody listens on the port of a listener that is gone.
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port")
        .local_addr()
        .expect("an address");
    for (url, what) in [
        (format!("http://{gone}"), "cannot be connected to"),
        ("http://nowhere.example".to_owned(), "cannot be resolved"),
        ("nonsense".to_owned(), "egress.modelUrl"),
    ] {
        let world = world(&url, None);
        let mut stream = world.door.connect().await;
        stream.write_all(post("{}").as_bytes()).await.expect("written");
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 502"), "{head}");
        let length = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next());
        let body = read(&mut stream, length.expect("a length").parse().expect("a number")).await;
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let message = body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(what) && !message.contains(KEY), "{message}");
    }
}

#[tokio::test]
async fn a_provider_that_hangs_up_is_a_clear_error_and_the_next_request_goes_through() {
    let mut fake = Fake::start(None).await;
    let world = world(&format!("http://{}", fake.address), None);
    let mut stream = world.door.connect().await;
    stream.write_all(post("{}").as_bytes()).await.expect("written");
    fake.heard().await;
    fake.say("nonsense\r\n\r\n");
    fake.say("");
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    drop(stream);
    let mut stream = world.door.connect().await;
    stream.write_all(post("{}").as_bytes()).await.expect("written");
    fake.heard().await;
    fake.say(DONE);
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_told_without_where_it_should_be() {
    let fake = Fake::start(None).await;
    let world = world(&format!("http://{}", fake.address), None);
    put(world.key.path(), "");
    let request = post("{}").replace("\r\nhost", "\r\nconnection: close\r\nhost");
    let answer = world.door.ask(request).await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("cannot be read"),
        "{answer}"
    );
    assert!(
        !answer.contains(&world.key.path().display().to_string()),
        "{answer}"
    );
}

#[tokio::test]
async fn a_provider_over_tls_must_be_who_it_says() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a server");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut fake = Fake::start(Some(acceptor)).await;
    let url = format!("https://{}", fake.address);

    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let trusting = world(&url, Some(Tls::with_roots(roots).expect("TLS")));
    let mut stream = trusting.door.connect().await;
    stream.write_all(post("{}").as_bytes()).await.expect("written");
    assert!(fake.heard().await.0.contains(KEY));
    fake.say(DONE);
    fake.say("");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    drop(stream);

    let wary = world(&url, Some(Tls::with_roots(RootCertStore::empty()).expect("TLS")));
    let mut stream = wary.door.connect().await;
    stream.write_all(post("{}").as_bytes()).await.expect("written");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 502"));
    assert!(fake.heard.try_recv().is_err(), "an impostor was given the key");
}

#[test]
fn what_agents_are_told_is_never_more_than_a_line_about_the_error() {
    let path = camino::Utf8PathBuf::from("/secret/place");
    let answer = GatewayError::Key(super::super::key::KeyError::Form { path }).answer();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_ne!(*answer.headers(), HeaderMap::new());
}
