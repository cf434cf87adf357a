//! What the checks look at.

use std::collections::BTreeSet;

use camino::Utf8PathBuf;
use jiff::Timestamp;
use shared::status::HiveStatus;
use shared::{AgentName, AgentUid};

use super::containers::Containers;
use super::egress::Egress;
use super::nix::Nix;
use crate::model::inventory::Known;

/// A folder, as the file system has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    /// Where.
    pub path: Utf8PathBuf,
    /// The user it belongs to; absent: there is no such folder.
    pub owner: Option<u32>,
    /// Its permissions: the mode without the kind of file.
    pub mode: u32,
    /// The name of its file system's type.
    pub file_system: String,
    /// It cannot be written.
    pub read_only: bool,
    /// Free space, in bytes.
    pub free_bytes: u64,
    /// How many more files fit; absent: the file system does not count them.
    pub free_files: Option<u64>,
}

impl Folder {
    /// Whether it is on a file system that another machine or program keeps.
    pub fn is_remote(&self) -> bool {
        matches!(self.file_system.as_str(), "nfs" | "cifs" | "smb2" | "9p" | "fuse")
    }
}

/// The ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerFacts {
    /// Its size, in bytes.
    pub size: u64,
    /// What is wrong with it; absent: nothing.
    pub damage: Option<String>,
    /// There is none.
    pub missing: bool,
    /// A recovery was interrupted.
    pub interrupted: bool,
    /// Its newest event.
    pub newest: Option<Timestamp>,
    /// The agents that have a name now.
    pub live: BTreeSet<AgentName>,
    /// All agents it ever knew.
    pub known: BTreeSet<AgentUid>,
}

/// What lies in the state folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// In `agents/`.
    pub agents: Vec<String>,
    /// In `repos/`.
    pub repos: Vec<String>,
    /// In `archive/`.
    pub archive: Vec<String>,
    /// In `incoming/`.
    pub incoming: Vec<String>,
    /// In `systems/`.
    pub systems: usize,
    /// Agents that run, by name, with their process.
    pub running: Vec<(AgentName, i32)>,
}

/// Everything the checks look at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Now.
    pub now: Timestamp,
    /// Who asks.
    pub user: u32,
    /// What `git` says of itself.
    pub git: Known<String>,
    /// What `hive-harness` says of itself.
    pub harness: Known<String>,
    /// The sandbox program, tried out.
    pub sandbox: Known<String>,
    /// Whether the kernel has process handles.
    pub pidfd: Known<()>,
    /// Whether one more folder can be watched.
    pub inotify: Known<()>,
    /// The state folder.
    pub state: Known<Folder>,
    /// The run folder.
    pub run: Known<Folder>,
    /// The longest socket path that an agent or the operator needs, in bytes.
    pub socket_path: usize,
    /// The process that has the state folder's lock.
    pub holder: Known<Option<String>>,
    /// The ledger.
    pub ledger: Known<LedgerFacts>,
    /// How many agents the spec declares, and its faults.
    pub spec: Known<(usize, Vec<String>)>,
    /// Each secret file that the spec names, with its mode, or what is wrong with it.
    pub secrets: Vec<(String, Known<u32>)>,
    /// Each config repo, and whether it is whole; an error: why they were not looked at.
    pub repos: Known<Vec<(AgentName, Known<()>)>>,
    /// What lies in the state folder.
    pub entries: Known<Entries>,
    /// What containers need; absent where agents run as processes.
    pub containers: Option<Containers>,
    /// What the way out needs; absent where no agent has one.
    pub egress: Option<Egress>,
    /// What building with Nix needs; absent where nothing is built with it.
    pub nix: Option<Nix>,
    /// What the daemon says.
    pub daemon: Known<Box<HiveStatus>>,
    /// The version of this program.
    pub version: &'static str,
}
