//! The capability diff: what an agent can do after a change that it could not do before.
//!
//! One function per field, each a list of single changes with a verdict: does it widen? Whatever cannot be shown to
//! narrow, widens. A changed command, environment or prompt always widens: it can make the agent do anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serde::Serialize;
use shared::gate::CapabilityChange;
use shared::spec::{BindSpec, DriverSpec, LimitsSpec, McpServerSpec, Network, Role, SecretSpec, ToolsSpec};
use shared::{Address, ServerName};

/// Long values are shortened in the diff; the commit diff has them whole.
const SHOWN: usize = 400;

fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn json<T: Serialize>(value: &T) -> String {
    shown(&serde_json::to_string(value).unwrap_or_default())
}

fn change(
    field: impl Into<String>,
    before: Option<String>,
    after: Option<String>,
    widens: bool,
) -> CapabilityChange {
    CapabilityChange {
        field: field.into(),
        before,
        after,
        widens,
    }
}

/// A text whose every change widens.
pub fn text(field: &str, before: &str, after: &str) -> Vec<CapabilityChange> {
    if before == after {
        return Vec::new();
    }
    let some = |text: &str| (!text.is_empty()).then(|| shown(text));
    vec![change(field, some(before), some(after), true)]
}

/// A set whose every new item widens.
pub fn set<T: Ord + Display>(
    field: &str,
    before: &BTreeSet<T>,
    after: &BTreeSet<T>,
) -> Vec<CapabilityChange> {
    let gone = before
        .difference(after)
        .map(|item| change(field, Some(shown(&item.to_string())), None, false));
    let new = after
        .difference(before)
        .map(|item| change(field, None, Some(shown(&item.to_string())), true));
    gone.chain(new).collect()
}

/// How dear a model is, as far as its name tells.
fn model_rank(model: &str) -> Option<u8> {
    ["haiku", "sonnet", "opus"]
        .iter()
        .zip(1..)
        .find(|(family, _)| model.contains(**family))
        .map(|(_, r)| r)
}

/// What runs the turns.
pub fn driver(before: &DriverSpec, after: &DriverSpec) -> Vec<CapabilityChange> {
    let mut changes = Vec::new();
    if before.kind != after.kind {
        changes.push(change(
            "driver.kind",
            Some(json(&before.kind)),
            Some(json(&after.kind)),
            true,
        ));
    }
    if before.model != after.model {
        let rank = |model: &Option<String>| model.as_deref().and_then(model_rank);
        let cheaper = matches!((rank(&before.model), rank(&after.model)), (Some(b), Some(a)) if a < b);
        changes.push(change(
            "driver.model",
            before.model.clone(),
            after.model.clone(),
            !cheaper,
        ));
    }
    // Another program may be anything.
    if before.command != after.command {
        changes.push(change(
            "driver.command",
            before.command.as_deref().map(shown),
            after.command.as_deref().map(shown),
            true,
        ));
    }
    if before.args != after.args {
        changes.push(change(
            "driver.args",
            Some(json(&before.args)),
            Some(json(&after.args)),
            true,
        ));
    }
    if before.script != after.script {
        changes.push(change(
            "driver.script",
            Some(json(&before.script)),
            Some(json(&after.script)),
            true,
        ));
    }
    changes
}

/// MCP servers.
pub fn mcp_servers(
    before: &BTreeMap<ServerName, McpServerSpec>,
    after: &BTreeMap<ServerName, McpServerSpec>,
) -> Vec<CapabilityChange> {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .flat_map(|name| {
            let field = format!("mcpServers.{name}");
            match (before.get(name), after.get(name)) {
                (Some(old), Some(new)) => mcp_server(&field, old, new),
                (Some(old), None) => vec![change(field, Some(json(old)), None, false)],
                (None, Some(new)) => vec![change(field, None, Some(json(new)), true)],
                (None, None) => Vec::new(),
            }
        })
        .collect()
}

fn mcp_server(field: &str, old: &McpServerSpec, new: &McpServerSpec) -> Vec<CapabilityChange> {
    // Destructured, so that a new field cannot be forgotten here.
    let McpServerSpec {
        command,
        args,
        env,
        url,
        secret_headers,
        allowed_tools,
    } = new;
    let mut changes = Vec::new();
    let mut differs = |part: &str, before: String, after: String| {
        if before != after {
            changes.push(change(format!("{field}.{part}"), Some(before), Some(after), true));
        }
    };
    differs("command", json(&old.command), json(command));
    differs("args", json(&old.args), json(args));
    differs("env", json(&old.env), json(env));
    differs("url", json(&old.url), json(url));
    differs("secretHeaders", json(&old.secret_headers), json(secret_headers));
    let part = format!("{field}.allowedTools");
    if old.allowed_tools.contains("*") && !allowed_tools.contains("*") {
        changes.push(change(
            part,
            Some("*".to_owned()),
            Some(json(allowed_tools)),
            false,
        ));
    } else {
        changes.extend(set(&part, &old.allowed_tools, allowed_tools));
    }
    changes
}

