//! Agents that cannot take a turn yet: no login, no program.

use std::io::Write as _;

use model_server::Rule;
use reconciler::host::folders::write_atomic;
use serde_json::json;
use shared::status::{AgentStatus, Health, TurnState};
use shared::turn::TurnResult;

use crate::hive::{Hive, Provider, claude, declared, log_in_at, recv, send};
use crate::world::{World, name, program};

#[test]
fn an_agent_without_a_login_says_so_asks_nobody_and_loses_nothing_until_it_has_one() {
    let hive = Hive::without_login(
        &["alice"],
        vec![
            recv(),
            send("water the roses", "operator", "watered"),
            Rule::text("", "done"),
        ],
    );
    hive.say("alice", "water the roses");
    let status = hive.world.until_agent("alice", "needs a login", |alice| {
        alice.turn == Some(TurnState::NeedsLogin)
    });
    assert_eq!(status.health.value, Health::Degraded, "{status:?}");
    assert_eq!(hive.turns("alice", 1)[0].result, TurnResult::Auth);
    assert_eq!(hive.model.log().len(), 0);
    hive.log_in("alice");
    hive.until_told("alice says: watered");
    assert_eq!(hive.turns("alice", 2)[1].result, TurnResult::Ok);
    let told = |what: &str| {
        hive.world
            .said()
            .iter()
            .filter(|said| said.contains(what))
            .count()
    };
    hive.until_told("alice is logged in again");
    assert_eq!(
        (told("needs a login"), told("is logged in again")),
        (1, 1),
        "{:?}",
        hive.world.said()
    );
}

/// Stands in for a provider of logins, which no test can be: it names an address, takes one code, and keeps a login as the
/// program would. Turns are the real program's.
const LOGIN: &str = r#"#!/bin/sh
[ "$1 $2" = "auth login" ] || exec /claude/claude "$@"
echo "Opening browser to sign in…"
echo "If the browser didn't open, visit: https://claude.example/authorize?state=made-up"
printf 'Paste code here if prompted > '
read -r code
if [ "$code" != "right-code#made-up" ]; then
  echo "Couldn't log in: the code is wrong" >&2
  exit 1
fi
cp /claude-login/credentials.json "$CLAUDE_CONFIG_DIR/.credentials.json"
"#;

#[test]
fn the_operator_logs_an_agent_in_with_the_code_that_is_shown_at_its_address() {
    let model = Provider::new(vec![
        recv(),
        send("water the roses", "operator", "watered"),
        Rule::text("", "done"),
    ]);
    let mut world = World::new();
    let program = world.root.join("claude");
    write_atomic(&program, LOGIN.as_bytes(), 0o755).unwrap();
    let made = world.root.join("made");
    log_in_at(&made, "alice");
    std::fs::copy(
        made.join("claude/.credentials.json"),
        made.join("credentials.json"),
    )
    .unwrap();
    let mut spec = declared(&["alice"], &model);
    spec["programs"] = json!({ "claude": program });
    spec["agents"]["alice"]["binds"] = json!([
        { "source": claude().parent().unwrap(), "target": "/claude" },
        { "source": made, "target": "/claude-login" },
    ]);
    world.spec(&spec);
    world.start();
    let hive = Hive { world, model };
    hive.world.until_healthy("alice");
    hive.say("alice", "water the roses");
    hive.until_told("alice needs a login, and takes no turns until it has one: hive login alice");

    let (code, out, err) = log_in(&hive.world, "wrong-code");
    assert_eq!(code, 1, "{out} {err}");
    assert!(
        out.contains("https://claude.example/authorize?state=made-up"),
        "{out}"
    );
    assert!(out.contains("only if claude.example is your provider's"), "{out}");
    assert!(err.contains("the code is wrong"), "{err}");
    assert_eq!(hive.model.log().len(), 0);
    let (code, out, err) = log_in(&hive.world, "right-code#made-up");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.ends_with("alice is logged in\n"), "{out}");
    hive.until_told("alice says: watered");
    hive.until_told("alice is logged in again");
    let log = hive.world.log() + &harness_log(&hive.world);
    assert!(!log.contains("right-code"), "a code is in a log");
}

/// What the real program does up to the point where it would need an account: it names the provider's own address, takes a
/// code, and says that it could not try it, since there is no network.
#[test]
fn the_real_program_names_its_address_and_takes_a_code() {
    let model = Provider::new(Vec::new());
    let mut spec = declared(&["alice"], &model);
    spec["agents"]["alice"]["network"] = json!("none");
    let world = World::serving(&spec);
    world.until_healthy("alice");
    let (code, out, err) = log_in(&world, "made-up-code#made-up-state");
    assert_eq!(code, 1, "{out} {err}");
    assert!(out.contains("https://claude.com/cai/oauth/authorize?"), "{out}");
    assert!(
        err.contains("alice is not logged in: the driver's program says: Couldn't log in"),
        "{err}"
    );
}

/// `hive login alice` with this code: its exit status and what it printed.
fn log_in(world: &World, code: &str) -> (i32, String, String) {
    let mut command = program(env!("CARGO_BIN_EXE_hive"));
    command.args(["--socket", world.socket().as_str(), "login", "alice"]);
    let pipe = std::process::Stdio::piped;
    let mut child = command
        .stdin(pipe())
        .stdout(pipe())
        .stderr(pipe())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{code}").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn harness_log(world: &World) -> String {
    let log = world.layout.launch(&name("alice")).join("harness.log");
    std::fs::read_to_string(log).unwrap()
}

#[test]
fn an_agent_whose_program_is_not_there_says_what_to_write_and_takes_no_turn() {
    let model = Provider::new(Vec::new());
    let mut spec = declared(&["alice"], &model);
    spec["programs"] = json!({ "claude": "/nonexistent/claude" });
    let world = World::serving(&spec);
    // The trial of its first deployment is on, and says why it cannot end well.
    let says = |alice: &AgentStatus| alice.activity.message.contains("programs.claude in the spec");
    world.until_agent("alice", "says what to write", says);
    world.spec(&declared(&["alice"], &model));
    world.until_healthy("alice");
}
