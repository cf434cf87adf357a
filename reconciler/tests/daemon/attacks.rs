//! Attacks on the real daemon: strangers on its sockets, floods, and what an agent leaves in its folders.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::fs::{CWD, FileType, mknodat};
use serde_json::{Value, json};
use shared::gate::Gate;

use super::http;
use super::world::{World, name, program, scripted, silent, spec, with};

fn two() -> World {
    let world = World::serving(&spec(&json!({ "alice": silent(), "bob": silent() })));
    for agent in ["alice", "bob"] {
        world.until_stopped(agent);
    }
    world
}

fn mode(path: &camino::Utf8Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The folder of the test is opened to all first, so that only the daemon's own modes keep strangers out.
#[test]
fn another_user_of_the_machine_reaches_neither_the_admin_door_nor_an_agents_nor_any_file() {
    let world = two();
    fs::set_permissions(&world.root, Permissions::from_mode(0o755)).unwrap();
    let layout = &world.layout;
    assert_eq!(mode(layout.run()) & 0o007, 0);
    assert_eq!(mode(&layout.admin_socket()), 0o660);
    for folder in [
        layout.state().to_owned(),
        layout.agents(),
        layout.repos(),
        layout.incoming(),
        layout.run().join("agents"),
    ] {
        assert_eq!(mode(&folder) & 0o077, 0, "{folder}");
    }
    if !rustix::process::geteuid().is_root() {
        // Only root can become somebody else.
        return;
    }
    let hive = world.root.join("hive");
    fs::copy(env!("CARGO_BIN_EXE_hive"), &hive).unwrap();
    let ask = |user: &str, socket: &camino::Utf8Path| {
        let mut command = program("setpriv");
        command.args(["--reuid", user, "--regid", user, "--clear-groups", hive.as_str()]);
        command.args(["--json", "--socket", socket.as_str(), "status"]);
        command.output().unwrap()
    };
    let stranger = ask("12345", &layout.admin_socket());
    assert!(!stranger.status.success());
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(said.contains("forbidden"), "{said}");
    assert!(stranger.stdout.is_empty() || !String::from_utf8_lossy(&stranger.stdout).contains("alice"));
    assert!(!ask("12345", &world.door("alice")).status.success());
    let read = |user: &str, path: &camino::Utf8Path| {
        let mut command = program("setpriv");
        command.args([
            "--reuid",
            user,
            "--regid",
            user,
            "--clear-groups",
            "cat",
            path.as_str(),
        ]);
        command.output().unwrap().status.success()
    };
    assert!(!read("12345", &layout.ledger()));
    // The same words by the daemon's own user are answered: it was the user that was refused.
    let own = ask("0", &layout.admin_socket());
    assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stderr));
    assert!(read("0", &layout.ledger()));
}

#[test]
fn a_flood_at_an_agents_door_leaves_the_admin_door_open_and_reconciling_goes_on() {
    let world = two();
    let mut flood = Vec::new();
    for n in 0..40 {
        let mut stream = UnixStream::connect(world.door("alice")).unwrap();
        let head = match n % 3 {
            0 => "POST /v1/send HTTP/1.1\r\n",
            1 => "POST /v1/send HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
            _ => "POST /v1/proposals HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n#\r\n",
        };
        stream.write_all(head.as_bytes()).unwrap();
        flood.push(stream);
    }
    assert_eq!(world.status().agents.len(), 2);
    let sent = world.ask(
        "bob",
        "/v1/send",
        &json!({ "to": "operator", "kind": "message", "body": "I am fine" }),
    );
    assert_eq!(sent.status, 200, "{}", sent.text());
    let before = world.agent("bob").unwrap().generations.deployed;
    world.spec(&spec(&json!({
        "alice": silent(),
        "bob": with(silent(), &json!({ "prompt": "new" })),
    })));
    world.until_agent("bob", "deployed anew", |bob| bob.generations.deployed != before);
    drop(flood);
    // Nothing is left of what was never whole.
    world.until("the incoming folder is empty", || {
        let left = fs::read_dir(world.layout.incoming()).unwrap().count();
        (left == 0).then_some(())
    });
}

/// Who reads too slowly is cut off, not waited for: the daemon ends although an answer was never taken.
#[test]
fn a_peer_that_never_reads_its_answer_does_not_keep_the_daemon_from_ending() {
    let mut world = two();
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = UnixStream::connect(world.door("alice")).unwrap();
        let many = "GET /v1/repo/bundle HTTP/1.1\r\nhost: x\r\n\r\n".repeat(50);
        stream.write_all(many.as_bytes()).unwrap();
        held.push(stream);
    }
    let mut first = [0; 1];
    held[0].read_exact(&mut first).unwrap();
    assert_eq!(&first, b"H");
    world.end();
}

