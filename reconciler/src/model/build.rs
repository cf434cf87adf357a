//! What goes into a build and what comes out of it.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};
use shared::config::AgentConfig;
use shared::spec::{AgentSpec, ConfigField, OperatorSpec};
use shared::status::Origin;
use shared::{AgentName, AgentUid, CommitOid, Digest};

use crate::host::Launch;

/// A field of the overlay may go beyond the spec's ceiling as long as the spec's own value has this digest.
pub type Grants = BTreeMap<ConfigField, Digest>;

/// Everything a system is made from. Its digest is the key under which the outcome is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildRequest {
    /// The agent.
    pub agent: AgentName,
    /// Its uid.
    pub uid: AgentUid,
    /// The hive's name.
    pub hive: String,
    /// The human.
    pub operator: OperatorSpec,
    /// The commit of the config repo.
    pub commit: CommitOid,
    /// The agent as declared.
    pub spec: AgentSpec,
    /// The harness program.
    pub harness: Utf8PathBuf,
    /// What the overlay may do beyond the ceiling.
    pub grants: GrantMode,
}

/// What the overlay may do beyond the ceiling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GrantMode {
    /// What earlier gates granted; everything else lapses.
    Granted(Grants),
    /// Everything: the outcome is what a gate asks for.
    Asked,
}

/// A built system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildOutput {
    /// The realised system: an absolute path.
    pub system: String,
    /// The commit it was built from.
    pub commit: CommitOid,
    /// The digest of `launch`.
    pub toplevel: Digest,
    /// What the agent is started from.
    pub launch: Launch,
    /// The digest of `config`.
    pub config_digest: Digest,
    /// What the harness loads.
    pub config: AgentConfig,
    /// Where each value comes from.
    pub origins: BTreeMap<ConfigField, Origin>,
    /// The overlay fields in force that go beyond the ceiling, with the digest of the spec's value.
    pub grants: Grants,
    /// Host-side permissions that are not part of `config` or `launch`, for the capability diff.
    pub host_side: HostSide,
}

/// What an agent is given besides its config and launch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostSide {
    /// Hosts it may reach.
    pub egress: BTreeSet<String>,
    /// Secrets as `name@version`.
    pub secrets: BTreeSet<String>,
}
