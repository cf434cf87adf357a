//! Agents that have loopback alone: their model through the gateway, all else through the proxy.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use model_server::Rule;
use reconciler::host::folders::write_atomic;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use shared::turn::TurnResult;

use crate::hive::{Hive, Provider, declared, recv, send};
use crate::secrets::{holders, words};
use crate::world::World;

const KEY: &str = "sk-made-up-of-the-gateway";

/// What a turn sees of its own container: every environment and command line there is, and every file of the agent's.
const LOOK: &str = "for file in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do tr '\\0' '\\n' < $file; done > /tmp/seen 2>&1; \
                    find /state /config /run /tmp /etc -type f -exec cat {} + >> /tmp/seen 2>&1; mv /tmp/seen /state/seen; \
                    echo all seen";

/// Asks the proxy for a host, and says what it answers.
fn connect(host: &str) -> String {
    format!(
        "bash -c 'exec 3<>/dev/tcp/127.0.0.1/${{HTTPS_PROXY##*:}}; printf \"CONNECT {host}:443 HTTP/1.1\\r\\nhost: \
         {host}\\r\\n\\r\\n\" >&3; head -n 1 <&3'"
    )
}

fn spec(model: &Provider, key: &Utf8Path, fields: &Value) -> Value {
    let mut spec = declared(&["alice"], model);
    spec["egress"]["apiKeyFile"] = json!(key);
    let alice = json!({ "network": "model", "tools": { "allow": ["Bash"] } });
    spec["agents"]["alice"] = crate::world::with(spec["agents"]["alice"].take(), &alice);
    spec["agents"]["alice"] = crate::world::with(spec["agents"]["alice"].take(), fields);
    spec
}

/// Alice, with the key in a file that only the gateway reads, and no login.
fn hive(fields: &Value, rules: Vec<Rule>) -> (Hive, Utf8PathBuf) {
    let model = Provider::new(rules);
    let mut world = World::new();
    let key = world.root.join("key");
    write_atomic(&key, format!("{KEY}\n").as_bytes(), 0o400).unwrap();
    world.spec(&spec(&model, &key, fields));
    world.start();
    world.until_healthy("alice");
    (Hive { world, model }, key)
}

fn holds(text: &str, what: &str) -> bool {
    text.contains(what)
}

#[test]
fn an_agent_without_a_network_works_through_the_gateway_and_the_key_is_nowhere_in_its_container() {
    let (hive, key) = hive(
        &json!({}),
        vec![
            recv(),
            Rule::tool("look around", "Bash", json!({ "command": LOOK })),
            send("all seen", "operator", "looked"),
            Rule::text("", "done"),
        ],
    );
    hive.say("alice", "look around");
    hive.until_told("alice says: looked");
    let turn = &hive.turns("alice", 1)[0];
    assert_eq!((turn.result, turn.error.as_deref()), (TurnResult::Ok, None));
    let asked = hive.model.log();
    assert!(
        !asked.is_empty() && asked.iter().all(|asked| asked.key.as_deref() == Some(KEY)),
        "{asked:?}"
    );

    let state = hive.world.layout.agent_state(&crate::world::name("alice"));
    let seen = fs::read(state.join("seen")).unwrap();
    let seen = String::from_utf8_lossy(&seen);
    // It did look: this is what the program has instead.
    for there in [
        "ANTHROPIC_BASE_URL=http://127.0.0.1:",
        "HTTPS_PROXY=http://127.0.0.1:",
        "--mcp-config",
    ] {
        assert!(holds(&seen, there), "{there} is not in what was seen");
    }
    assert!(!holds(&seen, KEY), "the key is in the container");
    // Nor is it anywhere on the host but in its file: in no state, log, ledger or command line.
    let mut found = Vec::new();
    holders(&hive.world.root, &[KEY], &mut found);
    assert_eq!(found, [key]);
    let shown: Vec<_> = words()
        .into_iter()
        .filter(|words| crate::secrets::holds_a(words, &[KEY]))
        .collect();
    assert_eq!(shown, Vec::<Utf8PathBuf>::new());
}

/// The process of this hive's egress service.
fn service(hive: &Hive) -> Option<Pid> {
    let folder = hive.world.layout.egress();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        let said = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = said.split(|byte| *byte == 0).collect();
        words.get(1) == Some(&b"egress".as_slice()) && words.contains(&folder.as_str().as_bytes())
    };
    pids.find(is_it).and_then(Pid::from_raw)
}

#[test]
fn a_way_out_whose_service_was_killed_is_there_again_while_the_agent_runs_on() {
    let (hive, _key) = hive(
        &json!({}),
        vec![
            recv(),
            send("speak once", "operator", "one"),
            send("speak again", "operator", "two"),
            Rule::text("", "done"),
        ],
    );
    hive.say("alice", "speak once");
    hive.until_told("alice says: one");
    let before = service(&hive).expect("a service");
    rustix::process::kill_process(before, Signal::KILL).unwrap();
    hive.world
        .until("another service", || service(&hive).filter(|pid| *pid != before));
    hive.say("alice", "speak again");
    hive.until_told("alice says: two");
    let results: Vec<TurnResult> = hive.turns("alice", 2).iter().map(|turn| turn.result).collect();
    assert_eq!(results, [TurnResult::Ok, TurnResult::Ok]);
}

#[test]
fn a_host_that_is_not_listed_and_one_that_leads_inside_are_refused() {
    let (hive, _key) = hive(
        &json!({ "network": "hosts", "egress": ["localhost"] }),
        vec![
            recv(),
            Rule::tool(
                "try outside",
                "Bash",
                json!({ "command": connect("outside.example") }),
            ),
            send(
                "HTTP/1.1 403 alice may not connect to outside.example:443",
                "operator",
                "not outside",
            ),
            Rule::tool("try inside", "Bash", json!({ "command": connect("localhost") })),
            send("of the machine itself", "operator", "not inside"),
            Rule::text("", "done"),
        ],
    );
    hive.say("alice", "try outside");
    hive.until_told("alice says: not outside");
    hive.say("alice", "try inside");
    hive.until_told("alice says: not inside");
    // Both are events, each once, and the agent is told what to ask for.
    let refused = hive.world.until("two refusals", || {
        let events = hive.world.get("/v1/events").ok::<Value>();
        let events = events["events"].as_array().unwrap().clone();
        let of = |kind: &Value| kind == "egressRefused";
        let refused: Vec<Value> = events.into_iter().filter(|event| of(&event["kind"])).collect();
        (refused.len() == 2).then_some(refused)
    });
    assert_eq!(refused[0]["data"]["host"], "outside.example");
    assert!(
        refused[0]["message"]
            .as_str()
            .unwrap()
            .contains("hive egress allow alice outside.example")
    );
    assert_eq!(refused[1]["data"]["reason"], "privateAddress");
    let egress = hive.world.until("bytes", || {
        let status = hive.world.get("/v1/agents/alice").ok::<Value>();
        (status["egress"]["sent"].as_u64()? > 10_000).then(|| status["egress"].clone())
    });
    assert_eq!(egress["refused"], 2);
    hive.model.until_asked("about the refusal", |asked| {
        asked
            .last
            .contains("alice was refused a connection to outside.example:443")
    });
}
