//! The spec: what the operator declared. One JSON document, version 1, camelCase, strict.
//!
//! The NixOS module renders it, `hive spec schema` prints its JSON Schema, `hive spec check FILE` names every fault
//! in a file. Everything but `version` and `hive.name` has a default. No type here may be internally tagged, untagged
//! or flattened: those lose the path of a fault.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(feature = "schema")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gate::{GateClass, Verdict};
use crate::name::{Address, AgentName, ServerName};

/// A whole hive as declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// The version of this document's format; always 1.
    #[cfg_attr(feature = "schema", schemars(extend("const" = 1)))]
    pub version: u32,
    /// What the hive is called.
    pub hive: HiveSpec,
    /// The human.
    #[serde(default)]
    pub operator: OperatorSpec,
    /// How agents run.
    #[serde(default)]
    pub runtime: RuntimeSpec,
    /// How config repos become systems.
    #[serde(default)]
    pub builder: BuilderSpec,
    /// Which classes of steps ask, by who asked for the step.
    #[serde(default)]
    pub policy: PolicySpec,
    /// The web UI.
    #[serde(default)]
    pub web: WebSpec,
    /// Where config repos are mirrored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forge: Option<ForgeSpec>,
    /// The egress service shared by all agents.
    #[serde(default)]
    pub egress: EgressSpec,
    /// Absolute path of the harness program; by default the one beside the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness: Option<String>,
    /// The programs that drivers run.
    #[serde(default, skip_serializing_if = "ProgramsSpec::is_empty")]
    pub programs: ProgramsSpec,
    /// Settings of agents that a spawn proposal creates.
    #[serde(default)]
    pub spawn_defaults: AgentSpec,
    /// The most agents this hive may hold, spawned ones included.
    #[serde(default = "default_max_agents")]
    pub max_agents: u32,
    /// The agents, by name.
    #[serde(default)]
    pub agents: BTreeMap<AgentName, AgentSpec>,
}

fn default_max_agents() -> u32 {
    64
}

/// The hive itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HiveSpec {
    /// A name for people, 1 to 64 characters.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub name: String,
    /// What all agents together may spend.
    #[serde(default, skip_serializing_if = "DayBudgetSpec::is_unlimited")]
    pub budget: DayBudgetSpec,
}

/// How agents speak of the human.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperatorSpec {
    /// The name agents use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Pronouns, as in `they/them`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pronouns: Option<String>,
}

/// The kinds of runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum RuntimeKind {
    /// The harness as a child process tree in a `bwrap` sandbox. Any Linux machine.
    #[default]
    Process,
    /// A `systemd-nspawn` container under the unit `hyperhive-agent@.service`.
    Nspawn,
}

impl std::fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Nspawn => "nspawn",
        })
    }
}

/// How agents run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeSpec {
    /// The kind.
    #[serde(default)]
    pub kind: RuntimeKind,
    /// Allows drivers other than `scripted` where no sandbox works. Without a sandbox an agent can approve itself;
    /// status shows the hive as degraded.
    #[serde(default)]
    pub unsafe_no_sandbox: bool,
}

/// The kinds of builder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum BuilderKind {
    /// A content-addressed copy of the repo's tree with a rendered `agent.json`.
    #[default]
    Plain,
    /// A NixOS system per agent.
    Nix,
}

impl std::fmt::Display for BuilderKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Nix => "nix",
        })
    }
}

/// How config repos become systems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuilderSpec {
    /// The kind.
    #[serde(default)]
    pub kind: BuilderKind,
    /// The host's nixpkgs source (nix builder).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nixpkgs: Option<String>,
    /// The guest module (nix builder).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_module: Option<String>,
    /// Builds that may run at once, 1 to 64.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 64)))]
    #[serde(default = "default_max_builds")]
    pub max_builds: u32,
    /// What agents' modules find in `inputs`, by name: absolute paths of flakes or of anything else (nix builder).
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// Hosts that builds may fetch from (nix builder). What the store has or its caches give needs none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<String>,
}

fn default_max_builds() -> u32 {
    2
}

impl Default for BuilderSpec {
    fn default() -> Self {
        Self {
            kind: BuilderKind::default(),
            nixpkgs: None,
            guest_module: None,
            max_builds: default_max_builds(),
            inputs: BTreeMap::new(),
            hosts: BTreeSet::new(),
        }
    }
}

/// The operator's changes to the default policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySpec {
    /// For steps that follow from the spec.
    #[serde(default)]
    pub spec: BTreeMap<GateClass, Verdict>,
    /// For steps that an agent asked for.
    #[serde(default)]
    pub agent: BTreeMap<GateClass, Verdict>,
}

/// The web UI.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebSpec {
    /// Address and port, as in `127.0.0.1:7420`. Absent: no web UI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Host names under which the UI may be asked for, besides loopback.
    #[serde(default)]
    pub hosts: BTreeSet<String>,
    /// Login by a header of a trusted proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_auth: Option<ProxyAuthSpec>,
}

