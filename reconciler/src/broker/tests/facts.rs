//! What the daemon itself knows of a turn.

use shared::reminder::{Missed, ReminderRequest, Schedule};
use shared::turn::{Tokens, TurnFacts, TurnResult, TurnStats};

use super::questions::{ask_of, later};
use super::*;

/// What a harness tells of a turn that went on from one moment to another, in seconds.
fn stats(number: u128, from: i64, until: i64) -> TurnStats {
    TurnStats {
        turn: turn(number),
        started_at: later(from),
        duration_ms: (until - from).unsigned_abs() * 1000,
        result: TurnResult::Ok,
        error: None,
        model: None,
        session: None,
        tokens: Tokens::default(),
        context: None,
        cost_usd: None,
        tool_calls: BTreeMap::new(),
        woken_by: Vec::new(),
        notes_bytes: None,
    }
}

async fn remind(broker: &Broker, secs: u64) {
    let request = ReminderRequest {
        schedule: Schedule::AfterSecs(secs),
        body: "water the plants".to_owned(),
        missed: Missed::Run,
        dedupe: None,
    };
    broker
        .remind(&name("alice"), request, now())
        .await
        .expect("it is set");
}

/// Alice takes up all she has, at this time, and ends well or not.
async fn taken_up(broker: &Broker, number: u128, at: i64, well: bool) {
    let ask = Ask {
        at: later(at),
        ..ask(number, None, 32)
    };
    broker.recv(&name("alice"), ask).await.expect("a lease");
    let (alice, turn) = (name("alice"), turn(number));
    if well {
        broker.ack(&alice, turn, None).await.expect("an ack");
    } else {
        broker
            .release(&alice, turn, None, later(at))
            .await
            .expect("a release");
    }
}

async fn written(broker: &Broker, from: &str, to: &str, at: i64) {
    let message = Outgoing {
        from: address(from),
        to: address(to),
        ..message("hello")
    };
    broker.send(message, later(at)).await.expect("it is sent");
}

/// What is known of a turn, and kept with it.
async fn known(broker: &Broker, stats: TurnStats, at: i64) -> TurnFacts {
    let alice = name("alice");
    let facts = broker.facts_of(&alice, &stats, later(at)).await.expect("a read");
    let ledger = &broker.ledger;
    let noted = ledger.note_turn(&alice, stats, facts.clone(), later(at)).await;
    assert!(noted.expect("a write"));
    facts
}

#[tokio::test]
async fn who_woke_a_turn_and_to_whom_it_wrote_is_read_from_the_messages() {
    let broker = broker().await;
    remind(&broker, 60).await;
    remind(&broker, 9000).await;
    written(&broker, "operator", "alice", 10).await;
    written(&broker, "operator", "alice", 20).await;
    broker.settle(later(60)).await.expect("it is due");
    taken_up(&broker, 1, 100, true).await;
    written(&broker, "alice", "bob", 110).await;
    written(&broker, "alice", "operator", 120).await;
    // Not hers, not of this turn.
    written(&broker, "bob", "operator", 120).await;
    written(&broker, "alice", "bob", 500).await;
    ask_of(&broker, "bob", "alice").await;

    let facts = known(&broker, stats(1, 100, 200), 200).await;
    let expected = TurnFacts {
        woken_by: vec!["operator".to_owned(), "reminder".to_owned()],
        taken_up: 3,
        sent: [("agent".to_owned(), 1), ("operator".to_owned(), 1)].into(),
        loose_ends: 1,
        reminders: 1,
        inbox: 1,
        inbox_max: 4,
    };
    assert_eq!(facts, expected);
    let kept = broker.ledger.turns(None, None, 10).await.expect("a read");
    assert_eq!(kept.items[0].facts, expected);

    taken_up(&broker, 2, 300, true).await;
    let facts = known(&broker, stats(2, 300, 310), 310).await;
    assert_eq!(facts.woken_by, ["agent"]);
    assert_eq!(
        (facts.inbox, facts.inbox_max),
        (0, 1),
        "what the turn before had counts no more"
    );
}

#[tokio::test]
async fn a_turn_that_gave_its_messages_back_was_woken_by_what_its_harness_says() {
    let broker = broker().await;
    written(&broker, "operator", "alice", 10).await;
    taken_up(&broker, 1, 20, false).await;
    let stats = TurnStats {
        woken_by: vec!["operator".to_owned()],
        ..stats(1, 20, 30)
    };
    let facts = known(&broker, stats.clone(), 30).await;
    assert_eq!((facts.woken_by.len(), facts.taken_up, facts.inbox), (0, 0, 1));
    assert_eq!(facts.wakers(&stats), ["operator"]);
}
