//! Servers over https on loopback, with a certificate that nobody but these tests trusts.

use std::net::SocketAddr;
use std::sync::LazyLock;

use axum::serve::Listener;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};
use tokio_rustls::server::TlsStream;

use super::http::{Server, json_of, tools};
use super::*;

/// For `localhost` and 127.0.0.1.
static OWN: LazyLock<Identity> = LazyLock::new(|| identity("the tests' own"));

type Identity = rcgen::CertifiedKey<rcgen::KeyPair>;

/// A certificate that signs itself, and its key.
fn identity(called: &str) -> Identity {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let mut params = rcgen::CertificateParams::new(names).expect("names");
    params.distinguished_name.push(rcgen::DnType::CommonName, called);
    let signing_key = rcgen::KeyPair::generate().expect("a key");
    let cert = params.self_signed(&signing_key).expect("a certificate");
    Identity { cert, signing_key }
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.expect("a connection");
            // Whoever does not trust the certificate hangs up.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

fn certificate() -> CertificateDer<'static> {
    OWN.cert.der().clone()
}

fn trusts(certificate: CertificateDer<'static>) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    Some(roots)
}

/// A server at this address, and its port.
async fn server(address: &str) -> (Server, u16) {
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate()],
            PrivateKeyDer::try_from(OWN.signing_key.serialize_der()).expect("a key"),
        )
        .expect("a server");
    let listener = TcpListener::bind((address, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let listener = TlsListener {
        listener,
        acceptor: TlsAcceptor::from(Arc::new(config)),
    };
    let answer = |message: &Value| json_of(message, &tools());
    (
        Server::start_on(listener, format!("https://{address}:{port}/mcp"), answer),
        port,
    )
}

async fn probed_at(means: &Means, url: &str) -> McpServerState {
    let server = McpServerSpec {
        url: Some(url.to_owned()),
        secret_headers: [("Authorization".to_owned(), "key".to_owned())].into(),
        ..McpServerSpec::default()
    };
    probe(means, &Arc::new(config([])), &server, TIME).await
}

/// Means with the secret `key`, that trust the tests' certificate.
fn trusting() -> (tempfile::TempDir, Means) {
    let (dir, means) = means_with_secret();
    let roots = trusts(certificate());
    (dir, Means { roots, ..means })
}

#[tokio::test]
async fn a_server_whose_certificate_is_trusted_is_healthy_under_all_its_names_and_gets_its_headers() {
    let (_dir, means) = trusting();
    let (server, port) = server("127.0.0.1").await;
    for url in [server.url.clone(), format!("https://localhost:{port}/mcp")] {
        let state = probed_at(&means, &url).await;
        assert_eq!((state.health, state.error), (McpHealth::Healthy, None), "{url}");
        assert_eq!(state.tools, ["look"]);
    }
    let seen = server.authorized.lock().expect("lock").clone();
    assert!(
        seen.len() >= 6 && seen.iter().all(|seen| seen == "hush-hush"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_trusted_or_is_for_another_fails_and_is_told_no_secret() {
    let (_dir, trusting) = trusting();
    let stranger = Means {
        roots: trusts(identity("a stranger's").cert.der().clone()),
        ..trusting.clone()
    };
    for (means, address, what) in [
        (
            stranger,
            "127.0.0.1",
            "none of the certificates that this machine trusts",
        ),
        (
            trusting,
            "127.0.0.2",
            "certificate not valid for name \"127.0.0.2\"",
        ),
    ] {
        let (server, _) = server(address).await;
        let state = probed_at(&means, &server.url).await;
        assert_eq!(state.health, McpHealth::Failed, "{state:?}");
        let error = state.error.expect("an error");
        assert!(error.contains(what), "{error}");
        assert!(server.authorized.lock().expect("lock").is_empty());
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_speaks_no_tls_fails_and_says_so() {
    let (_dir, means) = trusting();
    let plain = Server::start(|message| json_of(message, &tools())).await;
    let url = plain.url.replace("http://", "https://");
    for (url, what) in [
        (
            url.as_str(),
            "cannot be spoken to over TLS: received corrupt message",
        ),
        (
            "https://127.0.0.1:1/mcp",
            "cannot be spoken to over TLS: Connection refused",
        ),
    ] {
        let state = probed_at(&means, url).await;
        assert_eq!(state.health, McpHealth::Failed, "{state:?}");
        let error = state.error.expect("an error");
        assert!(error.starts_with(what), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_shake_hands_fails_in_time() {
    let (_dir, means) = trusting();
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let server = McpServerSpec {
        url: Some(format!(
            "https://{}/mcp",
            silent.local_addr().expect("an address")
        )),
        ..McpServerSpec::default()
    };
    let time = Duration::from_millis(300);
    let state = probe(&means, &Arc::new(config([])), &server, time).await;
    let late = "did not answer initialize and tools/list within 0.3 s";
    assert_eq!(
        (state.health, state.error.as_deref()),
        (McpHealth::Failed, Some(late))
    );
}

#[test]
fn without_any_root_certificate_nobody_is_trusted_and_that_is_said() {
    let Err(error) = crate::mcp_probe::tls::roots_of(Vec::new()) else {
        panic!("trusts somebody");
    };
    assert!(error.to_string().contains("ca-certificates"), "{error}");
    assert!(crate::mcp_probe::tls::roots_of(vec![certificate()]).is_ok());
}
