//! An agent's container as observed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::Digest;

use super::Limits;

/// Why an agent's container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExitCause {
    /// It was told to.
    Clean,
    /// By itself, with this exit status; 0 is no better than another, for nobody asked for it.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Out of memory.
    OutOfMemory,
    /// Its operating system switched itself off.
    PowerOff,
    /// Its operating system restarted itself, which ends the container: only the daemon starts one.
    Reboot,
    /// It did not come up in time.
    StartTimeout,
    /// It ended while nobody watched.
    Unseen,
}

impl std::fmt::Display for ExitCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clean => f.write_str("exited cleanly"),
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::OutOfMemory => f.write_str("ran out of memory"),
            Self::PowerOff => f.write_str("switched itself off"),
            Self::Reboot => f.write_str("restarted itself"),
            Self::StartTimeout => f.write_str("did not come up in time"),
            Self::Unseen => f.write_str("ended while the daemon was not watching"),
        }
    }
}

/// What bounds a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// The limits it is held to now; `None`: none are kept here, or it is not known.
    #[serde(default)]
    pub limits: Option<Limits>,
    /// How many of its processes the kernel has killed for want of memory in this run; `None`: it does not say here.
    #[serde(default)]
    pub oom_kills: Option<u64>,
}

/// One agent's container as observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UnitState {
    /// Never started, or all trace of it is gone.
    Absent,
    /// Running.
    Running {
        /// What it was started from.
        toplevel: Digest,
        /// Since when.
        since: Timestamp,
        /// Identity of this run; changes with every start.
        run: String,
        /// What it is held to.
        resources: Resources,
    },
    /// Ended.
    Exited {
        /// What it was started from, when known.
        toplevel: Option<Digest>,
        /// When it was seen to have ended.
        at: Timestamp,
        /// Why.
        cause: ExitCause,
    },
    /// Something of that name runs that we did not start.
    Foreign {
        /// What it is.
        what: String,
    },
}
