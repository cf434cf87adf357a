//! The MCP servers of a turn, as the program wants them told (pure).

use serde_json::{Map, Value, json};
use shared::TurnId;
use shared::config::AgentConfig;
use shared::spec::McpServerSpec;

use crate::driver::program::OwnServer;
use crate::driver::tools;
use crate::secrets::header_variable;

/// The name of the hive's own server: `hive-harness mcp`.
pub(super) use shared::config::OWN_MCP_SERVER as OWN;

/// The document for `--mcp-config`.
pub(super) fn document(own: &OwnServer, config: &AgentConfig, turn: TurnId) -> Value {
    let mut servers = Map::new();
    for (name, server) in tools::declared(config) {
        if let Some(server) = declared(server) {
            servers.insert(name.to_string(), server);
        }
    }
    servers.insert(
        OWN.to_owned(),
        json!({ "command": own.program, "args": own.args_for(turn), "env": {}, "alwaysLoad": true }),
    );
    json!({ "mcpServers": servers })
}

/// The names in the document.
pub(super) fn names(config: &AgentConfig) -> Vec<String> {
    let declared = tools::declared(config).filter(|(_, server)| declared(server).is_some());
    let mut names: Vec<String> = declared.map(|(name, _)| name.to_string()).collect();
    names.push(OWN.to_owned());
    names
}

/// What the spec leaves open is left out: the probe reports it.
fn declared(server: &McpServerSpec) -> Option<Value> {
    match (&server.command, &server.url) {
        (Some(command), _) => {
            Some(json!({ "command": literal(command), "args": literals(&server.args), "env": env(server) }))
        }
        (None, Some(url)) if server.secret_headers.is_empty() => {
            Some(json!({ "type": "http", "url": literal(url) }))
        }
        (None, Some(url)) => Some(json!({ "type": "http", "url": literal(url), "headers": headers(server) })),
        (None, None) => None,
    }
}

fn env(server: &McpServerSpec) -> Map<String, Value> {
    let env = server.env.iter();
    env.map(|(name, value)| (name.clone(), literal(value).into()))
        .collect()
}

/// The values are in the environment alone: this document is a file that stays in the agent's folder.
fn headers(server: &McpServerSpec) -> Map<String, Value> {
    let headers = server.secret_headers.iter();
    let headers =
        headers.map(|(header, secret)| (header.clone(), format!("${{{}}}", header_variable(secret)).into()));
    headers.collect()
}

fn literals(words: &[String]) -> Vec<String> {
    words.iter().map(|word| literal(word)).collect()
}

/// The program puts variables of its environment, the key among them, in the place of `${NAME}`, once. A declared text
/// means what it says, so its dollar is given as a variable that holds one.
fn literal(text: &str) -> String {
    text.replace("${", "${HIVE_DOLLAR}{")
}

/// The tools of all servers that need no further rule.
pub(super) fn allowed(config: &AgentConfig) -> Vec<String> {
    let mut rules = vec![format!("mcp__{OWN}")];
    for (name, server) in tools::declared(config) {
        if server.allowed_tools.contains("*") {
            rules.push(format!("mcp__{name}"));
        } else {
            let allowed = server.allowed_tools.iter();
            rules.extend(allowed.map(|tool| tools::full(name.as_str(), tool)));
        }
    }
    rules
}
