mod properties;

use serde_json::json;

use super::*;

pub(super) const EXAMPLE: &[u8] = include_bytes!("../../tests/fixtures/spec-example.json");

pub(super) fn parse_value(value: &Value) -> Parsed {
    parse(value.to_string().as_bytes())
}

/// All faults as text.
pub(super) fn faults(parsed: &Parsed) -> Vec<String> {
    parsed.all_faults().map(ToString::to_string).collect()
}

/// The faults of the example after `change`.
pub(super) fn faults_after(change: impl FnOnce(&mut Value)) -> Vec<String> {
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
        "runtime": { "kind": "docker" },
        "spawnDefaults": [],
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
        "builder.kind: unknown value \"nyx\"; did you mean \"nix\"?",
        "builder.maxBuilds: expected a whole number from 0 to 4294967295, found the number -1",
        "forge.url: is missing: give a text",
        "hive.nick: unknown field; expected one of \"budget\", \"name\"",
        "hive.name: expected a text, found the number 3",
        "runtime.kind: expected one of \"process\", \"nspawn\", found the text \"docker\"",
        "spawnDefaults: expected an object, found a list",
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
    let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let (deep, too_deep) = (nested(127), nested(128));
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
        (&deep, "the document is not a JSON object"),
        (
            &too_deep,
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

#[test]
fn a_faulty_agent_can_still_be_written_to() {
    let found = faults_after(|spec| spec["agents"]["queen"]["run"] = json!(1));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("agents.queen.run: "));
}
