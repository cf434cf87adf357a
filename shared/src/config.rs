//! An agent's configuration in its two forms: the overlay a commit holds, and the rendered file the harness loads.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{AgentUid, CommitOid, Digest};
use crate::name::{Address, AgentName, ServerName};
use crate::spec::{DriverSpec, McpServerSpec, Network, OperatorSpec, Role, ToolsSpec};

/// The name of the overlay in a config repo of the plain builder.
pub const OVERLAY_FILE: &str = "agent.json";

/// The name under which an agent sees the harness's own MCP server; no other may have it.
pub const OWN_MCP_SERVER: &str = "hive";

/// `agent.json` in a config repo: what the agent wants different from its spec. Strict; written by the agent, hence
/// untrusted. Maps merge by key (`null` removes an entry), everything else replaces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Overlay {
    /// The standing instructions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What runs the turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverSpec>,
    /// MCP servers to add, change, or (`null`) remove.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mcp_servers: BTreeMap<ServerName, Option<McpServerSpec>>,
    /// The built-in tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<ToolsSpec>,
    /// The allow-list of recipients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<BTreeSet<Address>>,
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// What the harness loads from `config/agent.json`. Its digest is the identity that a reload changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentConfig {
    /// The agent.
    pub agent: AgentName,
    /// Its uid.
    pub uid: AgentUid,
    /// The hive's name.
    pub hive: String,
    /// The human.
    #[serde(default)]
    pub operator: OperatorSpec,
    /// What it is in the hive.
    #[serde(default)]
    pub role: Role,
    /// The standing instructions.
    #[serde(default)]
    pub prompt: String,
    /// What runs the turns.
    pub driver: DriverSpec,
    /// MCP servers.
    #[serde(default)]
    pub mcp_servers: BTreeMap<ServerName, McpServerSpec>,
    /// Built-in tools.
    #[serde(default)]
    pub tools: ToolsSpec,
    /// Whom it may write to; absent: everybody.
    #[serde(default)]
    pub recipients: Option<BTreeSet<Address>>,
    /// The longest turn, in minutes.
    pub max_turn_minutes: u32,
    /// The model provider's address, unless it is the one that the driver's program knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_url: Option<String>,
    /// How it gets out where it has loopback alone; absent: not at all, or over the host's own network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressConfig>,
    /// Environment variables of the driver's program that hold a secret: variable name to secret name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_env: BTreeMap<String, String>,
    /// The commit this was rendered from.
    pub commit: CommitOid,
}

/// The way out through the sockets of the egress service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EgressConfig {
    /// The model gateway puts the provider's key in: the driver's program needs none, and no login.
    #[serde(default)]
    pub provides_key: bool,
}

/// The file `config/agent.json` as written: the config and its digest, so that the harness can say what it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigFile {
    /// The digest of `config`.
    pub digest: Digest,
    /// The config.
    pub config: AgentConfig,
}
