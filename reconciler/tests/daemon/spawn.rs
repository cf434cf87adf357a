//! Agents that no spec declares: prepared at a manager's door or spawned by the operator.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use shared::draft::{DraftInfo, DraftPhase, MAX_FILE_BYTES};
use shared::gate::{Asker, Gate, GateState};
use shared::wire_error::ErrorCode;

use super::config_repo::git;
use super::http::{self, Answer, Request};
use super::world::{World, name, silent, spec, with};

/// A manager and a worker at whose doors a test may speak, and runnable spawn defaults.
fn hive() -> World {
    let mut spec = spec(&json!({ "queen": with(silent(), &json!({ "role": "manager" })), "pawn": silent() }));
    spec["spawnDefaults"] = json!({ "driver": { "kind": "scripted" } });
    let world = World::serving(&spec);
    world.until_stopped("queen");
    world.until_stopped("pawn");
    world
}

fn put(world: &World, agent: &str, path: &str, body: &[u8]) -> Answer {
    let request = Request {
        method: "PUT",
        path,
        headers: &[],
        body,
    };
    http::send(&world.door(agent), &request).unwrap()
}

fn get(world: &World, agent: &str, path: &str) -> Answer {
    http::get(&world.door(agent), path).unwrap()
}

fn delete(world: &World, agent: &str, path: &str) -> Answer {
    let request = Request {
        method: "DELETE",
        path,
        headers: &[],
        body: b"",
    };
    http::send(&world.door(agent), &request).unwrap()
}

fn made(world: &World) -> DraftInfo {
    world
        .ask("queen", "/v1/drafts", &json!({ "name": "helper" }))
        .ok::<Value>();
    world.until("the draft has a repo", || {
        let info: DraftInfo = get(world, "queen", "/v1/drafts/helper").ok();
        (info.phase == DraftPhase::Draft && info.seed.is_some()).then_some(info)
    })
}

/// Sends a commit with this `agent.json`, as a manager would.
fn send_commit(world: &World, overlay: &str) -> Answer {
    let bundle = get(world, "queen", "/v1/drafts/helper/bundle");
    assert_eq!(bundle.status, 200, "{}", bundle.text());
    let (file, folder) = (world.root.join("draft.bundle"), world.root.join("draft"));
    reconciler::host::folders::write_atomic(&file, &bundle.body, 0o644).unwrap();
    git(
        &world.root,
        &[
            "clone",
            "--quiet",
            "--branch",
            "main",
            file.as_str(),
            folder.as_str(),
        ],
    );
    reconciler::host::folders::write_atomic(&folder.join("agent.json"), overlay.as_bytes(), 0o644).unwrap();
    git(&folder, &["commit", "--quiet", "--all", "--message", "A helper"]);
    let made = world.root.join("made.bundle");
    git(
        &folder,
        &[
            "bundle",
            "create",
            "--quiet",
            made.as_str(),
            "main",
            "^origin/main",
        ],
    );
    let request = Request {
        method: "POST",
        path: "/v1/drafts/helper/bundle",
        headers: &[],
        body: &fs::read(made).unwrap(),
    };
    http::send(&world.door("queen"), &request).unwrap()
}

