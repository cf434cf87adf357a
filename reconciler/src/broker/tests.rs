mod budgets;
mod crashes;
mod facts;
mod instructions;
mod leases;
mod mail;
mod model;
mod questions;
mod reminders;

use std::time::Duration;

use jiff::SignedDuration;
use shared::agent_api::Message;
use shared::{AgentUid, GateId, HiveId};
use uuid::Uuid;

use super::*;
use crate::ledger::tests::deployed;
use crate::model::change::{Change, Notice};
use crate::model::records::{AgentLife, AgentOrigin};

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().expect("a time")
}

fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

fn turn(number: u128) -> TurnId {
    TurnId(Uuid::from_u128(number))
}

/// A broker between `alice` and `bob`.
async fn broker() -> Broker {
    let ledger = Ledger::open_in_memory(now(), HiveId(Uuid::from_u128(1)))
        .await
        .expect("a ledger");
    let register = |agent: &str, number| Change::Register {
        name: name(agent),
        uid: AgentUid(Uuid::from_u128(number)),
        origin: AgentOrigin::Spec,
        at: now(),
    };
    ledger
        .apply(vec![register("alice", 1), register("bob", 2)])
        .await
        .expect("two agents");
    for number in [1, 2] {
        let deployed = Change::Deployed {
            uid: AgentUid(Uuid::from_u128(number)),
            deployed: Some(deployed(GateId(1))),
        };
        ledger.apply(vec![deployed]).await.expect("a deployment");
    }
    Broker::new(ledger)
}

/// Changes rows as nothing but a test does.
async fn sql(broker: &Broker, sql: &str) {
    let sql = sql.to_owned();
    broker
        .ledger
        .write(move |tx| Ok::<_, LedgerError>(tx.execute_batch(&sql)?))
        .await
        .expect("it is carried out");
}

fn message(body: &str) -> Outgoing {
    Outgoing {
        from: address("bob"),
        to: address("alice"),
        kind: MessageKind::Message,
        topic: None,
        body: body.to_owned(),
        reply_to: None,
        dedupe: None,
    }
}

async fn send(broker: &Broker, body: &str) -> u64 {
    broker.send(message(body), now()).await.expect("it is sent").id
}

async fn recv(broker: &Broker, number: u128, max: u32) -> Vec<(String, bool)> {
    after(broker, number, None, max).await
}

fn ask(number: u128, received: Option<u64>, max: u32) -> Ask {
    Ask {
        turn: turn(number),
        received,
        max,
        at: now(),
    }
}

/// What a turn gets that has got so many batches.
async fn after(broker: &Broker, number: u128, received: Option<u64>, max: u32) -> Vec<(String, bool)> {
    let batch = broker
        .recv(&name("alice"), ask(number, received, max))
        .await
        .expect("a lease");
    shown(batch)
}

fn shown(batch: Batch) -> Vec<(String, bool)> {
    batch
        .messages
        .into_iter()
        .map(|m| (m.body, m.redelivered))
        .collect()
}

fn fresh(bodies: &[&str]) -> Vec<(String, bool)> {
    bodies.iter().map(|body| ((*body).to_owned(), false)).collect()
}

fn again(bodies: &[&str]) -> Vec<(String, bool)> {
    bodies.iter().map(|body| ((*body).to_owned(), true)).collect()
}

async fn woken(wakes: &mut watch::Receiver<u64>, by: &str) {
    tokio::time::timeout(Duration::from_secs(20), wakes.changed())
        .await
        .unwrap_or_else(|_| panic!("not woken by {by}"))
        .expect("the broker lives");
}

