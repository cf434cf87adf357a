//! The MCP server's side of the control socket.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{MAX_LINE, Reply, Said};

/// How long the loop may take to answer.
const TIME: Duration = Duration::from_secs(2);

/// Why the loop was not told.
#[derive(Debug, thiserror::Error)]
pub enum SayError {
    /// Nobody listens, or the connection broke off.
    #[error("the harness does not listen on {path}")]
    Unreachable {
        /// The socket.
        path: Utf8PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("the harness did not answer on its control socket within {} s", TIME.as_secs())]
    TimedOut,
    /// It said no.
    #[error("the harness refused: {0}")]
    Refused(String),
}

/// Speaks to the loop of the harness. Nothing is open between two things said.
#[derive(Debug, Clone)]
pub struct ControlClient {
    path: Utf8PathBuf,
}

impl ControlClient {
    /// A client of this socket.
    pub fn new(path: &Utf8Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Says one thing, and returns once the loop has it.
    ///
    /// # Errors
    /// When it may not have it.
    pub async fn say(&self, said: &Said) -> Result<(), SayError> {
        let Ok(reply) = tokio::time::timeout(TIME, self.converse(said)).await else {
            return Err(SayError::TimedOut);
        };
        match reply {
            Ok(Reply::Ok) => Ok(()),
            Ok(Reply::Error(error)) => Err(SayError::Refused(crate::tame(&error, 500))),
            Err(source) => Err(SayError::Unreachable {
                path: self.path.clone(),
                source,
            }),
        }
    }

    async fn converse(&self, said: &Said) -> std::io::Result<Reply> {
        let mut stream = UnixStream::connect(&self.path).await?;
        let mut line = serde_json::to_vec(said)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut reply = Vec::new();
        BufReader::new(stream)
            .take(MAX_LINE)
            .read_until(b'\n', &mut reply)
            .await?;
        Ok(serde_json::from_slice(&reply)?)
    }
}