/// Login by a header of a trusted proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyAuthSpec {
    /// The header that names the user.
    pub header: String,
    /// Addresses from which that header is believed.
    pub trusted: BTreeSet<String>,
    /// Users that may act as the operator.
    pub users: BTreeSet<String>,
}

/// The kinds of forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum ForgeKind {
    /// Any git remote.
    Git,
    /// A Forgejo server, whose repositories the daemon creates.
    Forgejo,
}

/// Where config repos are mirrored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForgeSpec {
    /// The kind.
    pub kind: ForgeKind,
    /// The address; `{agent}` stands for the agent's name.
    pub url: String,
    /// A file that holds the token (Forgejo).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
}

/// The programs that drivers run, each an absolute path on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProgramsSpec {
    /// Claude Code, a program that needs no other file beside it; by default `claude` in the agent's own search path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude: Option<String>,
}

impl ProgramsSpec {
    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The egress service shared by all agents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressSpec {
    /// The model provider's address, as in `https://api.example.com`; by default the one the driver's program knows.
    /// Agents with `network` `host` go there themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_url: Option<String>,
    /// A file that holds the key which the gateway injects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<String>,
}

/// What an agent is in the hive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// An ordinary agent.
    #[default]
    Worker,
    /// May ask for lifecycle steps on other agents.
    Manager,
}

/// Whether an agent should run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum RunState {
    /// Running, and taking turns.
    #[default]
    Running,
    /// Running, but taking no turns.
    Paused,
    /// Not running.
    Stopped,
}

/// What reaches an agent over the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Network {
    /// Loopback only.
    None,
    /// Loopback, and the model gateway.
    #[default]
    Model,
    /// Loopback, the model gateway, and the hosts in `egress`.
    Hosts,
    /// The host's own network.
    Host,
}

/// When a step that interrupts the agent may happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Drain {
    /// Between two turns, or when the deadline for that has passed.
    #[default]
    TurnBoundary,
    /// At once.
    Immediate,
}

/// One agent as declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentSpec {
    /// What the agent is in the hive.
    #[serde(default)]
    pub role: Role,
    /// Whether it should run.
    #[serde(default)]
    pub run: RunState,
    /// What runs its turns.
    #[serde(default)]
    pub driver: DriverSpec,
    /// The standing instructions.
    #[serde(default)]
    pub prompt: String,
    /// MCP servers, by the name the agent sees.
    #[serde(default)]
    pub mcp_servers: BTreeMap<ServerName, McpServerSpec>,
    /// Built-in tools.
    #[serde(default)]
    pub tools: ToolsSpec,
    /// Whom it may write to; the manager and replies to a question are always allowed. Absent: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<BTreeSet<Address>>,
    /// Host folders in the container.
    #[serde(default)]
    pub binds: Vec<BindSpec>,
    /// Limits on resources.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// What reaches it over the network.
    #[serde(default)]
    pub network: Network,
    /// Hosts it may reach when `network` is `hosts`.
    #[serde(default)]
    pub egress: BTreeSet<String>,
    /// When a step that interrupts it may happen.
    #[serde(default)]
    pub drain: Drain,
    /// What it may spend.
    #[serde(default)]
    pub budget: BudgetSpec,
    /// The longest turn, in minutes (1 to 1440).
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1440)))]
    #[serde(default = "default_max_turn_minutes")]
    pub max_turn_minutes: u32,
    /// Secrets, by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSpec>,
    /// Environment variables that hold a secret: variable name to secret name.
    #[serde(default)]
    pub secret_env: BTreeMap<String, String>,
    /// Fields of this agent that a commit to its config repo cannot change.
    #[serde(default)]
    pub locked: BTreeSet<ConfigField>,
    /// A prebuilt system (nix builder).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Guest modules of the operator (nix builder).
    #[serde(default)]
    pub modules: Vec<String>,
}

fn default_max_turn_minutes() -> u32 {
    60
}

/// What `{}` means in a spec.
impl Default for AgentSpec {
    fn default() -> Self {
        Self {
            role: Role::default(),
            run: RunState::default(),
            driver: DriverSpec::default(),
            prompt: String::new(),
            mcp_servers: BTreeMap::new(),
            tools: ToolsSpec::default(),
            recipients: None,
            binds: Vec::new(),
            limits: LimitsSpec::default(),
            network: Network::default(),
            egress: BTreeSet::new(),
            drain: Drain::default(),
            budget: BudgetSpec::default(),
            max_turn_minutes: default_max_turn_minutes(),
            secrets: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            locked: BTreeSet::new(),
            system: None,
            modules: Vec::new(),
        }
    }
}

