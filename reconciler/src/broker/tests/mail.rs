//! Delivery states, search, broadcast, another try, and loose ends.

use shared::agent_api::{BroadcastRequest, DeliveryState, SentMessage};
use shared::loose_end::{LooseEnd, LooseEndId, LooseEndKind};

use super::questions::{ask_of, mail_of};
use super::*;
use crate::broker::loose_ends::LooseEndError;

/// Makes these agents active, the first of them a manager.
async fn active(broker: &Broker) {
    sql(
        broker,
        "UPDATE agents SET life = 'active',
             doc = json_set(doc, '$.deployed', json('{\"output\":{\"config\":{\"role\":\"manager\"}}}'))
         WHERE name = 'alice';
         UPDATE agents SET life = 'active' WHERE name = 'bob'",
    )
    .await;
}

/// A message to alice that no turn gets past.
async fn dead(broker: &Broker) -> u64 {
    let id = send(broker, "poison").await;
    for number in 1..=u128::from(MAX_DELIVERIES) {
        recv(broker, number, 1).await;
        let alice = name("alice");
        broker
            .release(&alice, turn(number), None, now())
            .await
            .expect("a release");
    }
    id
}

fn shown(found: &[SentMessage]) -> Vec<(&str, DeliveryState, u64)> {
    found
        .iter()
        .map(|m| (m.body.as_str(), m.state, m.deliveries))
        .collect()
}

#[tokio::test]
async fn a_sender_sees_where_its_messages_are() {
    use DeliveryState::{Dead, Delivered, Leased, Queued};
    let broker = broker().await;
    dead(&broker).await;
    for body in ["done", "in a turn", "waits"] {
        send(&broker, body).await;
    }
    recv(&broker, 10, 1).await;
    broker.ack(&name("alice"), turn(10), None).await.expect("an ack");
    recv(&broker, 11, 1).await;
    let bob = name("bob");
    let sent = broker.sent(&bob, None, 10).await.expect("a read");
    assert_eq!(
        shown(&sent),
        [
            ("waits", Queued, 0),
            ("in a turn", Leased, 1),
            ("done", Delivered, 1),
            ("poison", Dead, 5)
        ]
    );
    let page = broker.sent(&bob, Some(sent[1].id), 1).await.expect("a read");
    assert_eq!(shown(&page), [("done", Delivered, 1)]);
    assert_eq!(broker.sent(&name("alice"), None, 10).await.expect("a read"), []);
}

#[tokio::test]
async fn a_list_of_long_texts_ends_early_and_goes_on_from_there() {
    let broker = broker().await;
    let long = "x".repeat(MAX_BODY_BYTES);
    for _ in 0..20 {
        send(&broker, &long).await;
    }
    let bob = name("bob");
    let first = broker.sent(&bob, None, 500).await.expect("a read");
    assert_eq!(first.len(), 16);
    let rest = broker
        .sent(&bob, first.last().map(|m| m.id), 500)
        .await
        .expect("a read");
    assert_eq!(rest.len(), 4);
}