#[tokio::test]
async fn a_message_arrives_as_it_was_sent() {
    let broker = broker().await;
    let question = Outgoing {
        kind: MessageKind::Question,
        reply_to: Some(41),
        ..message("what?\n@file /command")
    };
    let id = broker.send(question, now()).await.expect("it is sent").id;
    let leased = broker
        .recv(&name("alice"), ask(1, None, 10))
        .await
        .expect("a lease");
    assert_eq!(
        leased.messages,
        [Message {
            id,
            from: address("bob"),
            kind: MessageKind::Question,
            topic: None,
            reply_to: Some(41),
            at: now(),
            body: "what?\n@file /command".to_owned(),
            redelivered: false,
        }]
    );
}

#[tokio::test]
async fn leases_keep_the_order_and_end_with_their_turn() {
    let broker = broker().await;
    for body in ["1", "2", "3", "4"] {
        send(&broker, body).await;
    }
    assert_eq!(recv(&broker, 1, 2).await, fresh(&["1", "2"]));
    assert_eq!(
        recv(&broker, 2, 1).await,
        fresh(&["3"]),
        "leased ones are not leased twice"
    );
    assert_eq!(broker.queued(&name("alice")).await.expect("a count"), 1);
    assert_eq!(
        broker.ack(&name("alice"), turn(1), None).await.expect("an ack"),
        2
    );
    assert_eq!(
        broker.ack(&name("alice"), turn(1), None).await.expect("an ack"),
        0
    );
    assert_eq!(
        broker.ack(&name("bob"), turn(2), None).await.expect("an ack"),
        0,
        "not bob's turn"
    );

    assert_eq!(
        broker
            .release(&name("alice"), turn(2), None, now())
            .await
            .expect("a release"),
        1
    );
    let mut expected = again(&["3"]);
    expected.extend(fresh(&["4"]));
    assert_eq!(
        recv(&broker, 3, 10).await,
        expected,
        "back in its old place, and marked"
    );
}

#[tokio::test]
async fn a_run_that_ended_gives_back_all_but_the_live_turn() {
    let broker = broker().await;
    for body in ["1", "2", "3"] {
        send(&broker, body).await;
    }
    recv(&broker, 1, 1).await;
    recv(&broker, 2, 1).await;
    let alice = name("alice");
    assert_eq!(
        broker
            .release_all_but(&alice, Some(turn(2)), now())
            .await
            .expect("a release"),
        1
    );
    assert_eq!(recv(&broker, 3, 1).await, again(&["1"]));
    assert_eq!(
        broker
            .release_all_but(&alice, None, now())
            .await
            .expect("a release"),
        2
    );
    let mut expected = again(&["1", "2"]);
    expected.extend(fresh(&["3"]));
    assert_eq!(recv(&broker, 4, 10).await, expected);
}

#[tokio::test]
async fn a_message_no_turn_gets_past_is_dead_and_reported() {
    let broker = broker().await;
    let id = send(&broker, "poison").await;
    for number in 0..MAX_DELIVERIES {
        let leased = recv(&broker, u128::from(number), 1).await;
        assert_eq!(leased, [("poison".to_owned(), number > 0)]);
        broker
            .release_all_but(&name("alice"), None, now())
            .await
            .expect("a release");
    }
    assert!(recv(&broker, 99, 1).await.is_empty());
    let events = broker.ledger.events(0, 10).await.expect("a read");
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].kind.as_str(), &events[0].agent),
        ("messageDead", &Some(name("alice")))
    );
    assert_eq!(events[0].data["message"], id);
}

#[tokio::test]
async fn the_same_id_from_the_same_sender_is_one_message() {
    let broker = broker().await;
    let with_id = |from: &str| Outgoing {
        from: address(from),
        dedupe: Some("id".into()),
        ..message("hello")
    };
    let first = broker.send(with_id("bob"), now()).await.expect("it is sent");
    let second = broker.send(with_id("bob"), now()).await.expect("it is known");
    assert_eq!(
        (first.duplicate, second.duplicate, second.id),
        (false, true, first.id)
    );
    let other = broker.send(with_id("operator"), now()).await.expect("it is sent");
    assert!(!other.duplicate, "another sender's id is another id");
    recv(&broker, 1, 10).await;
    broker.ack(&name("alice"), turn(1), None).await.expect("an ack");
    let late = broker.send(with_id("bob"), now()).await.expect("it is known");
    assert!(late.duplicate, "also after it was delivered");
}