/// The fields a commit to the config repo may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum ConfigField {
    /// The standing instructions.
    Prompt,
    /// What runs the turns.
    Driver,
    /// The MCP servers.
    McpServers,
    /// The built-in tools.
    Tools,
    /// The allow-list of recipients.
    Recipients,
    /// The network.
    Network,
}

impl ConfigField {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Prompt,
        Self::Driver,
        Self::McpServers,
        Self::Tools,
        Self::Recipients,
        Self::Network,
    ];

    /// The field as it is written in the spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Driver => "driver",
            Self::McpServers => "mcpServers",
            Self::Tools => "tools",
            Self::Recipients => "recipients",
            Self::Network => "network",
        }
    }
}

/// The kinds of driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum DriverKind {
    /// Claude Code.
    #[default]
    Claude,
    /// Any program that speaks the Agent Client Protocol.
    Acp,
    /// A list of rules: on which message do what. For demos and tests; it calls no model.
    Scripted,
}

/// What runs an agent's turns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DriverSpec {
    /// The kind.
    #[serde(default)]
    pub kind: DriverKind,
    /// The model, in the driver's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The program of the `acp` driver: an absolute path in the agent's system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The rules of the `scripted` driver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub script: Vec<ScriptRule>,
}

/// One rule of the `scripted` driver: the first rule whose `on` is part of the message's body is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptRule {
    /// Part of a message's body; an empty text fits every message.
    pub on: String,
    /// What to do, in order.
    #[serde(rename = "do")]
    pub actions: Vec<ScriptAction>,
}

/// One action of the `scripted` driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ScriptAction {
    /// Answer the sender with this body.
    Reply(String),
    /// Send a message.
    Send(ScriptSend),
    /// Ask the operator a question.
    Ask(String),
    /// Commit a change to its own config and propose it.
    Propose(ScriptPropose),
    /// Take this long over the turn, in milliseconds.
    Sleep(u64),
    /// Use this many tokens more, as if a model had.
    Use(u64),
    /// End the harness with this exit status.
    Crash(u8),
    /// Never end the turn.
    Hang(bool),
}

/// A message the `scripted` driver sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptSend {
    /// To whom.
    pub to: Address,
    /// The text.
    pub body: String,
}

/// A proposal the `scripted` driver makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptPropose {
    /// The commit's title.
    pub title: String,
    /// Why, for the operator.
    #[serde(default)]
    pub reason: String,
    /// Fields to set in `agent.json`; anything JSON, so that bad proposals can be tried too.
    pub set: BTreeMap<String, serde_json::Value>,
}

/// One MCP server: either `command` (stdio) or `url` (HTTP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct McpServerSpec {
    /// The program, for a stdio server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The address, for an HTTP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// HTTP headers whose values are secrets: header name to secret name.
    #[serde(default)]
    pub secret_headers: BTreeMap<String, String>,
    /// The tools the agent may use; `*` means all.
    #[serde(default = "all_tools")]
    pub allowed_tools: BTreeSet<String>,
}

fn all_tools() -> BTreeSet<String> {
    BTreeSet::from(["*".to_owned()])
}

/// What `{}` means in a spec.
impl Default for McpServerSpec {
    fn default() -> Self {
        Self {
            command: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            url: None,
            secret_headers: BTreeMap::new(),
            allowed_tools: all_tools(),
        }
    }
}

/// Built-in tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolsSpec {
    /// Which exist at all. Command patterns such as `Bash(git *)` are a guard rail, not a boundary.
    #[serde(default)]
    pub allow: BTreeSet<String>,
    /// Which are refused even so.
    #[serde(default)]
    pub deny: BTreeSet<String>,
}

/// A host folder in the container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindSpec {
    /// The folder on the host.
    pub source: String,
    /// Where the agent sees it.
    pub target: String,
    /// Whether it is read-only.
    #[serde(default = "yes")]
    pub read_only: bool,
}

fn yes() -> bool {
    true
}

/// Limits on resources, in systemd's notation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsSpec {
    /// CPU time, as in `200%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Memory, as in `4G`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

/// What an agent may spend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BudgetSpec {
    /// US dollars a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_day: Option<f64>,
    /// Tokens a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// Turns that begin a day, however they end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns_per_day: Option<u64>,
    /// US dollars a turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_turn: Option<f64>,
    /// Tokens a turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_turn: Option<u64>,
}

/// What all agents together may spend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DayBudgetSpec {
    /// US dollars a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_day: Option<f64>,
    /// Tokens a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// Turns that begin a day, however they end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns_per_day: Option<u64>,
}

impl DayBudgetSpec {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// A secret: a file on the host, whose content the agent gets as a file of its own when it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretSpec {
    /// The file.
    pub file: String,
    /// Any text that is changed with the content: a change restarts the agent, which then has the new content.
    #[serde(default)]
    pub version: String,
}
