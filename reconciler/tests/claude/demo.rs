//! `hive demo --driver claude`.

use std::fs::{self, File};
use std::process::Command;

use model_server::Rule;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::hive::{Provider, claude, log_in_at, recv, send};
use crate::world::{World, program, signal};

fn demo(world: &World, more: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_hive"));
    command.args([
        "demo",
        "--driver",
        "claude",
        "--dir",
        world.root.join("d").as_str(),
    ]);
    command.args(more);
    command
}

#[test]
fn the_story_of_the_demo_is_told_by_claude_code_too() {
    let proposal = json!({
        "files": { "agent.json": json!({ "prompt": "You look after the wiki and the garden." }).to_string() },
        "title": "Look after the garden too",
    });
    let model = Provider::new(vec![
        recv(),
        Rule::tool(
            "please take over the garden",
            "mcp__hive__propose_config",
            proposal,
        ),
        send("of alice is deployed", "queen", "my new config is live"),
        Rule::text("", "done"),
    ]);
    let world = World::new();
    let claude = claude();
    let words = [
        "--claude",
        claude.as_str(),
        "--model",
        "made-up",
        "--model-url",
        &model.url(),
    ];
    let log = world.root.join("told");
    let mut child = demo(&world, &words)
        .stdout(File::create(&log).unwrap())
        .stderr(File::create(world.root.join("errors")).unwrap())
        .spawn()
        .unwrap();
    let told = || fs::read_to_string(&log).unwrap_or_default();
    let until = |text: &str| {
        let shown = crate::world::within(crate::world::DEADLINE, || told().contains(text).then_some(()));
        let errors = fs::read_to_string(world.root.join("errors")).unwrap_or_default();
        assert!(shown.is_some(), "never told {text:?}: {} {errors}", told());
    };
    until("alice has no login yet");
    assert!(told().contains("login alice"), "{}", told());
    log_in_at(&world.root.join("d/state/agents/alice/state"), "alice");
    until("It is your turn");
    let hive = |args: &[&str]| -> Value {
        let mut command = program(env!("CARGO_BIN_EXE_hive"));
        command.args(["--socket", world.root.join("d/run/admin.sock").as_str(), "--json"]);
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    };
    let gates = hive(&["gate", "list"]);
    hive(&["gate", "approve", &gates[0]["id"].to_string()]);
    until("alice looks after the garden now. That is the whole story.");
    signal(i32::try_from(child.id()).unwrap(), Signal::INT);
    let ended = crate::world::within(crate::world::DEADLINE, || child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
    }
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{}", told());
}

#[test]
fn without_a_program_the_demo_says_what_to_install_and_makes_nothing() {
    let world = World::new();
    let (status, said) = world.refuses(demo(&world, &["--claude", "/nonexistent/claude"]));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("name another with --claude FILE"), "{said}");
    assert!(!world.root.join("d").exists());
}
