use proptest::prelude::*;
use serde_json::json;

use super::*;

const EXAMPLE: &[u8] = include_bytes!("../../tests/fixtures/spec-example.json");

fn parse_value(value: &Value) -> Parsed {
    parse(value.to_string().as_bytes())
}

/// All faults as text.
fn faults(parsed: &Parsed) -> Vec<String> {
    parsed.all_faults().map(ToString::to_string).collect()
}

/// The faults of the example after `change`.
fn faults_after(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut document: Value = serde_json::from_slice(EXAMPLE).expect("the example is JSON");
    change(&mut document);
    faults(&parse_value(&document))
}

#[test]
fn the_documented_example_has_no_faults() {
    let parsed = parse(EXAMPLE);
    assert_eq!(faults(&parsed), [""; 0]);
    let spec = parsed.spec.expect("a spec");
    assert_eq!(spec.agents.len(), 2);
    assert_eq!(validate(&spec), []);
}

#[test]
fn the_least_document_has_no_faults_and_all_defaults() {
    let parsed = parse(br#"{"version":1,"hive":{"name":"home"},"agents":{"a":{}}}"#);
    assert_eq!(faults(&parsed), [""; 0]);
    let spec = parsed.spec.expect("a spec");
    assert_eq!(spec.spawn_defaults, spec.agents["a"]);
    assert_eq!(spec.agents["a"], AgentSpec::default());
    assert_eq!(spec.agents["a"].max_turn_minutes, 60);
}

#[test]
fn every_fault_of_a_document_is_named_with_its_place() {
    let document = json!({
        "version": 1,
        "hive": { "name": 3, "nick": "x" },
        "polcy": {},
        "builder": { "kind": "nyx", "maxBuilds": -1 },
        "runtime": [],
        "forge": { "kind": "forgejo" },
        "web": { "listen": "7420" },
        "agents": {
            "alice": {
                "runn": "paused",
                "prompt": ["x"],
                "mcpServers": { "x": { "command": 7, "alowedTools": [] }, "b@d": {} },
                "binds": [ 1, { "source": "/srv/wiki" }, { "source": "/etc", "target": "/x", "readOnly": false } ],
                "recipients": ["operator", "Bob", "all"],
                "limits": { "cpu": "two", "tasks": 1.5 },
                "driver": { "kind": "scripted", "script": [ { "on": "x", "do": [ { "rply": "x" }, { "crash": 300 } ] } ] }
            }
        }
    });
    let expected = [
        "polcy: unknown field; did you mean \"policy\"?",
        "builder.kind: expected one of \"plain\", \"nix\", found the text \"nyx\"",
        "builder.maxBuilds: expected a whole number from 0 to 4294967295, found the number -1",
        "forge.url: is missing: give a text",
        "hive.nick: unknown field; expected \"name\"",
        "hive.name: expected a text, found the number 3",
        "runtime: expected an object, found a list",
        "web.listen: expected an address and a port such as \"127.0.0.1:7420\" or \"[::1]:7420\", found \"7420\"",
        "forge.tokenFile: is missing: a Forgejo server needs a token; put it into a file and name that here",
        "agents.alice.runn: unknown field; did you mean \"run\"?",
        "agents.alice.binds[0]: expected an object, found the number 1",
        "agents.alice.binds[1].target: is missing: give a text",
        "agents.alice.driver.script[0].do[0].rply: unknown field; did you mean \"reply\"?",
        "agents.alice.driver.script[0].do[1].crash: expected a whole number from 0 to 255, found the number 300",
        "agents.alice.limits.tasks: expected a whole number from 0 to 4294967295, found the number 1.5",
        "agents.alice.mcpServers.\"b@d\": \"b@d\" is not a valid MCP server name: a letter or digit, then at most 63 \
         letters, digits, dashes or underscores",
        "agents.alice.mcpServers.x.alowedTools: unknown field; did you mean \"allowedTools\"?",
        "agents.alice.mcpServers.x.command: expected a text, found the number 7",
        "agents.alice.prompt: expected a text, found a list",
        "agents.alice.recipients[1]: \"Bob\" is not a valid agent name: a lower-case letter, then at most 31 \
         lower-case letters, digits or dashes",
        "agents.alice.recipients[2]: \"all\" is reserved: choose another name for the agent",
        "agents.alice.binds[2].source: /etc belongs to the host system and cannot be writable: write \"readOnly\": \
         true, or name a folder made for the agent, such as one below /srv",
        "agents.alice.limits.cpu: expected a share of one core in percent, from \"1%\" to \"1000000%\", such as \
         \"200%\" for two cores, found \"two\"",
    ];
    let mut found = faults(&parse_value(&document));
    let mut expected = expected.map(str::to_owned).to_vec();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_faulty_agent_does_not_stop_the_others() {
    let parsed = parse_value(&json!({
        "version": 1,
        "hive": { "name": "home" },
        "agents": { "good": {}, "bad": { "run": 1 }, "worse": 7, "Illegal": { "run": 1 } }
    }));
    let spec = parsed.spec.expect("a spec");
    assert_eq!(
        spec.agents.keys().map(AgentName::as_str).collect::<Vec<_>>(),
        ["good"]
    );
    let bad: Vec<_> = parsed.bad_agents.keys().map(AgentName::as_str).collect();
    assert_eq!(bad, ["bad", "worse"]);
    let faults: Vec<_> = parsed.faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(faults, ["agents.Illegal", "agents.Illegal.run"]);
}

#[test]
fn a_fault_outside_the_agents_refuses_the_document_and_the_agents_are_judged_all_the_same() {
    let parsed = parse_value(&json!({
        "version": 1,
        "hive": { "name": "" },
        "agents": { "bad": { "run": 1 } }
    }));
    assert_eq!(parsed.spec, None);
    assert_eq!(parsed.faults.len(), 1);
    assert_eq!(parsed.bad_agents.len(), 1);
}

#[test]
fn a_key_given_twice_is_a_fault_where_it_is() {
    let parsed = parse(
        br#"{"version":1,"hive":{"name":"home"},"agents":{
            "alice":{"prompt":"a"},"bob":{"run":"paused","run":"running"},"carol":{},"alice":{"prompt":"b"}}}"#,
    );
    assert_eq!(
        faults(&parsed),
        [
            "agents.alice: is given more than once: keep one",
            "agents.bob.run: is given more than once: keep one"
        ]
    );
    assert!(parsed.spec.expect("a spec").agents.contains_key("carol"));

    let parsed = parse(br#"{"version":1,"hive":{"name":"home"},"hive":{"name":"home"}}"#);
    assert_eq!(parsed.spec, None);
    assert_eq!(faults(&parsed), ["hive: is given more than once: keep one"]);
}

#[test]
fn texts_that_are_no_spec_are_refused_in_plain_words() {
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    for (text, expected) in [
        ("", "the document is empty"),
        ("  \n", "the document is empty"),
        ("[]", "the document is not a JSON object"),
        (
            "{\n \"version\": 1,\n}",
            "not valid JSON: trailing comma (line 3, column 1)",
        ),
        ("{} x", "not valid JSON: trailing characters (line 1, column 4)"),
        (
            "{\"a\": 1e999}",
            "not valid JSON: number out of range (line 1, column",
        ),
        (
            &deep,
            "not valid JSON: it is nested deeper than 127 levels (line 1",
        ),
        ("{}", "version: is missing: write \"version\": 1"),
        (
            "{\"version\":2,\"agents\":7}",
            "version: this build reads version 1 only, and this document says 2",
        ),
        (
            "{\"version\":\"1\"}",
            "version: this build reads version 1 only, and this document says \"1\"",
        ),
    ] {
        let parsed = parse(text.as_bytes());
        let found = faults(&parsed);
        assert_eq!(parsed.spec, None);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    }
    assert_eq!(faults(&parse(b"{\"a\": \"\xff\"}")).len(), 1);
}

#[test]
fn a_document_larger_than_the_limit_is_refused() {
    let limit = usize::try_from(MAX_BYTES).expect("fits");
    let mut text = EXAMPLE.to_vec();
    text.resize(limit, b' ');
    assert_eq!(faults(&parse(&text)), [""; 0]);
    text.push(b' ');
    assert!(faults(&parse(&text))[0].contains("16 MiB"));
}

#[test]
fn faults_know_their_line() {
    let parsed = parse(
        b"{\n\"version\": 1,\n\"hive\": {\n\"name\": 3 },\n\"agents\": { \"a\":\n{ \"binds\": [\n{},\n{ \"source\": \"/\",\n\"target\": \"/x\" } ] } } }",
    );
    let lines: Vec<_> = parsed
        .all_faults()
        .map(|fault| (fault.path.as_str(), fault.line))
        .collect();
    assert_eq!(
        lines,
        [
            ("hive.name", Some(4)),
            ("agents.a.binds[0].source", Some(7)),
            ("agents.a.binds[0].target", Some(7)),
            ("agents.a.binds[1].source", Some(8)),
        ]
    );
}

#[test]
fn a_flood_of_faults_is_cut_short_and_says_so() {
    let unknown: Map<String, Value> = (0..1000)
        .map(|i| (format!("no such field {i}"), Value::Null))
        .collect();
    let parsed = parse_value(&json!({
        "version": 1,
        "hive": { "name": "home" },
        "agents": { "a": unknown, "b": { "run": 1 } }
    }));
    let found = &parsed.bad_agents["a"];
    assert_eq!(found.len(), 201);
    assert_eq!(
        found[200].to_string(),
        "agents.a: … and 800 more faults: mend these first"
    );
    assert!(parsed.bad_agents.contains_key("b"));
}

#[test]
fn a_stand_in_causes_no_fault_of_its_own() {
    // Each of these has one fault; what hangs on the faulty value is not blamed.
    for agent in [
        json!({ "mcpServers": { "x": { "command": 1 } } }),
        json!({ "network": 1, "egress": ["example.com"] }),
        json!({ "secrets": { "k": 1 }, "secretEnv": { "K": "k" } }),
        json!({ "secrets": 1, "secretEnv": { "K": "k" } }),
        json!({ "driver": { "kind": 1, "script": [{ "on": "", "do": [] }] } }),
        json!({ "binds": [{ "source": "/srv", "target": "/x", "readOnly": "no" }] }),
        json!({ "binds": [{ "source": "/srv/a", "target": 1 }, { "source": "/srv/b", "target": "/x" }] }),
        json!({ "driver": { "script": 1 } }),
        json!({ "recipients": [1] }),
    ] {
        let parsed = parse_value(&json!({
            "version": 1, "hive": { "name": "home" }, "agents": { "a": agent }
        }));
        assert_eq!(faults(&parsed).len(), 1, "{:?}", faults(&parsed));
    }
    let found = faults_after(|spec| spec["maxAgents"] = json!("many"));
    assert_eq!(found.len(), 1, "{found:?}");
    let found = faults_after(|spec| {
        spec["builder"] = json!({ "kind": 1 });
    });
    assert_eq!(found.len(), 1, "{found:?}");
}

/// A change to the example's agent `alice`, and the place it must be blamed for.
#[test]
fn what_an_agent_may_not_have_is_named_where_it_is() {
    let bind = |source: &str, target: &str, read_only: bool| json!([{ "source": source, "target": target, "readOnly": read_only }]);
    let mut cases = vec![
        ("maxTurnMinutes", json!(0), "maxTurnMinutes"),
        ("maxTurnMinutes", json!(1441), "maxTurnMinutes"),
        ("mcpServers", json!({ "x": {} }), "mcpServers.x"),
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
    let hosts = json!(["example.com", "a-b.example.com", "192.0.2.1", "localhost"]);
    let found = faults_after(|spec| {
        spec["agents"]["alice"]["network"] = json!("hosts");
        spec["agents"]["alice"]["egress"] = hosts;
        spec["agents"]["queen"]["role"] = json!("manager");
        spec["agents"]["alice"]["role"] = json!("manager");
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn hosts_are_names_alone() {
    for host in [
        "",
        "*",
        "*.example.com",
        "https://example.com",
        "example.com:443",
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

#[test]
fn a_faulty_agent_can_still_be_written_to() {
    let found = faults_after(|spec| spec["agents"]["queen"]["run"] = json!(1));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("agents.queen.run: "));
}

#[test]
fn the_schema_is_the_one_that_was_reviewed() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&schema()).expect("JSON"));
}

#[test]
fn the_report_names_each_fault_on_a_line_and_counts_them() {
    let path = camino::Utf8Path::new("hive.json");
    let text = |document: &str| report(path, &parse(document.as_bytes()));
    insta::assert_snapshot!(text("{\"version\":1,\"hive\":{\"name\":\"h\"},\"agents\":{\"a\":{}}}"), @"hive.json: no faults; 1 agent declared");
    insta::assert_snapshot!(
        text("{\"version\":1,\n\"hive\":{\"name\":\"h\"},\n\"agents\":{\"a\":{},\n\"b\":{\n\"run\":\"pausd\"}}}"),
        @r#"
    hive.json:5: agents.b.run: unknown value "pausd"; did you mean "paused"?
    hive.json: 1 fault; 1 agent would be accepted, 1 would keep what is in force
    "#
    );
    insta::assert_snapshot!(text("{\"version\":1,\n"), @"
    hive.json:2: not valid JSON: EOF while parsing a value (line 2, column 0)
    hive.json: 1 fault; the whole document would be refused, and the last good one stay in force
    ");
}

#[test]
fn the_digest_ignores_the_layout_and_notices_a_change() {
    let one = parse(br#"{"version":1,"hive":{"name":"h"},"agents":{"a":{},"b":{}}}"#);
    let same =
        parse(br#"{ "agents": { "b": {"run":"running"}, "a": {} }, "hive":{"name":"h"}, "version": 1 }"#);
    let other = parse(br#"{"version":1,"hive":{"name":"h"},"agents":{"a":{},"b":{"run":"paused"}}}"#);
    let digest_of = |parsed: Parsed| digest(&parsed.spec.expect("a spec"));
    let (one, same, other) = (digest_of(one), digest_of(same), digest_of(other));
    assert_eq!(one, same);
    assert_ne!(one, other);
    assert_ne!(field_digest(&"a"), field_digest(&"b"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_valid_spec_parses_to_itself(spec in testing::spec()) {
        prop_assert_eq!(validate(&spec), []);
        let parsed = parse(&serde_json::to_vec(&spec).expect("a spec is JSON"));
        prop_assert_eq!(faults(&parsed), [""; 0]);
        let again = parsed.spec.expect("a spec");
        prop_assert_eq!(digest(&again), digest(&spec));
        prop_assert_eq!(again, spec);
    }

    #[test]
    fn any_json_is_judged_without_panic(value in testing::json(), agent in testing::json(), field in testing::json()) {
        for document in [
            value.clone(),
            json!({ "version": 1, "hive": { "name": "h" }, "agents": value }),
            json!({ "version": 1, "hive": { "name": "h" }, "agents": { "a": agent, "b": { "mcpServers": field } } }),
        ] {
            let parsed = parse_value(&document);
            prop_assert!(parsed.spec.is_some() || parsed.faults.iter().any(|fault| !fault.message.is_empty()));
            for (name, faults) in &parsed.bad_agents {
                prop_assert!(!faults.is_empty());
                let place = format!("agents.{name}");
                prop_assert!(faults.iter().all(|fault| fault.path.starts_with(&place)));
            }
        }
    }

    #[test]
    fn any_bytes_are_judged_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        parse(&bytes);
    }

    /// What the shape lets pass, serde takes; what is left of a damaged spec is a spec that validates.
    #[test]
    fn a_damaged_spec_is_either_accepted_or_blamed(
        spec in testing::spec(),
        damages in prop::collection::vec((any::<u64>(), prop::option::of(testing::json())), 1..6),
    ) {
        let mut document = serde_json::to_value(&spec).expect("a spec is JSON");
        for (mut pick, with) in damages {
            testing::damage(&mut document, &mut pick, with);
        }
        let parsed = parse_value(&document);
        prop_assert!(parsed.spec.is_some() || !parsed.faults.is_empty());
        for fault in parsed.all_faults() {
            // serde's own words would mean that the shape overlooked something.
            for word in ["invalid type", "invalid value", "missing field", "unknown variant", "invalid length"] {
                prop_assert!(!fault.message.contains(word), "{fault}");
            }
        }
        if let Some(spec) = parsed.spec
            && parsed.bad_agents.is_empty()
        {
            prop_assert_eq!(validate(&spec), []);
        }
    }
}
