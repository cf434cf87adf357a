//! Loose ends: what is still open and involves an agent.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::name::Address;

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum LooseEndKind {
    /// An open question, asked by the agent or of it.
    Question,
    /// A reminder that is still to come, or that could not be delivered.
    Reminder,
    /// An open gate about the agent. Only the operator decides about it.
    Gate,
    /// A message to the agent or from it that is not delivered any more.
    Message,
}

/// Which loose end: `question/12`, `reminder/3`, `gate/7`, `message/40`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LooseEndId {
    /// The kind.
    pub kind: LooseEndKind,
    /// Its number among those of its kind.
    pub number: u64,
}

/// What is no name of a loose end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no loose end: write question/N, reminder/N, gate/N or message/N")]
pub struct InvalidLooseEnd(String);

impl LooseEndKind {
    /// The kind in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::Reminder => "reminder",
            Self::Gate => "gate",
            Self::Message => "message",
        }
    }
}

impl fmt::Display for LooseEndId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.number)
    }
}

impl FromStr for LooseEndId {
    type Err = InvalidLooseEnd;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kinds = [
            LooseEndKind::Question,
            LooseEndKind::Reminder,
            LooseEndKind::Gate,
            LooseEndKind::Message,
        ];
        let invalid = || InvalidLooseEnd(text.chars().take(80).collect());
        let (kind, number) = text.split_once('/').ok_or_else(invalid)?;
        let kind = kinds.into_iter().find(|known| known.as_str() == kind);
        match (kind, number.parse()) {
            (Some(kind), Ok(number)) if number > 0 => Ok(Self { kind, number }),
            _ => Err(invalid()),
        }
    }
}

/// A loose end as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LooseEnd {
    /// Its name, as in `question/12`.
    pub id: String,
    /// The kind.
    pub kind: LooseEndKind,
    /// Who may take it back, besides a manager.
    pub owner: Address,
    /// Who has to act; absent where time alone does.
    #[serde(default)]
    pub waits_for: Option<Address>,
    /// What it is about, in one line. Untrusted.
    pub about: String,
    /// Since when.
    pub since: Timestamp,
    /// When it ends or comes by itself.
    #[serde(default)]
    pub due: Option<Timestamp>,
    /// What is wrong with it.
    #[serde(default)]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_nothing_else_is_one() {
        let id: LooseEndId = "question/12".parse().expect("a name");
        assert_eq!((id.kind, id.number), (LooseEndKind::Question, 12));
        assert_eq!(id.to_string(), "question/12");
        for text in [
            "",
            "question",
            "question/",
            "question/0",
            "question/-1",
            "task/1",
            "question/1/2",
        ] {
            text.parse::<LooseEndId>().expect_err(text);
        }
    }
}
