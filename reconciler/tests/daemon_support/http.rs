//! Requests to a socket, byte by byte as the test wants them: no client tidies up a path or a body.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use camino::Utf8Path;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::wire_error::{ErrorCode, WireError};

use super::world::DEADLINE;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The document of an answer that must be a success.
    pub(crate) fn ok<T: DeserializeOwned>(&self) -> T {
        assert!(
            (200..300).contains(&self.status),
            "{}: {}",
            self.status,
            self.text()
        );
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The error of an answer that must be a refusal in the one shape that refusals have.
    pub(crate) fn refused(&self, status: u16, code: ErrorCode) -> WireError {
        let shown = self.text();
        assert_eq!(self.status, status, "{shown}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{shown}");
        let error: WireError = serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no WireError ({error}): {shown}"));
        assert_eq!(error.code, code, "{shown}");
        assert!(!error.message.is_empty());
        error
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(known, _)| known == name);
    found.next().map(|(_, value)| value.as_str())
}

/// A request. It is sent as HTTP/1.0, so that the answer ends with the connection.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

/// Connects, or says why not: the daemon may be away.
fn open(socket: &Utf8Path, request: &Request<'_>) -> std::io::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let Request {
        method,
        path,
        headers,
        body,
    } = request;
    let has = |wanted: &str| headers.iter().any(|(name, _)| *name == wanted);
    // Only HTTP/1.1 has bodies in chunks.
    let version = if has("transfer-encoding") { "1.1" } else { "1.0" };
    let mut head = format!("{method} {path} HTTP/{version}\r\nhost: hive\r\nconnection: close\r\n");
    for (name, value) in *headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !has("content-length") && !has("transfer-encoding") {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    // A daemon that refuses early closes before it has read all; its answer counts.
    if let Err(error) = stream.write_all(body)
        && !matches!(
            error.kind(),
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
        )
    {
        return Err(error);
    }
    Ok(BufReader::new(stream))
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<(u16, Vec<(String, String)>)> {
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .ok_or_else(cut)?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok((status, headers))
}

/// Sends a request and reads the whole answer.
pub(crate) fn send(socket: &Utf8Path, request: &Request<'_>) -> std::io::Result<Answer> {
    let mut reader = open(socket, request)?;
    let (status, headers) = read_head(&mut reader)?;
    let mut body = Vec::new();
    // A daemon that refuses early hangs up on what it did not read.
    match reader.read_to_end(&mut body) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => return Err(error),
        _ => {}
    }
    let whole = header(&headers, "content-length").is_none_or(|length| length == body.len().to_string());
    if !whole {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let answer = Answer {
        status,
        headers,
        body,
    };
    super::contract::check(socket, request, &answer);
    Ok(answer)
}

/// A request without a body.
pub(crate) fn get(socket: &Utf8Path, path: &str) -> std::io::Result<Answer> {
    send(
        socket,
        &Request {
            method: "GET",
            path,
            headers: &[],
            body: b"",
        },
    )
}

/// A request with a JSON body.
pub(crate) fn post(socket: &Utf8Path, path: &str, body: &Value) -> std::io::Result<Answer> {
    send(
        socket,
        &Request {
            method: "POST",
            path,
            headers: &[("content-type", "application/json")],
            body: body.to_string().as_bytes(),
        },
    )
}

/// A request whose body does not say beforehand how long it is.
pub(crate) fn send_chunked(socket: &Utf8Path, path: &str, chunks: &[u8]) -> std::io::Result<Answer> {
    send(
        socket,
        &Request {
            method: "POST",
            path,
            headers: &[("transfer-encoding", "chunked")],
            body: chunks,
        },
    )
}

/// A live stream of events.
pub(crate) struct Stream {
    pub(crate) headers: Vec<(String, String)>,
    reader: BufReader<UnixStream>,
}

impl Stream {
    /// Follows the events after the one that was seen last.
    pub(crate) fn follow(socket: &Utf8Path, last_seen: Option<u64>) -> std::io::Result<Self> {
        let last_seen = last_seen.map(|seen| seen.to_string());
        Self::open(socket, "/v1/events?follow=true", last_seen.as_deref())
    }

    /// Opens a stream behind the event of this id.
    pub(crate) fn open(socket: &Utf8Path, path: &str, last_seen: Option<&str>) -> std::io::Result<Self> {
        let headers = [("last-event-id", last_seen.unwrap_or_default())];
        let request = Request {
            method: "GET",
            path,
            headers: if last_seen.is_some() { &headers } else { &[] },
            body: b"",
        };
        let mut reader = open(socket, &request)?;
        let (status, headers) = read_head(&mut reader)?;
        assert_eq!(status, 200);
        Ok(Self { headers, reader })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The next event with the id it was sent under; `None` when the stream ends.
    pub(crate) fn next(&mut self) -> Option<(u64, Value)> {
        let (id, event) = self.next_named()?;
        Some((id.parse().unwrap(), event))
    }

    /// The same where an id is no number.
    pub(crate) fn next_named(&mut self) -> Option<(String, Value)> {
        let (mut id, mut data) = (None, None);
        let mut line = String::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("id", text)) => id = Some(text.to_owned()),
                Some(("data", text)) => data = Some(serde_json::from_str(text).unwrap()),
                _ if line == "\n" => {
                    if let (Some(id), Some(data)) = (id.take(), data.take()) {
                        return Some((id, data));
                    }
                }
                _ => {}
            }
        }
    }
}
