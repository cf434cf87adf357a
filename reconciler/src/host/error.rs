//! What can go wrong at the doors.

use std::collections::BTreeSet;

/// Something outside did not work.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The operating system refused an operation.
    #[error("cannot {op} {subject}")]
    Io {
        /// The operation, as a verb.
        op: &'static str,
        /// On what.
        subject: String,
        /// Its error.
        #[source]
        source: std::io::Error,
    },
    /// It failed; trying again may help.
    #[error("{subject}: {message}")]
    Failed {
        /// What failed.
        subject: String,
        /// How.
        message: String,
    },
    /// The input is at fault; trying again with the same input is vain.
    #[error("{subject}: {message}")]
    Refused {
        /// What was refused.
        subject: String,
        /// Why.
        message: String,
    },
    /// It would fetch from hosts that the operator did not declare. Trying again is vain until somebody agrees to them.
    #[error("{subject}: {message}")]
    WantsHosts {
        /// What wants to.
        subject: String,
        /// What it wants.
        message: String,
        /// The hosts.
        hosts: BTreeSet<String>,
    },
    /// What was expected to be there is not: somebody else moved it.
    #[error("{subject} moved: {message}")]
    Moved {
        /// What moved.
        subject: String,
        /// How.
        message: String,
    },
}

impl HostError {
    /// Wraps an I/O error with what was being done to what.
    pub fn io(op: &'static str, subject: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let subject = subject.into();
        move |source| Self::Io { op, subject, source }
    }

    /// A failure that may mend itself.
    pub fn failed(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Failed {
            subject: subject.into(),
            message: message.into(),
        }
    }

    /// A fault of the input.
    pub fn refused(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refused {
            subject: subject.into(),
            message: message.into(),
        }
    }

    /// Whether trying again with the same input is vain.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::WantsHosts { .. })
    }

    /// The error and its sources on one line.
    pub fn chain(&self) -> String {
        crate::error_chain(self)
    }
}