/// Built-in tools.
pub fn tools(before: &ToolsSpec, after: &ToolsSpec) -> Vec<CapabilityChange> {
    let mut changes = set("tools.allow", &before.allow, &after.allow);
    // Fewer denials widen, more narrow: the other way round.
    let denials = set("tools.deny", &before.deny, &after.deny);
    changes.extend(denials.into_iter().map(|c| CapabilityChange {
        widens: !c.widens,
        ..c
    }));
    changes
}

/// Whom the agent may write to.
pub fn recipients(
    before: Option<&BTreeSet<Address>>,
    after: Option<&BTreeSet<Address>>,
) -> Vec<CapabilityChange> {
    let all = || Some("everybody".to_owned());
    match (before, after) {
        (None, None) => Vec::new(),
        (Some(b), Some(a)) => set("recipients", b, a),
        (Some(b), None) => vec![change("recipients", Some(json(b)), all(), true)],
        (None, Some(a)) => vec![change("recipients", all(), Some(json(a)), false)],
    }
}

/// The network.
pub fn network(before: Network, after: Network) -> Vec<CapabilityChange> {
    if before == after {
        return Vec::new();
    }
    vec![change(
        "network",
        Some(json(&before)),
        Some(json(&after)),
        after > before,
    )]
}

/// Host folders.
pub fn binds(before: &[BindSpec], after: &[BindSpec]) -> Vec<CapabilityChange> {
    let show = |bind: &BindSpec| {
        format!(
            "{} -> {} ({})",
            bind.source,
            bind.target,
            if bind.read_only { "read-only" } else { "writable" }
        )
    };
    let shown_set = |binds: &[BindSpec]| binds.iter().map(show).collect::<BTreeSet<_>>();
    set("binds", &shown_set(before), &shown_set(after))
}

/// Secrets. A new version of the same file is the same power: the operator has put something else into it.
pub fn secrets(
    before: &BTreeMap<String, SecretSpec>,
    after: &BTreeMap<String, SecretSpec>,
) -> Vec<CapabilityChange> {
    let show = |secret: &SecretSpec| match secret.version.as_str() {
        "" => secret.file.clone(),
        version => format!("{} (version {version})", secret.file),
    };
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let changed = names
        .into_iter()
        .filter(|&name| before.get(name) != after.get(name));
    changed
        .map(|name| {
            let (old, new) = (before.get(name), after.get(name));
            let widens = new.is_some_and(|new| old.is_none_or(|old| old.file != new.file));
            let told = |secret: Option<&SecretSpec>| secret.map(|secret| shown(&show(secret)));
            change(format!("secrets.{name}"), told(old), told(new), widens)
        })
        .collect()
}

