//! What can go wrong with the ledger.

use std::sync::Arc;

use camino::Utf8PathBuf;
use shared::canonical::NotCanonical;
use shared::gate::{Decision, GateClass, GateState};
use shared::{AgentName, AgentUid, Digest, GateId, ProposalNumber};

/// The source of an error whose kind does not matter.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// A row that this build cannot read. It is reported wherever it would have been shown.
#[derive(Debug, thiserror::Error)]
#[error("row {key} of table {table} of the ledger cannot be read")]
pub struct Undecodable {
    /// The table.
    pub table: &'static str,
    /// The row's key.
    pub key: String,
    /// The agent it belongs to, when that much can be read.
    pub uid: Option<AgentUid>,
    /// That agent's name.
    pub agent: Option<AgentName>,
    /// What is wrong with it.
    #[source]
    pub source: Fault,
}

/// A list in which a row that cannot be read is an entry of its own.
#[derive(Debug)]
pub struct Listing<T> {
    /// What could be read.
    pub items: Vec<T>,
    /// What could not.
    pub undecodable: Vec<Undecodable>,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            undecodable: Vec::new(),
        }
    }
}

impl<T> Listing<T> {
    /// All of it, or the first row that cannot be read.
    ///
    /// # Errors
    /// When there is such a row.
    pub fn complete(self) -> Result<Vec<T>, LedgerError> {
        match self.undecodable.into_iter().next() {
            Some(row) => Err(LedgerError::Undecodable(Box::new(row))),
            None => Ok(self.items),
        }
    }

    pub(super) fn push(&mut self, entry: Result<T, Undecodable>) {
        match entry {
            Ok(item) => self.items.push(item),
            Err(row) => self.undecodable.push(row),
        }
    }
}

/// The ledger could not be read or written. A write that failed changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Its thread is gone.
    #[error("the ledger is closed: its thread ended; the log says why, restart the daemon")]
    Closed,
    /// SQLite refused.
    #[error("the ledger cannot be read or written")]
    Sqlite(#[from] rusqlite::Error),
    /// The transaction that this write was part of could not be completed; all of it was undone.
    #[error("the ledger cannot be written: what waited to be written was undone")]
    Undone(#[source] Arc<rusqlite::Error>),
    /// A row cannot be read.
    #[error(transparent)]
    Undecodable(Box<Undecodable>),
    /// A value cannot be stored.
    #[error("{what} cannot be written to the ledger")]
    Unencodable {
        /// The value.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A value has no canonical form.
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
    /// A change concerns an agent that was never registered.
    #[error("no agent has the uid {0}")]
    UnknownAgent(AgentUid),
    /// A new agent has the name of another.
    #[error("the name {name} belongs to the agent {uid}: archive that one first")]
    NameInUse {
        /// The name.
        name: AgentName,
        /// Who has it.
        uid: AgentUid,
    },
    /// A new agent has the uid of another, which may be archived.
    #[error("the uid {0} is taken by another agent")]
    UidInUse(AgentUid),
    /// A new proposal has the number of another.
    #[error("agent {uid} already has a proposal {number}")]
    ProposalExists {
        /// The agent.
        uid: AgentUid,
        /// The number.
        number: ProposalNumber,
    },
    /// A change concerns a proposal that does not exist.
    #[error("agent {uid} has no proposal {number}")]
    UnknownProposal {
        /// The agent.
        uid: AgentUid,
        /// The number.
        number: ProposalNumber,
    },
    /// A proposal moved on since it was looked at.
    #[error("proposal {number} of agent {uid} moved on meanwhile: it is looked at again")]
    Overtaken {
        /// The agent.
        uid: AgentUid,
        /// The number.
        number: ProposalNumber,
    },
    /// An action concerns a gate that does not exist.
    #[error("there is no gate {0}")]
    UnknownGate(GateId),
    /// A policy approved what only a person may approve.
    #[error("no policy can approve a gate of class {0}: a person must")]
    NeverAuto(GateClass),
}

/// A decision was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// There is no such gate.
    #[error("there is no gate {0}; `hive gate list` shows those that are open")]
    NotFound(GateId),
    /// It no longer waits for a decision.
    #[error("gate {gate} is {}{}", state.as_str(), decided_by(decision.as_deref()))]
    NotOpen {
        /// The gate.
        gate: GateId,
        /// Where it is in its life.
        state: GateState,
        /// The decision that was there before.
        decision: Option<Box<Decision>>,
    },
    /// What was shown is not what the gate asks for.
    #[error("gate {gate} asks for {}, which is not what was shown: look at it again", current.short())]
    Moved {
        /// The gate.
        gate: GateId,
        /// What it asks for.
        current: Digest,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

fn decided_by(decision: Option<&Decision>) -> String {
    decision.map_or_else(String::new, |decision| {
        let verb = if decision.approve { "approved" } else { "denied" };
        format!(": {} {verb} it at {}", decision.by, decision.at)
    })
}

/// A step may not begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// Its gate does not authorise it. Nothing was written.
    #[error("gate {gate} does not authorise this step: {why}")]
    NotAuthorised {
        /// The gate.
        gate: GateId,
        /// Why not.
        why: &'static str,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<rusqlite::Error> for DecideError {
    fn from(source: rusqlite::Error) -> Self {
        Self::Ledger(source.into())
    }
}

impl From<rusqlite::Error> for BeginError {
    fn from(source: rusqlite::Error) -> Self {
        Self::Ledger(source.into())
    }
}

/// The ledger cannot be opened. It was not changed, unless the error says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error("cannot {op} {path}")]
    Io {
        /// The operation, as a verb.
        op: &'static str,
        /// On what.
        path: Utf8PathBuf,
        /// Its error.
        #[source]
        source: std::io::Error,
    },
    /// A newer hyperhive wrote it.
    #[error(
        "the ledger {path} has version {found}, this hyperhive knows version {known} at most: run the newer \
         hyperhive again, or put back a copy made before the upgrade ({path}.before-v*)"
    )]
    Newer {
        /// The ledger.
        path: Utf8PathBuf,
        /// Its version.
        found: i64,
        /// The newest version this build knows.
        known: u32,
    },
    /// It is some other file.
    #[error("{path} is not a ledger of hyperhive: move it away, or name another state folder")]
    NotALedger {
        /// The file.
        path: Utf8PathBuf,
    },
    /// It is damaged.
    #[error(
        "the ledger {path} is damaged ({detail}). Nothing was changed, and agents that run go on. Rebuild it with `hive \
         recover --state {}`; or move it, {path}-wal and {path}-shm aside, put a copy in its place (your backup, or the \
         newest {path}.before-v*), and start the daemon again",
        super::open::folder(path)
    )]
    Corrupt {
        /// The ledger.
        path: Utf8PathBuf,
        /// What SQLite found.
        detail: String,
    },
    /// The upgrade of its tables failed and was undone.
    #[error("the ledger {path} cannot be upgraded to version {version}; it is as it was")]
    Upgrade {
        /// The ledger.
        path: Utf8PathBuf,
        /// The version.
        version: u32,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// SQLite refused.
    #[error("the ledger {path} cannot be opened")]
    Sqlite {
        /// The ledger.
        path: Utf8PathBuf,
        /// Its error.
        #[source]
        source: rusqlite::Error,
    },
    /// It lacks what every ledger has.
    #[error("the ledger {path} cannot be used")]
    Ledger {
        /// The ledger.
        path: Utf8PathBuf,
        /// What is wrong.
        #[source]
        source: LedgerError,
    },
}