#[tokio::test]
async fn what_cannot_be_delivered_is_refused_with_the_reason() {
    let broker = broker().await;
    let refuse = async |outgoing: Outgoing| broker.send(outgoing, now()).await.expect_err("it is refused");
    let to = |to: &str| Outgoing {
        to: address(to),
        ..message("hello")
    };
    assert!(matches!(
        refuse(to("carol")).await,
        SendError::UnknownRecipient(_)
    ));
    assert!(matches!(refuse(to("system")).await, SendError::ToSystem));
    for kind in [MessageKind::System, MessageKind::Unknown] {
        assert!(matches!(
            refuse(Outgoing { kind, ..message("") }).await,
            SendError::BadKind { .. }
        ));
    }
    let long = message(&"x".repeat(MAX_BODY_BYTES + 1));
    assert!(matches!(refuse(long).await, SendError::TooLarge { .. }));
    broker
        .send(message(&"x".repeat(MAX_BODY_BYTES)), now())
        .await
        .expect("just short enough");
    for dedupe in [String::new(), "é".repeat(MAX_DEDUPE_CHARS + 1)] {
        let bad = Outgoing {
            dedupe: Some(dedupe),
            ..message("")
        };
        assert!(matches!(refuse(bad).await, SendError::BadDedupe { .. }));
    }
    let ask_oneself = Outgoing {
        kind: MessageKind::Question,
        ..to("bob")
    };
    assert!(matches!(refuse(ask_oneself).await, SendError::AskedItself(_)));
    broker
        .send(to("bob"), now())
        .await
        .expect("a note to oneself is fine");
    broker
        .send(to("operator"), now())
        .await
        .expect("the operator can be written to");
}

#[tokio::test]
async fn what_others_are_sent_fills_nobody_elses_inbox() {
    let broker = broker().await;
    broker.send(message("the first"), now()).await.expect("a send");
    let fill = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_INBOX})
         INSERT INTO messages (from_addr, to_addr, kind, body, at, state)
         SELECT 'bob', 'carol', 'message', '', 0, 'queued' FROM n"
    );
    broker
        .ledger
        .write(move |tx| Ok::<_, LedgerError>(tx.execute_batch(&fill)?))
        .await
        .expect("another inbox that is full");
    broker
        .send(message("the second"), now())
        .await
        .expect("there is room");
}

#[tokio::test]
async fn a_full_inbox_is_an_error_that_names_its_owner() {
    let broker = broker().await;
    let fill = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
         INSERT INTO messages (from_addr, to_addr, kind, body, at, state)
         SELECT 'bob', 'alice', 'message', '', 0, iif(i % 2, 'queued', 'leased') FROM n",
        MAX_INBOX - 1
    );
    broker
        .ledger
        .write(move |tx| Ok::<_, LedgerError>(tx.execute_batch(&fill)?))
        .await
        .expect("an inbox with one free place");
    let last = Outgoing {
        dedupe: Some("last".into()),
        ..message("the last")
    };
    broker.send(last.clone(), now()).await.expect("one fits");
    let error = broker
        .send(message("too many"), now())
        .await
        .expect_err("it is full");
    assert!(error.to_string().contains("inbox of alice is full"), "{error}");
    assert!(
        broker
            .send(last, now())
            .await
            .expect("a retry is no new message")
            .duplicate
    );
}