#[test]
fn a_draft_of_two_steps_becomes_what_the_operator_approved() {
    let mut world = hive();
    let draft = made(&world);
    assert_eq!(
        put(
            &world,
            "queen",
            "/v1/drafts/helper/files/notes/day-one.md",
            b"begin here"
        )
        .status,
        200
    );
    let sent: DraftInfo = send_commit(&world, r#"{ "prompt": "You help." }"#).ok();
    assert_ne!(sent.commit, draft.seed);
    let read = get(&world, "queen", "/v1/drafts/helper/files/notes/day-one.md");
    assert_eq!(read.body, b"begin here");
    // It has no power: no folders, no door, no mail.
    assert!(!world.layout.agent(&name("helper")).exists());
    assert!(!world.door("helper").exists());
    let mail = json!({ "to": "helper", "kind": "message", "body": "hello" });
    world
        .ask("queen", "/v1/send", &mail)
        .refused(404, ErrorCode::NotFound);

    world
        .ask(
            "queen",
            "/v1/drafts/helper/commit",
            &json!({ "reason": "much to do" }),
        )
        .ok::<Value>();
    let gate = world.until_gate("spawn");
    assert_eq!(
        (gate.agent.clone(), gate.asked_by),
        (Some(name("helper")), Asker::Manager)
    );
    assert_eq!(gate.view.reason.as_deref(), Some("much to do"));
    assert!(
        gate.view.commit_diff.contains("You help."),
        "{}",
        gate.view.commit_diff
    );
    let files: Vec<_> = gate
        .view
        .files
        .iter()
        .map(|(path, file)| (path.as_str(), file.size))
        .collect();
    assert_eq!(files, [("notes/day-one.md", 10)]);
    // The question outlives the daemon.
    world.kill();
    world.start();
    assert_eq!(world.until_gate("spawn").id, gate.id);
    assert!(!world.layout.agent(&name("helper")).exists());

    world.does(&["gate", "approve", &gate.id.to_string()]);
    let status = world.until_healthy("helper");
    assert_eq!(status.uid, Some(draft.uid));
    assert_eq!(status.config.unwrap().prompt, "You help.");
    let file = world.layout.agent_state(&name("helper")).join("notes/day-one.md");
    assert_eq!(fs::read(&file).unwrap(), b"begin here");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    world.until("nothing stays staged", || {
        (!world.layout.staged_by(draft.uid).exists()).then_some(())
    });
    let main = git(&world.layout.repo(&name("helper")), &["rev-parse", "main"]);
    assert_eq!(Some(main), sent.commit.map(|commit| commit.to_string()));
    get(&world, "queen", "/v1/drafts/helper").refused(404, ErrorCode::NotFound);
    let told = world.messages("SELECT body FROM messages WHERE to_addr = 'queen' AND from_addr = 'system'");
    assert!(
        told.iter().any(|body| body.contains("helper was spawned")),
        "{told:?}"
    );
}

#[test]
fn only_a_manager_prepares_agents_and_no_path_leads_out_of_state() {
    let world = hive();
    let request = json!({ "name": "helper" });
    for path in ["/v1/drafts", "/v1/spawn"] {
        let refused = world
            .ask("pawn", path, &request)
            .refused(403, ErrorCode::Forbidden);
        assert!(refused.message.contains("no manager"), "{refused:?}");
    }
    get(&world, "pawn", "/v1/drafts").refused(403, ErrorCode::Forbidden);
    for taken in ["queen", "pawn"] {
        world
            .ask("queen", "/v1/drafts", &json!({ "name": taken }))
            .refused(409, ErrorCode::Conflict);
    }
    let draft = made(&world);
    put(&world, "pawn", "/v1/drafts/helper/files/x", b"x").refused(403, ErrorCode::Forbidden);
    for path in [
        "..%2F..%2Flaunch%2Flaunch.json",
        "a/..%2Fb",
        "%2Fetc%2Fpasswd",
        ".bashrc",
        ".claude/settings.json",
        "a/.git/config",
        "config/agent.json",
        "harness.lock",
        "a%00b",
        "a%0Ab",
        "a//b",
        "a/",
        "caf%C3%A9",
    ] {
        put(&world, "queen", &format!("/v1/drafts/helper/files/{path}"), b"x")
            .refused(400, ErrorCode::BadRequest);
    }
    let large = vec![b'x'; MAX_FILE_BYTES + 1];
    put(&world, "queen", "/v1/drafts/helper/files/large", &large).refused(413, ErrorCode::TooLarge);
    assert!(
        !world.layout.staged_by(draft.uid).exists(),
        "what is refused leaves nothing"
    );
    assert_eq!(
        put(&world, "queen", "/v1/drafts/helper/files/a", b"x").status,
        200
    );
    put(&world, "queen", "/v1/drafts/helper/files/a/b", b"y").refused(400, ErrorCode::BadRequest);
    // What is replaced is not kept.
    assert_eq!(
        put(&world, "queen", "/v1/drafts/helper/files/a", b"z").status,
        200
    );
    assert_eq!(
        fs::read_dir(world.layout.staged_by(draft.uid)).unwrap().count(),
        1
    );
    assert_eq!(delete(&world, "queen", "/v1/drafts/helper/files/a").status, 200);
    delete(&world, "queen", "/v1/drafts/helper/files/a").refused(404, ErrorCode::NotFound);
    assert!(!world.layout.staged_by(draft.uid).exists());
    // A bundle that is none, and one that does not descend from the seed.
    let request = Request {
        method: "POST",
        path: "/v1/drafts/helper/bundle",
        headers: &[],
        body: b"no bundle",
    };
    let answer = http::send(&world.door("queen"), &request).unwrap();
    answer.refused(400, ErrorCode::BadRequest);

    assert_eq!(delete(&world, "queen", "/v1/drafts/helper").status, 204);
    world.until("the draft is gone", || {
        world.agent("helper").is_none().then_some(())
    });
    assert!(!world.layout.repo(&name("helper")).exists());
}

#[test]
fn the_operator_spawns_at_once_and_a_link_in_the_way_stops_it() {
    let world = hive();
    let notes = world.root.join("notes.txt");
    reconciler::host::folders::write_atomic(&notes, b"read me", 0o644).unwrap();
    // Somebody put a link where the staged file is to go, before anything of the agent was there.
    let outside = world.root.join("outside");
    fs::create_dir(&outside).unwrap();
    let state = world.layout.agent_state(&name("victim"));
    fs::create_dir_all(&state).unwrap();
    std::os::unix::fs::symlink(&outside, state.join("notes")).unwrap();
    let file = format!("notes/a.txt={notes}");
    world.does(&["spawn", "victim", "--file", &file]);
    let stuck = world.until_agent("victim", "stuck", |status| {
        status
            .waiting
            .iter()
            .any(|waiting| format!("{:?}", waiting.on).contains("nothing is overwritten"))
    });
    assert!(stuck.config.is_none());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);

    world.does(&[
        "spawn",
        "helper",
        "--prompt",
        "You help.",
        "--file",
        &file,
        "--reason",
        "a test",
    ]);
    let status = world.until_healthy("helper");
    assert_eq!(status.config.unwrap().prompt, "You help.");
    let laid = world.layout.agent_state(&name("helper")).join("notes/a.txt");
    assert_eq!(fs::read(laid).unwrap(), b"read me");
    let gates: Vec<Gate> = world.get("/v1/gates?all=true").ok();
    let mut spawned = gates.into_iter().filter(|gate| {
        gate.agent == Some(name("helper"))
            && gate.class.as_str() == "spawn"
            && gate.state == GateState::Consumed
    });
    assert!(
        spawned
            .next()
            .unwrap()
            .decision
            .unwrap()
            .by
            .starts_with("policy:spec.spawn")
    );
    let again = world.hive(&["spawn", "helper"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("taken"), "{again:?}");
}
