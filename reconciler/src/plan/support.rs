//! What of a valid spec this version does not do yet. It is said wherever somebody would look, never passed over.

use shared::spec::{AgentSpec, BuilderKind, DriverKind, LimitsSpec, RuntimeKind, Spec};

/// Why this daemon cannot run any agent of this spec.
pub fn unsupported(spec: &Spec) -> Option<String> {
    match (spec.runtime.kind, spec.builder.kind) {
        (RuntimeKind::Nspawn, _) => {
            Some("runtime.kind \"nspawn\" is not part of this version yet: write \"process\"".to_owned())
        }
        (_, BuilderKind::Nix) => {
            Some("builder.kind \"nix\" is not part of this version yet: write \"plain\"".to_owned())
        }
        (RuntimeKind::Process, BuilderKind::Plain) => None,
    }
}

/// Declared for the hive, and without effect in this version.
pub fn of_hive(spec: &Spec) -> Vec<String> {
    let declared = [
        (spec.web.listen.is_some(), "web.listen", "there is no web UI"),
        (spec.forge.is_some(), "forge", "config repos are not mirrored"),
    ];
    without_effect(&declared)
}

/// Declared for an agent, and without effect in this version.
pub fn of_agent(spec: &AgentSpec) -> Vec<String> {
    let declared = [
        (
            spec.limits != LimitsSpec::default(),
            "limits",
            "the process runtime has no cgroups to enforce them",
        ),
        (
            spec.driver.kind == DriverKind::Acp && has_secret_headers(spec),
            "mcpServers.NAME.secretHeaders",
            "programs that speak ACP may pass headers on as words that the whole machine can see, so the driver \"acp\" \
             leaves such servers out; use \"claude\"",
        ),
        (spec.system.is_some(), "system", "it is for the nix builder"),
        (
            !spec.modules.is_empty(),
            "modules",
            "they are for the nix builder",
        ),
    ];
    without_effect(&declared)
}

fn has_secret_headers(spec: &AgentSpec) -> bool {
    spec.mcp_servers
        .values()
        .any(|server| !server.secret_headers.is_empty())
}

fn without_effect(declared: &[(bool, &str, &str)]) -> Vec<String> {
    let named = declared.iter().filter(|(is_declared, _, _)| *is_declared);
    named
        .map(|(_, field, why)| format!("{field} has no effect in this version: {why}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(text: &str) -> Spec {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_has_no_effect_is_named_and_what_has_is_not() {
        let plain = spec(
            r#"{ "version": 1, "hive": { "name": "h" }, "egress": { "modelUrl": "http://provider", "apiKeyFile": "/k" },
                 "agents": { "a": { "network": "host", "secrets": { "k": { "file": "/k" } }, "secretEnv": { "K": "k" } } } }"#,
        );
        assert_eq!(unsupported(&plain), None);
        assert!(of_hive(&plain).is_empty());
        assert!(of_agent(&plain.agents.values().next().unwrap().clone()).is_empty());

        let more = spec(
            r#"{ "version": 1, "hive": { "name": "h" }, "web": { "listen": "127.0.0.1:1" },
                 "agents": { "a": { "limits": { "memory": "1G" }, "network": "hosts", "modules": ["/m"] } } }"#,
        );
        assert_eq!(of_hive(&more).len(), 1);
        assert_eq!(of_agent(&more.agents.values().next().unwrap().clone()).len(), 2);
    }

    #[test]
    fn a_driver_that_cannot_keep_a_header_secret_is_named() {
        let notices = |driver: &str| {
            let far = json!({ "url": "https://example.org", "secretHeaders": { "Authorization": "key" } });
            let spec =
                json!({ "network": "host", "driver": { "kind": driver }, "mcpServers": { "far": far } });
            of_agent(&serde_json::from_value(spec).unwrap())
        };
        assert!(notices("acp")[0].contains("secretHeaders"));
        assert_eq!(notices("claude"), Vec::<String>::new());
    }

    #[test]
    fn a_runtime_that_is_not_there_is_refused_with_what_to_write_instead() {
        let nspawn = spec(r#"{ "version": 1, "hive": { "name": "h" }, "runtime": { "kind": "nspawn" } }"#);
        assert!(unsupported(&nspawn).unwrap().contains("process"));
    }
}
