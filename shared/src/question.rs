//! Questions and their answers.
//!
//! A question is a message of kind [`crate::agent_api::MessageKind::Question`] with a row of its own, under the message's
//! number. It ends once: by an answer, by its time running out, or by being taken back; the asker gets one message of kind
//! `answer` for it, which replies to the question and whose sender is whoever ended it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::name::Address;

/// The longest a question may stay open, in seconds: thirty days.
pub const MAX_TTL_SECS: u64 = 30 * 24 * 3600;

/// Asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AskRequest {
    /// Whom: the operator or another agent.
    pub to: Address,
    /// The question, at most [`crate::agent_api::MAX_BODY_BYTES`].
    #[cfg_attr(feature = "schema", schemars(length(max = 262_144)))]
    pub body: String,
    /// After this many seconds without an answer it ends; at most [`MAX_TTL_SECS`]. Absent: it stays open.
    #[serde(default)]
    pub ttl_secs: Option<u64>,
    /// The answer that holds when none came in time. Absent: the asker is told that nobody answered.
    #[serde(default)]
    pub default: Option<String>,
    /// The same id sent twice by the same sender is one question. At most 64 characters.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub dedupe: Option<String>,
}

/// Answers a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AnswerRequest {
    /// The answer, at most [`crate::agent_api::MAX_BODY_BYTES`].
    #[cfg_attr(feature = "schema", schemars(length(max = 262_144)))]
    pub body: String,
}

/// Where a question is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum QuestionState {
    /// Waits for an answer.
    Open,
    /// Answered.
    Answered,
    /// Taken back.
    Cancelled,
    /// Its time ran out.
    Expired,
    /// A state this build does not know.
    #[serde(other)]
    Unknown,
}

/// A question as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct QuestionInfo {
    /// Its number, which is its message's.
    pub id: u64,
    /// Who asks.
    pub from: Address,
    /// Who is asked.
    pub to: Address,
    /// The question. Untrusted.
    pub body: String,
    /// Where it is in its life.
    pub state: QuestionState,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// When it ends without an answer.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// The answer that holds then. Untrusted.
    #[serde(default)]
    pub default: Option<String>,
    /// Who ended it; `system` when its time ran out.
    #[serde(default)]
    pub ended_by: Option<Address>,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// The answer. Untrusted.
    #[serde(default)]
    pub answer: Option<String>,
}
