//! Why a tool did not do what it was asked for, in words that the model can act on.

use camino::Utf8PathBuf;
use shared::wire_error::ErrorCode;

use super::context::Failed;
use crate::control::SayError;
use crate::host_client::ClientError;
use crate::repo::ProposeError;

/// What became of a call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    /// The arguments do not fit the schema.
    #[error("bad arguments at {at}: {error}. Nothing was done; correct the call")]
    Arguments {
        /// Where.
        at: String,
        /// What is wrong.
        error: String,
    },
    /// The arguments fit the schema and still cannot be meant.
    #[error("{0}. Nothing was done")]
    Refused(String),
    /// The daemon did not do it.
    #[error("{}{}", crate::error_chain(error), next(error, *unclear))]
    Daemon {
        /// Why.
        error: ClientError,
        /// Whether it may have done it all the same.
        unclear: bool,
    },
    /// The config repo.
    #[error("{}", crate::error_chain(.0))]
    Repo(#[from] ProposeError),
    /// The loop of the harness.
    #[error("{}. Nothing was done; go on without, and tell the operator if it happens again", crate::error_chain(.0))]
    Harness(#[from] SayError),
    /// A file in the state folder.
    #[error(
        "cannot write {path}: {source}. Nothing was done; look whether the disk is full or something else is there"
    )]
    File {
        /// The file.
        path: Utf8PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Another call of the same kind is under way.
    #[error("another call of this tool waits already and goes on waiting; use what it brings")]
    Busy,
}

impl From<Failed> for ToolError {
    fn from(Failed { error, unclear }: Failed) -> Self {
        Self::Daemon { error, unclear }
    }
}

/// What to do next, where the daemon itself does not say.
fn next(error: &ClientError, unclear: bool) -> &'static str {
    if unclear {
        return ". It may have been done all the same: look before you repeat it, with sent, loose_ends, config_status or \
                list_agents";
    }
    match error {
        ClientError::Unreachable(_) => {
            ". Nothing was done. It is restarting or stopped: try again in a minute, or end the turn"
        }
        ClientError::Incompatible { .. } | ClientError::Malformed { .. } | ClientError::TooLarge { .. } => {
            ". Tell the operator"
        }
        ClientError::Refused { error, .. } => match error.code {
            ErrorCode::Unavailable | ErrorCode::Internal => ". Try again in a minute",
            ErrorCode::Exhausted if error.hint.is_none() => ". Wait until there is room, then try again",
            ErrorCode::BadRequest
            | ErrorCode::Forbidden
            | ErrorCode::NotFound
            | ErrorCode::Conflict
            | ErrorCode::TooLarge
            | ErrorCode::Exhausted
            | ErrorCode::Unknown => "",
        },
    }
}
