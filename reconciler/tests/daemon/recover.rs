//! The ledger is lost under running agents: what `hive recover` makes of what is left.

use std::fs;

use rusqlite::Connection;
use serde_json::{Value, json};
use shared::agent_api::{ProposalInfo, ProposalPhase};
use shared::gate::{Gate, GateState};

use super::config_repo::{git, propose};
use super::http;
use super::world::{DEADLINE, Told, World, lives, name, scripted, silent, spec, within};

impl World {
    /// Runs `hive recover` on these folders.
    fn recover(&self, more: &[&str]) -> Told {
        let mut args = vec![
            "recover",
            "--state",
            self.layout.state().as_str(),
            "--run",
            self.layout.run().as_str(),
        ];
        let spec = self.spec_path();
        args.extend(["--spec", spec.as_str()]);
        args.extend(more);
        self.hive(&args)
    }

    fn lose_ledger(&self) {
        for ending in ["", "-wal", "-shm"] {
            let _not_there = fs::remove_file(format!("{}{ending}", self.layout.ledger()));
        }
    }

    fn refs(&self, agent: &str) -> String {
        git(
            &self.layout.repo(&name(agent)),
            &["for-each-ref", "refs/heads", "refs/tags"],
        )
    }

    /// Waits until main and the tags are these.
    fn until_refs(&self, agent: &str, refs: &str) {
        let mut seen = String::new();
        let same = within(DEADLINE, || {
            seen = self.refs(agent);
            (seen == refs).then_some(())
        });
        assert!(
            same.is_some(),
            "wanted\n{refs}\nand there is\n{seen}\n{}",
            self.log()
        );
    }

    fn proposals(&self, agent: &str) -> Vec<ProposalInfo> {
        http::get(&self.door(agent), "/v1/proposals").unwrap().ok()
    }

    fn until_phase(&self, agent: &str, number: u64, phase: ProposalPhase) {
        self.until(&format!("proposal {number} is {phase:?}"), || {
            let mut found = self.proposals(agent).into_iter();
            found.find(|p| p.number.0 == number && p.phase == phase).map(drop)
        });
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for entry in self.layout.state().read_dir_utf8().unwrap() {
            let path = entry.unwrap().into_path();
            if path.is_file() {
                files.push((path.to_string(), fs::read(&path).unwrap()));
            }
        }
        files.sort();
        files
    }
}