/// Variables that hold a secret.
pub fn secret_env(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<CapabilityChange> {
    let shown_set = |variables: &BTreeMap<String, String>| {
        let variables = variables.iter();
        let shown = variables.map(|(variable, secret)| format!("{variable} = secret {secret}"));
        shown.collect::<BTreeSet<_>>()
    };
    set("secretEnv", &shown_set(before), &shown_set(after))
}

/// Limits on resources. Which way a limit moved is not judged: every change widens.
pub fn limits(before: &LimitsSpec, after: &LimitsSpec) -> Vec<CapabilityChange> {
    if before == after {
        return Vec::new();
    }
    vec![change("limits", Some(json(before)), Some(json(after)), true)]
}

/// What the agent is in the hive.
pub fn role(before: Role, after: Role) -> Vec<CapabilityChange> {
    if before == after {
        return Vec::new();
    }
    vec![change(
        "role",
        Some(json(&before)),
        Some(json(&after)),
        after > before,
    )]
}

#[cfg(test)]
mod tests {
    use shared::spec::DriverKind;

    use super::*;

    fn widens(changes: &[CapabilityChange]) -> bool {
        changes.iter().any(|c| c.widens)
    }

    fn server(command: &str, tools: &[&str]) -> BTreeMap<ServerName, McpServerSpec> {
        let spec = McpServerSpec {
            command: Some(command.to_owned()),
            allowed_tools: tools.iter().map(|&t| t.to_owned()).collect(),
            ..McpServerSpec::default()
        };
        BTreeMap::from([("wiki".parse().unwrap(), spec)])
    }

    #[test]
    fn a_new_or_altered_server_widens_and_a_removed_one_does_not() {
        let none = BTreeMap::new();
        assert!(widens(&mcp_servers(&none, &server("/bin/a", &["*"]))));
        assert!(widens(&mcp_servers(
            &server("/bin/a", &["*"]),
            &server("/bin/b", &["*"])
        )));
        let removed = mcp_servers(&server("/bin/a", &["*"]), &none);
        assert!(!removed.is_empty() && !widens(&removed));
    }

    #[test]
    fn fewer_tools_narrow_and_more_tools_widen() {
        let narrower = mcp_servers(&server("/bin/a", &["*"]), &server("/bin/a", &["read"]));
        assert!(!narrower.is_empty() && !widens(&narrower));
        assert!(widens(&mcp_servers(
            &server("/bin/a", &["read"]),
            &server("/bin/a", &["read", "write"])
        )));
        assert!(widens(&mcp_servers(
            &server("/bin/a", &["read"]),
            &server("/bin/a", &["*"])
        )));
    }

    #[test]
    fn another_secret_or_file_widens_and_another_version_does_not() {
        let secret = |name: &str, file: &str, version: &str| {
            let (file, version) = (file.to_owned(), version.to_owned());
            BTreeMap::from([(name.to_owned(), SecretSpec { file, version })])
        };
        let (none, key) = (BTreeMap::new(), secret("key", "/k", "1"));
        assert!(widens(&secrets(&none, &key)));
        assert!(widens(&secrets(&key, &secret("other", "/k", "1"))));
        assert!(widens(&secrets(&key, &secret("key", "/other", "1"))));
        for narrower in [none, secret("key", "/k", "2")] {
            let changes = secrets(&key, &narrower);
            assert!(changes.len() == 1 && !widens(&changes), "{changes:?}");
        }
        assert!(secrets(&key, &key).is_empty());
    }

    #[test]
    fn a_variable_with_a_secret_widens_and_without_one_does_not() {
        let variable = |name: &str, secret: &str| BTreeMap::from([(name.to_owned(), secret.to_owned())]);
        let (none, key) = (BTreeMap::new(), variable("KEY", "key"));
        assert!(widens(&secret_env(&none, &key)) && widens(&secret_env(&key, &variable("KEY", "other"))));
        assert!(!widens(&secret_env(&key, &none)));
    }

    #[test]
    fn taking_a_denial_away_widens() {
        let denied = ToolsSpec {
            deny: BTreeSet::from(["Bash".to_owned()]),
            ..ToolsSpec::default()
        };
        assert!(widens(&tools(&denied, &ToolsSpec::default())));
        assert!(!widens(&tools(&ToolsSpec::default(), &denied)));
    }

    #[test]
    fn a_dearer_or_unknown_model_widens_and_a_cheaper_one_does_not() {
        let model = |name: &str| DriverSpec {
            model: Some(name.to_owned()),
            ..DriverSpec::default()
        };
        assert!(widens(&driver(&model("haiku"), &model("opus"))));
        assert!(!widens(&driver(&model("opus"), &model("haiku"))));
        assert!(widens(&driver(&model("opus"), &model("something-new"))));
        let program = |command: &str, args: &[&str]| DriverSpec {
            kind: DriverKind::Acp,
            command: Some(command.to_owned()),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..DriverSpec::default()
        };
        assert!(widens(&driver(&DriverSpec::default(), &program("/a", &[]))));
        assert!(widens(&driver(&program("/a", &[]), &program("/b", &[]))));
        assert!(widens(&driver(&program("/a", &["-x"]), &program("/a", &[]))));
        assert!(widens(&driver(&DriverSpec::default(), &model("haiku"))));
    }

    #[test]
    fn everybody_is_wider_than_any_list() {
        let list = BTreeSet::from([Address::Operator]);
        assert!(widens(&recipients(Some(&list), None)));
        assert!(!widens(&recipients(None, Some(&list))));
    }

    #[test]
    fn a_bind_that_becomes_writable_widens() {
        let bind = |read_only| {
            vec![BindSpec {
                source: "/srv/a".into(),
                target: "/a".into(),
                read_only,
            }]
        };
        assert!(widens(&binds(&bind(true), &bind(false))));
    }

    #[test]
    fn a_manager_can_do_more_than_a_worker() {
        assert!(widens(&role(Role::Worker, Role::Manager)));
        let demoted = role(Role::Manager, Role::Worker);
        assert!(!demoted.is_empty() && !widens(&demoted));
    }

    #[test]
    fn a_wider_network_widens_and_a_narrower_one_does_not() {
        let from_narrow = [Network::None, Network::Model, Network::Hosts, Network::Host];
        for (index, wide) in from_narrow.into_iter().enumerate() {
            for narrow in &from_narrow[..index] {
                assert!(widens(&network(*narrow, wide)), "{narrow:?} {wide:?}");
                let less = network(wide, *narrow);
                assert!(!less.is_empty() && !widens(&less), "{wide:?} {narrow:?}");
            }
        }
    }

    #[test]
    fn no_change_is_no_entry() {
        assert!(text("prompt", "a", "a").is_empty());
        assert!(driver(&DriverSpec::default(), &DriverSpec::default()).is_empty());
        assert!(network(Network::Model, Network::Model).is_empty());
    }
}
