//! The disk fills up, or takes no writes, while the hive works.

use serde_json::{Value, json};
use shared::agent_api::SendResponse;
use shared::gate::GateState;
use shared::wire_error::ErrorCode;

use super::http::Answer;
use super::mounts::Mounted;
use super::world::{DEADLINE, scripted, spec, within};

fn declared() -> Value {
    spec(&json!({
        "alice": scripted(&json!([
            { "on": "job", "do": [{ "send": { "to": "bob", "body": "note" } }] },
            { "on": "improve", "do": [{ "propose": { "title": "More", "set": { "prompt": "You do more." } } }] },
        ])),
        "bob": scripted(&json!([{ "on": "note", "do": [{ "send": { "to": "operator", "body": "noted" } }] }])),
    }))
}

fn tell(hive: &Mounted, number: usize) -> Answer {
    // Large, so that a full disk is noticed soon.
    let body = format!("job {}", "x".repeat(16 * 1024));
    let message = json!({ "body": body, "dedupe": format!("job-{number}") });
    hive.world.post("/v1/agents/alice/messages", &message)
}

/// The words that tell the operator about the ledger, if there are any.
fn told(hive: &Mounted) -> Option<String> {
    let mut notices = hive.world.status().notices.into_iter();
    notices.find(|notice| notice.contains("the ledger takes no writes"))
}

#[test]
fn a_full_disk_refuses_what_it_cannot_keep_loses_nothing_and_goes_on_by_itself() {
    let mut hive = Mounted::new(&declared(), "24m");
    hive.start();
    let before = ["alice", "bob"].map(|agent| {
        hive.world.until_healthy(agent);
        hive.world.agent(agent).unwrap().generations.running_toplevel
    });
    let improve = json!({ "body": "improve" });
    let _sent: SendResponse = hive.world.post("/v1/agents/alice/messages", &improve).ok();
    let gate = hive.world.until_gate("deployWidens");

    hive.fill();
    let mut accepted = Vec::new();
    let mut refused = Vec::new();
    // What lies in the log already makes room for a few more.
    let full = within(DEADLINE, || {
        let number = accepted.len() + refused.len();
        let answer = tell(&hive, number);
        if answer.status == 200 {
            accepted.push(number);
        } else {
            let error = answer.refused(503, ErrorCode::Unavailable);
            assert!(
                error.message.contains("nothing was stored: the disk is full"),
                "{error:?}"
            );
            assert!(error.hint.unwrap().contains("hive status"));
            refused.push(number);
        }
        (refused.len() >= 20).then_some(())
    });
    assert!(
        full.is_some(),
        "{} accepted, {} refused",
        accepted.len(),
        refused.len()
    );
    let from_an_agent =
        json!({ "to": "operator", "kind": "message", "body": "x".repeat(16 * 1024), "dedupe": "mine" });
    let answer = hive.world.ask("bob", "/v1/send", &from_an_agent);
    let error = answer.refused(503, ErrorCode::Unavailable);
    assert!(error.message.contains("the disk is full"), "{error:?}");
    let decision = json!({ "approve": true, "digest": gate.digest, "reason": "x".repeat(3000) });
    let path = format!("/v1/gates/{}/decision", gate.id);
    let answer = hive.world.post(&path, &decision);
    let decided = answer.status == 200;
    if !decided {
        answer.refused(503, ErrorCode::Unavailable);
        assert_eq!(
            hive.world.gate(gate.id).state,
            GateState::Open,
            "a decision that was refused is none"
        );
    }

    let told_now = hive.world.until("the operator is told", || told(&hive));
    assert!(told_now.contains("the disk is full"), "{told_now}");
    assert!(
        told_now.contains(hive.world.layout.state().as_str()),
        "{told_now}"
    );
    assert!(
        told_now.contains("24.0 MiB") && told_now.contains("Free space there"),
        "{told_now}"
    );
    let running = |agent: &str| hive.world.agent(agent).unwrap().generations.running_toplevel;
    assert_eq!(["alice", "bob"].map(running), before, "the agents go on");

    hive.empty();
    hive.world.until("the ledger takes writes again", || {
        told(&hive).is_none().then_some(())
    });
    hive.world.until_kind("ledgerWritable");
    for number in &refused {
        let sent: SendResponse = tell(&hive, *number).ok();
        assert!(
            !sent.duplicate,
            "message {number} was refused, and is there all the same"
        );
    }
    for number in &accepted {
        let sent: SendResponse = tell(&hive, *number).ok();
        assert!(sent.duplicate, "message {number} was accepted and lost");
    }
    if !decided {
        let _gate: Value = hive.world.post(&path, &decision).ok();
    }
    let jobs = accepted.len() + refused.len();
    hive.world.until("all of it is done", || {
        let noted = super::load::events(&hive.world);
        let noted = noted
            .iter()
            .filter(|e| e.kind == "messageToOperator" && e.message.contains("noted"));
        (noted.count() == jobs).then_some(())
    });
    let alice = hive.world.until_agent("alice", "deployed", |alice| {
        alice
            .config
            .as_ref()
            .is_some_and(|config| config.prompt == "You do more.")
    });
    assert_eq!(alice.inbox, 0);
    for agent in ["alice", "bob"] {
        hive.world.until_healthy(agent);
    }
    // Not a word about it any more.
    let quiet = within(DEADLINE, || hive.world.status().notices.is_empty().then_some(()));
    assert!(quiet.is_some(), "{:?}", hive.world.status().notices);
    hive.world.end();
}

#[test]
fn a_state_folder_that_turns_read_only_stops_nobody_and_is_named_until_it_is_mended() {
    let mut hive = Mounted::new(&declared(), "24m");
    hive.start();
    for agent in ["alice", "bob"] {
        hive.world.until_healthy(agent);
    }
    let pids = ["alice", "bob"].map(|agent| hive.run_pid(agent));
    hive.protect();
    let changed = |prompt: &str| {
        let mut declared = declared();
        declared["agents"]["alice"]["prompt"] = json!(prompt);
        declared
    };
    hive.world.spec(&changed("You do much."));
    let stuck = hive.world.until_agent("alice", "the cause is told", |alice| {
        json!(alice.waiting).to_string().contains("Read-only file system")
    });
    let words = json!(stuck.waiting).to_string();
    assert!(words.contains(hive.world.layout.state().as_str()), "{words}");
    hive.world.kill();
    // Nor does a daemon start there; it says why, and changes nothing.
    let files = || -> Vec<_> {
        let files = std::fs::read_dir(hive.state()).unwrap().map(Result::unwrap);
        let mut files: Vec<_> = files
            .map(|file| (file.file_name(), file.metadata().unwrap().modified().unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let (status, said) = hive.world.refuses(hive.serve());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(hive.world.layout.state().as_str()), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert_eq!(files(), before);

    hive.release();
    hive.start();
    hive.world.until_agent("alice", "deployed", |alice| {
        alice
            .config
            .as_ref()
            .is_some_and(|config| config.prompt == "You do much.")
    });
    for agent in ["alice", "bob"] {
        hive.world.until_healthy(agent);
    }
    assert_eq!(
        ["alice", "bob"].map(|agent| hive.run_pid(agent)),
        pids,
        "no agent was restarted"
    );
    hive.world.end();
}
