//! Finds out whether declared MCP servers work: starts each, shakes hands, asks for its tools, ends it.
//!
//! A server is probed when it is declared or its declaration changes, never again, and never in the way of a turn.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rmcp::ServiceExt as _;
use rmcp::model::{ClientCapabilities, ClientConfig, Implementation, ProtocolVersion};
use shared::ServerName;
use shared::spec::McpServerSpec;
use shared::status::{McpHealth, McpServerState};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::children::{self, Children};
use crate::driver::tools::Offered;

/// How long a server may take to answer the handshake and name its tools.
const TIME: Duration = Duration::from_secs(10);
/// How long it may take to end once its input is closed.
const END_TIME: Duration = Duration::from_millis(500);
/// The most it may say.
const MAX_OUTPUT: u64 = 8 * 1024 * 1024;
/// The most tools of one server that are reported.
pub const MAX_TOOLS: usize = 512;
/// The longest name of a tool that is reported, in characters, besides the mark that it was shortened.
pub const MAX_TOOL_NAME: usize = 128;
/// Probes that run at once.
const AT_ONCE: usize = 4;

/// Why a server failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Its program cannot be run.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("did not answer initialize and tools/list within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// It did not shake hands.
    #[error("initialize failed")]
    Initialize(#[source] Box<rmcp::service::ClientInitializeError>),
    /// It did not name its tools.
    #[error("tools/list failed")]
    ListTools(#[source] Box<rmcp::ServiceError>),
}

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
    probe: JoinHandle<()>,
}

impl Drop for Declared {
    fn drop(&mut self) {
        self.probe.abort();
    }
}

/// All declared servers and what is known of them.
#[derive(Debug)]
pub struct Probes {
    children: Children,
    folder: Utf8PathBuf,
    declared: BTreeMap<ServerName, Declared>,
    results: mpsc::UnboundedSender<Probed>,
    turnstile: Arc<Semaphore>,
    rounds: u64,
}

impl Probes {
    /// No servers yet. They are started in `folder`; results come out of the receiver.
    pub fn new(children: Children, folder: Utf8PathBuf) -> (Self, mpsc::UnboundedReceiver<Probed>) {
        let (results, receiver) = mpsc::unbounded_channel();
        let probes = Self {
            children,
            folder,
            declared: BTreeMap::new(),
            results,
            turnstile: Arc::new(Semaphore::new(AT_ONCE)),
            rounds: 0,
        };
        (probes, receiver)
    }

    /// Takes over what is declared now: forgets what is gone and probes what is new or changed.
    pub fn declare(&mut self, servers: &BTreeMap<ServerName, McpServerSpec>) {
        self.declared
            .retain(|name, known| servers.get(name) == Some(&known.server));
        for (name, server) in servers {
            if !self.declared.contains_key(name) {
                self.rounds += 1;
                let declared = Declared {
                    server: server.clone(),
                    round: self.rounds,
                    state: None,
                    probe: self.start(name.clone(), server.clone()),
                };
                self.declared.insert(name.clone(), declared);
            }
        }
    }

