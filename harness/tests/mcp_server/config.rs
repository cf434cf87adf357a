use camino::Utf8PathBuf;
use serde_json::{Value, json};
use shared::wire_error::ErrorCode;

use crate::daemon::TIME;
use crate::git::git;
use crate::nest::Nest;

/// A config repo as the daemon has it, handed out as a bundle.
pub(crate) fn repo(nest: &Nest) -> Utf8PathBuf {
    let folder = nest.path("repo");
    std::fs::create_dir(&folder).unwrap();
    git(&folder, &["init", "--quiet", "--initial-branch=main"]);
    for (name, text) in [
        ("agent.json", "{}\n"),
        ("old.md", "old\n"),
        ("run.sh", "#!/bin/sh\n"),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    git(&folder, &["add", "."]);
    git(&folder, &["update-index", "--chmod=+x", "run.sh"]);
    git(&folder, &["commit", "--quiet", "-m", "seed"]);
    git(&folder, &["tag", "deployed/0"]);
    hand_out(nest, &folder);
    folder
}

fn hand_out(nest: &Nest, folder: &Utf8PathBuf) {
    let bundle = nest.path("main.bundle");
    git(
        folder,
        &["bundle", "create", "--quiet", bundle.as_str(), "main", "--tags"],
    );
    let bundle = std::fs::read(bundle).unwrap();
    nest.daemon.change(|world| world.bundle = bundle);
}

/// Takes what was offered in the way the daemon does.
pub(crate) fn import(nest: &Nest, folder: &Utf8PathBuf, index: usize) -> String {
    let bundle = nest.path("offered.bundle");
    std::fs::write(&bundle, &nest.daemon.world().offered[index]).unwrap();
    let heads = git(folder, &["bundle", "list-heads", bundle.as_str()]);
    let (commit, name) = heads.trim().split_once(' ').expect(&heads);
    assert_eq!(name, "refs/heads/proposal");
    let fetch = ["-c", "transfer.fsckObjects=true", "fetch", "--quiet"];
    git(
        folder,
        &[&fetch[..], &[bundle.as_str(), "+refs/heads/*:refs/incoming/*"]].concat(),
    );
    commit.to_owned()
}

#[tokio::test]
async fn files_become_one_commit_on_main_and_the_work_tree_follows() {
    let nest = Nest::agent();
    let folder = repo(&nest);
    let client = nest.client().await;
    let arguments = json!({
        "title": "speak\nsoftly",
        "reason": "because it is late",
        "files": { "agent.json": "{\"prompt\":\"Whisper.\"}\n", "notes/a.md": "a\n", "run.sh": "#!/bin/sh\ntrue\n" },
        "delete": ["old.md"],
    });
    let text = client.does("propose_config", arguments).await;
    assert!(
        text.starts_with("Proposal 1 is received: \"speak softly\", commit "),
        "{text}"
    );
    let commit = import(&nest, &folder, 0);
    assert!(text.contains(&commit), "{text}");
    let parents = git(&folder, &["rev-list", "--parents", &format!("main..{commit}")]);
    assert_eq!(
        parents.trim(),
        format!("{commit} {}", git(&folder, &["rev-parse", "main"]).trim())
    );
    let changes = git(&folder, &["diff", "--name-status", "main", &commit]);
    assert_eq!(changes, "M\tagent.json\nA\tnotes/a.md\nD\told.md\nM\trun.sh\n");
    assert_eq!(
        git(&folder, &["show", &format!("{commit}:agent.json")]),
        "{\"prompt\":\"Whisper.\"}\n"
    );
    assert!(
        git(&folder, &["ls-tree", &commit, "run.sh"]).starts_with("100755 "),
        "a script stays one"
    );
    let message = git(&folder, &["log", "-1", "--format=%an <%ae> %at%n%B", &commit]);
    let expected = "alice <alice@hive.invalid> 1767323045\nspeak softly\n\nbecause it is late";
    assert_eq!(message.trim(), expected);
    let work_tree = nest.path("state/config");
    assert_eq!(git(&work_tree, &["rev-parse", "HEAD"]).trim(), commit);
    assert!(!nest.path("state/proposal.tmp").exists());
}

#[tokio::test]
async fn a_commit_of_the_agents_own_is_offered_as_it_is() {
    let nest = Nest::agent();
    let folder = repo(&nest);
    let client = nest.client().await;
    let head = json!({ "head": true });
    let refused = client.refuses("propose_config", head.clone()).await;
    assert!(
        refused.contains("call config_status, which makes it"),
        "{refused}"
    );

    let status = client.does("config_status", json!({})).await;
    let work_tree = nest.path("state/config");
    let expected =
        format!("{work_tree} is on main; ahead of hive/main (what is deployed) by 0, behind it by 0.\n");
    assert_eq!(status, format!("You have proposed nothing.\n{expected}"));
    let refused = client.refuses("propose_config", head.clone()).await;
    assert!(refused.contains("commit your change first"), "{refused}");

    std::fs::write(work_tree.join("agent.json"), "{\"prompt\":\"Sing.\"}\n").unwrap();
    git(
        &work_tree,
        &["commit", "--quiet", "--all", "-m", "sing\n\nit is fun"],
    );
    std::fs::write(work_tree.join("draft.md"), "not yet").unwrap();
    let status = client.does("config_status", json!({})).await;
    assert!(
        status.contains("ahead of hive/main (what is deployed) by 1, behind it by 0, with uncommitted work"),
        "{status}"
    );
    let text = client.does("propose_config", head.clone()).await;
    assert!(text.starts_with("Proposal 1 is received: \"sing\""), "{text}");
    let commit = import(&nest, &folder, 0);
    assert_eq!(commit, git(&work_tree, &["rev-parse", "HEAD"]).trim());
    assert_eq!(
        git(&folder, &["log", "-1", "--format=%B", &commit]).trim(),
        "sing\n\nit is fun"
    );
    assert_eq!(
        std::fs::read_to_string(work_tree.join("draft.md")).unwrap(),
        "not yet"
    );

    // Main moves on: the commit no longer lies on it.
    git(&folder, &["commit", "--quiet", "--allow-empty", "-m", "another"]);
    hand_out(&nest, &folder);
    let refused = client.refuses("propose_config", head).await;
    assert!(refused.contains("rebase on hive/main"), "{refused}");
    let status = client.does("config_status", json!({})).await;
    assert!(
        status.contains("ahead of hive/main (what is deployed) by 1, behind it by 1"),
        "{status}"
    );
}

#[tokio::test]
async fn a_refused_proposal_leaves_the_work_tree_and_nothing_else_behind() {
    let nest = Nest::agent();
    repo(&nest);
    nest.daemon
        .refuses("POST /v1/proposals", 409, ErrorCode::Conflict, "main has moved");
    let client = nest.client().await;
    client.does("config_status", json!({})).await;
    let work_tree = nest.path("state/config");
    let before = git(&work_tree, &["rev-parse", "HEAD"]);
    let arguments = json!({ "title": "x", "files": { "agent.json": "{ }\n" } });
    let refused = client.refuses("propose_config", arguments).await;
    assert_eq!(
        refused,
        "the daemon refused (409): main has moved (ask the operator)"
    );
    assert_eq!(git(&work_tree, &["rev-parse", "HEAD"]), before);
    assert!(!nest.path("state/proposal.tmp").exists());
}

#[tokio::test]
async fn what_makes_no_proposal_is_refused_in_words() {
    let nest = Nest::agent();
    repo(&nest);
    let client = nest.client().await;
    let file = json!({ "agent.json": "{ }" });
    let wrong: [(Value, &str); 7] = [
        (json!({}), "give files or delete, or head: true"),
        (json!({ "files": file }), "a title is missing"),
        (
            json!({ "head": true, "files": file }),
            "the commit says everything",
        ),
        (
            json!({ "head": true, "title": "x" }),
            "the commit says everything",
        ),
        (
            json!({ "title": "x", "files": file, "delete": ["agent.json"] }),
            "both to be written and to be deleted",
        ),
        (
            json!({ "title": "x", "files": { "agent.json": "{}\n" } }),
            "nothing would change",
        ),
        (
            json!({ "title": "x", "delete": ["none.md"] }),
            "main has no file none.md",
        ),
    ];
    for (arguments, why) in wrong {
        let refused = client.refuses("propose_config", arguments.clone()).await;
        assert!(refused.contains(why), "{arguments}: {refused}");
    }
    assert!(nest.daemon.world().offered.is_empty());
    assert!(!nest.path("state/proposal.tmp").exists());
}

#[tokio::test]
async fn uncommitted_work_is_kept_and_said_so() {
    let nest = Nest::agent();
    repo(&nest);
    let client = nest.client().await;
    client.does("config_status", json!({})).await;
    let mine = nest.path("state/config/agent.json");
    std::fs::write(&mine, "my own work").unwrap();
    let arguments = json!({ "title": "x", "files": { "agent.json": "{ }\n" } });
    let text = client.does("propose_config", arguments).await;
    assert!(text.contains("uncommitted work and was left as it is"), "{text}");
    assert_eq!(std::fs::read_to_string(mine).unwrap(), "my own work");
}

#[tokio::test]
async fn proposals_are_listed_with_phase_reason_and_gate() {
    let nest = Nest::agent();
    let proposal = |number: u64, phase: &str, more: Value| {
        let mut proposal = json!({ "number": number, "commit": "0123456789abcdef0123456789abcdef01234567",
                                   "title": "a\ntitle", "phase": phase, "at": TIME });
        for (name, value) in more.as_object().unwrap() {
            proposal[name] = value.clone();
        }
        proposal
    };
    let list = vec![
        proposal(3, "proposal", json!({ "gate": 7 })),
        proposal(2, "denied", json!({ "reason": "too loud" })),
        proposal(1, "deployed", json!({})),
    ];
    let list: Vec<Value> = list
        .into_iter()
        .map(|mut one| {
            if one["phase"] == "proposal" {
                one["phase"] = json!("proposed");
            }
            one
        })
        .collect();
    nest.daemon.change(|world| world.proposals = list);
    let client = nest.client().await;
    let text = client
        .does("config_status", json!({ "fetch": false, "limit": 2 }))
        .await;
    let expected = "proposal 3 (\"a title\", 0123456789) 2026-01-02T03:04:05Z: waits for the operator at gate 7\n\
                    proposal 2 (\"a title\", 0123456789) 2026-01-02T03:04:05Z: denied; why: \"too loud\"\n\
                    1 older ones are not shown.\n";
    assert_eq!(text, expected);
    // Git does not work without a repo: the list is shown all the same.
    let text = client.does("config_status", json!({})).await;
    assert!(
        text.contains("proposal 1 ") && text.contains("The config repo was not fetched: git fetch failed"),
        "{text}"
    );
}

#[tokio::test]
async fn a_manager_proposes_for_another_agent_and_its_own_work_tree_stays_as_it_is() {
    let nest = Nest::manager();
    let folder = repo(&nest);
    let client = nest.client().await;
    let arguments =
        json!({ "agent": "bob", "title": "sing", "files": { "agent.json": "{\"prompt\":\"Sing.\"}\n" } });
    let text = client.does("propose_config", arguments.clone()).await;
    assert!(
        text.starts_with("For bob, which is told: Proposal 1 is received: \"sing\", commit "),
        "{text}"
    );
    let commit = import(&nest, &folder, 0);
    assert_eq!(
        git(&folder, &["log", "-1", "--format=%an", &commit]).trim(),
        "alice",
        "who wrote it, not for whom"
    );
    assert!(!nest.path("state/config").exists(), "it is not its own config");
    assert!(nest.daemon.world().bodies("POST /v1/proposals").is_empty());
    let refused = client
        .refuses("propose_config", json!({ "agent": "bob", "head": true }))
        .await;
    assert!(refused.contains("a commit for your own config"), "{refused}");
    let why = "alice is no manager of this hive: it proposes changes of itself alone";
    nest.daemon
        .refuses("POST /v1/agents/bob/proposals", 403, ErrorCode::Forbidden, why);
    let refused = client.refuses("propose_config", arguments).await;
    assert!(refused.contains(why), "{refused}");
    assert!(!nest.path("state/proposal.tmp").exists());
}
