//! Drafts: agents that somebody prepares, and that become agents once their spawn gate is approved.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::Overlay;
use crate::id::{AgentUid, CommitOid, Digest, GateId};
use crate::name::AgentName;

/// The most files a draft may hold.
pub const MAX_FILES: usize = 256;
/// The largest staged file, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// The most bytes a draft may hold in all its files.
pub const MAX_TOTAL_BYTES: u64 = 8 * 1024 * 1024;
/// The longest reason of an offer, in bytes.
pub const MAX_REASON_BYTES: usize = 4096;

/// The longest path, in bytes.
const MAX_PATH: usize = 200;
/// The longest part of a path, in bytes.
const MAX_PART: usize = 64;
/// The most parts of a path.
const MAX_DEPTH: usize = 8;
/// What the harness keeps in `/state` for itself: nothing may be there before it.
const RESERVED: [&str; 6] = [
    "config",
    "harness.lock",
    "messages",
    "proposal.tmp",
    "reminders",
    "run",
];

/// Where a staged file goes, below `/state`: letters, digits, `.`, `_`, `-` and `+` between single slashes; no part
/// begins with a dot, because files of that kind steer programs rather than tell an agent something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct StatePath(String);

/// A text is not the path of a staged file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be the path of a file in /state: {rule}")]
pub struct InvalidPath {
    text: String,
    rule: &'static str,
}

impl StatePath {
    /// The path, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its parts, at least one.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether one of the two would have to be a folder where the other is a file.
    pub fn collides(&self, other: &Self) -> bool {
        let below = |file: &Self, path: &Self| {
            path.0
                .strip_prefix(&file.0)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        below(self, other) || below(other, self)
    }
}

impl FromStr for StatePath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let refuse = |rule| {
            Err(InvalidPath {
                text: text.chars().take(MAX_PATH).collect(),
                rule,
            })
        };
        if text.is_empty() || text.len() > MAX_PATH {
            return refuse("it has 1 to 200 bytes");
        }
        if text.starts_with('/') {
            return refuse("it is relative to /state");
        }
        let usable = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+' | b'/');
        if !text.bytes().all(usable) {
            return refuse("it is made of letters, digits, '.', '_', '-', '+' and '/'");
        }
        if text.split('/').count() > MAX_DEPTH {
            return refuse("it is at most 8 parts deep");
        }
        for part in text.split('/') {
            if part.is_empty() || part.len() > MAX_PART {
                return refuse("each part has 1 to 64 bytes");
            }
            if part.starts_with('.') {
                return refuse("no part begins with a dot");
            }
        }
        if text
            .split('/')
            .next()
            .is_some_and(|first| RESERVED.contains(&first))
        {
            return refuse("the harness keeps something of its own there");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for StatePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for StatePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for StatePath {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StatePath".into()
    }

    /// The rule in full is [`Self::from_str`].
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[A-Za-z0-9_+-][A-Za-z0-9._+-]*(/[A-Za-z0-9_+-][A-Za-z0-9._+-]*)*$",
            "maxLength": MAX_PATH,
        })
    }
}

/// A file that is laid down in `/state` before the agent runs for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StagedFile {
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Asks for a draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DraftRequest {
    /// The agent's name.
    pub name: AgentName,
}

/// Offers a draft to the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OfferRequest {
    /// Why the agent is wanted.
    #[serde(default)]
    pub reason: String,
}

/// Asks for an agent in one go: a draft with this config and these files, offered at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpawnRequest {
    /// The agent's name.
    pub name: AgentName,
    /// What is different from `spawnDefaults`, as in `agent.json`.
    #[serde(default)]
    pub config: Overlay,
    /// Texts to be laid down in `/state`, by path.
    #[serde(default)]
    pub files: BTreeMap<StatePath, String>,
    /// Why the agent is wanted.
    #[serde(default)]
    pub reason: String,
}

/// Where a draft is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum DraftPhase {
    /// Its config repo is being made.
    Making,
    /// It is being prepared.
    Draft,
    /// It is offered: built, and then asked about.
    Offered,
    /// It was offered and denied. Changed, it may be offered again.
    Denied,
    /// Unknown to this version.
    #[serde(other)]
    Unknown,
}

/// A draft as its owner and the operator see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DraftInfo {
    /// The agent's name.
    pub name: AgentName,
    /// The agent's uid.
    pub uid: AgentUid,
    /// Who prepares it: an agent's name, or `unix:<user>`.
    pub owner: String,
    /// Since when.
    pub since: Timestamp,
    /// Where it is.
    pub phase: DraftPhase,
    /// What its config repo begins with; absent until that is made.
    #[serde(default)]
    pub seed: Option<CommitOid>,
    /// The commit that would be deployed; absent: the seed.
    #[serde(default)]
    pub commit: Option<CommitOid>,
    /// The staged files.
    #[serde(default)]
    pub files: BTreeMap<StatePath, StagedFile>,
    /// The gate that asks about it.
    #[serde(default)]
    pub gate: Option<GateId>,
    /// Why it was denied or its offer came to nothing.
    #[serde(default)]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_its_folder_and_steers_no_program() {
        for good in [
            "notes.md",
            "a/b/c.txt",
            "prompts/first-day_1+2.md",
            "a/b/c/d/e/f/g/h",
        ] {
            assert_eq!(good.parse::<StatePath>().expect(good).as_str(), good);
        }
        let long = "a".repeat(65);
        let deep = ["a"; 9].join("/");
        let wide = ["a".repeat(60).as_str(); 4].join("/");
        for bad in [
            "",
            "/",
            "/etc/passwd",
            ".",
            "..",
            "../x",
            "a/../b",
            "a/./b",
            "a//b",
            "a/",
            ".bashrc",
            ".claude/settings.json",
            "a/.git/hooks/x",
            "a b",
            "a\nb",
            "a\0b",
            "a\\b",
            "a%2fb",
            "C:x",
            "é",
            "config",
            "config/agent.json",
            "harness.lock",
            "proposal.tmp/x",
            "run/control.sock",
            "reminders",
            "messages/1.txt",
            &long,
            &deep,
            &wide,
        ] {
            assert!(bad.parse::<StatePath>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_file_and_a_folder_cannot_have_the_same_path() {
        let path = |text: &str| text.parse::<StatePath>().expect(text);
        assert!(path("a").collides(&path("a/b")));
        assert!(path("a/b/c").collides(&path("a")));
        assert!(!path("a").collides(&path("ab")));
        assert!(!path("a/b").collides(&path("a/c")));
        assert!(!path("a").collides(&path("a")), "the same file is replaced");
    }
}
