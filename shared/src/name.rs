//! Validated names. The only way to make one is the check.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The text breaks the pattern that this kind of name keeps.
    #[error("{text:?} is not a valid {what}: {rule}")]
    Pattern {
        /// The refused text, shortened.
        text: String,
        /// What it was to be.
        what: &'static str,
        /// The rule, in words.
        rule: &'static str,
    },
    /// The name means something else in messages.
    #[error("{0:?} is reserved: choose another name for the agent")]
    Reserved(String),
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

macro_rules! text_newtype {
    ($name:ident, $what:literal, $pattern:literal) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

/// The name of an agent: `[a-z][a-z0-9-]{0,31}`. It names the container, the repo and the folders.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AgentName(String);
text_newtype!(AgentName, "agent name", "^[a-z][a-z0-9-]{0,31}$");

/// Names that stand for somebody or something else in messages and paths.
const RESERVED: [&str; 4] = ["operator", "system", "hive", "all"];

impl FromStr for AgentName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let mut bytes = text.bytes();
        let fits = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
            && text.len() <= 32
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !fits {
            return Err(InvalidName::Pattern {
                text: shortened(text),
                what: "agent name",
                rule: "a lower-case letter, then at most 31 lower-case letters, digits or dashes",
            });
        }
        if RESERVED.contains(&text) {
            return Err(InvalidName::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The name of an MCP server as an agent sees it: `[A-Za-z0-9][A-Za-z0-9_-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ServerName(String);
text_newtype!(ServerName, "MCP server name", "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$");

impl FromStr for ServerName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = text.len() <= 64
            && text
                .bytes()
                .next()
                .is_some_and(|first| first.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::Pattern {
                text: shortened(text),
                what: "MCP server name",
                rule: "a letter or digit, then at most 63 letters, digits, dashes or underscores",
            })
        }
    }
}

/// Who a message comes from or goes to. Written as the agent's name, or `operator`, or `system`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// The human.
    Operator,
    /// The daemon itself; only ever a sender.
    System,
    /// An agent.
    Agent(AgentName),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.pad("operator"),
            Self::System => f.pad("system"),
            Self::Agent(name) => f.pad(name.as_str()),
        }
    }
}

impl FromStr for Address {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text {
            "operator" => Ok(Self::Operator),
            "system" => Ok(Self::System),
            name => name.parse().map(Self::Agent),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Address {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[a-z][a-z0-9-]{0,31}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_names_keep_the_pattern_and_nothing_else_passes() {
        for good in ["a", "alice", "a-1", &format!("a{}", "b".repeat(31))] {
            assert_eq!(good.parse::<AgentName>().expect(good).as_str(), good);
        }
        for bad in [
            "",
            "1a",
            "-a",
            "A",
            "a_b",
            "a.b",
            "a/b",
            "..",
            "é",
            "a\n",
            "a\0",
            &"a".repeat(33),
        ] {
            assert!(bad.parse::<AgentName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn an_agent_cannot_take_the_name_of_the_operator() {
        for reserved in RESERVED {
            assert_eq!(
                reserved.parse::<AgentName>(),
                Err(InvalidName::Reserved(reserved.to_owned()))
            );
        }
    }

    #[test]
    fn addresses_survive_a_round_trip() {
        for text in ["operator", "system", "alice"] {
            let address: Address = serde_json::from_value(text.into()).expect(text);
            assert_eq!(serde_json::to_value(&address).expect(text), text);
        }
    }
}
