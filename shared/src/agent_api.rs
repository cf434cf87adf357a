//! The agent API: what a harness says to the daemon over its own socket.
//!
//! HTTP/1.1 and JSON on `hive.sock`. Who speaks is decided by the path of the socket alone; nothing in a body names
//! the sender. Errors are a [`crate::wire_error::WireError`] with a fitting status.
//!
//! | Method and path | Request | Answer |
//! | --- | --- | --- |
//! | `POST /v1/poll` | [`PollRequest`] | [`PollResponse`], at once when there is work, else after `waitSecs` |
//! | `POST /v1/recv` | [`RecvRequest`] | [`RecvResponse`] |
//! | `POST /v1/ack` | [`AckRequest`] | 204 |
//! | `POST /v1/send` | [`SendRequest`] | [`SendResponse`] |
//! | `POST /v1/turns/usage` | [`crate::budget::TurnUsage`] of a turn that begins or goes on | [`crate::budget::TurnLimits`] |
//! | `POST /v1/turns` | [`crate::turn::TurnStats`] of a turn that has ended | 204 |
//! | `POST /v1/events` | [`crate::agent_event::EventBatch`]: what happens in turns | [`crate::agent_event::EventBatchAnswer`] |
//! | `POST /v1/broadcast` | [`BroadcastRequest`]; managers alone | [`BroadcastResponse`] |
//! | `GET /v1/whoami` | | [`WhoAmI`] |
//! | `GET /v1/messages/sent[?before=ID&limit=]` | | a list of [`SentMessage`]: this agent's own, newest first |
//! | `POST /v1/questions` | [`crate::question::AskRequest`] | [`crate::question::QuestionInfo`] |
//! | `GET /v1/questions[?all=true]` | | a list of [`crate::question::QuestionInfo`]: asked by or of this agent, newest first; open ones unless `all` |
//! | `POST /v1/questions/{id}/answer` | [`crate::question::AnswerRequest`] | [`crate::question::QuestionInfo`] |
//! | `DELETE /v1/questions/{id}` | | [`crate::question::QuestionInfo`], taken back |
//! | `POST /v1/reminders` | [`crate::reminder::ReminderRequest`] | [`crate::reminder::ReminderInfo`] |
//! | `GET /v1/reminders` | | a list of [`crate::reminder::ReminderInfo`], the next first |
//! | `DELETE /v1/reminders/{id}` | | 204 |
//! | `GET /v1/loose-ends` | | a list of [`crate::loose_end::LooseEnd`], the oldest first; of a manager, everybody's |
//! | `DELETE /v1/loose-ends/{kind}/{number}` | | 204; its owner's or a manager's to take back; a gate is the operator's alone |
//! | `GET /v1/repo/bundle` | | a git bundle of `main` and the tags (`application/octet-stream`) |
//! | `POST /v1/proposals` | a git bundle; title and reason are the commit's message | [`ProposalInfo`] |
//! | `GET /v1/proposals` | | a list of [`ProposalInfo`], newest first |
//! | `GET /v1/agents/{name}` | | [`crate::status::AgentStatus`] without config; of others, for managers alone |
//! | `GET /v1/agents/{name}/config` | | [`crate::look::ConfigInfo`]; of others, for managers alone |
//! | `GET /v1/agents/{name}/logs[?lines=&events=]` | | [`crate::look::AgentLog`]; of others, for managers alone |
//! | `POST /v1/agents/{name}/start`, `…/stop`, `…/restart`, `…/rebuild`, `…/update`, `…/archive` | [`crate::order::OrderRequest`]; managers alone | [`crate::admin_api::Acknowledged`] |
//! | `GET /v1/agents/{name}/repo/bundle` | | a git bundle of another agent's `main` and tags; for managers alone |
//! | `POST /v1/agents/{name}/proposals` | a git bundle, for another agent; for managers alone | [`ProposalInfo`] |
//! | `GET /v1/agents` | | a list of [`crate::status::AgentStatus`], by name; for managers alone |
//! | `GET /v1/openapi.json` | | the OpenAPI document of this API, which says more than this table |
//!
//! For managers alone; the operator has the same routes at the admin door, for the drafts of all. A draft is its owner's.
//! Every change of a draft takes its offer back.
//!
//! | Method and path | Request | Answer |
//! | --- | --- | --- |
//! | `POST /v1/spawn` | [`crate::draft::SpawnRequest`]: a draft, offered at once | [`crate::draft::DraftInfo`] |
//! | `POST /v1/drafts` | [`crate::draft::DraftRequest`] | [`crate::draft::DraftInfo`] |
//! | `GET /v1/drafts` | | a list of [`crate::draft::DraftInfo`], by name |
//! | `GET /v1/drafts/{name}` | | [`crate::draft::DraftInfo`] |
//! | `PUT /v1/drafts/{name}/files/{path}` | bytes to be laid down in `/state` | [`crate::draft::DraftInfo`] |
//! | `GET /v1/drafts/{name}/files/{path}` | | the bytes |
//! | `DELETE /v1/drafts/{name}/files/{path}` | | [`crate::draft::DraftInfo`] |
//! | `GET /v1/drafts/{name}/bundle` | | a git bundle of its config repo |
//! | `POST /v1/drafts/{name}/bundle` | a git bundle of one commit on top of the seed | [`crate::draft::DraftInfo`] |
//! | `POST /v1/drafts/{name}/commit` | [`crate::draft::OfferRequest`] | [`crate::draft::DraftInfo`], offered |
//! | `DELETE /v1/drafts/{name}` | | 204; nothing of it is kept |

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{CommitOid, Digest, GateId, ProposalNumber, TurnId};
use crate::instruction::Instruction;
use crate::login::{LoginOrder, LoginState};
use crate::name::{Address, AgentName, ServerName};
use crate::spec::{OperatorSpec, Role};
use crate::status::{McpServerState, TurnState};
use crate::topic::Topic;

