//! What of a valid spec this version does not do yet. It is said wherever somebody would look, never passed over.

use shared::spec::{AgentSpec, BuilderKind, DriverKind, LimitsSpec, RuntimeKind, Spec};

/// Why this daemon cannot run any agent of this spec.
///
/// `runtime` is what the daemon was started with: agents that run are not handed from one kind to another.
pub fn unsupported(spec: &Spec, runtime: RuntimeKind, builder: BuilderKind) -> Option<String> {
    if spec.runtime.kind != runtime {
        return Some(format!(
            "runtime.kind was {runtime} when the daemon started and is {} now: stop all agents, then restart the daemon",
            spec.runtime.kind
        ));
    }
    (spec.builder.kind != builder).then(|| {
        format!(
            "builder.kind was {builder} when the daemon started and is {} now: restart the daemon",
            spec.builder.kind
        )
    })
}

/// Declared for the hive, and without effect in this version.
pub fn of_hive(spec: &Spec) -> Vec<String> {
    let declared = [
        (spec.web.listen.is_some(), "web.listen", "there is no web UI"),
        (spec.forge.is_some(), "forge", "config repos are not mirrored"),
        (
            spec.builder.kind == BuilderKind::Nix && spec.runtime.kind == RuntimeKind::Process,
            "the system that builder.kind \"nix\" builds",
            "runtime.kind \"process\" uses its config and starts no system",
        ),
    ];
    without_effect(&declared)
}

/// Declared for an agent, and without effect in this version.
pub fn of_agent(spec: &AgentSpec, runtime: RuntimeKind) -> Vec<String> {
    let in_processes = runtime == RuntimeKind::Process;
    let declared = [
        (
            in_processes && spec.limits != LimitsSpec::default(),
            "limits",
            "the process runtime has no cgroups to enforce them",
        ),
        (
            spec.driver.kind == DriverKind::Acp && has_secret_headers(spec),
            "mcpServers.NAME.secretHeaders",
            "programs that speak ACP may pass headers on as words that the whole machine can see, so the driver \"acp\" \
             leaves such servers out; use \"claude\"",
        ),
        (
            in_processes && spec.system.is_some(),
            "system",
            "only containers have an operating system of their own",
        ),
    ];
    without_effect(&declared)
}

/// Declared for an agent, and without effect on what this daemon builds.
pub fn of_build(spec: &AgentSpec, builder: BuilderKind) -> Vec<String> {
    let is_plain = builder == BuilderKind::Plain;
    let declared = [(
        !spec.modules.is_empty() && is_plain,
        "modules",
        "they are for the nix builder",
    )];
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
        assert_eq!(
            unsupported(&plain, RuntimeKind::Process, BuilderKind::Plain),
            None
        );
        assert!(of_hive(&plain).is_empty());
        assert!(of_agent(plain.agents.values().next().unwrap(), RuntimeKind::Process).is_empty());

        let more = spec(
            r#"{ "version": 1, "hive": { "name": "h" }, "web": { "listen": "127.0.0.1:1" },
                 "agents": { "a": { "limits": { "memory": "1G" }, "network": "hosts", "modules": ["/m"] } } }"#,
        );
        assert_eq!(of_hive(&more).len(), 1);
        let alice = more.agents.values().next().unwrap();
        assert_eq!(of_agent(alice, RuntimeKind::Process).len(), 1);
        assert_eq!(of_build(alice, BuilderKind::Plain).len(), 1);
        assert!(of_build(alice, BuilderKind::Nix).is_empty());
        let in_a_container = of_agent(alice, RuntimeKind::Nspawn);
        assert!(
            !in_a_container.iter().any(|notice| notice.starts_with("limits")),
            "{in_a_container:?}"
        );
    }

    #[test]
    fn a_driver_that_cannot_keep_a_header_secret_is_named() {
        let notices = |driver: &str| {
            let far = json!({ "url": "https://example.org", "secretHeaders": { "Authorization": "key" } });
            let spec =
                json!({ "network": "host", "driver": { "kind": driver }, "mcpServers": { "far": far } });
            of_agent(&serde_json::from_value(spec).unwrap(), RuntimeKind::Process)
        };
        assert!(notices("acp")[0].contains("secretHeaders"));
        assert_eq!(notices("claude"), Vec::<String>::new());
    }

    #[test]
    fn agents_are_not_handed_from_one_kind_of_runtime_to_another() {
        let nspawn = spec(r#"{ "version": 1, "hive": { "name": "h" }, "runtime": { "kind": "nspawn" } }"#);
        assert_eq!(
            unsupported(&nspawn, RuntimeKind::Nspawn, BuilderKind::Plain),
            None
        );
        let why = unsupported(&nspawn, RuntimeKind::Process, BuilderKind::Plain).unwrap();
        assert!(
            why.contains("was process") && why.contains("restart the daemon"),
            "{why}"
        );
    }

    #[test]
    fn a_builder_is_changed_by_a_restart_alone() {
        let nix = spec(r#"{ "version": 1, "hive": { "name": "h" }, "builder": { "kind": "nix" } }"#);
        assert_eq!(unsupported(&nix, RuntimeKind::Process, BuilderKind::Nix), None);
        let why = unsupported(&nix, RuntimeKind::Process, BuilderKind::Plain).unwrap();
        assert!(
            why.contains("was plain") && why.contains("restart the daemon"),
            "{why}"
        );
        assert_eq!(of_hive(&nix).len(), 1);
    }

    #[test]
    fn what_only_nix_takes_is_named_without_it() {
        let agent = json!({ "modules": ["/m"] });
        let agent: AgentSpec = serde_json::from_value(agent).unwrap();
        assert_eq!(of_build(&agent, BuilderKind::Plain).len(), 1);
        assert_eq!(of_build(&agent, BuilderKind::Nix).len(), 0);
    }
}