#[tokio::test]
async fn a_search_takes_words_as_they_are_and_letters_in_any_case() {
    let broker = broker().await;
    for body in ["100% Über all", "100 über", "plain"] {
        send(&broker, body).await;
    }
    let unread = Outgoing {
        to: address("operator"),
        ..message("for the operator")
    };
    broker.send(unread, now()).await.expect("sent");
    let found = async |search: Search| {
        let search = Search { limit: 10, ..search };
        let found = broker.search(search).await.expect("a read");
        found.into_iter().map(|m| m.body).collect::<Vec<_>>()
    };
    let text = |text: &str| Search {
        text: Some(text.to_owned()),
        ..Search::default()
    };
    assert_eq!(found(text("ÜBER")).await, ["100 über", "100% Über all"]);
    assert_eq!(
        found(text("100% ü")).await,
        ["100% Über all"],
        "a percent sign is one"
    );
    assert_eq!(found(text("_")).await, [""; 0]);
    let to_operator = Search {
        to: Some(Address::Operator),
        ..Search::default()
    };
    assert_eq!(found(to_operator).await, ["for the operator"]);
    let of_alice = Search {
        agent: Some(name("alice")),
        ..text("plain")
    };
    assert_eq!(found(of_alice).await, ["plain"]);
    let delivered = Search {
        state: Some(DeliveryState::Delivered),
        ..Search::default()
    };
    assert_eq!(found(delivered).await, ["for the operator"]);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_found_as_what_it_is() {
    let broker = broker().await;
    let id = send(&broker, "hello").await;
    sql(
        &broker,
        &format!("UPDATE messages SET kind = 'x', from_addr = 'Not A Name' WHERE id = {id}"),
    )
    .await;
    let found = mail_of(&broker, "alice").await;
    assert_eq!(found[0].id, id);
    assert!(found[0].body.contains("cannot be read"), "{found:?}");
}

#[tokio::test]
async fn a_dead_message_is_delivered_again_when_the_operator_says_so() {
    let broker = broker().await;
    let id = dead(&broker).await;
    let again = async |id| broker.requeue(id, "unix:root".into(), now()).await;
    assert!(matches!(again(99).await, Err(MessageError::NotFound(99))));
    let mut wakes = broker.subscribe(&name("alice"));
    let queued = again(id).await.expect("queued");
    woken(&mut wakes, "another try").await;
    assert_eq!(queued.state, DeliveryState::Queued);
    assert!(matches!(again(id).await, Err(MessageError::NotDead { .. })));
    assert_eq!(recv(&broker, 20, 9).await, super::again(&["poison"]));
    broker
        .release(&name("alice"), turn(20), None, now())
        .await
        .expect("a release");
    assert_eq!(
        broker.queued(&name("alice")).await.expect("a count"),
        1,
        "it has all its tries"
    );
}

#[tokio::test]
async fn what_nobody_can_take_is_not_queued_again() {
    let broker = broker().await;
    let id = dead(&broker).await;
    let question = ask_of(&broker, "bob", "alice").await.id;
    broker
        .cancel(question, address("bob"), now())
        .await
        .expect("taken back");
    let refused = broker.requeue(question, "unix:root".into(), now()).await;
    assert!(matches!(refused, Err(MessageError::Settled(_))), "{refused:?}");
    let archive = Change::Life {
        uid: AgentUid(Uuid::from_u128(1)),
        life: AgentLife::Archived { since: now() },
    };
    let another = Change::Register {
        name: name("alice"),
        uid: AgentUid(Uuid::from_u128(9)),
        origin: AgentOrigin::Spec,
        at: now(),
    };
    broker
        .ledger
        .apply(vec![archive, another])
        .await
        .expect("another alice");
    let refused = broker.requeue(id, "unix:root".into(), now()).await;
    assert!(matches!(refused, Err(MessageError::Gone { .. })), "{refused:?}");
}

fn broadcast(from: &str, dedupe: Option<&str>) -> Broadcast {
    Broadcast {
        from: name(from),
        request: BroadcastRequest {
            body: "all hands".to_owned(),
            dedupe: dedupe.map(str::to_owned),
        },
    }
}

#[tokio::test]
async fn a_manager_writes_to_every_other_agent_at_once_and_nobody_else_does() {
    let broker = broker().await;
    let refused = broker.broadcast(broadcast("alice", None), now()).await;
    assert!(matches!(refused, Err(BroadcastError::NotManager(_))));
    active(&broker).await;
    let refused = broker.broadcast(broadcast("bob", None), now()).await;
    assert!(matches!(refused, Err(BroadcastError::NotManager(_))));
    let sent = broker
        .broadcast(broadcast("alice", Some("x")), now())
        .await
        .expect("sent");
    assert_eq!((sent.count, sent.duplicate), (1, false));
    let again = broker
        .broadcast(broadcast("alice", Some("x")), now())
        .await
        .expect("a retry");
    assert_eq!((again.count, again.duplicate), (0, true));
    assert_eq!(mail_of(&broker, "bob").await.len(), 1);
    assert_eq!(mail_of(&broker, "alice").await, []);
    sql(
        &broker,
        &format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_INBOX})
             INSERT INTO messages (from_addr, to_addr, kind, body, at, state)
             SELECT 'alice', 'bob', 'message', '', 0, 'queued' FROM n"
        ),
    )
    .await;
    let full = broker
        .broadcast(broadcast("alice", None), now())
        .await
        .expect("an answer");
    assert_eq!((full.count, full.full), (0, vec![name("bob")]));
}

fn ids(ends: &[LooseEnd]) -> Vec<&str> {
    ends.iter().map(|end| end.id.as_str()).collect()
}

#[tokio::test]
async fn a_dead_message_is_its_senders_to_dismiss() {
    let broker = broker().await;
    let id = dead(&broker).await;
    let end = LooseEndId {
        kind: LooseEndKind::Message,
        number: id,
    };
    for agent in ["alice", "bob"] {
        let ends = broker.loose_ends(Some(&name(agent))).await.expect("a read");
        assert_eq!(ids(&ends), [format!("message/{id}")], "{agent}");
        assert_eq!(ends[0].owner, address("bob"));
        assert_eq!(ends[0].error.as_deref(), Some("5 turns failed over it"));
    }
    let by = async |who: &str| broker.drop_loose_end(end, address(who), now()).await;
    let refused = by("alice").await.expect_err("refused");
    assert!(refused.to_string().contains("only its sender"), "{refused}");
    by("bob").await.expect("its own");
    assert_eq!(broker.loose_ends(None).await.expect("a read"), []);
    assert_eq!(broker.ledger.counts().await.expect("a read").dead_messages, 0);
}

