//! What agents are allowed: one file, written by the daemon, watched by the service.

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use shared::AgentName;
use shared::spec::Network;

use super::rule::{HostRule, Target};
use crate::host::HostError;
use crate::host::folders::read_bounded;

/// Where the model provider is when the operator names none.
pub const DEFAULT_PROVIDER: &str = "https://api.anthropic.com";
/// The largest file, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// The file. It never holds a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// The model provider's address; absent: [`DEFAULT_PROVIDER`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The file of the provider's key, where systemd hands over none. Absent: agents use logins of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<Utf8PathBuf>,
    /// The agents that have sockets. All others have none.
    #[serde(default)]
    pub agents: BTreeMap<AgentName, AgentPolicy>,
}

/// What one agent is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentPolicy {
    /// Its network.
    pub network: Network,
    /// The hosts it may reach, as [`HostRule`]s. What is none lists nothing.
    #[serde(default)]
    pub hosts: BTreeSet<String>,
}

impl AgentPolicy {
    /// Whether the agent goes out through sockets.
    pub fn has_sockets(&self) -> bool {
        match self.network {
            Network::Model | Network::Hosts => true,
            Network::None | Network::Host => false,
        }
    }

    /// Whether it may be connected to this target, as far as the name tells.
    pub fn allows(&self, target: &Target) -> bool {
        self.network == Network::Hosts
            && self
                .hosts
                .iter()
                .filter_map(|host| host.parse::<HostRule>().ok())
                .any(|rule| rule.lists(target))
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] HostError),
    /// It is no policy.
    #[error("{path} is no policy: is the daemon of another version?")]
    Parse {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Policy {
    /// Reads the file; nothing is allowed to anybody where there is none. Blocks.
    ///
    /// # Errors
    /// When it is there and cannot be read or understood.
    pub fn read(path: &Utf8Path) -> Result<Self, PolicyError> {
        let Some(text) = read_bounded(path, MAX_FILE)? else {
            return Ok(Self::default());
        };
        serde_json::from_slice(&text).map_err(|source| PolicyError::Parse {
            path: path.to_owned(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::put;
    use super::*;

    fn policy(network: Network, hosts: &[&str]) -> AgentPolicy {
        AgentPolicy {
            network,
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        }
    }

    #[test]
    fn only_the_network_hosts_reaches_hosts() {
        let target = Target::parse("example.org:443").expect("a target");
        for (network, allowed) in [
            (Network::None, false),
            (Network::Model, false),
            (Network::Hosts, true),
            (Network::Host, false),
        ] {
            assert_eq!(
                policy(network, &["example.org"]).allows(&target),
                allowed,
                "{network:?}"
            );
        }
    }

    #[test]
    fn an_entry_that_is_none_lists_nothing_and_harms_no_other() {
        let target = Target::parse("example.org:443").expect("a target");
        assert!(policy(Network::Hosts, &["*", "", "example.org"]).allows(&target));
        assert!(!policy(Network::Hosts, &["*", "*."]).allows(&target));
    }

    #[test]
    fn a_file_that_is_not_there_allows_nothing_and_one_that_is_broken_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8Path::from_path(folder.path())
            .expect("UTF-8")
            .join("egress.json");
        assert_eq!(Policy::read(&path).expect("no file"), Policy::default());
        put(&path, "{");
        assert!(matches!(Policy::read(&path), Err(PolicyError::Parse { .. })));
        let text =
            r#"{ "agents": { "alice": { "network": "hosts", "hosts": ["a.b"], "new": 1 } }, "newer": true }"#;
        put(&path, text);
        let read = Policy::read(&path).expect("a policy of a later version");
        assert_eq!(
            read.agents.values().next(),
            Some(&policy(Network::Hosts, &["a.b"]))
        );
    }
}
