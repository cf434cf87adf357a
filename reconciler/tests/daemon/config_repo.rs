//! Proposals and refs of an agent's config repo, spoken to with the `git` program as an agent or an operator would.

use std::fs;

use camino::Utf8Path;
use serde_json::{Value, json};
use shared::agent_api::{ProposalInfo, ProposalPhase};
use shared::gate::Gate;

use super::http::{self, Request};
use super::world::{DEADLINE, World, name, program, scripted, spec, within};

/// Runs git; gives what it printed, trimmed.
pub(crate) fn git(folder: &Utf8Path, args: &[&str]) -> String {
    let identity = [
        "-c",
        "user.name=someone",
        "-c",
        "user.email=someone@example.org",
        "-c",
        "safe.directory=*",
        // The daemon may be writing the same refs.
        "-c",
        "core.filesRefLockTimeout=20000",
        "-c",
        "core.packedRefsTimeout=20000",
    ];
    let output = program("git")
        .args(identity)
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Fetches a repo as a bundle, commits this `agent.json`, and gives the bundle of that commit.
pub(crate) fn committed(world: &World, socket: &Utf8Path, path: &str, overlay: &str) -> Vec<u8> {
    let folder = world.root.join("work");
    let _earlier = fs::remove_dir_all(&folder);
    let bundle = http::get(socket, path).unwrap();
    assert_eq!(bundle.status, 200, "{}", bundle.text());
    let file = world.root.join("repo.bundle");
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
    git(
        &folder,
        &["commit", "--quiet", "--all", "--message", "A change\n\nBecause."],
    );
    let made = world.root.join("proposal.bundle");
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
    fs::read(made).unwrap()
}

/// Commits this `agent.json` as the agent would, and offers it.
pub(crate) fn propose(world: &World, agent: &str, overlay: &str) -> ProposalInfo {
    let bundle = committed(world, &world.door(agent), "/v1/repo/bundle", overlay);
    offer(world, agent, &bundle)
}

fn offer(world: &World, agent: &str, bundle: &[u8]) -> ProposalInfo {
    let request = Request {
        method: "POST",
        path: "/v1/proposals",
        headers: &[],
        body: bundle,
    };
    http::send(&world.door(agent), &request).unwrap().ok()
}

fn proposals(world: &World, agent: &str) -> Vec<ProposalInfo> {
    http::get(&world.door(agent), "/v1/proposals").unwrap().ok()
}

fn alice() -> World {
    let world = World::serving(&spec(&json!({ "alice": scripted(&json!([])) })));
    world.until_healthy("alice");
    world
}

/// What the daemon told an agent, whether its harness has taken it up yet or not.
fn notices(world: &World, agent: &str) -> Vec<String> {
    world.messages(&format!(
        "SELECT body FROM messages WHERE from_addr = 'system' AND to_addr = '{agent}'"
    ))
}

#[test]
fn a_proposal_that_cannot_be_built_never_reaches_the_operator_and_both_sides_are_told_why() {
    let world = alice();
    propose(&world, "alice", r#"{ "promt": "You look after the garden." }"#);
    let failed = world.until("the proposal fails", || {
        let mut found = proposals(&world, "alice").into_iter();
        found.find(|proposal| proposal.phase == ProposalPhase::Failed)
    });
    let why = failed.reason.expect("a reason");
    assert!(why.contains("promt") && why.contains("agent.json"), "{why}");
    let told = notices(&world, "alice");
    assert!(told.iter().any(|body| body.contains("promt")), "{told:?}");
    let event = world.until_kind("proposalEnded");
    assert!(event.message.contains("promt"), "{event:?}");
    let gates: Vec<Gate> = world.get("/v1/gates?all=true").ok();
    let about_it = gates
        .iter()
        .filter(|gate| gate.proposal.is_some() && gate.class.as_str() != "build");
    assert_eq!(about_it.count(), 0, "{gates:?}");
    world.until_healthy("alice");
    let tags = git(&world.layout.repo(&name("alice")), &["tag", "--list"]);
    assert_eq!(tags, "failed/1\nproposal/1");
    // Asking for it again does not bring back what is over, and the cure is a new proposal.
    world.does(&["retry", "alice"]);
    let cure = propose(&world, "alice", r#"{ "prompt": "You look after the garden." }"#);
    let gate = world.until_gate("deployWidens");
    assert_eq!(gate.proposal, Some(cure.number));
}

#[test]
fn what_is_approved_is_deployed_and_a_denial_tells_the_agent_why() {
    let world = alice();
    let denied = propose(&world, "alice", r#"{ "prompt": "You look after the bank." }"#);
    let gate = world.until_gate("deployWidens");
    world.does(&[
        "gate",
        "deny",
        &gate.id.to_string(),
        "--reason",
        "the bank has a keeper",
    ]);
    world.until("the denial", || {
        let found = proposals(&world, "alice");
        found
            .iter()
            .any(|p| p.number == denied.number && p.phase == ProposalPhase::Denied)
            .then_some(())
    });
    world.until("the agent is told", || {
        notices(&world, "alice")
            .iter()
            .any(|body| body.contains("the bank has a keeper"))
            .then_some(())
    });
    let wanted = propose(&world, "alice", r#"{ "prompt": "You look after the garden." }"#);
    let gate = world.until_gate("deployWidens");
    assert!(
        gate.view
            .commit_diff
            .contains("+{ \"prompt\": \"You look after the garden.\" }"),
        "{:?}",
        gate.view
    );
    world.does(&["gate", "approve", &gate.id.to_string()]);
    let alice = world.until_agent("alice", "deployed", |alice| {
        alice.generations.commit.as_ref() == Some(&wanted.commit)
    });
    assert_eq!(alice.config.unwrap().prompt, "You look after the garden.");
}

#[test]
fn a_commit_that_was_denied_is_not_asked_about_again() {
    let world = alice();
    let overlay = r#"{ "prompt": "You look after the bank." }"#;
    let bundle = committed(&world, &world.door("alice"), "/v1/repo/bundle", overlay);
    let first = offer(&world, "alice", &bundle);
    let gate = world.until_gate("deployWidens");
    world.does(&[
        "gate",
        "deny",
        &gate.id.to_string(),
        "--reason",
        "it has a keeper",
    ]);
    let denied = || {
        let mut all = proposals(&world, "alice").into_iter();
        all.find(|proposal| proposal.phase == ProposalPhase::Denied)
    };
    world.until("it is over", denied);
    // As a turn does that is carried out once more.
    let again = offer(&world, "alice", &bundle);
    assert_eq!((again.number, again.phase), (first.number, ProposalPhase::Denied));
    assert_eq!(proposals(&world, "alice").len(), 1);
}

#[test]
fn a_commit_that_is_deployed_and_offered_again_is_the_proposal_it_was() {
    let world = alice();
    let overlay = r#"{ "prompt": "You look after the bank." }"#;
    let bundle = committed(&world, &world.door("alice"), "/v1/repo/bundle", overlay);
    let first = offer(&world, "alice", &bundle);
    let gate = world.until_gate("deployWidens");
    world.does(&["gate", "approve", &gate.id.to_string()]);
    let deployed = || {
        let mut all = proposals(&world, "alice").into_iter();
        all.find(|proposal| proposal.phase == ProposalPhase::Deployed)
    };
    world.until("it is deployed", deployed);
    // As a client does whose answer was lost.
    let again = offer(&world, "alice", &bundle);
    assert_eq!(
        (again.number, again.phase),
        (first.number, ProposalPhase::Deployed)
    );
    assert_eq!(proposals(&world, "alice").len(), 1);
}

#[test]
fn refs_moved_by_hand_are_put_back_and_reported() {
    let world = alice();
    let wanted = propose(&world, "alice", r#"{ "prompt": "You look after the garden." }"#);
    let gate = world.until_gate("deployWidens");
    world.does(&["gate", "approve", &gate.id.to_string()]);
    world.until_agent("alice", "deployed", |alice| {
        alice.generations.commit.as_ref() == Some(&wanted.commit)
    });
    let repo = world.layout.repo(&name("alice"));
    let refs = || git(&repo, &["for-each-ref", "refs/heads", "refs/tags"]);
    world.until("all tags are there", || {
        let refs = refs();
        let there = ["main", "proposal/1", "approved/1", "deployed/1"]
            .iter()
            .all(|name| refs.contains(name));
        // Shown only while it is built; it goes after the others have come.
        (there && !refs.contains("building/1")).then_some(())
    });
    world.until_healthy("alice");
    let good = refs();
    let tree = git(&repo, &["rev-parse", "main^{tree}"]);
    let foreign = git(&repo, &["commit-tree", &tree, "-m", "an unapproved commit"]);
    git(&repo, &["update-ref", "refs/heads/main", &foreign]);
    git(&repo, &["update-ref", "refs/tags/deployed/1", &foreign]);
    git(&repo, &["update-ref", "refs/tags/approved/2", &foreign]);
    git(&repo, &["update-ref", "-d", "refs/tags/proposal/1"]);
    git(&repo, &["update-ref", "refs/tags/mine", &foreign]);
    world.does(&["retry", "alice"]);
    let ours = || {
        let refs = refs();
        let ours = refs.lines().filter(|line| !line.ends_with("refs/tags/mine"));
        ours.collect::<Vec<_>>().join("\n")
    };
    let put_back = within(DEADLINE, || (ours() == good).then_some(()));
    assert!(
        put_back.is_some(),
        "what was moved is not put back:\n{}\ninstead of\n{good}",
        ours()
    );
    assert!(
        refs().contains("refs/tags/mine"),
        "a tag outside the daemon's folders is nobody's business"
    );
    for moved in ["main", "deployed/1"] {
        world.until_event("the drift is reported", |event| {
            event.agent == Some(name("alice"))
                && event.level != shared::event::Level::Info
                && event.message.contains(moved)
                && event.message.contains("put back")
        });
    }
    assert_eq!(
        world.agent("alice").unwrap().generations.commit,
        Some(wanted.commit),
        "a moved ref approves nothing"
    );
    let gates: Vec<Value> = world.get("/v1/gates").ok();
    assert_eq!(gates, [json!(null); 0]);
}
