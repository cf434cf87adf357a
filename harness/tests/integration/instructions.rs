//! Instructions of the operator, carried out by the real program.

use serde_json::json;
use shared::agent_api::MessageKind;
use shared::instruction::{Instruction, InstructionKind};
use shared::status::TurnState;
use shared::turn::TurnResult;

use crate::world::Nest;

fn instruction(id: u64, kind: InstructionKind) -> Instruction {
    Instruction {
        id,
        kind,
        turn: None,
        until: None,
        wake_on_message: false,
    }
}

#[tokio::test]
async fn a_turn_is_ended_by_instruction_and_its_messages_wait_until_the_agent_is_woken() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "hang": true }] }]));
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    let thinks = |world: &crate::daemon::World| {
        world.reported(|report| report.turn == TurnState::Thinking && report.lease.is_some())
    };
    nest.daemon.until("a turn", thinks).await;
    let running = nest.daemon.world().report().lease;
    nest.daemon.change(|world| {
        world.instructions = vec![
            // A turn that is over by now.
            Instruction {
                turn: Some(shared::TurnId(uuid::Uuid::nil())),
                ..instruction(1, InstructionKind::Cancel)
            },
            Instruction {
                turn: running,
                ..instruction(2, InstructionKind::Cancel)
            },
        ];
    });
    nest.daemon
        .until("its end", |world| !world.turns.is_empty())
        .await;
    assert_eq!(nest.daemon.world().turns[0].result, TurnResult::Interrupted);
    let told = |world: &crate::daemon::World| {
        world.reported(|report| report.instructed == 2 && report.turn == TurnState::Idle)
    };
    nest.daemon.until("it is done", told).await;
    {
        let world = nest.daemon.world();
        assert_eq!((world.dones(), world.inbox.len()), (vec![false], 1));
    }
    nest.daemon
        .change(|world| world.instructions = vec![instruction(3, InstructionKind::Wake)]);
    nest.daemon.until("another turn", thinks).await;
}

#[tokio::test]
async fn an_agent_naps_and_wakes_by_instruction_and_shortens_its_conversation() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    let _harness = nest.start();
    nest.until_idle(&nest.announced()).await;
    nest.daemon
        .change(|world| world.instructions = vec![instruction(1, InstructionKind::Nap)]);
    let naps = |world: &crate::daemon::World| {
        world.reported(|report| report.turn == TurnState::Napping && report.instructed == 1)
    };
    nest.daemon.until("a nap", naps).await;
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon.change(|world| {
        world.instructions = vec![
            instruction(2, InstructionKind::Compact),
            instruction(3, InstructionKind::Wake),
        ];
    });
    nest.daemon
        .until("an answer", |world| world.sent.len() == 1)
        .await;
    let compacted = |world: &crate::daemon::World| {
        let by = |turn: &shared::turn::TurnStats| turn.woken_by == ["compaction"];
        world.turns.iter().any(by) && world.reported(|report| report.instructed == 3)
    };
    nest.daemon.until("it is all done", compacted).await;
}