#[test]
fn whatever_lies_in_an_agents_state_folder_is_never_opened_and_is_archived_as_it_is() {
    let world = two();
    let state = world.layout.agent_state(&name("alice"));
    let fifo = |path: &str| {
        let path = state.join(path);
        mknodat(CWD, path.as_std_path(), FileType::Fifo, 0o600.into(), 0).unwrap();
    };
    for planted in ["agent.json", "launch.json", "hive.db", "run.lock"] {
        fifo(planted);
    }
    let _socket = UnixListener::bind(state.join("hive.sock")).unwrap();
    symlink(world.layout.ledger(), state.join("ledger")).unwrap();
    symlink("/etc", state.join("etc")).unwrap();
    symlink("loop", state.join("loop")).unwrap();
    let mut deep = state.join("deep");
    for _ in 0..100 {
        fs::create_dir(&deep).unwrap();
        deep.push("d");
    }
    fs::create_dir(state.join("\u{202e}x\x1b[2J")).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();

    // The agent is configured anew, and then removed, as if there were nothing.
    let before = world.agent("alice").unwrap().generations.deployed;
    world.spec(&spec(&json!({
        "alice": with(silent(), &json!({ "prompt": "new" })),
        "bob": silent(),
    })));
    world.until_agent("alice", "deployed anew", |alice| {
        alice.generations.deployed != before
    });
    world.spec(&spec(&json!({ "bob": silent() })));
    let gate: Gate = world.until_gate("archive");
    world.does(&["gate", "approve", &gate.id.to_string()]);
    world.until("the agent is archived", || {
        (!world.layout.agent(&name("alice")).exists()).then_some(())
    });
    let archive = fs::read_dir(world.layout.state().join("archive"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let kept = archive.join("agent/state");
    assert_eq!(fs::read_link(kept.join("etc")).unwrap().to_str(), Some("/etc"));
    assert!(fs::symlink_metadata(kept.join("agent.json")).is_ok());
    assert!(std::path::Path::new("/etc/passwd").exists());
    assert!(world.layout.ledger().exists());
}

/// The tree that a proposal brings is data: what it says in `agent.json` is refused, and the next one is judged anew.
#[test]
fn a_hostile_overlay_fails_its_proposal_and_nothing_else() {
    let world = two();
    let deep = format!("{}{}", "{\"prompt\":".repeat(10_000), "}".repeat(10_000));
    for overlay in [
        deep.as_str(),
        r#"{ "mcpServers": { "x": { "command": "/a" }, "x": { "command": "/b" } } }"#,
        r#"{ "driver": { "kind": "claude", "model": "--dangerously-skip-permissions" } }"#,
    ] {
        let offered = super::config_repo::propose(&world, "alice", overlay);
        let reason = world.until("the proposal fails", || {
            let answer = http::get(&world.door("alice"), "/v1/proposals").unwrap();
            let proposals: Vec<Value> = answer.ok();
            let found = proposals
                .into_iter()
                .find(|p| p["number"] == json!(offered.number))?;
            (found["phase"] == "failed").then(|| found["reason"].to_string())
        });
        assert!(reason.contains("agent.json"), "{reason}");
    }
    assert!(world.status().gates.is_empty(), "nobody is asked about it");
    world.until_stopped("alice");
    world.until_stopped("bob");
}

/// A harness that talks to its door as it likes, next to one that works.
#[test]
fn an_agent_that_works_is_not_disturbed_by_one_that_does_not() {
    let rules = json!([{ "on": "hello", "do": [{ "reply": "hello, operator" }] }]);
    let world = World::serving(&spec(&json!({ "mallory": silent(), "alice": scripted(&rules) })));
    world.until_stopped("mallory");
    world.until_healthy("alice");
    for run in 0..50 {
        let report = json!({
            "version": "\u{1b}[2J".repeat(100),
            "runId": format!("run{run}"),
            "turn": "thinking",
            "configError": "\u{202e}".repeat(10_000),
            "mcp": { "x": { "health": "failed", "error": "\u{7}".repeat(100_000) } },
        });
        let answer = world.ask("mallory", "/v1/poll", &json!({ "report": report, "waitSecs": 0 }));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    world.does(&["send", "alice", "hello"]);
    world.until("the greeting", || {
        (world.said() == ["alice says: hello, operator"]).then_some(())
    });
    let status = world.get("/v1/agents/mallory").text();
    assert!(
        !status.contains("\\u001b") && !status.contains('\u{202e}'),
        "{status}"
    );
    world.until_healthy("alice");
}
