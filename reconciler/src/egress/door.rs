//! The sockets of one agent: how many connections, and what becomes of each.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use shared::AgentName;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::count::Counter;
use super::policy::AgentPolicy;
use super::tally::Outside;

/// The most connections of one agent to its proxy.
pub const MAX_TUNNELS: usize = 64;
/// The most connections of one agent to its model gateway.
pub const MAX_REQUESTS: usize = 32;
/// How long the head of a request may take.
pub(super) const HEAD_TIME: Duration = Duration::from_secs(15);
/// The largest head of a request, in bytes.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// Before accepting is tried again after it failed: mostly because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Where a refusal says why, for programs that show no body.
const WHY: HeaderName = HeaderName::from_static("x-hive-egress");

/// Whose door it is. The socket alone says so.
#[derive(Clone)]
pub struct Caller {
    /// The agent.
    pub agent: AgentName,
    /// What it may do, as it is now.
    pub policy: watch::Receiver<AgentPolicy>,
    /// What all connections share.
    pub outside: Arc<Outside>,
    /// The agent's bytes.
    pub(super) counter: Arc<Counter>,
}

impl Caller {
    /// This agent.
    pub fn new(agent: AgentName, policy: watch::Receiver<AgentPolicy>, outside: Arc<Outside>) -> Self {
        let counter = outside.counter(&agent);
        Self {
            agent,
            policy,
            outside,
            counter,
        }
    }
}

/// Serves each connection with `serve`, at most `max` at once, until it is dropped; then all of them end. One too many is
/// told so and closed.
pub async fn serve<F>(listener: UnixListener, max: usize, serve: impl Fn(UnixStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Some(ended) = open.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(error = error.to_string(), "a connection ended early");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if open.len() < max => {
                    open.spawn(serve(stream));
                }
                Ok((stream, _)) => too_many(&stream, max),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::error!(error = error.to_string(), "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// It fits into the buffer of a new socket, so nothing waits for somebody who does not read.
fn too_many(stream: &UnixStream, max: usize) {
    let text =
        format!("hyperhive: this agent has {max} connections open, which is the most: close some, or wait\n");
    let answer = format!(
        "HTTP/1.1 503 Too many connections\r\ncontent-type: text/plain\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{text}",
        text.len()
    );
    if let Err(error) = stream.try_write(answer.as_bytes()) {
        tracing::debug!(%error, "not told that there are too many connections");
    }
}

/// An answer of this service itself: a line of text, in the reason phrase and a header too where they can hold it.
pub(super) fn say(status: StatusCode, text: &str) -> Response<Body> {
    let mut answer = Response::new(Body::from(format!("hyperhive: {text}\n")));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Ok(why) = HeaderValue::from_str(text) {
        headers.insert(WHY, why);
    }
    if let Ok(reason) = hyper::ext::ReasonPhrase::try_from(text.as_bytes()) {
        answer.extensions_mut().insert(reason);
    }
    answer
}
