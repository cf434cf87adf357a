//! Server-sent events: bytes in, messages out, across restarts of the daemon.

use std::io;
use std::time::Duration;

use reqwest::Response;
use serde::de::DeserializeOwned;

use super::error::CliError;

/// The first and the longest wait before a stream is opened again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The longest message: far more than any event, far less than memory.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The stream holds a message that is too long.
#[derive(Debug, thiserror::Error)]
#[error("a message of the event stream is longer than {MAX_BYTES} bytes")]
struct TooLong;

/// Opens a stream, again and again while the daemon is away.
pub(super) async fn patiently(
    mut open: impl AsyncFnMut() -> Result<Response, CliError>,
) -> Result<Response, CliError> {
    let (mut delay, longest) = RETRY;
    loop {
        match open().await {
            Err(error) if error.may_pass() => {
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(longest);
            }
            answer => return answer,
        }
    }
}

/// Waits before a stream that broke off is opened again.
pub(super) async fn pause() {
    tokio::time::sleep(RETRY.0).await;
}

/// Reads a stream of events until it breaks off.
pub(super) async fn read<T: DeserializeOwned>(
    mut stream: Response,
    mut take: impl FnMut(T) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut parser = Parser::default();
    while let Ok(Some(bytes)) = stream.chunk().await {
        let messages = parser
            .feed(&bytes)
            .map_err(|error| CliError::BadEvent(io::Error::other(error)))?;
        for message in messages {
            take(serde_json::from_str(&message).map_err(|error| CliError::BadEvent(error.into()))?)?;
        }
    }
    Ok(())
}

/// Cuts a byte stream into messages, wherever it is split. Of a message only its data matters here.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    data: Option<String>,
}

impl Parser {
    /// Takes in more bytes and returns the messages they complete.
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut messages = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            messages.extend(self.line(&line));
            self.check_size()?;
        }
        self.line.extend_from_slice(rest);
        self.check_size()?;
        Ok(messages)
    }

    fn check_size(&self) -> Result<(), TooLong> {
        let held = self.line.len() + self.data.as_ref().map_or(0, String::len);
        if held > MAX_BYTES { Err(TooLong) } else { Ok(()) }
    }

    /// Takes in a whole line; an empty one ends a message. The position in the stream is read from the event
    /// itself, so `id`, `event` and `retry` say nothing new; a line that begins with a colon is a heartbeat.
    fn line(&mut self, line: &[u8]) -> Option<String> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return self.data.take();
        }
        let value = line.strip_prefix(b"data:")?;
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(&value);
            }
            None => self.data = Some(value.into_owned()),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &[u8] =
        b": hi\n\nid: 1\ndata: {\"a\":1}\n\nevent: x\r\ndata: one\r\ndata:two\r\n\r\ndata: \xc3\xa9\n\n";

    #[test]
    fn heartbeats_are_skipped_and_data_lines_joined() {
        let messages = Parser::default().feed(STREAM).expect("short");
        assert_eq!(messages, ["{\"a\":1}", "one\ntwo", "é"]);
    }

    #[test]
    fn a_message_without_end_is_refused() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; MAX_BYTES / 2 + 1];
        assert!(parser.feed(&chunk).is_ok());
        assert!(parser.feed(&chunk).is_err());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_stream_is_split(cut in 0..STREAM.len(), cut2 in 0..STREAM.len()) {
            let (a, b) = (cut.min(cut2), cut.max(cut2));
            let mut parser = Parser::default();
            let mut messages = Vec::new();
            for part in [&STREAM[..a], &STREAM[a..b], &STREAM[b..]] {
                messages.extend(parser.feed(part).expect("short"));
            }
            prop_assert_eq!(messages, Parser::default().feed(STREAM).expect("short"));
        }
    }
}
