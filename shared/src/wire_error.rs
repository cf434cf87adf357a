//! The one shape in which both APIs report an error.

use serde::{Deserialize, Serialize};

/// Stable, machine-readable kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum ErrorCode {
    /// The request itself is malformed.
    BadRequest,
    /// The peer on this socket may not do that.
    Forbidden,
    /// No such agent, gate, proposal or message.
    NotFound,
    /// The thing moved since it was shown (another digest, already decided, not a descendant).
    Conflict,
    /// Something is larger than allowed.
    TooLarge,
    /// A bounded queue is full, or a budget is used up.
    Exhausted,
    /// The daemon cannot do that now; the message says when.
    Unavailable,
    /// A fault in the daemon; the log has more.
    Internal,
    /// A code this build does not know.
    #[serde(other)]
    Unknown,
}

/// An error as sent over a socket: what happened, to whom, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct WireError {
    /// The kind.
    pub code: ErrorCode,
    /// One sentence for a person, with the subject named.
    pub message: String,
    /// The next command to run, or what to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl WireError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The same error with a hint.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}
