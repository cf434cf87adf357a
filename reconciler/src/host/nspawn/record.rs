//! What the launcher, which is root, notes about an agent's run: the daemon can read it, and nobody else can write it.
//!
//! ```text
//! /run/hyperhive-launch/NAME.json         what runs, or ran last since the machine came up
//! /run/hyperhive-launch/NAME.error.json   why the launcher did not become the container
//! /run/hyperhive-launch/NAME.end.json     how the run that ended last ended
//! ```

use camino::{Utf8Path, Utf8PathBuf};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::{AgentName, Digest};

use crate::host::HostError;
use crate::host::folders::read_bounded;
use crate::model::user_range::UserRange;

/// Where the records lie: a folder of root's that goes with a reboot.
pub(super) const FOLDER: &str = "/run/hyperhive-launch";
/// A record is small.
const MAX: u64 = 64 * 1024;

/// A run of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LaunchRecord {
    /// systemd's id of the run, 32 hex digits.
    pub(super) invocation: String,
    /// What it was started from.
    pub(super) toplevel: Digest,
    /// Its user ids.
    pub(super) range: UserRange,
}

/// Why a run did not begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LaunchFailure {
    /// systemd's id of the run.
    pub(super) invocation: String,
    /// The reason.
    pub(super) message: String,
    /// The launch is at fault: trying again is vain.
    pub(super) refused: bool,
}

/// How a run ended, written by what cleans up after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndRecord {
    /// systemd's id of the run.
    pub(super) invocation: String,
    /// How many of its processes the kernel had killed for want of memory.
    pub(super) oom_kills: u64,
}

pub(super) fn record_file(folder: &Utf8Path, agent: &AgentName) -> Utf8PathBuf {
    folder.join(format!("{agent}.json"))
}

pub(super) fn failure_file(folder: &Utf8Path, agent: &AgentName) -> Utf8PathBuf {
    // No agent's name has a dot.
    folder.join(format!("{agent}.error.json"))
}

pub(super) fn end_file(folder: &Utf8Path, agent: &AgentName) -> Utf8PathBuf {
    folder.join(format!("{agent}.end.json"))
}

/// Reads a record; one that is missing or broken counts as none.
///
/// # Errors
/// When it is there and cannot be read.
pub(super) fn read<T: DeserializeOwned>(path: &Utf8Path) -> Result<Option<T>, HostError> {
    Ok(read_bounded(path, MAX)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
