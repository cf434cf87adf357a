//! Talks to the daemon over the agent's own socket.

mod others;
pub mod retry;
mod verbs;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::agent_api::{
    AckRequest, MAX_BATCH, MAX_BODY_BYTES, MAX_BUNDLE_BYTES, PollRequest, PollResponse, ProposalInfo,
    RecvRequest, RecvResponse, SendRequest, SendResponse,
};
use shared::budget::{TurnLimits, TurnUsage};
use shared::turn::TurnStats;
use shared::version::{AGENT_API, AGENT_API_HEADER, agent_api_accepts};
use shared::wire_error::{ErrorCode, WireError};

/// What an answer may take beyond the wait that was asked for.
const SLACK: Duration = Duration::from_secs(15);
/// What a bundle may take.
const BUNDLE_TIME: Duration = Duration::from_secs(120);
/// The largest JSON answer: a full batch of messages in which every byte is escaped.
const MAX_ANSWER_BYTES: u64 = MAX_BATCH as u64 * MAX_BODY_BYTES as u64 * 6 + 1024 * 1024;
/// The largest error body.
const MAX_ERROR_BYTES: u64 = 64 * 1024;

/// Why the daemon did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It could not be reached, or went away in the middle.
    #[error("cannot reach the daemon")]
    Unreachable(#[source] reqwest::Error),
    /// It said no.
    #[error("the daemon refused ({status}): {error}{}", hint(error))]
    Refused {
        /// The status of the answer.
        status: u16,
        /// What it said.
        error: WireError,
    },
    /// Its answer makes no sense.
    #[error("the daemon's answer to {what} cannot be understood")]
    Malformed {
        /// The request.
        what: &'static str,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Its answer is larger than any valid one.
    #[error("the daemon's answer to {what} is larger than {max} bytes")]
    TooLarge {
        /// The request.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// It speaks a version of the agent API that this harness does not.
    #[error(
        "the daemon speaks version {theirs:?} of the agent API, this harness {AGENT_API}: restart the agent"
    )]
    Incompatible {
        /// What it says it speaks.
        theirs: String,
    },
}

fn hint(error: &WireError) -> String {
    error
        .hint
        .as_ref()
        .map(|hint| format!(" ({hint})"))
        .unwrap_or_default()
}

impl ClientError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Incompatible { .. } => true,
            Self::Refused { status, error } => {
                *status >= 500 || matches!(error.code, ErrorCode::Unavailable | ErrorCode::Internal)
            }
            Self::Malformed { .. } | Self::TooLarge { .. } => false,
        }
    }

    /// Whether the daemon takes no more just now.
    pub fn is_too_much(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if error.code == ErrorCode::Exhausted)
    }
}

/// A client of the agent API.
#[derive(Debug)]
pub struct HostClient {
    http: reqwest::Client,
    socket: Utf8PathBuf,
    /// Whether the last request found nobody; only the change is worth a line in the log.
    away: AtomicBool,
}

