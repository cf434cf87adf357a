//! Who may do what about what others have open. Looked up in the transaction that does it.

use rusqlite::Connection;
use shared::{Address, AgentName};

use crate::ledger::{LedgerError, Tx, correspondence, managers, messages};

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

/// Whether an agent may write to somebody: its allow-list, any manager, and whoever asked it what it answers. What is
/// deployed decides; without a deployment nobody has allowed anything yet. The operator and the daemon write to all.
pub(super) fn may_write(
    db: &Connection,
    from: &Address,
    to: &Address,
    reply_to: Option<u64>,
) -> Result<bool, LedgerError> {
    let Address::Agent(from) = from else {
        return Ok(true);
    };
    let listed = match correspondence(db, from)? {
        Some(deployed) => deployed.recipients.is_none_or(|listed| listed.contains(to)),
        None => false,
    };
    if listed {
        return Ok(true);
    }
    if let Address::Agent(to) = to
        && correspondence(db, to)?.is_some_and(|deployed| deployed.manager)
    {
        return Ok(true);
    }
    match reply_to {
        Some(id) => Ok(messages::asker(db, from, id)?.as_ref() == Some(to)),
        None => Ok(false),
    }
}

/// Whether this agent is a manager by what is deployed.
pub(super) fn is_manager(db: &Connection, name: &AgentName) -> Result<bool, LedgerError> {
    Ok(managers(db)?.contains(name))
}
