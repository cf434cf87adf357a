//! A way to a server over https, for one probe.
//!
//! The library for HTTP is built without TLS: with it every client, those that only ever speak over the daemon's socket
//! too, would load the machine's root certificates and keep them. Instead a relay stands between: the probe speaks plain
//! HTTP to a socket, and the relay makes a TLS connection to the server of each connection. All of it is gone after the probe.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use reqwest::Url;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore, crypto};

/// Why there is no way to a server.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// It has no name that a certificate could have.
    #[error("{host:?} is no name that a certificate can be for")]
    Name {
        /// The name.
        host: String,
        /// What is wrong with it.
        #[source]
        source: InvalidDnsNameError,
    },
    /// There is nothing to check certificates with.
    #[error(
        "this agent has no root certificates to check the server's with: install the machine's (often the package \
         ca-certificates) in /etc/ssl/certs"
    )]
    NoRoots,
    /// The library refuses its own settings.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
    /// The socket of the relay.
    #[error("cannot listen on {path}")]
    Listen {
        /// Where.
        path: Utf8PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}

/// The certificates that this machine trusts. Blocks.
///
/// # Errors
/// When there are none.
pub(super) fn roots() -> Result<RootCertStore, TlsError> {
    // What cannot be read is passed over: one broken file is no reason to trust nobody.
    roots_of(rustls_native_certs::load_native_certs().certs)
}

pub(super) fn roots_of(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates);
    if usable == 0 {
        return Err(TlsError::NoRoots);
    }
    Ok(roots)
}

/// A relay that runs until it is dropped.
pub(super) struct Relay {
    socket: Utf8PathBuf,
    /// Why the latest connection failed.
    fault: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        // In memory or on a local disk, and a name alone: not worth a thread.
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::debug!(socket = %self.socket, %error, "not removed");
        }
    }
}

impl Relay {
    /// A relay from a socket at this path to the server of the address, whose certificate must lead to one of the roots.
    ///
    /// # Errors
    /// When it cannot be set up. What goes wrong with the server is told by [`Relay::fault`].
    pub(super) fn start(
        url: &Url,
        socket: Utf8PathBuf,
        roots: RootCertStore,
        proxy: Option<u16>,
    ) -> Result<Self, TlsError> {
        let host = url.host_str().unwrap_or_default();
        // An address of the sixth version stands in brackets.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|source| TlsError::Name {
            host: host.clone(),
            source,
        })?;
        let proxy = proxy.filter(|_| !is_loopback(&host));
        let target = (host, url.port_or_known_default().unwrap_or(443));
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let listener = UnixListener::bind(&socket).map_err(|source| TlsError::Listen {
            path: socket.clone(),
            source,
        })?;
        let fault: Arc<Mutex<Option<String>>> = Arc::default();
        let noted = Arc::clone(&fault);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (target, name) = (target.clone(), name.clone());
                let (connector, noted) = (connector.clone(), Arc::clone(&noted));
                connections.spawn(async move {
                    if let Err(error) = relay(near, &target, proxy, name, &connector).await {
                        let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                        *noted = Some(explained(&error));
                    }
                });
            }
        });
        Ok(Self { socket, fault, task })
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> &Utf8Path {
        &self.socket
    }

    /// Why the server cannot be spoken to, if that is so.
    pub(super) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The error, and what it comes from where the library's words alone do not tell.
fn explained(error: &io::Error) -> String {
    let chain = crate::error_chain(error);
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            format!(
                "{chain}: none of the certificates that this machine trusts (/etc/ssl/certs) has signed it"
            )
        }
        Some(_) | None => chain,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The largest head of a proxy's answer, in bytes.
const MAX_ANSWER: usize = 8 * 1024;

/// A connection through the proxy at this port of loopback. Why it refuses is the first line of its answer.
async fn through(proxy: u16, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy)).await?;
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let words = format!("CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n");
    far.write_all(words.as_bytes()).await?;
    let mut head = Vec::new();
    // One by one: what comes after the head is the server's.
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_ANSWER {
        head.push(far.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().next().unwrap_or_default();
    match line.split_once(' ') {
        Some((_, answer)) if answer.starts_with("200") => Ok(far),
        Some((_, answer)) => Err(io::Error::other(format!(
            "the proxy answers: {}",
            crate::tame(answer, 400)
        ))),
        None => Err(io::Error::other("the proxy answers something else than HTTP")),
    }
}

/// One connection, to its end.
async fn relay(
    mut near: UnixStream,
    (host, port): &(String, u16),
    proxy: Option<u16>,
    name: ServerName<'static>,
    connector: &TlsConnector,
) -> io::Result<()> {
    let far = match proxy {
        None => TcpStream::connect((host.as_str(), *port)).await?,
        Some(proxy) => through(proxy, host, *port).await?,
    };
    let mut far = connector.connect(name, far).await?;
    // How a connection ends that once stood is told by the one who speaks over it.
    if let Err(error) = tokio::io::copy_bidirectional(&mut near, &mut far).await {
        tracing::debug!(%error, "a connection to an MCP server ended early");
    }
    Ok(())
}
