//! Instructions: handed out until they are carried out, and told of once.

use shared::instruction::{Instruction, InstructionKind, MAX_INSTRUCTIONS};

use super::crashes::World;
use super::questions::later;
use super::*;
use crate::broker::instructions::{Given, InstructionError, Instructions};

fn given(kind: InstructionKind) -> Given {
    Given {
        instruction: Instruction {
            id: 0,
            kind,
            turn: None,
            until: None,
            wake_on_message: false,
        },
        ends_at: None,
        by: "unix:ann".into(),
        reason: "enough".into(),
    }
}

async fn give(broker: &Broker, kind: InstructionKind) -> u64 {
    broker
        .instruction(&name("alice"), given(kind), now())
        .await
        .expect("it is given")
}

async fn left(broker: &Broker, done: u64) -> Instructions {
    broker
        .instructions(&name("alice"), done, now())
        .await
        .expect("a read")
}

async fn pending(broker: &Broker, done: u64) -> Vec<u64> {
    left(broker, done)
        .await
        .pending
        .iter()
        .map(|instruction| instruction.id)
        .collect()
}

async fn kinds_of_events(broker: &Broker) -> Vec<String> {
    let events = broker.ledger.events(0, 1000).await.expect("a read");
    events.into_iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn an_instruction_is_handed_out_until_it_is_carried_out_and_wakes_whoever_waits_for_it() {
    let broker = broker().await;
    let mut woken = broker.subscribe(&name("alice"));
    let first = give(&broker, InstructionKind::Compact).await;
    assert!(woken.has_changed().expect("it lives"));
    woken.mark_unchanged();
    let second = give(&broker, InstructionKind::Wake).await;
    for _ in 0..2 {
        assert_eq!(
            pending(&broker, 0).await,
            [first, second],
            "to a run that did nothing yet"
        );
    }
    assert_eq!(pending(&broker, first).await, [second]);
    let writes = broker.ledger.writes();
    assert_eq!(
        pending(&broker, 0).await,
        [second],
        "to the run after it: the first was carried out"
    );
    assert_eq!(broker.ledger.writes(), writes, "nothing new is nothing to write");
    assert_eq!(pending(&broker, second).await, [0_u64; 0]);
    let events = kinds_of_events(&broker).await;
    assert_eq!(
        events,
        ["instructed", "instructed", "instructionTaken", "instructionTaken"]
    );
    assert_eq!(left(&broker, u64::MAX).await, Instructions::default());
}

#[tokio::test]
async fn a_nap_lasts_for_the_runs_after_until_its_time_or_something_later_ends_it() {
    let broker = broker().await;
    let nap = Given {
        ends_at: Some(later(60)),
        ..given(InstructionKind::Nap)
    };
    let id = broker
        .instruction(&name("alice"), nap, now())
        .await
        .expect("it is given");
    assert_eq!(pending(&broker, id).await, [0_u64; 0], "this run naps");
    assert_eq!(pending(&broker, 0).await, [id], "the next one naps too");
    let over = broker
        .instructions(&name("alice"), 0, later(60))
        .await
        .expect("a read");
    assert_eq!(over.pending, [], "its time is over");
    let wake = give(&broker, InstructionKind::Wake).await;
    assert_eq!(pending(&broker, 0).await, [wake]);
    assert_eq!(pending(&broker, wake).await, [0_u64; 0]);
    assert_eq!(pending(&broker, 0).await, [0_u64; 0]);
}

#[tokio::test]
async fn a_new_conversation_has_a_higher_number_and_goes_on_for_good() {
    let broker = broker().await;
    assert_eq!(left(&broker, 0).await.conversation, None);
    let first = give(&broker, InstructionKind::NewConversation).await;
    let number = left(&broker, first).await.conversation.expect("a number");
    assert_eq!(left(&broker, 0).await.conversation, Some(number));
    let again = broker
        .instruction(&name("alice"), given(InstructionKind::NewConversation), later(5))
        .await;
    assert!(left(&broker, again.expect("it is given")).await.conversation > Some(number));
    let months = later(90 * 86_400);
    broker.ledger.prune(months).await.expect("a write");
    assert!(left(&broker, 0).await.conversation > Some(number), "it is kept");
}

#[tokio::test]
async fn instructions_that_nobody_carries_out_do_not_heap_up() {
    let broker = broker().await;
    for _ in 0..MAX_INSTRUCTIONS {
        give(&broker, InstructionKind::Compact).await;
    }
    let refused = broker
        .instruction(&name("alice"), given(InstructionKind::Wake), now())
        .await;
    assert!(
        matches!(refused, Err(InstructionError::TooMany(_))),
        "{refused:?}"
    );
    let refused = broker
        .instruction(&name("carol"), given(InstructionKind::Wake), now())
        .await;
    assert!(
        matches!(refused, Err(InstructionError::NoAgent(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn whatever_write_is_lost_each_instruction_is_handed_out_and_told_of_once() {
    let mut points = 0;
    for (after, dies) in [(false, false), (true, false), (false, true), (true, true)] {
        for at in 0.. {
            let mut world = World::new(at, after, dies).await;
            let alice = name("alice");
            let give = async |broker: &Broker| {
                broker
                    .instruction(&alice, given(InstructionKind::Compact), now())
                    .await
            };
            world.until_done(give).await;
            let mut done = 0;
            // An instruction whose answer was lost is given again.
            for _ in 0..2 {
                let instructions = async |broker: &Broker| broker.instructions(&alice, done, now()).await;
                let left = world.until_done(instructions).await;
                done = left.pending.last().map_or(done, |instruction| instruction.id);
            }
            assert!(done > 0, "it was handed out");
            let broker = &world.broker;
            assert_eq!(
                pending(broker, 0).await,
                [0_u64; 0],
                "transaction {at}, after: {after}, dies: {dies}"
            );
            let events = kinds_of_events(broker).await;
            let count = |kind: &str| events.iter().filter(|event| *event == kind).count();
            assert_eq!(count("instructed"), count("instructionTaken"), "{events:?}");
            if !world.was_met() {
                break;
            }
            points += 1;
        }
    }
    assert!(points >= 8, "{points} points were tried");
}
