//! What a turn says to the agent's program (pure).

use serde_json::{Value, json};
use shared::TurnId;
use shared::config::{AgentConfig, OWN_MCP_SERVER};

use crate::driver::program::OwnServer;
use crate::driver::tools::{self, Offered};

/// What wakes the agent. Fixed: programs carry out `/words` and open `@files` in a prompt, so nothing that somebody sent
/// may ever be in it.
const WAKE: &str = "You have messages. Fetch them with the tool `recv` of the MCP server `hive` (mcp__hive__recv or \
                    hive_recv), deal with them, then end your turn.";

/// Why a server with secret headers is withheld. `claude-agent-acp` is such a program, and the protocol cannot hand over the
/// name of a variable in the place of a value.
const VISIBLE: &str = "its headers are secrets, which a program that speaks ACP may pass on where the whole machine can see them";

/// The MCP servers of a turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Servers {
    /// Programs, the hive's own among them: every agent's program can start one.
    pub(super) programs: Vec<Value>,
    /// Servers that not every agent's program can reach, by name.
    pub(super) remote: Vec<(String, Value)>,
    /// Servers that the program is not told of, by name, and why.
    pub(super) withheld: Vec<(String, &'static str)>,
}

/// The hive's own server and the declared ones.
pub(super) fn servers(own: &OwnServer, config: &AgentConfig, turn: TurnId) -> Servers {
    let mut servers = Servers::default();
    for (name, server) in tools::declared(config) {
        if let Some(command) = &server.command {
            let env = server.env.iter();
            let env: Vec<Value> = env
                .map(|(name, value)| json!({ "name": name, "value": value }))
                .collect();
            let program = json!({ "name": name, "command": command, "args": server.args, "env": env });
            servers.programs.push(program);
        } else if !server.secret_headers.is_empty() {
            servers.withheld.push((name.to_string(), VISIBLE));
        } else if let Some(url) = &server.url {
            let remote = json!({ "type": "http", "name": name, "url": url, "headers": [] });
            servers.remote.push((name.to_string(), remote));
        }
    }
    let args = own.args_for(turn);
    servers
        .programs
        .push(json!({ "name": OWN_MCP_SERVER, "command": own.program, "args": args, "env": [] }));
    servers
}

/// The client's side of the first words.
pub(super) fn initialize() -> Value {
    json!({
        "protocolVersion": 1,
        // Files and terminals are the program's own business, inside the sandbox.
        "clientCapabilities": { "fs": { "readTextFile": false, "writeTextFile": false }, "terminal": false },
        "clientInfo": { "name": "hive-harness", "version": env!("CARGO_PKG_VERSION") },
    })
}

/// Options for the programs that take some beside the protocol; others must ignore them. `claude-agent-acp` otherwise has
/// all built-in tools, asks about few of them, and lets files of the work tree decide.
pub(super) fn meta(config: &AgentConfig, offered: &Offered) -> Value {
    let allow = &config.tools.allow;
    let names = allow
        .iter()
        .map(|rule| rule.split('(').next().unwrap_or_default().trim());
    let mut built_in: Vec<&str> = names
        .filter(|name| !name.is_empty() && !name.starts_with("mcp__"))
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    built_in.dedup();
    let mut denied: Vec<String> = config.tools.deny.iter().cloned().collect();
    denied.extend(tools::forbidden(config, offered));
    json!({ "claudeCode": { "options": {
        "tools": built_in,
        "disallowedTools": denied,
        "strictMcpConfig": true,
        "settingSources": [],
        "promptSuggestions": false,
    } } })
}

/// What the agent is told: who it is and what is wanted of it, then that it has messages. `embeds` says whether the
/// program takes a document as such, which it does not search for `/words` and `@files`.
pub(super) fn prompt(instructions: &str, embeds: bool) -> Value {
    let instructions = if embeds {
        let document =
            json!({ "uri": "hive://instructions", "mimeType": "text/markdown", "text": instructions });
        json!({ "type": "resource", "resource": document })
    } else {
        json!({ "type": "text", "text": instructions })
    };
    json!([instructions, { "type": "text", "text": WAKE }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::config;

    #[test]
    fn servers_are_handed_over_as_declared_and_none_takes_the_place_of_the_hives_own() {
        let config = config(&json!({ "mcpServers": {
            "hive": { "command": "/evil" },
            "wiki": { "command": "/w", "args": ["-x"], "env": { "A": "${B}" } },
            "far": { "url": "http://127.0.0.1:1/mcp" },
            "none": {},
            "kept": { "url": "https://127.0.0.1:1/mcp", "secretHeaders": { "Authorization": "key" } },
        } }));
        let own = OwnServer {
            program: "/bin/hive-harness".into(),
            args: vec!["mcp".to_owned()],
        };
        let turn = TurnId(crate::ids::session_id());
        let servers = servers(&own, &config, turn);
        let id = turn.to_string();
        assert_eq!(
            servers.programs,
            [
                json!({ "name": "wiki", "command": "/w", "args": ["-x"], "env": [{ "name": "A", "value": "${B}" }] }),
                json!({ "name": "hive", "command": "/bin/hive-harness", "args": ["mcp", "--turn", id], "env": [] }),
            ]
        );
        let far = json!({ "type": "http", "name": "far", "url": "http://127.0.0.1:1/mcp", "headers": [] });
        assert_eq!(servers.remote, [("far".to_owned(), far)]);
        assert_eq!(servers.withheld, [("kept".to_owned(), VISIBLE)]);
    }

    #[test]
    fn only_the_tools_that_are_allowed_exist() {
        let config = config(&json!({
            "tools": { "allow": ["Bash(git *)", "Bash(ls)", "Read", "mcp__x"], "deny": ["Read(/etc)"] },
            "mcpServers": { "wiki": { "command": "/w", "allowedTools": ["look"] } },
        }));
        let offered = [(
            "wiki".parse().expect("a name"),
            vec!["draw".to_owned(), "look".to_owned()],
        )];
        let options = &meta(&config, &offered.into())["claudeCode"]["options"];
        assert_eq!(options["tools"], json!(["Bash", "Read"]));
        assert_eq!(
            options["disallowedTools"],
            json!(["Read(/etc)", "mcp__wiki__draw"])
        );
        let none = meta(&self::config(&json!({})), &Offered::new());
        assert_eq!(
            none["claudeCode"]["options"]["tools"],
            json!([]),
            "none is none, and not all"
        );
    }

    #[test]
    fn what_wakes_the_agent_is_fixed() {
        assert!(!WAKE.contains(['@', '{']) && !WAKE.starts_with('/'));
        for embeds in [true, false] {
            let prompt = prompt("Be kind.", embeds);
            assert_eq!(prompt[1], json!({ "type": "text", "text": WAKE }));
            assert_eq!(prompt[0]["type"], if embeds { "resource" } else { "text" });
        }
    }
}
