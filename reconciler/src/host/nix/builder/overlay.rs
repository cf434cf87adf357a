//! The two files in which an agent may say what it wants different.

use shared::config::{OVERLAY_FILE, Overlay};

use crate::host::HostError;
use crate::host::nix::flake::MODULE_FILE;

/// Puts together what the agent's two files say. A field that both set is a contradiction.
pub(super) fn merged(json: Overlay, own: Overlay) -> Result<Overlay, HostError> {
    fn one<T>(field: &str, json: Option<T>, own: Option<T>) -> Result<Option<T>, HostError> {
        match (json, own) {
            (Some(_), Some(_)) => Err(HostError::refused(
                format!("{MODULE_FILE}: hyperhive.{field}"),
                format!("{OVERLAY_FILE} sets this too: keep one of the two"),
            )),
            (json, own) => Ok(json.or(own)),
        }
    }
    let mut mcp_servers = json.mcp_servers;
    for (name, server) in own.mcp_servers {
        let field = format!("mcpServers.{name}");
        let before = mcp_servers.remove(&name);
        if let Some(server) = one(&field, before, Some(server))? {
            mcp_servers.insert(name, server);
        }
    }
    Ok(Overlay {
        prompt: one("prompt", json.prompt, own.prompt)?,
        driver: one("driver", json.driver, own.driver)?,
        mcp_servers,
        tools: one("tools", json.tools, own.tools)?,
        recipients: one("recipients", json.recipients, own.recipients)?,
        network: one("network", json.network, own.network)?,
    })
}
