//! Finds out whether declared MCP servers work: starts each, shakes hands, asks for its tools, ends it.
//!
//! A server is probed when it is declared or its declaration changes, never again, and never in the way of a turn. What
//! the latest turn found is held against that: a server that works here and not there does not work.

mod http;
mod list;
mod stdio;
mod tls;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use shared::ServerName;
use shared::config::AgentConfig;
use shared::spec::McpServerSpec;
use shared::status::{McpHealth, McpServerState};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::RootCertStore;

use crate::children::Children;
use crate::driver::ServerInTurn;
use crate::driver::tools::{self, Offered};
use crate::relay::Ways;
use crate::secrets::{SecretError, Secrets};

pub use list::{MAX_TOOL_NAME, MAX_TOOLS, Tools, list_tools};

/// How long a server may take to answer the handshake and name its tools.
const TIME: Duration = Duration::from_secs(10);
/// Probes that run at once.
const AT_ONCE: usize = 4;

/// The result of one probe.
#[derive(Debug)]
pub struct Probed {
    name: ServerName,
    round: u64,
    state: McpServerState,
}

#[derive(Debug)]
struct Declared {
    server: McpServerSpec,
    round: u64,
    /// Absent while the probe runs.
    state: Option<McpServerState>,
    /// What the latest turn found.
    in_turn: Option<ServerInTurn>,
    probe: JoinHandle<()>,
}

impl Drop for Declared {
    fn drop(&mut self) {
        self.probe.abort();
    }
}

/// What a probe needs besides the declaration.
#[derive(Debug, Clone)]
struct Means {
    children: Children,
    /// Where servers that are programs are started.
    folder: Utf8PathBuf,
    secrets: Secrets,
    /// What leads out of the container.
    ways: Ways,
    /// Whom to trust over https; without, whom the machine trusts.
    roots: Option<RootCertStore>,
}

/// All declared servers and what is known of them.
#[derive(Debug)]
pub struct Probes {
    means: Means,
    /// The config of the latest declaration: whose variables servers that are programs get.
    config: Option<Arc<AgentConfig>>,
    declared: BTreeMap<ServerName, Declared>,
    /// Rules that refuse tools.
    denied: BTreeSet<String>,
    results: mpsc::UnboundedSender<Probed>,
    turnstile: Arc<Semaphore>,
    rounds: u64,
}

impl Probes {
    /// No servers yet. They are started in `folder`; results come out of the receiver.
    pub fn new(
        children: Children,
        folder: Utf8PathBuf,
        secrets: Secrets,
        ways: Ways,
    ) -> (Self, mpsc::UnboundedReceiver<Probed>) {
        let (results, receiver) = mpsc::unbounded_channel();
        let probes = Self {
            means: Means {
                children,
                folder,
                secrets,
                ways,
                roots: None,
            },
            config: None,
            declared: BTreeMap::new(),
            denied: BTreeSet::new(),
            results,
            turnstile: Arc::new(Semaphore::new(AT_ONCE)),
            rounds: 0,
        };
        (probes, receiver)
    }

    /// Takes over what is declared now: forgets what is gone and probes what is new or changed.
    pub fn declare(&mut self, config: &Arc<AgentConfig>) {
        let servers = &config.mcp_servers;
        self.denied.clone_from(&config.tools.deny);
        let before = self.config.replace(Arc::clone(config));
        let same_variables = before.is_none_or(|before| before.secret_env == config.secret_env);
        self.declared.retain(|name, known| {
            let has_variables = known.server.command.is_some();
            servers.get(name) == Some(&known.server) && (same_variables || !has_variables)
        });
        for (name, server) in servers {
            if !self.declared.contains_key(name) {
                self.rounds += 1;
                let declared = Declared {
                    server: server.clone(),
                    round: self.rounds,
                    state: None,
                    in_turn: None,
                    probe: self.start(name.clone(), server.clone(), Arc::clone(config)),
                };
                self.declared.insert(name.clone(), declared);
            }
        }
    }

