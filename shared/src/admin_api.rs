//! The admin API: what the command line and the web UI say to the daemon.
//!
//! HTTP/1.1 and JSON on `admin.sock`, whose folder and mode admit root and the group `hyperhive` alone. Who decides
//! is taken from the socket's peer, never from a body. Errors are a [`crate::wire_error::WireError`].
//!
//! | Method and path | Request | Answer |
//! | --- | --- | --- |
//! | `GET /v1/status` | | [`crate::status::HiveStatus`] |
//! | `GET /v1/agents/{name}` | | [`crate::status::AgentStatus`] with config and origins |
//! | `GET /v1/agents/{name}/config` | | [`crate::look::ConfigInfo`] |
//! | `GET /v1/agents/{name}/logs[?lines=&events=]` | | [`crate::look::AgentLog`] |
//! | `GET /v1/plan[?agent=]` | | a list of [`crate::plan::PlanView`] |
//! | `GET /v1/diff[?agent=]` | | a list of [`DiffEntry`] |
//! | `GET /v1/explain/{object}` | | [`Explanation`]; an object is an agent's name, `gate/N` or `hive` |
//! | `GET /v1/export` | | everything plans are made from: a document for `hive replay`, without messages |
//! | `GET /v1/gates[?all=true]` | | a list of [`crate::gate::Gate`], open and approved ones unless `all` |
//! | `GET /v1/gates/{id}` | | [`crate::gate::Gate`] |
//! | `POST /v1/gates/{id}/decision` | [`DecisionRequest`] | [`crate::gate::Gate`]; 409 when the digest moved |
//! | `GET /v1/history[?agent=&limit=]` | | a list of [`HistoryEntry`], newest first |
//! | `GET /v1/events[?after=SEQ&follow=true&limit=]` | | [`EventPage`], or SSE when `follow`; `Last-Event-ID` is honoured |
//! | `POST /v1/agents/{name}/start`, `…/stop`, `…/pause`, `…/restart`, `…/rebuild` | [`OverrideRequest`] | [`Acknowledged`] |
//! | `POST /v1/agents/{name}/suspend`, `…/resume`, `…/retry` | [`OverrideRequest`] | [`Acknowledged`] |
//! | `POST /v1/agents/{name}/model` | [`ModelRequest`] | [`Acknowledged`] |
//! | `POST /v1/agents/{name}/destroy` | [`DestroyRequest`] | [`Acknowledged`] |
//! | `POST /v1/agents/{name}/restore` | [`RestoreRequest`] | [`Acknowledged`] |
//! | `POST /v1/agents/{name}/rollback` | [`RollbackRequest`] | [`Acknowledged`] |
//! | `GET /v1/archive` | | a list of [`ArchivedAgent`], by name |
//! | `/v1/spawn`, `/v1/drafts…` | as in [`crate::agent_api`] | as there, for the drafts of all |
//! | `POST /v1/agents/{name}/messages` | [`OperatorMessage`] | [`crate::agent_api::SendResponse`] |
//! | `GET /v1/messages[?agent=&from=&to=&state=&text=&before=&limit=]` | | a list of [`crate::agent_api::SentMessage`], newest first |
//! | `POST /v1/messages/{id}/requeue` | | [`crate::agent_api::SentMessage`]: one that was given up, queued again |
//! | `/v1/questions…` | as in [`crate::agent_api`] | as there, for the questions of all; the operator asks, answers and takes back any |
//! | `/v1/loose-ends…` | as in [`crate::agent_api`] | as there, for those of all |
//! | `POST /v1/agents/{name}/login` | | [`crate::login::LoginState`] |
//! | `GET /v1/agents/{name}/login` | | [`crate::login::LoginState`] |
//! | `POST /v1/agents/{name}/login/code` | [`crate::login::LoginAnswer`] | [`crate::login::LoginState`] |
//! | `GET /v1/turns[?agent=&before=ID&limit=]` | | a list of [`crate::turn::TurnInfo`], newest first |
//! | `GET /v1/turns/stats[?agent=&hours=&stepHours=]` | | a list of [`crate::turn::TurnSeries`], by agent |
//! | `GET /v1/agents/{name}/events[?after=N&follow=true&limit=]` | | [`crate::agent_event::AgentEventPage`], or SSE of [`crate::agent_event::StreamedEvent`] when `follow`; `Last-Event-ID` is honoured |
//! | `GET /v1/metrics` | | Prometheus' text format |
//! | `GET /v1/openapi.json` | | the OpenAPI document of this API, which says more than this table |

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::id::{AgentUid, Digest, GateId, ProposalNumber};
use crate::name::AgentName;
use crate::plan::Waiting;

