//! The admin API: what the command line and the web UI say to the daemon.
//!
//! HTTP/1.1 and JSON on `admin.sock`, whose folder and mode admit root and the group `hyperhive` alone. Who decides
//! is taken from the socket's peer, never from a body. Errors are a [`crate::wire_error::WireError`].
//!
//! | Method and path | Request | Answer |
//! | --- | --- | --- |
//! | `GET /v1/status` | | [`crate::status::HiveStatus`] |
//! | `GET /v1/agents/{name}` | | [`crate::status::AgentStatus`] with config and origins |
//! | `GET /v1/plan[?agent=]` | | a list of [`crate::plan::PlanView`] |
//! | `GET /v1/diff[?agent=]` | | a list of [`DiffEntry`] |
//! | `GET /v1/explain/{object}` | | [`Explanation`]; an object is an agent's name, `gate/N` or `hive` |
//! | `GET /v1/gates[?all=true]` | | a list of [`crate::gate::Gate`], open and approved ones unless `all` |
//! | `GET /v1/gates/{id}` | | [`crate::gate::Gate`] |
//! | `POST /v1/gates/{id}/decision` | [`DecisionRequest`] | [`crate::gate::Gate`]; 409 when the digest moved |
//! | `GET /v1/history[?agent=&limit=]` | | a list of [`HistoryEntry`], newest first |
//! | `GET /v1/events[?after=SEQ&follow=true&limit=]` | | [`EventPage`], or SSE when `follow`; `Last-Event-ID` is honoured |
//! | `POST /v1/agents/{name}/start`, `…/stop`, `…/restart` | [`OverrideRequest`] | [`Acknowledged`] |
//! | `POST /v1/agents/{name}/suspend`, `…/resume`, `…/retry` | [`OverrideRequest`] | [`Acknowledged`] |
//! | `POST /v1/agents/{name}/messages` | [`OperatorMessage`] | [`crate::agent_api::SendResponse`] |

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::id::{Digest, GateId};
use crate::name::AgentName;
use crate::plan::Waiting;

/// The header that carries the event stream's epoch.
pub const EPOCH_HEADER: &str = "hive-epoch";

/// A decision about a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[serde(rename_all = "camelCase")]
pub struct OverrideRequest {
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// When it ends by itself.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// A command was recorded; the loop carries it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledged {
    /// One line for a person.
    pub message: String,
    /// Whether anything changed.
    pub changed: bool,
}

/// A message from the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorMessage {
    /// The text.
    pub body: String,
    /// The same id sent twice is one message.
    #[serde(default)]
    pub dedupe: Option<String>,
}