    fn start(&self, name: ServerName, server: McpServerSpec, config: Arc<AgentConfig>) -> JoinHandle<()> {
        let (means, results) = (self.means.clone(), self.results.clone());
        let (turnstile, round) = (Arc::clone(&self.turnstile), self.rounds);
        tokio::spawn(async move {
            // Never closed, so there is always a permit in the end.
            let _permit = turnstile.acquire().await;
            let state = probe(&means, &config, &server, TIME).await;
            match &state.error {
                None => tracing::info!(server = %name, tools = state.tools.len(), "MCP server works"),
                Some(error) => tracing::warn!(server = %name, error, "MCP server does not work"),
            }
            if results.send(Probed { name, round, state }).is_err() {
                tracing::debug!("nobody waits for probes any more");
            }
        })
    }

    /// Takes over a result, unless its server was changed or removed meanwhile.
    pub fn note(&mut self, probed: Probed) {
        let Probed { name, round, state } = probed;
        if let Some(known) = self.declared.get_mut(&name)
            && known.round == round
        {
            known.state = Some(state);
        }
    }

    /// What the servers that answered offer.
    pub fn offered(&self) -> Offered {
        let answered = self.declared.iter().filter_map(|(name, known)| {
            let state = known.state.as_ref()?;
            (state.health == McpHealth::Healthy).then(|| (name.clone(), state.tools.clone()))
        });
        answered.collect()
    }

    /// Takes over what a turn found, by the names of the servers.
    pub fn note_turn(&mut self, found: BTreeMap<String, ServerInTurn>) {
        for (name, found) in found {
            if let Some(known) = self.declared.get_mut(name.as_str()) {
                known.in_turn = Some(found);
            }
        }
    }

    /// What is known; servers whose probe still runs are absent.
    pub fn states(&self) -> BTreeMap<ServerName, McpServerState> {
        let known = self.declared.iter().filter_map(|(name, known)| {
            let probed = known.state.as_ref()?;
            let state = match &known.in_turn {
                Some(in_turn) => verdict::of(probed, in_turn, |tool| {
                    let denied = tools::denies(&self.denied, name.as_str(), tool);
                    tools::allows(&known.server, tool) && !denied
                }),
                None => probed.clone(),
            };
            Some((name.clone(), state))
        });
        known.collect()
    }
}

/// Probes one server, and leaves nothing of it behind.
async fn probe(
    means: &Means,
    config: &Arc<AgentConfig>,
    server: &McpServerSpec,
    time: Duration,
) -> McpServerState {
    let ways = means.ways.environment(config);
    let answer = match (&server.command, &server.url) {
        (Some(command), _) => {
            let (secrets, config) = (means.secrets.clone(), Arc::clone(config));
            match read(move || secrets.variables(&config)).await {
                Ok(variables) => stdio::probe(means, command, server, &variables, &ways, time).await,
                Err(error) => Err(error),
            }
        }
        (None, Some(url)) => {
            let (secrets, declared) = (means.secrets.clone(), server.clone());
            match read(move || secrets.headers(&declared)).await {
                Ok((headers, secrets)) => {
                    let proxy = means.ways.proxy(config);
                    let answer = http::probe(url, headers, means.roots.clone(), proxy, time).await;
                    answer.map_err(|error| secrets.without(&error))
                }
                Err(error) => Err(error),
            }
        }
        (None, None) => {
            Err("its declaration names neither a command nor a url: set one of the two".to_owned())
        }
    };
    match answer {
        Ok(Tools {
            names,
            more,
            schema_tokens,
        }) => McpServerState {
            tools: names,
            more_tools: more,
            schema_tokens: Some(schema_tokens),
            ..McpServerState::of(McpHealth::Healthy)
        },
        Err(error) => McpServerState {
            error: Some(error),
            ..McpServerState::of(McpHealth::Failed)
        },
    }
}

/// Reads secrets where that may block. The error is for a person.
async fn read<T: Send + 'static>(
    secrets: impl FnOnce() -> Result<T, SecretError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(secrets).await {
        Ok(read) => read.map_err(|error| crate::error_chain(&error)),
        Err(_) => Err("its secrets were not read: the harness is ending".to_owned()),
    }
}

#[cfg(test)]
mod tests;
