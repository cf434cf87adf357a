//! Instructions reach a harness at its poll, at once and each run anew until it has carried them out.

use reconciler::broker::instructions::Given;
use serde_json::json;
use shared::agent_api::Report;
use shared::instruction::{Instruction, InstructionKind};

use super::world::{Daemon, Hive, PROMPT, idle, name};

async fn instruction(daemon: &Daemon, kind: InstructionKind) -> u64 {
    let given = Given {
        instruction: Instruction {
            id: 0,
            kind,
            turn: None,
            until: None,
            wake_on_message: false,
        },
        ends_at: None,
        by: "unix:ann".into(),
        reason: String::new(),
    };
    let given = daemon.broker.instruction(&name("alice"), given, daemon.now).await;
    given.unwrap()
}

fn did(run: &str, seq: u64, instructed: u64) -> Report {
    Report {
        instructed,
        ..idle(run, seq)
    }
}

#[tokio::test]
async fn a_harness_that_waits_is_told_at_once_and_only_once() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    door.poll(idle("one", 0), 0).await;
    let waiting = tokio::spawn({
        let door = door.clone();
        async move { door.poll(idle("one", 0), 180).await }
    });
    let id = instruction(&daemon, InstructionKind::Compact).await;
    let answer = tokio::time::timeout(PROMPT, waiting).await.unwrap().unwrap();
    assert_eq!(
        answer
            .instructions
            .iter()
            .map(|instruction| instruction.id)
            .collect::<Vec<_>>(),
        [id]
    );
    let again = door.is_answered(idle("one", 0)).await;
    assert!(!again, "it was told; what it waits for is its own business");
    let lost = door.poll(idle("one", 1), 0).await;
    assert_eq!(lost.instructions.len(), 1, "an answer may have been lost");
    assert_eq!(door.poll(did("one", 2, id), 0).await.instructions, []);
}

#[tokio::test]
async fn what_was_not_carried_out_is_told_after_restarts_of_either_side() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let id = instruction(&daemon, InstructionKind::NewConversation).await;
    let told = door.poll(idle("one", 0), 180).await;
    assert_eq!((told.instructions.len(), told.conversation.is_some()), (1, true));
    assert_eq!(
        door.poll(idle("two", 0), 180).await.instructions.len(),
        1,
        "another run"
    );
    drop(daemon);
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    assert_eq!(
        door.poll(idle("two", 0), 180).await.instructions.len(),
        1,
        "another daemon"
    );
    assert_eq!(door.poll(did("two", 1, id), 0).await.instructions, []);
    let later = door.poll(did("three", 0, 0), 0).await;
    assert_eq!(
        (later.instructions, later.conversation),
        (vec![], told.conversation)
    );
}