/// A hive in which alice has a proposal that was denied, one that is deployed, and one that is open. Its daemon is
/// killed. Returns what must be the same again.
fn eventful() -> (World, String, Value) {
    let mut world = World::serving(&spec(&json!({ "alice": scripted(&json!([])), "bob": silent() })));
    world.until_healthy("alice");
    world.until_stopped("bob");
    propose(&world, "alice", r#"{ "prompt": "You look after the bank." }"#);
    let gate = world.until_gate("deployWidens");
    world.does(&[
        "gate",
        "deny",
        &gate.id.to_string(),
        "--reason",
        "it has a keeper",
    ]);
    world.until_phase("alice", 1, ProposalPhase::Denied);
    propose(&world, "alice", r#"{ "prompt": "You look after the garden." }"#);
    let gate = world.until_gate("deployWidens");
    world.does(&["gate", "approve", &gate.id.to_string()]);
    world.until_phase("alice", 2, ProposalPhase::Deployed);
    let main = gate.commit.expect("a commit").to_string();
    world.until("main moves", || {
        world
            .refs("alice")
            .contains(&format!("{main} commit\trefs/heads/main"))
            .then_some(())
    });
    world.until_healthy("alice");
    propose(&world, "alice", r#"{ "prompt": "You look after the pond." }"#);
    world.until_gate("deployWidens");
    let mut refs = String::new();
    let tags = ["denied/1", "approved/2", "deployed/2", "proposal/3"];
    let settled = within(DEADLINE, || {
        refs = world.refs("alice");
        (tags.iter().all(|tag| refs.contains(tag)) && !refs.contains("building")).then_some(())
    });
    assert!(settled.is_some(), "{refs}\n{}", world.log());
    let alice = world.agent("alice").unwrap();
    world.kill();
    (
        world,
        refs,
        json!({ "uid": alice.uid, "main": alice.generations.commit }),
    )
}

fn agent<'a>(report: &'a Value, name: &str) -> &'a Value {
    let agents = report["agents"].as_array().unwrap();
    agents
        .iter()
        .find(|agent| agent["name"] == name)
        .expect("it is reported")
}

#[test]
fn a_ledger_lost_under_running_agents_comes_back_from_tags_and_files() {
    let (mut world, refs, alice) = eventful();
    let pid = world.harness_pid("alice").unwrap();
    let run = world.run_pid("alice").unwrap();
    world.lose_ledger();
    // A daemon that made an empty ledger now would forget everybody.
    let (status, said) = world.refuses(world.serve());
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("hive recover --state"), "{said}");
    assert!(!world.layout.ledger().exists());

    let before = world.files();
    let told = world.recover(&["--dry-run"]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert_eq!(world.files(), before, "a dry run changes nothing");
    let told = world.recover(&[]);
    assert_eq!(told.code, 0, "{}", told.err);
    let found = agent(&told.out, "alice");
    assert_eq!(found["uid"], alice["uid"]);
    assert_eq!(found["main"], alice["main"]);
    assert_eq!(
        found["proposals"],
        json!({ "denied": 1, "deployed": 1, "open": 1 })
    );
    assert_eq!(found["process"], json!(run));
    assert_eq!(
        found["lapsed"],
        json!(["prompt"]),
        "its approval went with the ledger"
    );
    assert!(lives(pid));
    let again = world.recover(&[]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("nothing to recover"), "{}", again.err);

    world.start();
    // What the spec allows is deployed anew; then the open proposal asks again.
    let gate = world.until_gate("deployWidens");
    assert_eq!(gate.proposal.map(|n| n.0), Some(3));
    let gates: Vec<Gate> = world.get("/v1/gates?all=true").ok();
    let by_hand = gates.iter().filter(|gate| {
        gate.decision
            .as_ref()
            .is_some_and(|d| !d.by.starts_with("policy:"))
    });
    assert_eq!(by_hand.count(), 0, "no approval came back");
    world.until_refs("alice", &refs);
    let back = world.until_healthy("alice");
    assert_eq!(json!({ "uid": back.uid, "main": back.generations.commit }), alice);
    assert_eq!(
        back.config.unwrap().prompt,
        "",
        "what nobody can prove was allowed has lapsed"
    );
    assert_eq!(
        world.harness_pid("alice"),
        Some(pid),
        "it was adopted, not started again"
    );
    assert!(lives(pid));
    world.until_stopped("bob");
    // The numbers go on, and what lapsed is granted again by a rollback to what brought it.
    world.does(&["gate", "deny", &gate.id.to_string(), "--reason", "later"]);
    world.until_phase("alice", 3, ProposalPhase::Denied);
    world.does(&["rollback", "alice", "--to", "2"]);
    world.until_agent("alice", "has its prompt again", |alice| {
        alice
            .config
            .as_ref()
            .is_some_and(|c| c.prompt == "You look after the garden.")
    });
}

#[test]
fn of_a_damaged_ledger_every_row_that_can_be_read_is_kept_and_no_open_approval_is() {
    let (mut world, refs, alice) = eventful();
    let pid = world.harness_pid("alice").unwrap();
    let ledger = world.layout.ledger();
    {
        let db = Connection::open(&ledger).unwrap();
        // Approved a moment before the end, and not begun.
        db.execute_batch(
            "INSERT INTO decisions (gate, approve, by, at, reason, digest)
                 SELECT id, 1, 'unix:root', opened_at, '', digest FROM gates WHERE state = 'open';
             UPDATE gates SET state = 'approved' WHERE state = 'open';
             INSERT INTO messages (from_addr, to_addr, kind, body, at, state)
                 VALUES ('operator', 'bob', 'message', 'water the roses', 0, 'queued');
             UPDATE events SET data = '{' WHERE seq = 3;
             PRAGMA wal_checkpoint(TRUNCATE);",
        )
        .unwrap();
    }
    let told = world.recover(&[]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert_eq!(
        told.out["salvaged"]["events"]["unreadable"],
        json!(1),
        "{}",
        told.out
    );
    assert_eq!(told.out["sameHive"], json!(true));
    let found = agent(&told.out, "alice");
    assert_eq!(
        found["lapsed"],
        json!([]),
        "the gate that allowed it can still be read"
    );
    let kept = told.out["kept"].as_str().unwrap();
    assert!(fs::metadata(kept).is_ok(), "{kept}");

    world.start();
    let gate = world.until_gate("deployWidens");
    assert_eq!(
        gate.state,
        GateState::Open,
        "the approval that was not used is asked for again"
    );
    assert_eq!(gate.proposal.map(|n| n.0), Some(3));
    let back = world.until_healthy("alice");
    assert_eq!(json!({ "uid": back.uid, "main": back.generations.commit }), alice);
    assert_eq!(back.config.unwrap().prompt, "You look after the garden.");
    assert_eq!(world.harness_pid("alice"), Some(pid));
    world.until_refs("alice", &refs);
    assert_eq!(world.until_stopped("bob").inbox, 1, "the message waits for bob");
    let gates: Vec<Gate> = world.get("/v1/gates?all=true").ok();
    assert!(
        gates
            .iter()
            .any(|gate| gate.proposal.map(|n| n.0) == Some(2) && gate.decision.is_some())
    );
}

#[test]
fn a_ledger_whose_first_page_is_gone_is_rebuilt_from_what_lies_beside_it() {
    let (mut world, refs, alice) = eventful();
    // Else the write-ahead log would still hold that page.
    let db = Connection::open(world.layout.ledger()).unwrap();
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(db);
    let mut bytes = fs::read(world.layout.ledger()).unwrap();
    bytes[..4096].fill(0x5a);
    reconciler::host::folders::write_atomic(&world.layout.ledger(), &bytes, 0o600).unwrap();
    let (_, said) = world.refuses(world.serve());
    assert!(said.contains("hive recover --state"), "{said}");
    let told = world.recover(&[]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert_eq!(agent(&told.out, "alice")["from"], json!("disk"));
    world.start();
    let back = world.until_healthy("alice");
    assert_eq!(json!({ "uid": back.uid, "main": back.generations.commit }), alice);
    world.until("the tags are as they were", || {
        (world.refs("alice") == refs).then_some(())
    });
}

#[test]
fn with_the_repos_gone_too_agents_keep_their_uid_and_their_state() {
    let (mut world, _, alice) = eventful();
    let note = world.layout.agent_state(&name("alice")).join("note");
    reconciler::host::folders::write_atomic(&note, b"keep me", 0o644).unwrap();
    let pid = world.harness_pid("alice").unwrap();
    world.lose_ledger();
    fs::remove_dir_all(world.layout.repos()).unwrap();
    let told = world.recover(&[]);
    assert_eq!(told.code, 0, "{}", told.err);
    let notes = agent(&told.out, "alice")["notes"].to_string();
    assert!(notes.contains("config repo is gone"), "{notes}");
    assert!(!told.out["gone"].as_array().unwrap().is_empty());
    world.start();
    let back = world.until_healthy("alice");
    assert_eq!(json!(back.uid), alice["uid"]);
    assert_eq!(fs::read(note).unwrap(), b"keep me");
    assert_eq!(world.harness_pid("alice"), Some(pid));
}

#[test]
fn recover_refuses_a_running_daemon_a_whole_ledger_and_a_folder_without_a_hive() {
    let mut world = World::serving(&spec(&json!({ "bob": silent() })));
    world.until_stopped("bob");
    let told = world.recover(&[]);
    assert_eq!(told.code, 1);
    let pid = format!("(process {})", world.pid());
    assert!(told.err.contains(&pid), "{}", told.err);
    world.end();
    let told = world.recover(&[]);
    assert_eq!(
        (told.code, told.err.contains("is whole")),
        (1, true),
        "{}",
        told.err
    );

    for (folder, words) in [("nowhere", "there is no folder"), ("empty", "holds no ledger")] {
        let folder = world.root.join(folder);
        if words.contains("holds") {
            fs::create_dir(&folder).unwrap();
        }
        let told = world.hive(&["recover", "--state", folder.as_str()]);
        assert_eq!((told.code, told.err.contains(words)), (1, true), "{}", told.err);
        let left = fs::read_dir(&folder).map_or(0, Iterator::count);
        assert_eq!(left, 0, "nothing was made there");
    }
}

#[test]
fn a_main_that_was_moved_by_somebody_is_not_what_a_rebuilt_ledger_deploys() {
    let (mut world, refs, alice) = eventful();
    let repo = world.layout.repo(&name("alice"));
    let tree = git(&repo, &["rev-parse", "main^{tree}"]);
    let foreign = git(
        &repo,
        &["commit-tree", &tree, "-p", "main", "-m", "an unapproved commit"],
    );
    git(&repo, &["update-ref", "refs/heads/main", &foreign]);
    git(&repo, &["update-ref", "refs/tags/deployed/9", &foreign]);
    world.lose_ledger();
    let told = world.recover(&[]);
    assert_eq!(told.code, 0, "{}", told.err);
    let found = agent(&told.out, "alice");
    assert_eq!(found["main"], alice["main"], "{found}");
    assert!(found["notes"].to_string().contains("goes back to"), "{found}");
    world.start();
    world.until_healthy("alice");
    world.until("main is back", || {
        let main = |refs: &str| {
            refs.lines()
                .find(|line| line.ends_with("refs/heads/main"))
                .map(str::to_owned)
        };
        (main(&world.refs("alice")) == main(&refs)).then_some(())
    });
}

#[test]
fn a_recovery_that_was_killed_at_its_end_is_finished_and_no_daemon_starts_before() {
    let (mut world, refs, _) = eventful();
    world.lose_ledger();
    assert_eq!(world.recover(&[]).code, 0);
    // As if it had been killed between its last two renames.
    let waiting = format!("{}.recovered-20260101T000000Z", world.layout.ledger());
    fs::rename(world.layout.ledger(), &waiting).unwrap();
    reconciler::host::folders::write_atomic(&world.layout.ledger(), b"the damaged one", 0o600).unwrap();
    let (_, said) = world.refuses(world.serve());
    assert!(
        said.contains("interrupted") && said.contains("hive recover"),
        "{said}"
    );
    let told = world.recover(&[]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert_eq!(
        fs::read(told.out["kept"].as_str().unwrap()).unwrap(),
        b"the damaged one"
    );
    world.start();
    world.until_healthy("alice");
    world.until("the tags are as they were", || {
        (world.refs("alice") == refs).then_some(())
    });
    // One that was killed while it wrote counts for nothing.
    world.end();
    let partial = format!("{}.recovering", world.layout.ledger());
    reconciler::host::folders::write_atomic(partial.as_str().into(), b"half", 0o600).unwrap();
    world.start();
    world.end();
    world.lose_ledger();
    assert_eq!(world.recover(&[]).code, 0);
    assert!(fs::metadata(partial).is_err());
}
