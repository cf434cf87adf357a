//! A provider's key that is a secret.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use model_server::Rule;
use reconciler::host::folders::write_atomic;
use serde_json::{Value, json};
use shared::turn::TurnResult;

use crate::hive::{Hive, Provider, declared, recv, send};
use crate::world::World;

const KEYS: [&str; 2] = ["sk-made-up-and-old", "sk-made-up-and-new"];

/// Alice needs no login: she has the key in this file.
fn spec(model: &Provider, file: &Utf8Path, version: &str) -> Value {
    let mut spec = declared(&["alice"], model);
    spec["agents"]["alice"]["secrets"] = json!({ "provider": { "file": file, "version": version } });
    spec["agents"]["alice"]["secretEnv"] = json!({ "ANTHROPIC_API_KEY": "provider" });
    spec["agents"]["alice"]["tools"] = json!({ "allow": ["Bash"] });
    spec
}

/// Whether a file holds one of these keys.
pub(crate) fn holds_a(file: &Utf8Path, keys: &[&str]) -> bool {
    let content = fs::read(file).unwrap_or_default();
    let holds = |key: &&str| content.windows(key.len()).any(|part| part == key.as_bytes());
    keys.iter().any(holds)
}

/// Every file below this folder that holds one of the keys.
pub(crate) fn holders(folder: &Utf8Path, keys: &[&str], found: &mut Vec<Utf8PathBuf>) {
    for entry in folder.read_dir_utf8().unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            holders(entry.path(), keys, found);
        } else if kind.is_file() && holds_a(entry.path(), keys) {
            found.push(entry.path().to_owned());
        }
    }
}

/// The words of every process that shows them.
pub(crate) fn words() -> Vec<Utf8PathBuf> {
    let processes = Utf8Path::new("/proc").read_dir_utf8().unwrap().flatten();
    processes
        .map(|process| process.path().join("cmdline"))
        .filter(|words| words.is_file())
        .collect()
}

#[test]
fn a_key_that_is_a_secret_is_all_the_login_an_agent_needs_is_nowhere_else_and_can_be_replaced() {
    let model = Provider::new(vec![
        recv(),
        // Every process of the turn, as long as it runs.
        Rule::tool(
            "water the roses",
            "Bash",
            json!({ "command": "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' > /state/words; echo all noted" }),
        ),
        send("all noted", "operator", "watered"),
        send("water the lilies", "operator", "watered too"),
        Rule::text("", "done"),
    ]);
    let mut world = World::new();
    let file = world.root.join("key");
    let put = |key: &str| write_atomic(&file, format!("{key}\n").as_bytes(), 0o400).unwrap();
    put(KEYS[0]);
    world.spec(&spec(&model, &file, "1"));
    world.start();
    let hive = Hive { world, model };
    let world = &hive.world;
    world.until_healthy("alice");
    hive.say("alice", "water the roses");
    hive.until_told("alice says: watered");
    assert_eq!(hive.turns("alice", 1)[0].result, TurnResult::Ok);
    for asked in hive.model.log() {
        assert_eq!(asked.key.as_deref(), Some(KEYS[0]), "{asked:?}");
    }
    let state = world.layout.agent_state(&crate::world::name("alice"));
    let in_turn = fs::read_to_string(state.join("words")).unwrap();
    assert!(
        in_turn.contains("--mcp-config") && in_turn.contains("--turn"),
        "{in_turn}"
    );

    // A file that is gone stops no agent that has its content.
    let run = world.run_pid("alice").unwrap();
    fs::remove_file(&file).unwrap();
    world.spec(&spec(&hive.model, &file, "2"));
    let told = format!("the secret provider of alice, {file}: it is not there");
    world.until("why alice is not restarted", || {
        world.log().contains(&told).then_some(())
    });
    assert_eq!(world.run_pid("alice"), Some(run));
    put(KEYS[1]);
    world.until("another run", || (world.run_pid("alice")? != run).then_some(()));
    world.until_healthy("alice");
    hive.say("alice", "water the lilies");
    hive.until_told("alice says: watered too");
    assert_eq!(hive.model.log().last().unwrap().key.as_deref(), Some(KEYS[1]));
    let turns = hive.turns("alice", 2);
    assert_eq!(turns[1].session, turns[0].session, "the conversation goes on");

    let mut found = Vec::new();
    holders(&world.root, &KEYS, &mut found);
    assert_eq!(found, std::slice::from_ref(&file));
    let shown: Vec<_> = words()
        .into_iter()
        .filter(|words| holds_a(words, &KEYS))
        .collect();
    assert_eq!(shown, Vec::<Utf8PathBuf>::new());
    let events = world.get("/v1/agents/alice/config").text() + &world.log();
    assert!(!KEYS.into_iter().any(|key| events.contains(key)));
}
