//! The model gateway: what an agent's driver asks of its provider goes there with the provider's key, and the answer
//! comes back as it comes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http_body_util::{LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::door::{Caller, HEAD_TIME, MAX_HEAD};
use super::key::KeySource;
use super::provider::{InvalidProvider, Provider, ProviderError};
use super::request::{self, MAX_BODY, Unfit};
use super::resolve::ReachError;

/// How long a provider may think before its answer begins: longer than agents' programs wait.
const ANSWER_TIME: Duration = Duration::from_secs(15 * 60);
/// A connection to the provider that was idle for so long is not used again: it may be about to be closed.
const REUSE_TIME: Duration = Duration::from_secs(20);

/// Where the gateway leads, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The provider.
    pub provider: Result<Provider, InvalidProvider>,
    /// Where its key is.
    pub key: KeySource,
}

/// Serves one connection to its end.
pub async fn connection(near: UnixStream, caller: Caller, upstream: watch::Receiver<Upstream>) {
    let kept = Mutex::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (caller, upstream, kept) = (&caller, upstream.borrow().clone(), &kept);
        async move {
            let answer = forward(request, caller, &upstream, kept).await;
            Ok::<_, Infallible>(answer.unwrap_or_else(|error| {
                let chain = crate::error_chain(&error);
                tracing::info!(agent = %caller.agent, error = chain, "not forwarded");
                error.answer()
            }))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_AND_HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(near), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(agent = %caller.agent, error = error.to_string(), "a connection broke off");
    }
}

/// How long a connection may be silent between two requests; a program keeps its own for the next.
const IDLE_AND_HEAD: Duration = Duration::from_secs(HEAD_TIME.as_secs() * 8);

/// Why a request is not answered by the provider. What an agent is told of it never holds the key or a path of the host.
#[derive(Debug, thiserror::Error)]
enum GatewayError {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    Provider(#[from] InvalidProvider),
    #[error(transparent)]
    Key(#[from] super::key::KeyError),
    #[error(transparent)]
    Connect(#[from] ProviderError),
    #[error("the model provider closed the connection or broke HTTP")]
    Broken(#[source] hyper::Error),
    #[error("the model provider did not begin to answer within {} minutes", ANSWER_TIME.as_secs() / 60)]
    TimedOut,
    #[error("the model provider switches protocols, which nobody asked for")]
    Switches,
    #[error("the service is ending")]
    Ending,
}

impl GatewayError {
    /// In the form that the provider's clients understand.
    fn answer(&self) -> Response<Body> {
        let (status, kind, text) = match self {
            Self::Unfit(unfit) => (unfit.status(), "invalid_request_error", unfit.to_string()),
            Self::Provider(error) => (StatusCode::BAD_GATEWAY, "api_error", error.to_string()),
            Self::Key(_) => (
                StatusCode::BAD_GATEWAY,
                "api_error",
                "the provider's key cannot be read; the operator finds why in the log of hive egress"
                    .to_owned(),
            ),
            Self::Connect(
                error @ (ProviderError::Reach(ReachError::TimedOut { .. }) | ProviderError::TlsTime { .. }),
            ) => (StatusCode::GATEWAY_TIMEOUT, "api_error", error.to_string()),
            Self::Connect(error) => (StatusCode::BAD_GATEWAY, "api_error", crate::error_chain(error)),
            Self::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "api_error", self.to_string()),
            Self::Broken(_) | Self::Switches | Self::Ending => {
                (StatusCode::BAD_GATEWAY, "api_error", self.to_string())
            }
        };
        let text = format!("hyperhive: {text}");
        let body = json!({ "type": "error", "error": { "type": kind, "message": text } });
        let mut answer = Response::new(Body::from(body.to_string()));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // What is left of the request's body is not waited for.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        answer
    }
}

/// A connection to the provider, for the requests of one connection from the agent: these come one after the other.
struct Link {
    provider: Provider,
    sender: SendRequest<Body>,
    driver: JoinHandle<()>,
    used: Instant,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn forward(
    request: Request<Incoming>,
    caller: &Caller,
    upstream: &Upstream,
    kept: &Mutex<Option<Link>>,
) -> Result<Response<Body>, GatewayError> {
    let (parts, body) = request.into_parts();
    let (path, query) = (parts.uri.path(), parts.uri.query());
    let length = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    request::fits(
        &parts.method,
        path,
        query,
        length.and_then(|length| length.parse().ok()),
    )?;
    let provider = upstream.provider.as_ref().map_err(Clone::clone)?;
    let source = upstream.key.clone();
    let key = tokio::task::spawn_blocking(move || source.read()).await;
    let key = key.map_err(|_| GatewayError::Ending)??;
    let outgoing = outgoing(&parts, body, provider, key.as_ref());

    let mut kept = kept.lock().await;
    let mut link = match reusable(kept.take(), provider).await {
        Some(link) => link,
        None => open(provider, caller).await?,
    };
    let answer = tokio::time::timeout(ANSWER_TIME, link.sender.send_request(outgoing))
        .await
        .map_err(|_| GatewayError::TimedOut)?
        .map_err(broken)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(GatewayError::Switches);
    }
    link.used = Instant::now();
    *kept = Some(link);
    let (parts, body) = answer.into_parts();
    let mut answer = Response::new(Body::new(body));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = request::to_agent(&parts.headers);
    Ok(answer)
}

fn outgoing(parts: &Parts, body: Incoming, provider: &Provider, key: Option<&HeaderValue>) -> Request<Body> {
    let limit = usize::try_from(MAX_BODY).unwrap_or(usize::MAX);
    let mut request = Request::new(Body::new(Limited::new(body, limit)));
    *request.method_mut() = parts.method.clone();
    // The path was checked letter by letter, and the query was parsed once.
    if let Ok(target) = provider.target(parts.uri.path(), parts.uri.query()).parse() {
        *request.uri_mut() = target;
    }
    *request.headers_mut() = request::to_provider(&parts.headers, provider.authority(), key);
    request
}

/// What went wrong with a request that was begun: perhaps its body was too long.
fn broken(error: hyper::Error) -> GatewayError {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(inner) = cause {
        if inner.is::<LengthLimitError>() {
            return Unfit::Body.into();
        }
        cause = inner.source();
    }
    GatewayError::Broken(error)
}

async fn reusable(link: Option<Link>, provider: &Provider) -> Option<Link> {
    let mut link = link.filter(|link| link.provider == *provider && link.used.elapsed() < REUSE_TIME)?;
    link.sender.ready().await.ok()?;
    Some(link)
}

async fn open(provider: &Provider, caller: &Caller) -> Result<Link, GatewayError> {
    let outside = &caller.outside;
    let tls = if provider.is_tls() {
        Some(outside.tls().await?)
    } else {
        None
    };
    let counter = Arc::clone(&caller.counter);
    let stream = provider.connect(&*outside.resolver, tls, counter).await?;
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD.max(256 * 1024))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(GatewayError::Broken)?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(
                error = error.to_string(),
                "a connection to the model provider broke off"
            );
        }
    });
    Ok(Link {
        provider: provider.clone(),
        sender,
        driver,
        used: Instant::now(),
    })
}

#[cfg(test)]
mod tests;
