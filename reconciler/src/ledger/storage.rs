//! Whether what the ledger is stored on still takes writes, and what is to be done when it does not.

use rusqlite::ErrorCode;
use tokio::sync::watch;

use super::error::{BeginError, DecideError, LedgerError};
use super::sql::execute;
use super::{Ledger, Signals};

/// What is wrong with the storage below the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its file system is full, or a quota is used up.
    Full,
    /// Its file system takes no writes.
    ReadOnly,
    /// The disk failed.
    Failing,
    /// What is in the file is no ledger any more.
    Damaged,
}

impl Fault {
    /// What is wrong, as the end of a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "the disk is full",
            Self::ReadOnly => "the file system is read-only",
            Self::Failing => "the disk failed",
            Self::Damaged => "the file is damaged",
        }
    }

    /// What the operator does about it.
    pub fn cure(self) -> &'static str {
        match self {
            Self::Full => "free space there; it goes on by itself",
            Self::ReadOnly => {
                "see why in the kernel's log (dmesg), and make the file system writable; it goes on by itself"
            }
            Self::Failing => "see the kernel's log (dmesg); it goes on by itself when the disk does",
            Self::Damaged => "stop the daemon and run `hive recover`; agents that run go on meanwhile",
        }
    }
}

/// The ledger takes no writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What is wrong.
    pub fault: Fault,
    /// How often that was met since. A write that met it changed nothing.
    pub refused: u64,
}

impl LedgerError {
    /// What is wrong with the storage, when that is the reason.
    pub fn fault(&self) -> Option<Fault> {
        let error = match self {
            Self::Sqlite(error) => error,
            Self::Undone(error) => error.as_ref(),
            _ => return None,
        };
        match error.sqlite_error_code()? {
            ErrorCode::DiskFull => Some(Fault::Full),
            ErrorCode::ReadOnly => Some(Fault::ReadOnly),
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen => Some(Fault::Failing),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Some(Fault::Damaged),
            _ => None,
        }
    }
}

/// What a transaction can fail with: among other things with the ledger itself.
pub(crate) trait TxError: From<LedgerError> + Send + 'static {
    /// The failure of the ledger, when it is one.
    fn ledger(&self) -> Option<&LedgerError>;
}

impl TxError for LedgerError {
    fn ledger(&self) -> Option<&LedgerError> {
        Some(self)
    }
}

impl TxError for DecideError {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Self::Ledger(error) => Some(error),
            Self::NotFound(_) | Self::NotOpen { .. } | Self::Moved { .. } => None,
        }
    }
}

impl TxError for BeginError {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Self::Ledger(error) => Some(error),
            Self::NotAuthorised { .. } => None,
        }
    }
}

impl Signals {
    /// Takes note of a fault that an access met.
    pub(super) fn met(&self, fault: Fault) {
        self.trouble.send_modify(|trouble| match trouble {
            Some(known) => {
                known.refused = known.refused.saturating_add(1);
                // What is damaged stays damaged, whatever fails besides.
                if known.fault != Fault::Damaged {
                    known.fault = fault;
                }
            }
            None => *trouble = Some(Trouble { fault, refused: 1 }),
        });
    }
}

impl Ledger {
    /// Why the ledger takes no writes, as long as it takes none.
    pub fn trouble(&self) -> Option<Trouble> {
        self.signals.trouble.borrow().clone()
    }

    /// [`Self::trouble`], whenever it changes.
    pub(crate) fn watch_trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.signals.trouble.subscribe()
    }

    /// Tries a write that changes nothing; when it works, the trouble is over. That a write worked meanwhile does not
    /// say so: a full disk may still have room for a small one.
    pub(crate) async fn recovered(&self) -> Result<(), LedgerError> {
        self.write(|tx| execute(tx, "UPDATE meta SET value = value WHERE key = 'epoch'", []).map(drop))
            .await?;
        self.signals.trouble.send_replace(None);
        Ok(())
    }
}