/// The longest a poll or a `recv` may wait, in seconds.
pub const MAX_WAIT_SECS: u32 = 180;
/// The most messages one `recv` leases.
pub const MAX_BATCH: u32 = 32;
/// The largest message body, in bytes.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// The largest bundle, in bytes.
pub const MAX_BUNDLE_BYTES: u64 = 32 * 1024 * 1024;

/// What the harness is, and what it sees. Sent with every poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The harness's version.
    pub version: String,
    /// Made anew at each start of the harness.
    pub run_id: String,
    /// Rises with every new report of a run; a report that only repeats has the same. What was overtaken is not believed.
    #[serde(default)]
    pub seq: u64,
    /// The turn that holds, or may hold, leases: reported, and the report answered, before its first `recv`, until its
    /// `ack` is answered. When a run is first heard of, the leases of all other turns are given back.
    #[serde(default)]
    pub lease: Option<TurnId>,
    /// The digest of the config that is loaded; absent when none could be.
    #[serde(default)]
    pub config: Option<Digest>,
    /// Why the config file could not be loaded.
    #[serde(default)]
    pub config_error: Option<String>,
    /// Why the last turn did not end well, or why none is taken although there are messages. Says nothing against the
    /// config.
    #[serde(default)]
    pub turn_error: Option<String>,
    /// Why what happens in turns is not kept in the state folder. Turns go on all the same.
    #[serde(default)]
    pub events_error: Option<String>,
    /// What the turn loop does.
    pub turn: TurnState,
    /// Every instruction up to this number was carried out; 0 when there was none yet.
    #[serde(default)]
    pub instructed: u64,
    /// The model that the latest turn was begun with, in the driver's own words; absent before the first, and where the
    /// driver chooses.
    #[serde(default)]
    pub model: Option<String>,
    /// Declared MCP servers as probed.
    #[serde(default)]
    pub mcp: BTreeMap<ServerName, McpServerState>,
    /// The login that was last asked for in this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<LoginState>,
}

