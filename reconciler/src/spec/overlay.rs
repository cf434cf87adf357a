//! What an agent's own `agent.json` must mean: no less than the same fields of the spec.

use std::collections::BTreeMap;

use shared::config::Overlay;
use shared::spec::{AgentSpec, SecretSpec};

use super::fault::{At, Fault, Findings};
use super::{document, validate};

/// The faults of an overlay and of the text that it was read from.
///
/// Whom the agent may write to and which secrets it has is not looked up: the spec has the last word on both.
pub fn overlay_faults(text: &[u8], overlay: &Overlay) -> Vec<Fault> {
    let mut out = Findings::default();
    // A reader of the diff might take the one that does not count for the one that does.
    if let Ok((_, duplicates)) = document::read(text) {
        for duplicate in duplicates {
            out.add(duplicate.path, "is given more than once: keep one");
        }
    }
    let Overlay {
        prompt,
        driver,
        mcp_servers,
        tools,
        recipients,
        network,
    } = overlay.clone();
    let servers: BTreeMap<_, _> = mcp_servers
        .into_iter()
        .filter_map(|(name, server)| Some((name, server?)))
        .collect();
    let declared = |name: &String| {
        let file = "/declared/elsewhere".to_owned();
        let version = String::new();
        (name.clone(), SecretSpec { file, version })
    };
    let agent = AgentSpec {
        secrets: servers
            .values()
            .flat_map(|server| server.secret_headers.values().map(declared))
            .collect(),
        prompt: prompt.unwrap_or_default(),
        driver: driver.unwrap_or_default(),
        tools: tools.unwrap_or_default(),
        network: network.unwrap_or_default(),
        mcp_servers: servers,
        recipients,
        ..AgentSpec::default()
    };
    validate::agent(&At::Top, &agent, None, &mut out);
    out.into_faults(&At::Top)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn faults(overlay: &Value) -> Vec<String> {
        let text = overlay.to_string();
        let overlay: Overlay = serde_json::from_str(&text).expect("an overlay");
        let faults = overlay_faults(text.as_bytes(), &overlay);
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_ordinary_overlay_has_no_fault() {
        let ordinary = json!({
            "prompt": "You look after the wiki.",
            "driver": { "kind": "claude", "model": "haiku" },
            "mcpServers": {
                "wiki": { "command": "/bin/wiki", "args": ["-x"], "env": { "A": "b" } },
                "far": { "url": "https://example.org/mcp", "secretHeaders": { "Authorization": "key" } },
                "gone": null,
            },
            "tools": { "allow": ["Read"], "deny": [] },
            "recipients": ["operator", "somebody"],
            "network": "hosts",
        });
        assert_eq!(faults(&ordinary), [""; 0]);
        assert_eq!(faults(&json!({})), [""; 0]);
    }

    #[test]
    fn what_the_spec_may_not_say_an_agent_may_not_say_either() {
        let server = |server: Value| json!({ "mcpServers": { "x": server } });
        for (overlay, place) in [
            (
                json!({ "driver": { "kind": "claude", "model": "--dangerously" } }),
                "driver.model",
            ),
            (json!({ "driver": { "kind": "acp" } }), "driver.command"),
            (
                json!({ "driver": { "kind": "acp", "command": "agent" } }),
                "driver.command",
            ),
            (json!({ "driver": { "command": "/agent" } }), "driver.command"),
            (
                json!({ "driver": { "kind": "scripted", "args": ["x"] } }),
                "driver.args",
            ),
            (
                json!({ "driver": { "kind": "acp", "command": "/agent", "args": ["\u{0}"] } }),
                "driver.args[0]",
            ),
            (json!({ "prompt": "\u{0}" }), "prompt"),
            (server(json!({ "command": "sh" })), "mcpServers.x.command"),
            (
                server(json!({ "command": "/bin/../bin/sh" })),
                "mcpServers.x.command",
            ),
            (
                server(json!({ "command": "/x", "url": "https://x" })),
                "mcpServers.x",
            ),
            (server(json!({})), "mcpServers.x"),
            (
                json!({ "mcpServers": { "a__b": { "command": "/x" } } }),
                "mcpServers.a__b",
            ),
            (
                json!({ "mcpServers": { "a_": { "command": "/x" } } }),
                "mcpServers.a_",
            ),
            (
                json!({ "mcpServers": { "hive": { "command": "/x" } } }),
                "mcpServers.hive",
            ),
            (server(json!({ "url": "file:///etc/passwd" })), "mcpServers.x.url"),
            (
                server(json!({ "command": "/x", "args": ["\u{0}"] })),
                "mcpServers.x.args[0]",
            ),
            (
                server(json!({ "command": "/x", "env": { "A=B": "" } })),
                "mcpServers.x.env",
            ),
            (json!({ "recipients": ["system"] }), "recipients"),
        ] {
            let faults = faults(&overlay);
            assert!(
                faults.iter().any(|fault| fault.starts_with(place)),
                "{place} is not blamed for {overlay}: {faults:?}"
            );
        }
    }

    #[test]
    fn a_server_that_is_given_twice_is_a_fault() {
        let text = br#"{ "mcpServers": { "x": { "command": "/bin/safe" }, "x": { "command": "/bin/sh" } } }"#;
        let overlay: Overlay = serde_json::from_slice(text).expect("an overlay");
        let faults = overlay_faults(text, &overlay);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].path, "mcpServers.x");
    }
}