#[tokio::test]
async fn a_waiting_poll_is_woken_by_whatever_queues_a_message() {
    let broker = broker().await;
    let alice = name("alice");
    let mut wakes = broker.subscribe(&alice);
    send(&broker, "hello").await;
    woken(&mut wakes, "a send").await;

    wakes.borrow_and_update();
    recv(&broker, 1, 1).await;
    broker.ack(&alice, turn(1), None).await.expect("an ack");
    assert!(!wakes.has_changed().expect("alive"), "there is nothing new");

    send(&broker, "hello").await;
    recv(&broker, 2, 1).await;
    wakes.borrow_and_update();
    broker
        .release(&alice, turn(2), None, now())
        .await
        .expect("a release");
    woken(&mut wakes, "a release").await;

    wakes.borrow_and_update();
    let notify = Change::Notify {
        agent: alice.clone(),
        notice: Notice {
            topic: Topic::Order,
            body: "hello".into(),
            dedupe: "x".into(),
            at: now(),
        },
    };
    broker.ledger.apply(vec![notify]).await.expect("a notice");
    woken(&mut wakes, "the daemon's own message").await;
}

#[tokio::test]
async fn a_notice_says_what_it_is_about_to_its_reader_and_to_whoever_looks() {
    let broker = broker().await;
    let notify = Change::Notify {
        agent: name("alice"),
        notice: Notice {
            topic: Topic::Reverted,
            body: "back to the last good system".into(),
            dedupe: "x".into(),
            at: now(),
        },
    };
    broker.ledger.apply(vec![notify]).await.expect("a notice");
    send(&broker, "hello").await;
    let mail = broker
        .recv(&name("alice"), ask(1, None, 10))
        .await
        .expect("a lease");
    let topics: Vec<_> = mail.messages.iter().map(|message| message.topic).collect();
    assert_eq!(topics, [Some(Topic::Reverted), None]);
    let found = broker
        .search(Search {
            limit: 10,
            ..Search::default()
        })
        .await
        .expect("a search");
    let topics: Vec<_> = found.iter().map(|message| message.topic).collect();
    assert_eq!(topics, [None, Some(Topic::Reverted)]);
}

#[tokio::test]
async fn a_message_that_cannot_be_read_blocks_no_other() {
    let broker = broker().await;
    broker
        .ledger
        .write(|tx| {
            tx.execute(
                "INSERT INTO messages (from_addr, to_addr, kind, body, at, state)
                 VALUES ('Not A Name', 'alice', 'message', 'x', 0, 'queued')",
                [],
            )
            .map_err(LedgerError::from)
        })
        .await
        .expect("a bad row");
    send(&broker, "good").await;
    assert_eq!(recv(&broker, 1, 10).await, fresh(&["good"]));
    let events = broker.ledger.events(0, 10).await.expect("a read");
    assert!(
        events[0].message.contains("table messages"),
        "{}",
        events[0].message
    );
}

#[tokio::test]
async fn an_archived_agent_gets_no_mail() {
    let broker = broker().await;
    send(&broker, "hello").await;
    let archive = Change::Life {
        uid: AgentUid(Uuid::from_u128(1)),
        life: AgentLife::Archived { since: now() },
    };
    broker.ledger.apply(vec![archive]).await.expect("archived");
    let refused = broker.send(message("hello"), now()).await;
    assert!(matches!(refused, Err(SendError::UnknownRecipient(_))));
    assert_eq!(broker.queued(&name("alice")).await.expect("a count"), 0);
}

#[tokio::test]
async fn delivered_messages_are_kept_for_a_week_and_undelivered_ones_for_good() {
    let broker = broker().await;
    send(&broker, "delivered").await;
    recv(&broker, 1, 1).await;
    broker.ack(&name("alice"), turn(1), None).await.expect("an ack");
    send(&broker, "leased").await;
    recv(&broker, 2, 1).await;
    send(&broker, "queued").await;
    let later = |days: i64| now() + SignedDuration::from_hours(24 * days);
    assert_eq!(broker.ledger.prune(later(6)).await.expect("a write").messages, 0);
    assert_eq!(broker.ledger.prune(later(8)).await.expect("a write").messages, 1);
    assert_eq!(
        broker.ledger.prune(later(400)).await.expect("a write").messages,
        0
    );
}