/// Reports, and waits for work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PollRequest {
    /// The report.
    pub report: Report,
    /// How long to wait at most; at most [`MAX_WAIT_SECS`].
    pub wait_secs: u32,
}

/// What there is to do. All fields may be empty: then the wait ran out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PollResponse {
    /// Undelivered messages.
    #[serde(default)]
    pub inbox: u64,
    /// The config the daemon has written; load it at the turn boundary when it differs.
    #[serde(default)]
    pub config: Option<Digest>,
    /// Take no turns.
    #[serde(default)]
    pub paused: bool,
    /// The operator's model, which goes before the config's from the next turn on.
    #[serde(default)]
    pub model: Option<String>,
    /// Take no turns: there is no money left for them.
    #[serde(default)]
    pub over_budget: bool,
    /// What the operator instructions, the oldest first.
    #[serde(default)]
    pub instructions: Vec<Instruction>,
    /// The number of the conversation. One that is higher than the harness has heard of begins a new conversation with
    /// the next turn; absent: the one there is goes on.
    #[serde(default)]
    pub conversation: Option<u64>,
    /// A login that the operator asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<LoginOrder>,
}

/// Leases undelivered messages to a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RecvRequest {
    /// The turn: the lease of the newest report. One that has ended gets nothing.
    pub turn: TurnId,
    /// At most this many; at most [`MAX_BATCH`].
    pub max: u32,
    /// How long to wait for the first; at most [`MAX_WAIT_SECS`]. A wait ends when the same agent asks again, one at a
    /// time, and when the turn is ended.
    #[serde(default)]
    pub wait_secs: u32,
    /// The [`RecvResponse::batch`] of this turn that came in last; 0 before the first. What was leased to this turn
    /// after it is given again, because the answer was lost. Absent: nothing is ever given again.
    #[serde(default)]
    pub received: Option<u64>,
}

/// What kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum MessageKind {
    /// An ordinary message.
    Message,
    /// A question that waits for an answer.
    Question,
    /// The answer to a question.
    Answer,
    /// From the daemon: something happened to you or yours.
    System,
    /// A kind this build does not know.
    #[serde(other)]
    Unknown,
}

/// A message as delivered. All but `body` is stamped by the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Its number, per hive.
    pub id: u64,
    /// Who sent it.
    pub from: Address,
    /// What kind.
    pub kind: MessageKind,
    /// What it is about; of messages of kind [`MessageKind::System`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<Topic>,
    /// The message it answers.
    #[serde(default)]
    pub reply_to: Option<u64>,
    /// When it was sent.
    pub at: Timestamp,
    /// The text. Untrusted.
    pub body: String,
    /// Whether an earlier turn had it and did not end well.
    #[serde(default)]
    pub redelivered: bool,
}

/// Leased messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RecvResponse {
    /// The number of this answer within its turn, to be named in the next request. Without messages it means nothing.
    #[serde(default)]
    pub batch: u64,
    /// In the order they were sent.
    pub messages: Vec<Message>,
}

/// Ends a turn: with `done`, its leases are acknowledged; else they are given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AckRequest {
    /// The turn.
    pub turn: TurnId,
    /// Whether it ended well.
    pub done: bool,
    /// The [`RecvResponse::batch`] of this turn that came in last; 0 when none did. What was leased after it goes back
    /// in any case, and the delivery does not count. Absent: all came in.
    #[serde(default)]
    pub received: Option<u64>,
}

/// Sends a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SendRequest {
    /// To whom.
    pub to: Address,
    /// What kind; only [`MessageKind::Message`], [`MessageKind::Question`] and [`MessageKind::Answer`] are accepted.
    pub kind: MessageKind,
    /// The text, at most [`MAX_BODY_BYTES`].
    #[cfg_attr(feature = "schema", schemars(length(max = 262_144)))]
    pub body: String,
    /// The message it answers.
    #[serde(default)]
    pub reply_to: Option<u64>,
    /// The same id sent twice by the same sender is one message. At most 64 characters.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub dedupe: Option<String>,
}

