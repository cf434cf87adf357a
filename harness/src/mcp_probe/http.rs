//! A server that is reached over HTTP.

use std::collections::HashMap;
use std::time::Duration;

use camino::Utf8PathBuf;
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::ServiceError;
use rmcp::service::ClientInitializeError;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};

use tokio_rustls::rustls::RootCertStore;

use super::list::{MAX_OUTPUT, ProbeError, Tools, ask};
use super::tls::{self, Relay};

/// Asks the server at this address for its tools. The certificate of a server over https must lead to one of the roots; without
/// any given, to one of the machine's. A server elsewhere is reached through the proxy at this port of loopback. The error is for a person.
pub(super) async fn probe(
    url: &str,
    headers: HashMap<HeaderName, HeaderValue>,
    roots: Option<RootCertStore>,
    proxy: Option<u16>,
    time: Duration,
) -> Result<Tools, String> {
    let way = Way::to(url, roots, proxy).await?;
    let mut config = StreamableHttpClientTransportConfig::with_uri(way.url.as_str());
    config.max_sse_event_size = usize::try_from(MAX_OUTPUT).unwrap_or(usize::MAX);
    config.reinit_on_expired_session = false;
    config.custom_headers = headers;
    let client = way.client().map_err(|error| told(&error))?;
    let transport = StreamableHttpClientTransport::with_client(client, config);
    // Whatever it is waiting for is dropped with it.
    let answer = tokio::time::timeout(time, ask(transport))
        .await
        .unwrap_or(Err(ProbeError::TimedOut(time)));
    answer.map_err(|error| crate::tame(&way.fault().unwrap_or_else(|| words(&error)), 1000))
}

fn told(error: &dyn std::error::Error) -> String {
    crate::tame(&crate::error_chain(error), 1000)
}

/// How a server is reached.
struct Way {
    /// Its address, as plain HTTP.
    url: Url,
    /// What makes TLS of it, if need be.
    relay: Option<Relay>,
}

impl Way {
    async fn to(url: &str, roots: Option<RootCertStore>, proxy: Option<u16>) -> Result<Self, String> {
        let mut url = Url::parse(url).map_err(|error| format!("its url is none: {error}"))?;
        if url.scheme() != "https" {
            return Ok(Self { url, relay: None });
        }
        let roots = match roots {
            Some(roots) => roots,
            None => tokio::task::spawn_blocking(tls::roots)
                .await
                .map_err(|_| "the harness is ending".to_owned())?
                .map_err(|error| told(&error))?,
        };
        let socket = Utf8PathBuf::try_from(std::env::temp_dir())
            .map_err(|error| told(&error))?
            .join(format!("hive-probe-{}.sock", crate::ids::session_id()));
        let relay = Relay::start(&url, socket, roots, proxy).map_err(|error| told(&error))?;
        if url.set_scheme("http").is_err() {
            return Err("its url cannot be asked over TLS".to_owned());
        }
        let relay = Some(relay);
        Ok(Self { url, relay })
    }

    fn client(&self) -> Result<reqwest::Client, reqwest::Error> {
        // Secrets are for the server that was declared, and not for where it points.
        let mut client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        if let Some(relay) = &self.relay {
            client = client.unix_socket(relay.socket().as_std_path());
        }
        client.build()
    }

    /// What is wrong with the connection itself; the library sees only that it ended.
    fn fault(&self) -> Option<String> {
        let fault = self.relay.as_ref()?.fault()?;
        Some(format!("cannot be spoken to over TLS: {fault}"))
    }
}

/// The library tells its own types before what happened, and of a request that failed not why.
fn words(error: &ProbeError) -> String {
    let transport = match error {
        ProbeError::Initialize(error) => match &**error {
            ClientInitializeError::TransportError { error, .. } => Some(error),
            _ => None,
        },
        ProbeError::ListTools(error) => match &**error {
            ServiceError::TransportSend(error) => Some(error),
            _ => None,
        },
        ProbeError::Start { .. } | ProbeError::TimedOut(_) | ProbeError::TooMany => None,
    };
    let Some(transport) = transport else {
        return crate::error_chain(error);
    };
    let cause = match transport
        .error
        .downcast_ref::<StreamableHttpError<reqwest::Error>>()
    {
        Some(StreamableHttpError::Client(request)) => crate::error_chain(request),
        Some(other) => crate::error_chain(other),
        None => crate::error_chain(&*transport.error),
    };
    format!("{error}: {cause}")
}