impl HostClient {
    /// A client on this socket. Nothing is sent yet.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(socket: &Utf8Path) -> Result<Self, reqwest::Error> {
        let mut headers = HeaderMap::new();
        headers.insert(AGENT_API_HEADER, HeaderValue::from(AGENT_API));
        let http = reqwest::Client::builder()
            .unix_socket(socket.as_std_path())
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            // One connection waits in a poll, the others are used in bursts.
            .pool_idle_timeout(Duration::from_secs(10))
            .build()?;
        Ok(Self {
            http,
            socket: socket.to_owned(),
            away: AtomicBool::new(false),
        })
    }

    /// Reports, and waits for work.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn poll(&self, request: &PollRequest) -> Result<PollResponse, ClientError> {
        let wait = Duration::from_secs(request.wait_secs.into());
        self.post("poll", "/v1/poll", request, wait).await
    }

    /// Leases undelivered messages to a turn, and waits for the first as long as the request says.
    ///
    /// # Errors
    /// See [`ClientError`]. When the answer was lost, messages may be leased all the same.
    pub async fn recv(&self, request: &RecvRequest) -> Result<RecvResponse, ClientError> {
        let wait = Duration::from_secs(request.wait_secs.into());
        self.post("recv", "/v1/recv", request, wait).await
    }

    /// Acknowledges a turn's leases, or gives them back.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ack(&self, ack: &AckRequest) -> Result<(), ClientError> {
        let request = self.request(Method::POST, "/v1/ack", SLACK);
        self.answer("ack", request.json(ack)).await?;
        Ok(())
    }

    /// Tells what a turn was. A daemon that does not want to know is as good as one that does.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn turn_ended(&self, stats: &TurnStats) -> Result<(), ClientError> {
        let request = self.request(Method::POST, "/v1/turns", SLACK);
        match self.answer("turns", request.json(stats)).await {
            Ok(_) | Err(ClientError::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells what a turn has used so far; gives what it may use. A daemon that does not want to know sets no limit.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn turn_uses(&self, usage: &TurnUsage) -> Result<TurnLimits, ClientError> {
        match self
            .post("turns/usage", "/v1/turns/usage", usage, Duration::ZERO)
            .await
        {
            Err(ClientError::Refused { status: 404, .. }) => Ok(TurnLimits::default()),
            answered => answered,
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn send(&self, request: &SendRequest) -> Result<SendResponse, ClientError> {
        self.post("send", "/v1/send", request, Duration::ZERO).await
    }

    /// A bundle of the config repo's `main` and tags.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn repo_bundle(&self) -> Result<Vec<u8>, ClientError> {
        self.bundle("repo bundle", "/v1/repo/bundle").await
    }

    /// Offers the one commit in a bundle.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn propose(&self, bundle: Vec<u8>) -> Result<ProposalInfo, ClientError> {
        self.hand_in("proposals", Method::POST, "/v1/proposals", bundle)
            .await
    }

    async fn post<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        body: &Q,
        wait: Duration,
    ) -> Result<A, ClientError> {
        let request = self.request(Method::POST, path, wait + SLACK).json(body);
        let response = self.answer(what, request).await?;
        json(what, response).await
    }

    /// Gets a bundle.
    async fn bundle(&self, what: &'static str, path: &str) -> Result<Vec<u8>, ClientError> {
        let request = self.request(Method::GET, path, BUNDLE_TIME);
        read(what, self.answer(what, request).await?, MAX_BUNDLE_BYTES).await
    }

    /// Hands in a bundle, or another file.
    async fn hand_in<A: DeserializeOwned>(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        file: Vec<u8>,
    ) -> Result<A, ClientError> {
        let request = self
            .request(method, path, BUNDLE_TIME)
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(file);
        json(what, self.answer(what, request).await?).await
    }

    fn request(&self, method: Method, path: &str, time: Duration) -> RequestBuilder {
        // The host in the address means nothing: every connection goes to the socket.
        self.http
            .request(method, format!("http://hive{path}"))
            .timeout(time)
    }

    async fn answer(&self, what: &'static str, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                // The address in it is made up.
                let error = error.without_url();
                if !self.away.swap(true, Ordering::Relaxed) {
                    let error = crate::error_chain(&error);
                    tracing::warn!(socket = %self.socket, error, "daemon not reachable, trying again");
                }
                return Err(ClientError::Unreachable(error));
            }
        };
        if self.away.swap(false, Ordering::Relaxed) {
            tracing::info!("daemon reachable again");
        }
        check_version(response.headers())?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = read(what, response, MAX_ERROR_BYTES).await.unwrap_or_default();
        Err(ClientError::Refused {
            status: status.as_u16(),
            error: wire_error(status, &body),
        })
    }
}

/// The error in a body, or what can be said without one.
fn wire_error(status: StatusCode, body: &[u8]) -> WireError {
    let error = serde_json::from_slice(body).unwrap_or_else(|_| {
        let text = crate::tame(&String::from_utf8_lossy(body), 200);
        WireError::new(ErrorCode::Unknown, format!("{status} {text}"))
    });
    WireError {
        code: error.code,
        message: crate::tame(&error.message, 1000),
        hint: error.hint.map(|hint| crate::tame(&hint, 1000)),
    }
}

fn check_version(headers: &HeaderMap) -> Result<(), ClientError> {
    let Some(value) = headers.get(AGENT_API_HEADER) else {
        return Ok(());
    };
    let text = value.to_str().unwrap_or_default();
    if text.parse().is_ok_and(agent_api_accepts) {
        Ok(())
    } else {
        Err(ClientError::Incompatible {
            theirs: crate::tame(text, 20),
        })
    }
}

async fn json<A: DeserializeOwned>(what: &'static str, response: Response) -> Result<A, ClientError> {
    let body = read(what, response, MAX_ANSWER_BYTES).await?;
    serde_json::from_slice(&body).map_err(|source| ClientError::Malformed { what, source })
}

async fn read(what: &'static str, mut response: Response, max: u64) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(ClientError::Unreachable)? {
        if body.len() as u64 + chunk.len() as u64 > max {
            return Err(ClientError::TooLarge { what, max });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_a_readable_body_still_says_what_happened() {
        let error = wire_error(StatusCode::BAD_GATEWAY, b"<html>\x1b oh no");
        assert_eq!(error.code, ErrorCode::Unknown);
        assert_eq!(error.message, "502 Bad Gateway <html>  oh no");
    }

    #[test]
    fn refusals_are_final_and_failures_are_not() {
        let refused = |status, code| ClientError::Refused {
            status,
            error: WireError::new(code, "no"),
        };
        assert!(!refused(403, ErrorCode::Forbidden).is_transient());
        assert!(!refused(429, ErrorCode::Exhausted).is_transient());
        assert!(refused(503, ErrorCode::Unavailable).is_transient());
        assert!(refused(500, ErrorCode::Unknown).is_transient());
    }

    #[test]
    fn a_neighbouring_version_is_accepted_and_a_distant_one_is_not() {
        let headers = |version: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AGENT_API_HEADER, HeaderValue::from_static(version));
            headers
        };
        assert!(check_version(&HeaderMap::new()).is_ok());
        assert!(check_version(&headers("2")).is_ok());
        assert!(check_version(&headers("9")).is_err());
        assert!(check_version(&headers("x")).is_err());
    }
}