/// A message was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SendResponse {
    /// Its number.
    pub id: u64,
    /// Whether the dedupe id was known already.
    #[serde(default)]
    pub duplicate: bool,
}

/// Sends a message to every active agent but the sender. Managers alone may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BroadcastRequest {
    /// The text, at most [`MAX_BODY_BYTES`].
    #[cfg_attr(feature = "schema", schemars(length(max = 262_144)))]
    pub body: String,
    /// The same id sent twice by the same sender is one broadcast. At most 64 characters.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub dedupe: Option<String>,
}

/// A broadcast was stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BroadcastResponse {
    /// How many agents it goes to; 0 when the dedupe id was known already.
    pub count: u64,
    /// Agents whose inbox is full: they do not get it.
    #[serde(default)]
    pub full: Vec<AgentName>,
    /// Whether the dedupe id was known already.
    #[serde(default)]
    pub duplicate: bool,
}

/// Who an agent is, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WhoAmI {
    /// Its name.
    pub name: AgentName,
    /// The hive's name.
    pub hive: String,
    /// What it is in the hive.
    pub role: Role,
    /// The human.
    #[serde(default)]
    pub operator: OperatorSpec,
    /// Everyone it may write to, itself left out.
    #[serde(default)]
    pub recipients: Vec<Address>,
    /// The managers of the hive.
    #[serde(default)]
    pub managers: Vec<AgentName>,
    /// The commit that is deployed; absent before the first.
    #[serde(default)]
    pub commit: Option<CommitOid>,
    /// The daemon's clock.
    pub now: Timestamp,
}

/// Where a message is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum DeliveryState {
    /// Waits for a turn of the recipient.
    Queued,
    /// A turn has it.
    Leased,
    /// A turn had it and ended well.
    Delivered,
    /// It is not delivered any more: no turn gets past it, it cannot be read, or its recipient is gone.
    Dead,
    /// A state this build does not know.
    #[serde(other)]
    Unknown,
}

/// A message that was sent, as its sender sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SentMessage {
    /// Its number.
    pub id: u64,
    /// Who sent it.
    pub from: Address,
    /// To whom.
    pub to: Address,
    /// What kind.
    pub kind: MessageKind,
    /// What it is about; of messages of kind [`MessageKind::System`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<Topic>,
    /// The message it answers.
    #[serde(default)]
    pub reply_to: Option<u64>,
    /// When it was sent.
    pub at: Timestamp,
    /// The text. Untrusted.
    pub body: String,
    /// Where it is.
    pub state: DeliveryState,
    /// How many turns have had it.
    pub deliveries: u64,
}

/// Where a proposal is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum ProposalPhase {
    /// Received; not built yet, or its gate is open.
    Proposed,
    /// Being built.
    Building,
    /// Approved, not deployed yet.
    Approved,
    /// Deployed.
    Deployed,
    /// Its build or its probation failed, or it can no longer be applied.
    Failed,
    /// Denied.
    Denied,
}

impl ProposalPhase {
    /// The phase in one word; also the folder of its tag.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposal",
            Self::Building => "building",
            Self::Approved => "approved",
            Self::Deployed => "deployed",
            Self::Failed => "failed",
            Self::Denied => "denied",
        }
    }

    /// Whether nothing more will come of it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Deployed | Self::Failed | Self::Denied)
    }
}

/// A proposal as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProposalInfo {
    /// Its number.
    pub number: ProposalNumber,
    /// The commit.
    pub commit: CommitOid,
    /// The commit's title. Written by the agent: untrusted.
    pub title: String,
    /// Where it is in its life.
    pub phase: ProposalPhase,
    /// Why it is there: the denial's reason, the build's error.
    #[serde(default)]
    pub reason: Option<String>,
    /// Its open gate.
    #[serde(default)]
    pub gate: Option<GateId>,
    /// When it came.
    pub at: Timestamp,
}
