//! Typed identifiers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// A text is not an identifier of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: {text:?}")]
pub struct InvalidId {
    what: &'static str,
    text: String,
}

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                uuid::Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| InvalidId { what: stringify!($name), text: text.chars().take(64).collect() })
            }
        }
    };
}

uuid_newtype! {
    /// Given to an agent when it is first declared. A name that comes back after a purge is another agent.
    AgentUid
}
uuid_newtype! {
    /// Given to a hive when its ledger is made. It is part of every effect digest.
    HiveId
}
uuid_newtype! {
    /// One attempt to log an agent's driver in.
    LoginId
}
uuid_newtype! {
    /// One run of a driver. Leases on messages belong to it.
    TurnId
}

macro_rules! number_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.parse()
                    .map(Self)
                    .map_err(|_| InvalidId { what: stringify!($name), text: text.chars().take(64).collect() })
            }
        }
    };
}

number_newtype! {
    /// A gate, numbered per hive from 1.
    GateId
}
number_newtype! {
    /// A proposal, numbered per agent from 1; number 0 is the seed commit.
    ProposalNumber
}

/// A git object id: 40 lower-case hex digits (SHA-1 repositories).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CommitOid(String);

impl CommitOid {
    /// The id as hex.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first ten digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..10]
    }
}

impl FromStr for CommitOid {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 40 && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId {
                what: "commit id",
                text: text.chars().take(64).collect(),
            })
        }
    }
}

impl fmt::Display for CommitOid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A versioned SHA-256 digest, `<encoding>-<64 hex digits>`. Another encoding never compares equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// Made by [`crate::canonical`] alone.
    pub(crate) fn new(encoding: &str, hex: &str) -> Self {
        Self(format!("{encoding}-{hex}"))
    }

    /// The whole digest.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hex digits without the name of the encoding.
    pub fn hex(&self) -> &str {
        self.0.rsplit('-').next().unwrap_or_default()
    }

    /// The first twelve hex digits, for people.
    pub fn short(&self) -> &str {
        let hex = self.hex();
        hex.get(..12).unwrap_or(hex)
    }
}

impl FromStr for Digest {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let refused = || InvalidId {
            what: "digest",
            text: text.chars().take(100).collect(),
        };
        let (encoding, hex) = text.rsplit_once('-').ok_or_else(refused)?;
        let fits = !encoding.is_empty()
            && encoding.len() <= 32
            && encoding
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        fits.then(|| Self(text.to_owned())).ok_or_else(refused)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! checked_deserialize {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
checked_deserialize!(CommitOid, Digest);

#[cfg(feature = "schema")]
macro_rules! pattern_schema {
    ($($(#[doc = $doc:literal])* $name:ident = $pattern:literal),*) => {$(
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let description = concat!($($doc),*).trim();
                schemars::json_schema!({ "type": "string", "pattern": $pattern, "description": description })
            }
        }
    )*};
}
#[cfg(feature = "schema")]
pattern_schema!(
    /// A git object id.
    CommitOid = "^[0-9a-f]{40}$",
    /// A versioned SHA-256 digest.
    Digest = "^[a-z0-9]{1,32}-[0-9a-f]{64}$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_id_is_forty_lower_case_hex_digits() {
        assert!(
            "0123456789abcdef0123456789abcdef01234567"
                .parse::<CommitOid>()
                .is_ok()
        );
        for bad in [
            "",
            "0123",
            "0123456789ABCDEF0123456789abcdef01234567",
            "refs/heads/main",
            "--upload-pack=x",
        ] {
            assert!(bad.parse::<CommitOid>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn digests_of_different_encodings_differ() {
        let hex = "0".repeat(64);
        assert_ne!(Digest::new("effect1", &hex), Digest::new("effect2", &hex));
        assert!(format!("effect1-{hex}").parse::<Digest>().is_ok());
        assert!("effect1-xyz".parse::<Digest>().is_err());
    }
}
