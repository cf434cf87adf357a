//! Whether a ledger is lost: a daemon that found none would make an empty one, and forget every agent.

use camino::Utf8PathBuf;

use crate::host::layout::Layout;
use crate::host::{HostError, remains};
use crate::ledger::{self, OpenError};

/// The ledger is gone, but what it knew of is not.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// There is none.
    #[error(
        "the ledger {ledger} is gone, but agents it must have known are still in {state}: put it back from a backup, \
         or rebuild it with `hive recover --state {state}`; to begin a new hive instead, move {state} away"
    )]
    Gone {
        /// Where it should be.
        ledger: Utf8PathBuf,
        /// The state folder.
        state: Utf8PathBuf,
    },
    /// A recovery stopped just before its end.
    #[error(
        "a recovery of the ledger {ledger} was interrupted: finish it with `hive recover --state {state}`"
    )]
    Interrupted {
        /// The ledger.
        ledger: Utf8PathBuf,
        /// The state folder.
        state: Utf8PathBuf,
    },
    /// The folder cannot be looked at.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The ledger cannot be looked at.
    #[error(transparent)]
    Open(#[from] Box<OpenError>),
}

/// Makes sure that a ledger that is not there never was. Blocks shortly.
///
/// # Errors
/// When it is lost.
pub fn check(layout: &Layout) -> Result<(), Lost> {
    let (ledger, state) = (layout.ledger(), layout.state().to_owned());
    if ledger::interrupted(&ledger).map_err(Box::new)?.is_some() {
        return Err(Lost::Interrupted { ledger, state });
    }
    if ledger::is_missing(&ledger).map_err(Box::new)? && remains::any(layout)? {
        return Err(Lost::Gone { ledger, state });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_is_gone_beside_what_it_knew_is_lost() {
        let keep = tempfile::tempdir().expect("a folder");
        let root = Utf8PathBuf::from_path_buf(keep.path().to_owned()).expect("UTF-8");
        let layout = Layout::new(root.join("state"), root.join("run"));
        std::fs::create_dir_all(layout.repos()).expect("folders");
        check(&layout).expect("a hive that never was is no loss");
        let alice = "alice".parse().expect("a name");
        std::fs::create_dir_all(layout.repo(&alice)).expect("a repo");
        let lost = check(&layout).expect_err("it is lost");
        assert!(lost.to_string().contains("hive recover"), "{lost}");
    }
}
