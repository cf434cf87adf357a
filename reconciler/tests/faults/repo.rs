//! An agent's config repo is damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};
use shared::agent_api::{ProposalInfo, ProposalPhase, SendResponse};
use shared::status::Sync;

use super::http;
use super::processes::git;
use super::world::{World, name, scripted, spec};

fn proposing() -> Value {
    scripted(&json!([
        { "on": "improve", "do": [{ "propose": { "title": "More", "set": { "prompt": "You do more." } } }] },
        { "on": "job", "do": [{ "reply": "done" }] },
    ]))
}

/// A hive in which alice has a proposal that waits to be decided.
fn waiting() -> World {
    let world = World::serving(&spec(&json!({ "alice": proposing(), "bob": proposing() })));
    for agent in ["alice", "bob"] {
        world.until_healthy(agent);
    }
    world.does(&["send", "alice", "improve"]);
    world.until_gate("deployWidens");
    world.until_agent("alice", "between two turns, with all tags", |alice| {
        alice.inbox == 0 && alice.sync.value == Sync::InSync && alice.gates.len() == 1
    });
    world.until("the build is over", || {
        let tags = git(&world.layout.repo(&name("alice")), &["tag", "--list"]);
        (tags == "proposal/1").then_some(())
    });
    world
}

/// The files of alice's repo and their bytes.
fn files(folder: &Utf8Path, into: &mut Vec<(Utf8PathBuf, Vec<u8>)>) {
    for entry in folder.read_dir_utf8().unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files(entry.path(), into);
        } else {
            into.push((entry.path().to_owned(), fs::read(entry.path()).unwrap()));
        }
    }
}

fn put(path: &Utf8Path, bytes: &[u8]) {
    // Objects are read-only, which would keep anyone but root from damaging them.
    let mode = fs::metadata(path).map_or(0o644, |data| data.permissions().mode());
    let _gone = fs::remove_file(path);
    reconciler::host::folders::write_atomic(path, bytes, mode & 0o777)
        .unwrap_or_else(|e| panic!("{}", e.chain()));
}

/// Damages alice's repo, and expects that she is shown with it, that bob moves on, and that the sound files heal it.
fn damage(world: &World, what: &str, harm: impl Fn(&Utf8Path) -> bool) {
    let repo = world.layout.repo(&name("alice"));
    let mut sound = Vec::new();
    files(&repo, &mut sound);
    assert!(harm(&repo), "{what}: nothing there to damage");
    world.does(&["retry", "alice"]);
    let shown = world.until_agent("alice", &format!("is shown with {what}"), |alice| {
        json!([alice.waiting, alice.sync]).to_string().contains("repo")
            || json!(alice.waiting).to_string().contains("cannot be")
    });
    let told = json!(shown.waiting).to_string();
    assert!(
        told.contains(repo.as_str()) || told.contains("repo of alice"),
        "{what}: {told}"
    );
    assert!(!told.contains("Caused by"), "{what}: not for people: {told}");
    let explained = world.does(&["explain", "alice"]);
    assert!(
        explained["chain"].to_string().contains("cannot be observed"),
        "{what}: {explained}"
    );
    assert!(
        explained["next"].to_string().contains("hive retry alice"),
        "{what}: {explained}"
    );

    world.until_healthy("bob");
    let before = world
        .said()
        .iter()
        .filter(|said| said.contains("bob says"))
        .count();
    let _sent: SendResponse = world
        .post("/v1/agents/bob/messages", &json!({ "body": "job" }))
        .ok();
    world.until("bob works", || {
        let said = world.said();
        (said.iter().filter(|said| said.contains("bob says")).count() > before).then_some(())
    });

    for (path, bytes) in &sound {
        if fs::read(path).ok().as_ref() != Some(bytes) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            put(path, bytes);
        }
    }
    world.does(&["retry", "alice"]);
    world.until_agent("alice", &format!("healed of {what}"), |alice| {
        let waiting = json!(alice.waiting).to_string();
        !waiting.contains("cannot be") && !waiting.contains("staleInventory") && alice.gates.len() == 1
    });
    let proposals: Vec<ProposalInfo> = http::get(&world.door("alice"), "/v1/proposals").unwrap().ok();
    let phases: Vec<ProposalPhase> = proposals.iter().map(|proposal| proposal.phase).collect();
    assert_eq!(
        phases,
        [ProposalPhase::Proposed],
        "{what}: nothing is lost, and nothing is there twice"
    );
}

/// The file of a loose object.
fn loose(repo: &Utf8Path, object: &str) -> Option<Utf8PathBuf> {
    let id = git(repo, &["rev-parse", object]);
    let path = repo.join("objects").join(&id[..2]).join(&id[2..]);
    path.exists().then_some(path)
}

#[test]
fn a_damaged_repo_is_an_error_of_its_agent_alone_and_sound_files_heal_it() {
    let world = waiting();
    let refs = git(&world.layout.repo(&name("alice")), &["for-each-ref"]);
    damage(&world, "a HEAD that is gone", |repo| {
        fs::remove_file(repo.join("HEAD")).is_ok()
    });
    damage(&world, "a main that is garbage", |repo| {
        put(&repo.join("refs/heads/main"), b"garbage\n");
        true
    });
    damage(&world, "a pack that is garbage", |repo| {
        let packs = repo
            .join("objects/pack")
            .read_dir_utf8()
            .unwrap()
            .map(Result::unwrap);
        let pack = packs
            .into_iter()
            .find(|file| file.path().extension() == Some("pack"));
        let Some(pack) = pack else { return false };
        let mut bytes = fs::read(pack.path()).unwrap();
        for byte in bytes.iter_mut().skip(12) {
            *byte ^= 0x5a;
        }
        put(pack.path(), &bytes);
        true
    });
    let repo = world.layout.repo(&name("alice"));
    assert_eq!(git(&repo, &["for-each-ref"]), refs);

    // What no pass reads is an error of whoever needs it.
    let main = loose(&repo, "main").expect("the seed is a loose object");
    let sound = fs::read(&main).unwrap();
    put(&main, &sound[..sound.len() / 2]);
    let answer = http::get(&world.door("alice"), "/v1/repo/bundle").unwrap();
    assert!(
        answer.status >= 500 && answer.text().contains("repo of alice"),
        "{}",
        answer.text()
    );
    put(&main, &sound);
    assert_eq!(
        http::get(&world.door("alice"), "/v1/repo/bundle").unwrap().status,
        200
    );

    let gate = world.until_gate("deployWidens");
    world.does(&["gate", "approve", &gate.id.to_string()]);
    world.until_agent("alice", "deployed", |alice| {
        alice
            .config
            .as_ref()
            .is_some_and(|config| config.prompt == "You do more.")
    });
    world.until_healthy("alice");
}