#[tokio::test]
async fn loose_ends_are_taken_back_by_kind_and_gates_by_nobody() {
    let broker = broker().await;
    let question = ask_of(&broker, "bob", "alice").await.id;
    let of = |kind, number| LooseEndId { kind, number };
    let gate = of(LooseEndKind::Gate, 7);
    let refused = broker.drop_loose_end(gate, address("bob"), now()).await;
    assert!(matches!(&refused, Err(LooseEndError::Gate(7))));
    let said = refused.expect_err("refused").to_string();
    assert!(said.contains("only the operator decides"), "{said}");
    let refused = broker.drop_loose_end(gate, Address::Operator, now()).await;
    assert!(matches!(refused, Err(LooseEndError::Decide(7))));

    let end = of(LooseEndKind::Question, question);
    let stranger = broker.drop_loose_end(end, address("alice"), now()).await;
    assert!(
        matches!(stranger, Err(LooseEndError::Question(_))),
        "the one asked only answers"
    );
    assert_eq!(
        ids(&broker.loose_ends(None).await.expect("a read")),
        [format!("question/{question}")]
    );
    broker
        .drop_loose_end(end, address("bob"), now())
        .await
        .expect("its own");
    let ends = broker.loose_ends(None).await.expect("a read");
    assert_eq!(ends, []);
}

#[tokio::test]
async fn a_question_that_cannot_be_read_is_taken_back_by_who_is_over_all_and_by_nobody_else() {
    let broker = broker().await;
    let bad = ask_of(&broker, "bob", "alice").await.id;
    let good = ask_of(&broker, "bob", "alice").await.id;
    sql(
        &broker,
        &format!("UPDATE questions SET from_addr = 'Not A Name' WHERE id = {bad}"),
    )
    .await;
    let unreadable = broker.questions(None, false).await;
    assert!(
        matches!(&unreadable, Err(LedgerError::Undecodable(row)) if row.key == bad.to_string()),
        "it is not skipped: {unreadable:?}"
    );
    let end = LooseEndId {
        kind: LooseEndKind::Question,
        number: bad,
    };
    for agent in ["alice", "bob"] {
        let refused = broker.drop_loose_end(end, address(agent), now()).await;
        assert!(refused.is_err(), "{agent}: {refused:?}");
    }
    broker
        .drop_loose_end(end, Address::Operator, now())
        .await
        .expect("nothing is stuck for good");
    let left = broker.questions(None, false).await.expect("a list");
    assert_eq!(
        left.iter().map(|question| question.id).collect::<Vec<_>>(),
        [good]
    );
    assert_eq!(
        ids(&broker.loose_ends(None).await.expect("a read")),
        [format!("question/{good}")]
    );
}

#[tokio::test]
async fn a_manager_sees_and_ends_what_is_open_in_the_whole_hive() {
    let broker = broker().await;
    let question = ask_of(&broker, "bob", "operator").await.id;
    let alice = name("alice");
    assert_eq!(broker.loose_ends(Some(&alice)).await.expect("a read"), []);
    active(&broker).await;
    let ends = broker.loose_ends(Some(&alice)).await.expect("a read");
    assert_eq!(ids(&ends), [format!("question/{question}")]);
    let end = LooseEndId {
        kind: LooseEndKind::Question,
        number: question,
    };
    broker
        .drop_loose_end(end, address("alice"), now())
        .await
        .expect("a manager may");
    assert_eq!(mail_of(&broker, "bob").await[0].body, "[cancelled by alice]");
}

#[tokio::test]
async fn whom_an_agent_writes_to_is_decided_by_what_is_deployed_when_it_is_sent() {
    let broker = broker().await;
    let to = |to: &str, kind| Outgoing {
        to: address(to),
        kind,
        ..message("hello")
    };
    let refused = async |message: Outgoing| broker.send(message, now()).await.err();
    let asked = ask_of(&broker, "alice", "bob").await.id;
    sql(
        &broker,
        "UPDATE agents SET doc = json_set(doc, '$.deployed.output.config.recipients', json('[\"operator\"]'))
         WHERE name = 'bob'",
    )
    .await;
    for kind in [MessageKind::Message, MessageKind::Question] {
        assert!(matches!(
            refused(to("alice", kind)).await,
            Some(SendError::Forbidden { .. })
        ));
        assert!(refused(to("operator", kind)).await.is_none());
    }
    assert!(
        matches!(
            refused(to("nobody", MessageKind::Message)).await,
            Some(SendError::UnknownRecipient(_))
        ),
        "who is not there and who may not be written to are told apart"
    );
    let answer = |reply_to| Outgoing {
        reply_to: Some(reply_to),
        ..to("alice", MessageKind::Answer)
    };
    assert!(matches!(
        refused(answer(asked + 1)).await,
        Some(SendError::Forbidden { .. })
    ));
    assert!(
        refused(answer(asked)).await.is_none(),
        "whoever asked is answered"
    );
    active(&broker).await;
    assert!(
        refused(to("alice", MessageKind::Message)).await.is_none(),
        "alice is a manager now"
    );
    sql(
        &broker,
        "UPDATE agents SET doc = json_replace(doc, '$.deployed', null)",
    )
    .await;
    assert!(
        matches!(
            refused(to("operator", MessageKind::Message)).await,
            Some(SendError::Forbidden { .. })
        ),
        "without a deployment nobody has allowed anything"
    );
}
