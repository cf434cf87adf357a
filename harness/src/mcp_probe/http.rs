//! A server that is reached over HTTP.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use rmcp::ServiceError;
use rmcp::service::ClientInitializeError;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};

use super::list::{MAX_OUTPUT, ProbeError, Tools, ask};

/// Asks the server at this address for its tools. The error is for a person.
pub(super) async fn probe(
    url: &str,
    headers: HashMap<HeaderName, HeaderValue>,
    time: Duration,
) -> Result<Tools, String> {
    let mut config = StreamableHttpClientTransportConfig::with_uri(url);
    config.max_sse_event_size = usize::try_from(MAX_OUTPUT).unwrap_or(usize::MAX);
    config.reinit_on_expired_session = false;
    config.custom_headers = headers;
    let client = client().map_err(|error| crate::tame(&crate::error_chain(&error), 1000))?;
    let transport = StreamableHttpClientTransport::with_client(client, config);
    // Whatever it is waiting for is dropped with it.
    tokio::time::timeout(time, ask(transport))
        .await
        .unwrap_or(Err(ProbeError::TimedOut(time)))
        .map_err(|error| crate::tame(&words(&error), 1000))
}

/// A client for one probe.
fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        // Secrets are for the server that was declared, and not for where it points.
        .redirect(reqwest::redirect::Policy::none())
        .build()
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
