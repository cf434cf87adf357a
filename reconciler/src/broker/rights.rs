//! Who may do what about what others have open. Looked up in the transaction that does it.

use rusqlite::Connection;
use shared::{Address, AgentName};

use crate::ledger::{LedgerError, Tx, managers};

/// Whoever asks, with what the ledger says about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Party {
    /// Who.
    pub(super) who: Address,
    /// Whether it may take back what is others': the operator may, and managers.
    pub(super) over_all: bool,
}

impl Party {
    pub(super) fn of(tx: &Tx<'_>, who: &Address) -> Result<Self, LedgerError> {
        let over_all = match who {
            Address::Operator | Address::System => true,
            Address::Agent(name) => is_manager(tx, name)?,
        };
        Ok(Self {
            who: who.clone(),
            over_all,
        })
    }

    /// Whether it may take back what is this one's.
    pub(super) fn may_end(&self, owner: &Address) -> bool {
        self.over_all || self.who == *owner
    }
}

/// Whether this agent is a manager by what is deployed.
pub(super) fn is_manager(db: &Connection, name: &AgentName) -> Result<bool, LedgerError> {
    Ok(managers(db)?.contains(name))
}
