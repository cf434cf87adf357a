use serde_json::{Value, json};

use crate::spec::tests::{EXAMPLE, faults, faults_after, parse_value};

#[test]
fn a_variable_with_a_secret_is_none_of_hyperhives_own() {
    let faults = |variable: &str| {
        faults_after(|spec| {
            spec["agents"]["alice"]["secrets"] = json!({ "k": { "file": "/k" } });
            spec["agents"]["alice"]["secretEnv"] = json!({ variable: "k" });
        })
    };
    assert_eq!(faults("HIVEKEY"), [""; 0]);
    let found = faults("HIVE_TURN");
    assert!(
        found.len() == 1 && found[0].contains("does not begin with HIVE_"),
        "{found:?}"
    );
}

#[test]
fn what_an_agent_may_not_have_is_named_where_it_is() {
    let bind = |source: &str, target: &str, read_only: bool| json!([{ "source": source, "target": target, "readOnly": read_only }]);
    // A change to the example's agent `alice`, and the place it must be blamed for.
    let mut cases = vec![
        ("maxTurnMinutes", json!(0), "maxTurnMinutes"),
        ("maxTurnMinutes", json!(1441), "maxTurnMinutes"),
        ("mcpServers", json!({ "x": {} }), "mcpServers.x"),
        (
            "mcpServers",
            json!({ "hive": { "command": "/x" } }),
            "mcpServers.hive",
        ),
        (
            "mcpServers",
            json!({ "x": { "command": "/x", "url": "http://x" } }),
            "mcpServers.x",
        ),
        (
            "mcpServers",
            json!({ "x": { "command": "wiki" } }),
            "mcpServers.x.command",
        ),
        (
            "mcpServers",
            json!({ "x": { "command": "/a/../b" } }),
            "mcpServers.x.command",
        ),
        (
            "mcpServers",
            json!({ "x": { "url": "ftp://x" } }),
            "mcpServers.x.url",
        ),
        (
            "mcpServers",
            json!({ "x": { "url": "https://u:p@x/" } }),
            "mcpServers.x.url",
        ),
        (
            "mcpServers",
            json!({ "x": { "url": "https://x", "args": ["a"] } }),
            "mcpServers.x.args",
        ),
        (
            "mcpServers",
            json!({ "x": { "command": "/x", "env": { "A=B": "" } } }),
            "mcpServers.x.env.\"A=B\"",
        ),
        (
            "mcpServers",
            json!({ "x": { "command": "/x", "env": { "A": "\u{0}" } } }),
            "mcpServers.x.env.A",
        ),
        (
            "mcpServers",
            json!({ "x": { "command": "/x", "args": ["a", "\u{0}"] } }),
            "mcpServers.x.args[1]",
        ),
        (
            "mcpServers",
            json!({ "x": { "command": "/x", "secretHeaders": { "A": "k" } } }),
            "mcpServers.x.secretHeaders",
        ),
        (
            "mcpServers",
            json!({ "x": { "url": "https://x", "secretHeaders": { "A": "k" } } }),
            "mcpServers.x.secretHeaders.A",
        ),
        (
            "mcpServers",
            json!({ "x": { "command": "/x", "allowedTools": [""] } }),
            "mcpServers.x.allowedTools",
        ),
        ("tools", json!({ "allow": ["\n"] }), "tools.allow"),
        ("limits", json!({ "cpu": "0%" }), "limits.cpu"),
        ("limits", json!({ "cpu": "200" }), "limits.cpu"),
        ("limits", json!({ "cpu": "+5%" }), "limits.cpu"),
        ("limits", json!({ "memory": "4" }), "limits.memory"),
        ("limits", json!({ "memory": "4GB" }), "limits.memory"),
        ("limits", json!({ "memory": "99999999999999T" }), "limits.memory"),
        ("limits", json!({ "memory": "é" }), "limits.memory"),
        ("limits", json!({ "tasks": 0 }), "limits.tasks"),
        ("budget", json!({ "usdPerDay": -0.5 }), "budget.usdPerDay"),
        ("budget", json!({ "usdPerTurn": -1 }), "budget.usdPerTurn"),
        ("egress", json!(["example.com"]), "egress"),
        ("secretEnv", json!({ "K": "k" }), "secretEnv.K"),
        (
            "secrets",
            json!({ "k": { "file": "/nix/store/x" } }),
            "secrets.k.file",
        ),
        ("secrets", json!({ "k": { "file": "k" } }), "secrets.k.file"),
        ("secrets", json!({ "a/b": { "file": "/k" } }), "secrets.\"a/b\""),
        ("recipients", json!(["nobody"]), "recipients"),
        ("recipients", json!(["system"]), "recipients"),
        ("modules", json!(["/a", "b"]), "modules[1]"),
        ("system", json!("result"), "system"),
        ("prompt", json!("\u{0}"), "prompt"),
        ("driver", json!({ "model": "--danger" }), "driver.model"),
        (
            "driver",
            json!({ "script": [{ "on": "", "do": [] }] }),
            "driver.script",
        ),
    ];
    for source in [
        "/",
        "/run",
        "/run/hyperhive",
        "/var/run/x",
        "/proc/1",
        "/sys",
        "/dev",
        "/nix",
        "/nix/store",
        "/nix/var",
        "/var",
        "/var/lib",
        "/var/lib/hyperhive/repos",
        "srv",
        "/srv/",
        "/srv/../etc",
        "//srv",
        "/srv/./x",
        "/s\u{7}",
    ] {
        cases.push(("binds", bind(source, "/x", true), "binds[0].source"));
    }
    for source in [
        "/etc",
        "/usr/bin",
        "/root",
        "/home",
        "/nix/store/x",
        "/tmp",
        "/boot/efi",
    ] {
        cases.push(("binds", bind(source, "/x", false), "binds[0].source"));
    }
    for target in [
        "/",
        "/run",
        "/run/hive",
        "/proc",
        "/sys/x",
        "/dev",
        "/nix/store",
        "/config",
        "/state/x",
        "/usr",
        "x",
    ] {
        cases.push(("binds", bind("/srv/wiki", target, true), "binds[0].target"));
    }
    for (field, value, place) in cases {
        let found = faults_after(|spec| spec["agents"]["alice"][field] = value.clone());
        let place = format!("agents.alice.{place}: ");
        assert!(
            found.len() == 1 && found[0].starts_with(&place),
            "{field} = {value}: expected a fault at {place}found {found:#?}"
        );
    }
}

