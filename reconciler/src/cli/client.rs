//! The client's end of the admin socket.

use std::io;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use reqwest::{RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::wire_error::WireError;

use super::error::CliError;

/// Requests only read or record; even a busy daemon answers sooner than this.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// An answer: as it came, for `--json`, and as this build understands it.
pub(crate) struct Reply<T> {
    /// As it came, with the fields this build does not know.
    pub(crate) raw: Value,
    /// As understood.
    pub(crate) view: T,
}

/// Talks to one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    socket: Utf8PathBuf,
}

impl Client {
    /// A client of the daemon behind `socket`. Connects at the first request.
    pub(crate) fn new(socket: &Utf8Path) -> Result<Self, CliError> {
        let http = reqwest::Client::builder()
            .unix_socket(socket.as_std_path())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|source| CliError::Setup {
                socket: socket.to_owned(),
                source,
            })?;
        Ok(Self {
            http,
            socket: socket.to_owned(),
        })
    }

    /// Asks for a document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Reply<T>, CliError> {
        let request = self.http.get(address(path)).timeout(ANSWER_WITHIN);
        let response = self.send(request, path).await?;
        self.document(response, path).await
    }

    /// Asks for text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, CliError> {
        let request = self.http.get(address(path)).timeout(ANSWER_WITHIN);
        let response = self.send(request, path).await?;
        response.text().await.map_err(|error| self.failure(error))
    }

    /// Posts a document and returns the answer.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Reply<T>, CliError> {
        let request = self.http.post(address(path)).timeout(ANSWER_WITHIN).json(body);
        let response = self.send(request, path).await?;
        self.document(response, path).await
    }

    /// Takes something away; the answer has no document.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), CliError> {
        let request = self.http.delete(address(path)).timeout(ANSWER_WITHIN);
        self.send(request, path).await.map(drop)
    }

    /// Opens an event stream behind the event `after`. It has no timeout: silence is normal.
    pub(crate) async fn stream(&self, path: &str, after: &str) -> Result<Response, CliError> {
        let request = self
            .http
            .get(address(path))
            .header("accept", "text/event-stream")
            .header("last-event-id", after);
        self.send(request, path).await
    }

    /// What a failed transfer means on this socket.
    pub(crate) fn failure(&self, error: reqwest::Error) -> CliError {
        let socket = self.socket.clone();
        if error.is_timeout() {
            return CliError::TimedOut(socket);
        }
        match io_kind(&error).and_then(|kind| no_connection(kind, &socket)) {
            Some(error) => error,
            None => CliError::Broken {
                socket,
                source: error.without_url(),
            },
        }
    }

    async fn send(&self, request: RequestBuilder, path: &str) -> Result<Response, CliError> {
        let response = request.send().await.map_err(|error| self.failure(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|error| self.failure(error))?;
        Err(match serde_json::from_slice::<WireError>(&body) {
            Ok(error) => CliError::Refused(error),
            Err(_) => CliError::Unexplained {
                request: path.to_owned(),
                status: status.as_u16(),
            },
        })
    }

    async fn document<T: DeserializeOwned>(
        &self,
        response: Response,
        path: &str,
    ) -> Result<Reply<T>, CliError> {
        let body = response.bytes().await.map_err(|error| self.failure(error))?;
        let not_understood = |source| CliError::NotUnderstood {
            request: path.to_owned(),
            source,
        };
        let raw: Value = serde_json::from_slice(&body).map_err(not_understood)?;
        let view = T::deserialize(&raw).map_err(not_understood)?;
        Ok(Reply { raw, view })
    }
}

/// The host only fills the `Host` header: the socket decides where a request goes.
fn address(path: &str) -> String {
    format!("http://hive{path}")
}

/// What it means that the socket could not be connected to.
fn no_connection(kind: io::ErrorKind, socket: &Utf8Path) -> Option<CliError> {
    let socket = socket.to_owned();
    match kind {
        io::ErrorKind::NotFound => Some(CliError::NoSocket(socket)),
        io::ErrorKind::ConnectionRefused => Some(CliError::NobodyListens(socket)),
        io::ErrorKind::PermissionDenied => Some(CliError::NotAdmitted(socket)),
        _ => None,
    }
}

/// The operating system's own error behind `error`.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        current = error.source();
    }
    None
}

/// `text` as one segment of a path or one value of a query.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_not_to_connect_names_another_next_command() {
        let kinds = [
            io::ErrorKind::NotFound,
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::PermissionDenied,
        ];
        let told = kinds.map(|kind| {
            let error = no_connection(kind, Utf8Path::new("/run/hyperhive/admin.sock")).expect("known");
            let wire = error.to_wire();
            format!("{}\n{}", wire.message, wire.hint.unwrap_or_default())
        });
        insta::assert_snapshot!(told.join("\n\n"), @r"
        hyperhive is not running: there is no socket at /run/hyperhive/admin.sock
        start it with `systemctl start hyperhive`, try it out with `hive demo`, or name another socket with `--socket PATH`

        hyperhive is not running: nobody listens on /run/hyperhive/admin.sock
        the daemon has stopped: see why with `systemctl status hyperhive`, then start it again

        you may not talk to hyperhive: /run/hyperhive/admin.sock is open to root and the group hyperhive only
        run the command with sudo, or join the group with `usermod -aG hyperhive USER` and log in anew
        ");
    }

    #[test]
    fn a_segment_cannot_leave_its_place() {
        assert_eq!(segment("alice-1"), "alice-1");
        assert_eq!(segment("gate/3"), "gate%2F3");
        assert_eq!(segment("../x?a=b#c d\né"), "%2E%2E%2Fx%3Fa%3Db%23c%20d%0A%C3%A9");
    }
}
