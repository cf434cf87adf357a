//! What the operator tells a harness to do. An instruction is kept until its harness has carried it out, or has no use any more.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::TurnId;

/// The most instructions in one answer.
pub const MAX_INSTRUCTIONS: u32 = 16;

/// The kinds of instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum InstructionKind {
    /// End the turn that runs; its messages go back, and wait until something new comes.
    Cancel,
    /// Shorten the conversation before the next turn.
    Compact,
    /// Take no turns for a while.
    Nap,
    /// Take turns again, whatever they were not taken for.
    Wake,
    /// Begin a new conversation with the next turn. Which one is in [`crate::agent_api::PollResponse::conversation`].
    NewConversation,
    /// A kind this build does not know.
    #[serde(other)]
    Unknown,
}

impl InstructionKind {
    /// The kind in one word, as on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Compact => "compact",
            Self::Nap => "nap",
            Self::Wake => "wake",
            Self::NewConversation => "newConversation",
            Self::Unknown => "unknown",
        }
    }
}

/// An instruction as its harness gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Instruction {
    /// Its number; later instructions have higher ones. One that was seen before is not carried out again.
    pub id: u64,
    /// What to do.
    pub kind: InstructionKind,
    /// Of `cancel`: the turn that was seen running. Another one goes on.
    #[serde(default)]
    pub turn: Option<TurnId>,
    /// Of `nap`: when it ends by itself.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Of `nap`: whether a message ends it.
    #[serde(default)]
    pub wake_on_message: bool,
}

/// Instructions something of an agent's harness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct InstructionRequest {
    /// What.
    pub kind: InstructionKind,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Of `nap`: when it ends by itself; absent: by `wake` alone.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Of `nap`: whether a message ends it.
    #[serde(default)]
    pub wake_on_message: bool,
}