    fn start(&self, name: ServerName, server: McpServerSpec) -> JoinHandle<()> {
        let (children, folder, results) = (self.children.clone(), self.folder.clone(), self.results.clone());
        let (turnstile, round) = (Arc::clone(&self.turnstile), self.rounds);
        tokio::spawn(async move {
            // Never closed, so there is always a permit in the end.
            let _permit = turnstile.acquire().await;
            let state = probe(&children, &folder, &server, TIME).await;
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

    /// What is known; servers whose probe still runs are absent.
    pub fn states(&self) -> BTreeMap<ServerName, McpServerState> {
        self.declared
            .iter()
            .filter_map(|(name, known)| Some((name.clone(), known.state.clone()?)))
            .collect()
    }
}

/// Probes one server, and leaves nothing of it behind.
async fn probe(
    children: &Children,
    folder: &Utf8Path,
    server: &McpServerSpec,
    time: Duration,
) -> McpServerState {
    let bad = |health, error: String| McpServerState {
        health,
        tools: Vec::new(),
        error: Some(error),
    };
    match (&server.command, &server.url) {
        (Some(command), _) => probe_stdio(children, folder, command, server, time)
            .await
            .map_or_else(
                |error| bad(McpHealth::Failed, error),
                |tools| McpServerState {
                    health: McpHealth::Healthy,
                    tools,
                    error: None,
                },
            ),
        (None, Some(_)) => bad(
            McpHealth::Unprobed,
            "this harness cannot probe HTTP servers yet".into(),
        ),
        (None, None) => bad(
            McpHealth::Failed,
            "its declaration names neither a command nor a url: set one of the two".into(),
        ),
    }
}

async fn probe_stdio(
    children: &Children,
    folder: &Utf8Path,
    program: &str,
    server: &McpServerSpec,
    time: Duration,
) -> Result<Vec<String>, String> {
    let mut command = children::command(program);
    command
        .args(&server.args)
        .envs(&server.env)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let spawned = children.spawn(&mut command).and_then(|mut child| {
        let (input, output, errors) = (child.stdin(), child.stdout(), child.stderr());
        let lost = || std::io::Error::other("a pipe is missing");
        Ok((
            child,
            input.ok_or_else(lost)?,
            output.ok_or_else(lost)?,
            errors.ok_or_else(lost)?,
        ))
    });
    let (mut child, input, output, errors) = spawned.map_err(|source| {
        let program = crate::tame(program, 200);
        crate::error_chain(&ProbeError::Start { program, source })
    })?;
    let errors = tokio::spawn(children::last_words(errors));

    let result = tokio::time::timeout(time, list_tools(input, output))
        .await
        .unwrap_or(Err(ProbeError::TimedOut(time)));
    // A working server ends when its input closes; whatever is left of it then does not get a choice.
    if result.is_ok() {
        child.linger(END_TIME).await;
    }
    if let Err(error) = child.end().await {
        tracing::debug!(%error, "MCP server's exit status not collected");
    }
    match result {
        Ok(tools) => {
            errors.abort();
            Ok(tools)
        }
        Err(error) => {
            let mut text = crate::tame(&crate::error_chain(&error), 1000);
            // A process outside the group may still hold the pipe open.
            if let Ok(Ok(tail)) = tokio::time::timeout(END_TIME, errors).await
                && !tail.is_empty()
            {
                text.push_str("; it wrote: ");
                text.push_str(&tail);
            }
            Err(text)
        }
    }
}

/// Shakes hands with the server whose standard input and output these are, and asks for its tools: their names without
/// control characters, sorted, each once. Waits for as long as the server keeps it waiting.
///
/// # Errors
/// When the server does not answer as MCP says, or says more than it may.
pub async fn list_tools(
    input: impl AsyncWrite + Send + Unpin + 'static,
    output: impl AsyncRead + Send + Unpin + 'static,
) -> Result<Vec<String>, ProbeError> {
    let version = env!("CARGO_PKG_VERSION");
    let client = ClientConfig::new(
        ClientCapabilities::default(),
        Implementation::new("hive-harness", version),
    )
    .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE);
    let service = client
        .serve((output.take(MAX_OUTPUT), input))
        .await
        .map_err(|error| ProbeError::Initialize(Box::new(error)))?;
    let tools = service
        .list_all_tools()
        .await
        .map_err(|error| ProbeError::ListTools(Box::new(error)));
    if let Err(error) = service.cancel().await {
        tracing::debug!(%error, "MCP client did not end well");
    }
    let mut names: Vec<String> = tools?
        .into_iter()
        .map(|tool| crate::tame(&tool.name, MAX_TOOL_NAME))
        .collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(MAX_TOOLS);
    Ok(names)
}

#[cfg(test)]
mod tests;
