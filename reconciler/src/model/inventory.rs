//! What was observed of one agent. An error means unknown, and unknown is never absent.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::CommitOid;

use crate::host::{FolderState, HarnessState, RepoState, UnitState};

/// A fact, or why it is not known.
pub type Known<T> = Result<T, String>;

/// One agent as observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentInventory {
    /// When the observation began: it is older than any write that came after.
    pub collected_at: Timestamp,
    /// The container.
    pub unit: Known<UnitState>,
    /// The config repo; `None`: there is none.
    pub repo: Known<Option<RepoState>>,
    /// Whether the commits of open proposals descend from where `main` belongs.
    pub descends: Known<BTreeMap<CommitOid, bool>>,
    /// The folders.
    pub folders: Known<FolderState>,
    /// Whether the systems the ledger knows are there.
    pub systems: Known<BTreeMap<String, bool>>,
    /// The harness's last report of this run; `None`: it has not reported yet.
    pub harness: Option<HarnessState>,
}