/// The header that carries the event stream's epoch.
pub const EPOCH_HEADER: &str = "hive-epoch";

/// A decision about a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DecisionRequest {
    /// Whether to approve.
    pub approve: bool,
    /// The effect digest that was shown.
    pub digest: Digest,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// A fact that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DiffEntry {
    /// The agent; absent for the hive.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// Which fact: `toplevel`, `config`, `main`, `tag deployed/1`, `running`.
    pub fact: String,
    /// What is wanted.
    pub desired: String,
    /// What is there; absent: nothing, or unknown.
    #[serde(default)]
    pub observed: Option<String>,
    /// Whether the source could be read at all.
    pub known: bool,
}

/// Why something is as it is: a chain from the object to the root of its wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The object.
    pub object: String,
    /// From the object to the root cause: each is so because of the next.
    pub chain: Vec<Cause>,
    /// What it waits on; the chain follows the first.
    #[serde(default)]
    pub waiting: Vec<Waiting>,
    /// The last events that concern it, newest first.
    #[serde(default)]
    pub recent: Vec<Event>,
    /// The next commands to run.
    #[serde(default)]
    pub next: Vec<String>,
}

/// One link of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// A short sentence.
    pub text: String,
    /// Since when it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Until when it is so, at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// One line of history: a plan that was carried out, or a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// When.
    pub at: Timestamp,
    /// The agent; absent for the hive.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// `plan`, `decision`, `proposal` or `spec`.
    pub kind: String,
    /// One generated line.
    pub summary: String,
    /// The plan's or effect's digest.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// The gate behind it.
    #[serde(default)]
    pub gate: Option<GateId>,
}

/// A page of the event stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EventPage {
    /// The stream's epoch.
    pub epoch: String,
    /// The newest event there is.
    pub last: u64,
    /// Oldest first.
    pub events: Vec<Event>,
}

/// An operator's override: start, stop, suspend and their opposites.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OverrideRequest {
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// When it ends by itself.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// Has an agent's turns run by another model than its config says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ModelRequest {
    /// The model, in the driver's own words; absent: what the config says.
    #[serde(default)]
    pub model: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// When it ends by itself.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// Removes an agent that the spec does not declare.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DestroyRequest {
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Keep nothing of it; a gate asks before anything is deleted.
    #[serde(default)]
    pub purge: bool,
    /// Which one, when the archive keeps several of that name.
    #[serde(default)]
    pub uid: Option<AgentUid>,
}

/// Brings an agent back from the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RestoreRequest {
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Which one, when the archive keeps several of that name.
    #[serde(default)]
    pub uid: Option<AgentUid>,
}

/// Goes back to what an agent had deployed before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RollbackRequest {
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// The proposal to go back to, 0 for the seed; absent: the deployment before this one.
    #[serde(default)]
    pub to: Option<ProposalNumber>,
}

/// What is kept of a removed agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ArchivedAgent {
    /// The name it had. Another agent may have it now.
    pub name: AgentName,
    /// Its uid.
    pub uid: AgentUid,
    /// Since when it lies in the archive.
    pub since: Timestamp,
    /// Who ordered that nothing be kept of it.
    #[serde(default)]
    pub purge_ordered_by: Option<String>,
    /// The open gate about deleting it.
    #[serde(default)]
    pub gate: Option<GateId>,
}

/// A command was recorded; the loop carries it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Acknowledged {
    /// One line for a person.
    pub message: String,
    /// Whether anything changed.
    pub changed: bool,
}

/// A message from the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OperatorMessage {
    /// The text.
    #[cfg_attr(feature = "schema", schemars(length(max = 262_144)))]
    pub body: String,
    /// The same id sent twice is one message. At most 64 characters.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub dedupe: Option<String>,
}
