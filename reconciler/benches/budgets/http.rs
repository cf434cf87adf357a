//! Requests over a unix socket, one connection for many.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::event::Event;

/// No answer takes longer, however busy the machine.
const DEADLINE: Duration = Duration::from_secs(240);

/// A connection that is kept.
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    pub(crate) fn new(socket: &Utf8Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connecting to {socket}"))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    pub(crate) fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        self.ask("GET", path, b"")
    }

    pub(crate) fn post<T: DeserializeOwned>(&mut self, path: &str, body: &Value) -> Result<T> {
        self.ask("POST", path, body.to_string().as_bytes())
    }

    /// Has a request answered that leads to nothing: what any request costs, whatever is done about it.
    pub(crate) fn post_nowhere(&mut self, body: &Value) -> Result<()> {
        match self.exchange("POST", "/v1/nowhere", body.to_string().as_bytes())? {
            (404, _) => Ok(()),
            (status, text) => bail!("nowhere answers {status}: {text}"),
        }
    }

    fn ask<T: DeserializeOwned>(&mut self, method: &str, path: &str, body: &[u8]) -> Result<T> {
        let (status, text) = self.exchange(method, path, body)?;
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status}: {text}");
        }
        // An answer without a body is the unit.
        let text = if text.is_empty() { "null" } else { &text };
        serde_json::from_str(text).with_context(|| format!("{method} {path}: {text}"))
    }

    fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(u16, String)> {
        let length = body.len();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: hive\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.extend(body);
        self.stream.get_mut().write_all(&request)?;
        let (status, length) = self.head().with_context(|| format!("{method} {path}"))?;
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        Ok((status, String::from_utf8(answer)?))
    }

    fn head(&mut self) -> Result<(u16, usize)> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).context("no answer")?.parse()?;
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                return Ok((status, length));
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
    }
}

/// The live stream of events.
pub(crate) struct Events {
    lines: BufReader<UnixStream>,
}

impl Events {
    /// All events after this one.
    pub(crate) fn after(socket: &Utf8Path, seq: u64) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        // HTTP/1.0: the events come as they are, not in chunks.
        write!(
            stream,
            "GET /v1/events?after={seq}&follow=true HTTP/1.0\r\nhost: hive\r\n\r\n"
        )?;
        Ok(Self {
            lines: BufReader::new(stream),
        })
    }

    /// Waits for the next event that is like this.
    pub(crate) fn until(&mut self, like: impl Fn(&Event) -> bool) -> Result<Event> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line).context("waiting for an event")? == 0 {
                bail!("the stream of events has ended");
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let event: Event = serde_json::from_str(data)?;
                if like(&event) {
                    return Ok(event);
                }
            }
        }
    }
}
