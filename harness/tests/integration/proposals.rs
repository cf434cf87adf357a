use camino::Utf8PathBuf;
use serde_json::{Value, json};
use shared::agent_api::MessageKind;

use crate::git::git;
use crate::world::Nest;

/// A config repo as the daemon has it, handed out as a bundle.
fn repo(nest: &Nest, overlay: &str) -> Utf8PathBuf {
    let folder = nest.path("repo");
    std::fs::create_dir(&folder).unwrap();
    git(&folder, &["init", "--quiet", "--initial-branch=main"]);
    std::fs::write(folder.join("agent.json"), overlay).unwrap();
    std::fs::write(folder.join("notes.md"), "kept\n").unwrap();
    git(&folder, &["add", "."]);
    git(&folder, &["commit", "--quiet", "-m", "seed"]);
    git(&folder, &["tag", "deployed/0"]);
    let bundle = nest.path("main.bundle");
    git(
        &folder,
        &["bundle", "create", "--quiet", bundle.as_str(), "main", "--tags"],
    );
    let bundle = std::fs::read(bundle).unwrap();
    nest.daemon.change(|world| world.bundle = bundle);
    folder
}

fn script() -> Value {
    json!([{ "on": "improve", "do": [
        { "propose": {
            "title": "speak softly",
            "reason": "because it is late",
            "set": { "prompt": "Whisper.", "network": null },
        } },
        { "reply": "proposed" },
    ] }])
}

/// Takes a proposal in the way the daemon does.
fn import(nest: &Nest, folder: &Utf8PathBuf, index: usize) -> String {
    let bundle = nest.path("proposal.bundle");
    std::fs::write(&bundle, &nest.daemon.world().proposals[index]).unwrap();
    let heads = git(folder, &["bundle", "list-heads", bundle.as_str()]);
    let (commit, name) = heads.trim().split_once(' ').expect(&heads);
    assert_eq!(name, "refs/heads/proposal");
    let refs = "+refs/heads/*:refs/incoming/*";
    git(
        folder,
        &[
            "-c",
            "transfer.fsckObjects=true",
            "fetch",
            "--quiet",
            bundle.as_str(),
            refs,
        ],
    );
    commit.to_owned()
}

#[tokio::test]
async fn a_proposal_is_one_commit_on_main_that_changes_the_overlay() {
    let nest = Nest::new(script());
    let folder = repo(
        &nest,
        r#"{"prompt":"Speak.","network":"none","tools":{"allow":["Read"]}}"#,
    );
    let _harness = nest.start();
    nest.daemon
        .message(MessageKind::Message, "operator", "improve yourself");
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    assert_eq!(nest.daemon.world().bodies(), ["proposed"]);

    let commit = import(&nest, &folder, 0);
    assert_eq!(
        git(&folder, &["rev-list", "--parents", &format!("main..{commit}")]).trim(),
        format!("{commit} {}", git(&folder, &["rev-parse", "main"]).trim())
    );
    assert_eq!(
        git(&folder, &["diff", "--name-only", "main", &commit]),
        "agent.json\n"
    );
    let overlay: Value =
        serde_json::from_str(&git(&folder, &["show", &format!("{commit}:agent.json")])).expect("JSON");
    assert_eq!(
        overlay,
        json!({ "prompt": "Whisper.", "tools": { "allow": ["Read"] } })
    );
    let message = git(&folder, &["log", "-1", "--format=%an <%ae>%n%B", &commit]);
    let expected = "alice <alice@hive.invalid>\nspeak softly\n\nbecause it is late";
    assert_eq!(message.trim(), expected);
    // The agent finds the same commit where it looks at its repo, and no leftovers.
    let work_tree = nest.path("state/config");
    assert_eq!(git(&work_tree, &["rev-parse", "HEAD"]).trim(), commit);
    assert!(work_tree.join("notes.md").exists());
    assert!(!nest.path("state/proposal.tmp").exists());
}

#[tokio::test]
async fn a_refused_proposal_is_told_to_the_sender_and_the_turn_goes_on() {
    let nest = Nest::new(script());
    repo(&nest, "{}");
    nest.daemon.change(|world| world.refuse_proposals = true);
    let _harness = nest.start();
    nest.daemon
        .message(MessageKind::Message, "bob", "improve yourself");
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    let world = nest.daemon.world();
    let refusal =
        "I could not propose \"speak softly\": the daemon refused (409): main has moved (ask the operator)";
    assert_eq!(world.bodies(), [refusal, "proposed"]);
    assert_eq!(world.dones(), [true]);
}

#[tokio::test]
async fn an_overlay_that_is_no_object_is_refused_in_words() {
    let nest = Nest::new(script());
    repo(&nest, "[1, 2]");
    let _harness = nest.start();
    nest.daemon
        .message(MessageKind::Message, "bob", "improve yourself");
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    let world = nest.daemon.world();
    assert!(
        world.sent[0]
            .body
            .contains("agent.json on main is not a JSON object"),
        "{:?}",
        world.sent
    );
    assert!(world.proposals.is_empty());
}

#[tokio::test]
async fn a_proposal_tried_again_after_a_crash_is_the_same_commit() {
    let nest = Nest::new(json!([{ "on": "improve", "do": [
        { "propose": { "title": "again", "set": { "prompt": "x" } } },
        { "hang": true },
    ] }]));
    let folder = repo(&nest, "{}");
    let harness = nest.start();
    nest.daemon
        .message(MessageKind::Message, "operator", "improve yourself");
    nest.daemon
        .until("a proposal", |world| world.proposals.len() == 1)
        .await;
    harness.killed().await;
    // What a run leaves behind that was cut short in the middle.
    std::fs::create_dir_all(nest.path("state/proposal.tmp/repo/refs")).unwrap();
    std::fs::write(nest.path("state/proposal.tmp/main.bundle"), "half").unwrap();
    let _harness = nest.start();
    nest.daemon
        .until("another proposal", |world| world.proposals.len() == 2)
        .await;
    assert_eq!(import(&nest, &folder, 0), import(&nest, &folder, 1));
}

#[tokio::test]
async fn uncommitted_work_in_the_work_tree_survives_a_proposal() {
    let nest = Nest::new(script());
    repo(&nest, "{}");
    let _harness = nest.start();
    nest.daemon
        .message(MessageKind::Message, "operator", "improve yourself");
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    let overlay = nest.path("state/config/agent.json");
    std::fs::write(&overlay, "my own work").unwrap();
    nest.deploy(json!([{ "on": "improve", "do": [
        { "propose": { "title": "more", "set": { "prompt": "Shout." } } },
    ] }]));
    nest.daemon
        .message(MessageKind::Message, "operator", "improve again");
    nest.daemon
        .until("another ack", |world| world.acks.len() == 2)
        .await;
    assert_eq!(nest.daemon.world().proposals.len(), 2);
    assert_eq!(std::fs::read_to_string(overlay).unwrap(), "my own work");
}
