//! What all agents of a hive are built upon. Pure.
//!
//! When it changes, every agent is built again although nothing was declared anew about it. Such an update goes round
//! the hive a few agents at a time, so that what is wrong with it is seen before all of them have it.

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::canonical::{Encoding, NotCanonical, digest};
use shared::spec::{AgentSpec, ProgramsSpec};
use shared::{AgentName, Digest};

use crate::model::build::{BuildRequest, NixInputs, build_inputs};

/// What a host gives to all its agents, and the system that it built ahead for this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Base {
    /// The programs that it puts into every sandbox.
    pub programs: Programs,
    /// What the Nix builder takes, without the hosts that it may fetch from; absent with another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nix: Option<NixInputs>,
    /// The agent's system as the host's own build made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

/// The programs that a host puts into every sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Programs {
    /// The harness.
    pub harness: Utf8PathBuf,
    /// What drivers run.
    #[serde(default, skip_serializing_if = "ProgramsSpec::is_empty")]
    pub drivers: ProgramsSpec,
}

impl Programs {
    /// Whether a host starts them although it declares others now: those in the store, where all of them stay.
    pub fn outlast_updates(&self) -> bool {
        let claude = self.drivers.claude.as_deref().map(Utf8Path::new);
        [Some(&*self.harness), claude]
            .into_iter()
            .flatten()
            .all(|program| program.starts_with("/nix/store"))
    }
}

/// What a system was made from, besides its commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeFrom {
    /// What all agents are built upon.
    pub base: Base,
    /// The digest of what is declared of the agent and said to it.
    pub declared: Digest,
}

impl Base {
    /// What these come to.
    pub fn new(programs: Programs, nix: Option<&NixInputs>, system: Option<&str>) -> Self {
        let without_hosts = |nix: &NixInputs| NixInputs {
            hosts: BTreeSet::new(),
            ..nix.clone()
        };
        Self {
            programs,
            nix: nix.map(without_hosts),
            system: system.map(str::to_owned),
        }
    }
}

impl BuildRequest {
    /// What it is built upon.
    pub fn base(&self) -> Base {
        let programs = Programs {
            harness: self.harness.clone(),
            drivers: self.programs.clone(),
        };
        Base::new(programs, self.nix.as_ref(), self.spec.system.as_deref())
    }

    /// The same, built upon something else.
    #[must_use]
    pub fn upon(self, base: &Base) -> Self {
        let Base {
            programs: Programs { harness, drivers },
            nix,
            system,
        } = base.clone();
        let hosts = self.nix.map(|nix| nix.hosts).unwrap_or_default();
        Self {
            harness,
            programs: drivers,
            nix: nix.map(|nix| NixInputs { hosts, ..nix }),
            spec: AgentSpec { system, ..self.spec },
            ..self
        }
    }

    /// What it is made from, besides its commit.
    ///
    /// # Errors
    /// Only when a value has no canonical form, which means a fault in the program.
    pub fn made_from(&self) -> Result<MadeFrom, NotCanonical> {
        let Self {
            agent: _,
            uid: _,
            hive,
            operator,
            commit: _,
            spec,
            harness: _,
            programs: _,
            model_url,
            nix: _,
            user_range,
            provides_key,
            grants: _,
        } = self;
        let spec = AgentSpec {
            system: None,
            ..build_inputs(spec)
        };
        let declared = (hive, operator, spec, model_url, user_range, provides_key);
        Ok(MadeFrom {
            base: self.base(),
            declared: digest(Encoding::Content, &declared)?,
        })
    }
}

/// How far an update of the base has come with the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// So many agents may be on trial with a new base at once.
    pub at_once: usize,
    /// The others that are, and until when at the latest they are waited for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub on_trial: BTreeMap<AgentName, Timestamp>,
}

impl Default for Rollout {
    /// Nobody is waited for.
    fn default() -> Self {
        Self::among(0)
    }
}

impl Rollout {
    /// In a hive of so many agents: one in ten at once.
    pub fn among(agents: usize) -> Self {
        Self {
            at_once: (agents / 10).max(1),
            on_trial: BTreeMap::new(),
        }
    }

    /// Those whose end has to be waited for; `None`: it is this agent's turn.
    pub fn ahead(&self) -> Option<Ahead> {
        let until = self.on_trial.values().min()?;
        (self.on_trial.len() >= self.at_once).then(|| Ahead {
            agents: self.on_trial.keys().cloned().collect(),
            until: *until,
        })
    }
}

/// Whom an update waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// The agents.
    pub agents: Vec<AgentName>,
    /// When the first of them is not waited for any more.
    pub until: Timestamp,
}
