//! What a message from the daemon is about.

use serde::{Deserialize, Serialize};

/// What a message of kind `system` is about, for whoever sorts messages without reading their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Topic {
    /// An agent ended by itself.
    Crashed,
    /// An agent, or a process of it, was killed for want of memory.
    OutOfMemory,
    /// An agent takes no turns until somebody logs in for it.
    NeedsLogin,
    /// An agent that needed a login has one.
    LoggedIn,
    /// An agent was spawned.
    Spawned,
    /// A manager proposes a change of the recipient's configuration.
    Proposed,
    /// A proposal is deployed.
    Deployed,
    /// A proposal came to nothing.
    Failed,
    /// What was deployed failed its probation; the last good system is back.
    Reverted,
    /// What was deployed failed its probation and there is nothing to go back to; the agent is stopped.
    Halted,
    /// A gate was denied.
    Denied,
    /// A gate's effect was not carried out, because what it was approved for is no more.
    Withdrawn,
    /// An agent was archived.
    Archived,
    /// An agent is back from the archive.
    Restored,
    /// Something became of a draft of the recipient's.
    Draft,
    /// Something became of an order of the recipient's.
    Order,
    /// A question to the recipient has ended otherwise.
    Question,
    /// A budget is used up.
    BudgetReached,
    /// An agent was refused a connection to the outside.
    EgressRefused,
    /// A reminder of the recipient's is due.
    Reminder,
    /// A topic that this build does not know.
    #[serde(other)]
    Unknown,
}

impl Topic {
    /// The word for it, as on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crashed => "crashed",
            Self::OutOfMemory => "outOfMemory",
            Self::NeedsLogin => "needsLogin",
            Self::LoggedIn => "loggedIn",
            Self::Spawned => "spawned",
            Self::Proposed => "proposed",
            Self::Deployed => "deployed",
            Self::Failed => "failed",
            Self::Reverted => "reverted",
            Self::Halted => "halted",
            Self::Denied => "denied",
            Self::Withdrawn => "withdrawn",
            Self::Archived => "archived",
            Self::Restored => "restored",
            Self::Draft => "draft",
            Self::Order => "order",
            Self::Question => "question",
            Self::BudgetReached => "budgetReached",
            Self::EgressRefused => "egressRefused",
            Self::Reminder => "reminder",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_read_back_from_its_word_and_one_of_a_later_build_is_no_error() {
        for topic in [
            Topic::Crashed,
            Topic::OutOfMemory,
            Topic::NeedsLogin,
            Topic::LoggedIn,
            Topic::Spawned,
            Topic::Proposed,
            Topic::Deployed,
            Topic::Failed,
            Topic::Reverted,
            Topic::Halted,
            Topic::Denied,
            Topic::Withdrawn,
            Topic::Archived,
            Topic::Restored,
            Topic::Draft,
            Topic::Order,
            Topic::Question,
            Topic::BudgetReached,
            Topic::EgressRefused,
            Topic::Reminder,
            Topic::Unknown,
        ] {
            let word = serde_json::to_value(topic).unwrap();
            assert_eq!(word, topic.as_str());
            assert_eq!(serde_json::from_value::<Topic>(word).unwrap(), topic);
        }
        assert_eq!(
            serde_json::from_value::<Topic>("weather".into()).unwrap(),
            Topic::Unknown
        );
    }
}
