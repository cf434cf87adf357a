//! The MCP server of one turn: `hive-harness mcp`, started by the driver's program, on its standard input and output.
//!
//! It holds nothing that must outlive it. What it is told goes to the daemon over the agent's socket, and a little of
//! it to the loop of the harness over the control socket. Who the agent is, the sockets say; the client says nothing
//! that is believed.
//!
//! ```text
//!   claude --stdio--> server --> tools/* --> host_client --> daemon
//!                                      \---> control ------> serve
//! ```

pub mod command;
mod context;
mod error;
mod files;
mod schema;
mod server;
mod show;
mod tool;
mod tools;

use std::sync::Arc;

use camino::Utf8PathBuf;
use rmcp::ServiceExt as _;
use rmcp::service::ServerInitializeError;
use serde_json::{Value, json};
use shared::TurnId;
use shared::spec::Role;

use crate::config;
use context::Hive;
use server::Server;

/// Where everything is, and whose turn it is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The agent API's socket.
    pub socket: Utf8PathBuf,
    /// The socket of the harness's loop.
    pub control: Utf8PathBuf,
    /// The agent's own folder.
    pub state: Utf8PathBuf,
    /// The folder that holds `agent.json`.
    pub config: Utf8PathBuf,
    /// The turn, which holds the leases.
    pub turn: TurnId,
}

/// Why the server ended other than by its client's wish.
#[derive(Debug, thiserror::Error)]
pub enum McpError {
    /// The HTTP client cannot be set up.
    #[error("cannot set up the client of the agent API")]
    Client(#[source] reqwest::Error),
    /// The client did not begin as MCP says.
    #[error("the client on standard input does not speak MCP")]
    Initialize(#[source] Box<ServerInitializeError>),
    /// Its task broke off.
    #[error("the server broke off")]
    Broken(#[source] tokio::task::JoinError),
}

/// Serves one client on standard input and output, until it closes them.
///
/// # Errors
/// When the client does not speak MCP, or the server cannot be set up.
pub async fn serve(settings: Settings) -> Result<(), McpError> {
    let role = role(settings.config.clone()).await;
    let hive = Hive::new(settings).map_err(McpError::Client)?;
    let server = Server::new(Arc::new(hive), role);
    let running = match server.serve(rmcp::transport::stdio_pipes()).await {
        Ok(running) => running,
        // Somebody looked whether the program starts.
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => return Err(McpError::Initialize(Box::new(error))),
    };
    let reason = running.waiting().await.map_err(McpError::Broken)?;
    tracing::debug!(?reason, "client gone");
    Ok(())
}

/// The agent's role as the config in force says it. Only what is *offered* hangs on it: the daemon decides what is done.
async fn role(folder: Utf8PathBuf) -> Role {
    let loaded = tokio::task::spawn_blocking(move || config::load(&folder)).await;
    match loaded {
        Ok(Ok(file)) => file.config.role,
        Ok(Err(error)) => {
            let error = crate::error_chain(&error);
            tracing::warn!(
                error,
                "config not readable: the tools of managers are not offered"
            );
            Role::default()
        }
        Err(error) => {
            tracing::warn!(%error, "config not read: the tools of managers are not offered");
            Role::default()
        }
    }
}

/// All tools as a client is told of them: those of every agent, and those of managers besides.
pub fn reference() -> Value {
    let list = |managers| -> Vec<_> {
        tools::all()
            .into_iter()
            .filter(|entry| entry.for_managers == managers)
            .map(|entry| entry.tool)
            .collect()
    };
    json!({ "everyAgent": list(false), "managers": list(true) })
}

#[cfg(test)]
mod tests;