#[test]
fn what_an_agent_may_have_is_not_blamed() {
    let bind =
        |source: &str, read_only: bool| json!([{ "source": source, "target": "/x", "readOnly": read_only }]);
    for (field, value) in [
        ("binds", bind("/srv", true)),
        ("binds", bind("/etc/ssl", true)),
        ("binds", bind("/home/me/wiki", false)),
        ("binds", bind("/running", false)),
        ("binds", bind("/var/lib/wiki", false)),
        ("binds", bind("/nix/store/abc-docs/share", true)),
        ("driver", json!({ "kind": "scripted", "script": [] })),
        ("limits", json!({ "cpu": "50%", "memory": "512M", "tasks": 1 })),
        ("recipients", Value::Null),
        ("budget", json!({ "usdPerDay": 0 })),
        (
            "mcpServers",
            json!({ "x": { "url": "http://127.0.0.1:8080/mcp?user=a@b" } }),
        ),
    ] {
        let found = faults_after(|spec| spec["agents"]["alice"][field] = value.clone());
        assert_eq!(found, [""; 0], "{field} = {value}");
    }
    let hosts = json!([
        "example.com",
        "a-b.example.com",
        "*.example.com",
        "example.com:8443",
        "1.1.1.1",
        "localhost"
    ]);
    let found = faults_after(|spec| {
        spec["agents"]["alice"]["network"] = json!("hosts");
        spec["agents"]["alice"]["egress"] = hosts;
        spec["agents"]["queen"]["role"] = json!("manager");
        spec["agents"]["alice"]["role"] = json!("manager");
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn hosts_are_names_that_can_be_reached() {
    for host in [
        "",
        "*",
        "a.*.com",
        "*.1.1.1.1",
        "https://example.com",
        "example.com:0",
        "10.0.0.1",
        "example.com/x",
        "Example.com",
        "a..b",
        "-a.b",
        "a b",
        "127.1",
        "2130706433",
        "::1",
    ] {
        let found = faults_after(|spec| {
            spec["agents"]["alice"]["network"] = json!("hosts");
            spec["agents"]["alice"]["egress"] = json!([host]);
        });
        assert!(
            found.len() == 1 && found[0].starts_with("agents.alice.egress: "),
            "{host:?}: {found:?}"
        );
    }
}

#[test]
fn what_a_hive_may_not_have_is_named_where_it_is() {
    for (field, value, place) in [
        ("hive", json!({ "name": "" }), "hive.name"),
        ("hive", json!({ "name": "x".repeat(65) }), "hive.name"),
        ("hive", json!({ "name": "a\nb" }), "hive.name"),
        ("operator", json!({ "name": "" }), "operator.name"),
        ("builder", json!({ "maxBuilds": 0 }), "builder.maxBuilds"),
        ("builder", json!({ "maxBuilds": 65 }), "builder.maxBuilds"),
        ("builder", json!({ "nixpkgs": "nixpkgs" }), "builder.nixpkgs"),
        (
            "builder",
            json!({ "kind": "nix", "nixpkgs": "/x" }),
            "builder.guestModule",
        ),
        (
            "builder",
            json!({ "inputs": { "nixpkgs": "x" } }),
            "builder.inputs.nixpkgs",
        ),
        (
            "builder",
            json!({ "inputs": { "a b": "x" } }),
            "builder.inputs.\"a b\"",
        ),
        (
            "policy",
            json!({ "spec": { "massRemoval": "auto" } }),
            "policy.spec.massRemoval",
        ),
        (
            "policy",
            json!({ "agent": { "purge": "auto" } }),
            "policy.agent.purge",
        ),
        (
            "policy",
            json!({ "agent": { "explode": "auto" } }),
            "policy.agent.explode",
        ),
        ("web", json!({ "listen": "localhost:80" }), "web.listen"),
        ("web", json!({ "hosts": ["http://x"] }), "web.hosts"),
        (
            "web",
            json!({ "proxyAuth": { "header": "a b", "trusted": [], "users": [] } }),
            "web.proxyAuth.header",
        ),
        (
            "web",
            json!({ "proxyAuth": { "header": "A", "trusted": ["me"], "users": [] } }),
            "web.proxyAuth.trusted",
        ),
        (
            "forge",
            json!({ "kind": "git", "url": "/srv/mirror.git" }),
            "forge.url",
        ),
        (
            "forge",
            json!({ "kind": "git", "url": "--x={agent}" }),
            "forge.url",
        ),
        (
            "forge",
            json!({ "kind": "git", "url": "https://u:p@x/{agent}" }),
            "forge.url",
        ),
        (
            "forge",
            json!({ "kind": "forgejo", "url": "https://x/{agent}" }),
            "forge.tokenFile",
        ),
        (
            "forge",
            json!({ "kind": "git", "url": "{agent}", "tokenFile": "/nix/store/x" }),
            "forge.tokenFile",
        ),
        (
            "egress",
            json!({ "modelUrl": "api.example.com" }),
            "egress.modelUrl",
        ),
        (
            "egress",
            json!({ "apiKeyFile": "/nix/store/x" }),
            "egress.apiKeyFile",
        ),
        ("harness", json!("hive-harness"), "harness"),
        ("programs", json!({ "claude": "claude" }), "programs.claude"),
        ("maxAgents", json!(1), "agents"),
        (
            "spawnDefaults",
            json!({ "maxTurnMinutes": 0 }),
            "spawnDefaults.maxTurnMinutes",
        ),
        ("agents", json!(3), "agents"),
    ] {
        let mut document: Value = serde_json::from_slice(EXAMPLE).expect("the example is JSON");
        document[field] = value.clone();
        let parsed = parse_value(&document);
        let found = faults(&parsed);
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("{place}: ")),
            "{field} = {value}: expected a fault at {place}, found {found:#?}"
        );
        assert_eq!(parsed.spec, None, "{field} = {value} refuses the document");
    }
}
