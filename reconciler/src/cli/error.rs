//! What can go wrong on the operator's side of the socket, and what to do about it.

use std::io;

use camino::Utf8PathBuf;
use shared::GateId;
use shared::wire_error::{ErrorCode, WireError};

use super::DEFAULT_SOCKET;
use super::exit::Exit;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// There is no socket.
    #[error("hyperhive is not running: there is no socket at {0}")]
    NoSocket(Utf8PathBuf),
    /// There is a socket, but nobody listens.
    #[error("hyperhive is not running: nobody listens on {0}")]
    NobodyListens(Utf8PathBuf),
    /// The socket's mode keeps this user out.
    #[error("you may not talk to hyperhive: {0} is open to root and the group hyperhive only")]
    NotAdmitted(Utf8PathBuf),
    /// The daemon took too long.
    #[error("the daemon did not answer on {0} in time")]
    TimedOut(Utf8PathBuf),
    /// The conversation broke off.
    #[error("the connection to the daemon on {socket} failed")]
    Broken {
        /// Where.
        socket: Utf8PathBuf,
        /// How.
        #[source]
        source: reqwest::Error,
    },
    /// The daemon refused or failed, and said why.
    #[error("{0}")]
    Refused(WireError),
    /// The daemon answered something this build cannot read.
    #[error("the daemon's answer to {request} could not be understood")]
    NotUnderstood {
        /// What was asked.
        request: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The daemon answered with a status and no explanation.
    #[error("the daemon answered {status} to {request}")]
    Unexplained {
        /// What was asked.
        request: String,
        /// The HTTP status.
        status: u16,
    },
    /// The event stream is not one.
    #[error("the daemon sent an event that could not be understood")]
    BadEvent(#[source] io::Error),
    /// What would be decided is not what the operator saw.
    #[error("gate {gate} was not decided: {why}")]
    GateMoved {
        /// The gate.
        gate: GateId,
        /// What happened to it.
        why: String,
    },
    /// A gate that is not open.
    #[error("gate {gate} {how}: there is nothing to decide")]
    NotOpen {
        /// The gate.
        gate: GateId,
        /// How it ended.
        how: String,
    },
    /// The message is empty or too long.
    #[error("{0}")]
    BadMessage(String),
    /// A file could not be read.
    #[error("{path} could not be read")]
    Unreadable {
        /// The file; `standard input` for that.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Files could not be written.
    #[error("files could not be written to {path}")]
    Unwritable {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A spec could not be read.
    #[error(transparent)]
    Spec(#[from] crate::spec::ReadError),
    /// A spec with faults. They have been shown.
    #[error("{path} is not a valid spec: {faults}")]
    BadSpec {
        /// The file.
        path: String,
        /// How many, in words.
        faults: String,
    },
    /// The daemon ended with an error.
    #[error("{0}")]
    Daemon(String),
    /// What was to be done without the daemon could not be done.
    #[error("{0}")]
    Offline(String),
    /// Whoever read our output has gone. Not an error to tell anybody about.
    #[error("the reader of the output has gone")]
    OutputClosed,
    /// The output could not be written.
    #[error("the output could not be written")]
    Output(#[source] io::Error),
    /// The client could not be set up.
    #[error("the client for {socket} could not be set up")]
    Setup {
        /// The socket.
        socket: Utf8PathBuf,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Output(error)
        }
    }
}

impl CliError {
    /// The exit status it leads to. `hive events | head` is not a failure.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::OutputClosed => Exit::Done,
            _ => Exit::Error,
        }
    }

    /// Whether the same request may succeed later: the daemon is being restarted, say.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::NoSocket(_) | Self::NobodyListens(_) | Self::TimedOut(_) | Self::Broken { .. } => true,
            Self::Refused(error) => error.code == ErrorCode::Unavailable,
            Self::Unexplained { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// The error in the one shape in which errors are reported.
    pub(crate) fn to_wire(&self) -> WireError {
        if let Self::Refused(error) = self {
            return error.clone();
        }
        WireError {
            code: self.code(),
            message: crate::error_chain(self),
            hint: self.hint(),
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::NoSocket(_) | Self::NobodyListens(_) | Self::TimedOut(_) | Self::Broken { .. } => {
                ErrorCode::Unavailable
            }
            Self::NotAdmitted(_) => ErrorCode::Forbidden,
            Self::Refused(error) => error.code,
            Self::GateMoved { .. } | Self::NotOpen { .. } => ErrorCode::Conflict,
            Self::BadMessage(_) | Self::BadSpec { .. } | Self::Spec(_) | Self::Unreadable { .. } => {
                ErrorCode::BadRequest
            }
            Self::NotUnderstood { .. }
            | Self::Unexplained { .. }
            | Self::BadEvent(_)
            | Self::Daemon(_)
            | Self::Offline(_)
            | Self::OutputClosed
            | Self::Output(_)
            | Self::Unwritable { .. }
            | Self::Setup { .. } => ErrorCode::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoSocket(socket) if socket == DEFAULT_SOCKET => {
                "start it with `systemctl start hyperhive`, try it out with `hive demo`, \
                 or name another socket with `--socket PATH`"
                    .to_owned()
            }
            Self::NoSocket(_) => "check the path given with `--socket`, or start the daemon that makes it \
                                  with `hive serve` or `hive demo`"
                .to_owned(),
            Self::NobodyListens(_) => "the daemon has stopped: see why with `systemctl status hyperhive`, \
                                       then start it again"
                .to_owned(),
            Self::NotAdmitted(_) => {
                "run the command with sudo, or join the group with `usermod -aG hyperhive USER` and log in anew"
                    .to_owned()
            }
            Self::TimedOut(_) | Self::Unexplained { .. } => {
                "see what the daemon does with `journalctl -u hyperhive`".to_owned()
            }
            Self::Broken { .. } => {
                "look again with `hive status`; what was asked for may have been done".to_owned()
            }
            Self::NotUnderstood { .. } | Self::BadEvent(_) => {
                "compare `hive --version` with the version in `hive status --json`".to_owned()
            }
            Self::GateMoved { gate, .. } => format!("see what it asks for now with `hive gate show {gate}`"),
            Self::NotOpen { gate, .. } => format!("see how it ended with `hive gate show {gate}`"),
            Self::BadSpec { .. } => "mend the file, then check it again".to_owned(),
            Self::Refused(_)
            | Self::BadMessage(_)
            | Self::Unreadable { .. }
            | Self::Spec(_)
            | Self::Daemon(_)
            | Self::Offline(_)
            | Self::OutputClosed
            | Self::Output(_)
            | Self::Unwritable { .. }
            | Self::Setup { .. } => return None,
        };
        Some(hint)
    }
}
