//! Questions: how each ends once, and who is told.

use shared::agent_api::{DeliveryState, SentMessage};
use shared::loose_end::LooseEndKind;
use shared::question::{AskRequest, MAX_TTL_SECS, QuestionInfo, QuestionState};
use shared::reminder::{Missed, ReminderRequest, Schedule};

use super::*;
use crate::broker::questions::MAX_OPEN;

pub(super) fn question(to: &str) -> AskRequest {
    AskRequest {
        to: address(to),
        body: "red or blue?".to_owned(),
        ttl_secs: None,
        default: None,
        dedupe: None,
    }
}

pub(super) fn later(secs: i64) -> Timestamp {
    now() + SignedDuration::from_secs(secs)
}

pub(super) async fn ask_of(broker: &Broker, from: &str, to: &str) -> QuestionInfo {
    broker
        .ask(address(from), question(to), now())
        .await
        .expect("it is asked")
}

/// All messages to an agent, as their senders see them, oldest first.
pub(super) async fn mail_of(broker: &Broker, to: &str) -> Vec<SentMessage> {
    let search = Search {
        to: Some(address(to)),
        limit: 100,
        ..Search::default()
    };
    let mut found = broker.search(search).await.expect("a read");
    found.reverse();
    found
}

/// The answers an asker got to a question: who ended it, and with what words.
pub(super) async fn answers(broker: &Broker, asker: &str, id: u64) -> Vec<(String, String)> {
    let mail = mail_of(broker, asker).await.into_iter();
    mail.filter(|message| message.kind == MessageKind::Answer && message.reply_to == Some(id))
        .map(|message| (message.from.to_string(), message.body))
        .collect()
}

fn told(by: &str, what: &str) -> Vec<(String, String)> {
    vec![(by.to_owned(), what.to_owned())]
}

fn refusal<T: std::fmt::Debug>(result: Result<T, SendError>) -> Refusal {
    match result {
        Err(SendError::Question(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

async fn manager(broker: &Broker, agent: &str) {
    let update = format!(
        "UPDATE agents SET life = 'active',
             doc = json_set(doc, '$.deployed', json('{{\"output\":{{\"config\":{{\"role\":\"manager\"}}}}}}'))
         WHERE name = '{agent}'"
    );
    sql(broker, &update).await;
}

#[tokio::test]
async fn an_answer_reaches_the_asker_and_ends_the_question() {
    let broker = broker().await;
    let asked = ask_of(&broker, "bob", "alice").await;
    assert_eq!(
        (asked.state, &asked.from, &asked.to),
        (QuestionState::Open, &address("bob"), &address("alice"))
    );
    assert_eq!(recv(&broker, 1, 9).await, fresh(&["red or blue?"]));
    let ended = broker
        .answer(asked.id, address("alice"), "blue".into(), later(5))
        .await
        .expect("an answer");
    assert_eq!(
        (
            ended.state,
            ended.ended_by,
            ended.ended_at,
            ended.answer.as_deref()
        ),
        (
            QuestionState::Answered,
            Some(address("alice")),
            Some(later(5)),
            Some("blue")
        )
    );
    assert_eq!(answers(&broker, "bob", asked.id).await, told("alice", "blue"));
    assert_eq!(broker.questions(None, false).await.expect("a read"), []);
    assert_eq!(broker.questions(None, true).await.expect("a read").len(), 1);
}

#[tokio::test]
async fn a_second_answer_is_refused_and_told_who_was_first_and_when() {
    let broker = broker().await;
    let id = ask_of(&broker, "bob", "alice").await.id;
    let answer = |by: &str| broker.answer(id, address(by), "blue".into(), later(5));
    answer("alice").await.expect("an answer");
    for by in ["alice", "operator"] {
        let refused = answer(by).await;
        assert_eq!(
            refused.expect_err("refused").to_string(),
            format!("question {id} was answered by alice at 2026-03-01 12:00:05Z")
        );
    }
    let cancelled = refusal(broker.cancel(id, address("bob"), later(6)).await);
    assert!(matches!(cancelled, Refusal::Ended { .. }), "{cancelled}");
    assert_eq!(answers(&broker, "bob", id).await.len(), 1);
}

#[tokio::test]
async fn only_the_one_asked_answers_and_the_operator() {
    let broker = broker().await;
    let id = ask_of(&broker, "bob", "alice").await.id;
    let stranger = refusal(broker.answer(id, address("bob"), "x".into(), now()).await);
    assert!(matches!(stranger, Refusal::NotAsked { .. }), "{stranger}");
    let nothing = refusal(broker.answer(id + 7, address("alice"), "x".into(), now()).await);
    assert_eq!(nothing, Refusal::NotFound(id + 7));
    broker
        .answer(id, address("operator"), "blue".into(), now())
        .await
        .expect("the operator may");
    assert_eq!(answers(&broker, "bob", id).await, told("operator", "blue"));
}

#[tokio::test]
async fn a_message_of_kind_answer_ends_the_question_it_replies_to() {
    let broker = broker().await;
    let asked = Outgoing {
        kind: MessageKind::Question,
        ..message("red or blue?")
    };
    let id = broker.send(asked, now()).await.expect("a question").id;
    let reply = |to: &str, from: &str| Outgoing {
        from: address(from),
        to: address(to),
        kind: MessageKind::Answer,
        reply_to: Some(id),
        dedupe: Some("mine".into()),
        ..message("blue")
    };
    let astray = refusal(broker.send(reply("operator", "alice"), now()).await);
    assert!(matches!(astray, Refusal::OtherAsker { .. }), "{astray}");
    let stranger = refusal(broker.send(reply("bob", "bob"), now()).await);
    assert!(matches!(stranger, Refusal::NotAsked { .. }), "{stranger}");

    let first = broker
        .send(reply("bob", "alice"), now())
        .await
        .expect("an answer");
    let again = broker.send(reply("bob", "alice"), now()).await.expect("a retry");
    assert_eq!((again.id, again.duplicate), (first.id, true));
    let other = Outgoing {
        dedupe: None,
        ..reply("bob", "alice")
    };
    let second = refusal(broker.send(other, now()).await);
    assert!(matches!(second, Refusal::Ended { .. }), "{second}");
    assert_eq!(answers(&broker, "bob", id).await, told("alice", "blue"));
}

#[tokio::test]
async fn the_asker_alone_takes_a_question_back_besides_managers_and_the_operator() {
    let broker = broker().await;
    manager(&broker, "alice").await;
    let of_bob = ask_of(&broker, "bob", "operator").await.id;
    let of_alice = ask_of(&broker, "alice", "operator").await.id;
    let stranger = refusal(broker.cancel(of_alice, address("bob"), now()).await);
    assert!(matches!(stranger, Refusal::NotAsker { .. }), "{stranger}");
    broker
        .cancel(of_alice, address("alice"), now())
        .await
        .expect("its own");
    let by_manager = broker
        .cancel(of_bob, address("alice"), now())
        .await
        .expect("managed");
    assert_eq!(by_manager.state, QuestionState::Cancelled);
    let another = ask_of(&broker, "bob", "alice").await.id;
    broker
        .cancel(another, address("operator"), now())
        .await
        .expect("the operator may");
    assert_eq!(
        answers(&broker, "alice", of_alice).await,
        told("alice", "[cancelled by alice]")
    );
    assert_eq!(
        answers(&broker, "bob", of_bob).await,
        told("alice", "[cancelled by alice]")
    );
    assert_eq!(
        answers(&broker, "bob", another).await,
        told("operator", "[cancelled by operator]")
    );
}

#[tokio::test]
async fn whoever_had_a_question_that_ends_otherwise_is_told_and_others_do_not_get_it_any_more() {
    let broker = broker().await;
    let had = ask_of(&broker, "bob", "alice").await.id;
    recv(&broker, 1, 9).await;
    let never_had = ask_of(&broker, "bob", "alice").await.id;
    for id in [had, never_had] {
        broker
            .cancel(id, address("bob"), now())
            .await
            .expect("taken back");
    }
    broker.ack(&name("alice"), turn(1), None).await.expect("an ack");
    let notice =
        format!("question {had} of bob was taken back by bob: nobody waits for your answer any more");
    assert_eq!(recv(&broker, 2, 9).await, fresh(&[notice.as_str()]));
    let states: Vec<_> = mail_of(&broker, "alice").await.iter().map(|m| m.state).collect();
    use DeliveryState::{Dead, Delivered, Leased};
    assert_eq!(states, [Delivered, Dead, Leased]);
    let loose = broker.loose_ends(None).await.expect("a read");
    assert_eq!(loose, [], "what was withdrawn is nobody's concern");
    assert_eq!(broker.ledger.counts().await.expect("a read").dead_messages, 0);
}

#[tokio::test]
async fn a_question_whose_time_runs_out_is_answered_by_its_default() {
    let broker = broker().await;
    let timed = |default: Option<&str>| AskRequest {
        ttl_secs: Some(60),
        default: default.map(str::to_owned),
        ..question("alice")
    };
    let mut ids = Vec::new();
    for default in [Some("blue"), None] {
        let asked = broker
            .ask(address("bob"), timed(default), now())
            .await
            .expect("asked");
        assert_eq!(asked.expires_at, Some(later(60)));
        ids.push(asked.id);
    }
    let for_good = ask_of(&broker, "bob", "alice").await.id;
    assert_eq!(broker.next_deadline().await.expect("a read"), Some(later(60)));
    assert_eq!(broker.settle(later(59)).await.expect("a write"), 0, "not yet");
    assert_eq!(broker.settle(later(60)).await.expect("a write"), 2);
    assert_eq!(broker.settle(later(61)).await.expect("a write"), 0, "once");
    assert_eq!(answers(&broker, "bob", ids[0]).await, told("system", "blue"));
    assert_eq!(
        answers(&broker, "bob", ids[1]).await,
        told("system", "[nobody answered in time]")
    );
    assert_eq!(broker.next_deadline().await.expect("a read"), None);
    let late = refusal(
        broker
            .answer(ids[0], address("alice"), "red".into(), later(61))
            .await,
    );
    assert_eq!(
        late.to_string(),
        format!("question {} ran out of time at 2026-03-01 12:01:00Z", ids[0])
    );
    let open = broker.questions(None, false).await.expect("a read");
    assert_eq!(open.iter().map(|q| q.id).collect::<Vec<_>>(), [for_good]);
}

#[tokio::test]
async fn a_daemon_that_was_away_ends_what_ran_out_meanwhile() {
    let broker = broker().await;
    let timed = AskRequest {
        ttl_secs: Some(60),
        ..question("alice")
    };
    let id = broker.ask(address("bob"), timed, now()).await.expect("asked").id;
    let image = broker.ledger.image().await.expect("an image");
    let after = Broker::new(Ledger::from_image(&image).expect("a ledger"));
    assert_eq!(after.next_deadline().await.expect("a read"), Some(later(60)));
    assert_eq!(after.settle(later(9_999)).await.expect("a write"), 1);
    assert_eq!(answers(&after, "bob", id).await.len(), 1);
}

#[tokio::test]
async fn whoever_waits_for_deadlines_learns_of_an_earlier_one_and_of_nothing_else() {
    let broker = broker().await;
    let mut changes = broker.deadlines();
    changes.mark_unchanged();
    send(&broker, "hello").await;
    ask_of(&broker, "bob", "alice").await;
    assert!(!changes.has_changed().expect("alive"));
    let timed = AskRequest {
        ttl_secs: Some(1),
        ..question("alice")
    };
    broker.ask(address("bob"), timed, now()).await.expect("asked");
    assert!(changes.has_changed().expect("alive"));
    changes.mark_unchanged();
    let reminder = ReminderRequest {
        schedule: Schedule::AfterSecs(1),
        body: "x".into(),
        missed: Missed::Run,
        dedupe: None,
    };
    broker.remind(&name("alice"), reminder, now()).await.expect("set");
    assert!(changes.has_changed().expect("alive"));
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_said() {
    let broker = broker().await;
    let ask = async |request: AskRequest| broker.ask(address("bob"), request, now()).await;
    let with = |ttl_secs, default: Option<String>| AskRequest {
        ttl_secs,
        default,
        ..question("alice")
    };
    for secs in [0, MAX_TTL_SECS + 1, u64::MAX] {
        assert_eq!(refusal(ask(with(Some(secs), None)).await), Refusal::BadTerm(secs));
    }
    assert_eq!(
        refusal(ask(with(None, Some("x".into()))).await),
        Refusal::DefaultWithoutTerm
    );
    let long = "x".repeat(MAX_BODY_BYTES + 1);
    assert_eq!(
        refusal(ask(with(Some(1), Some(long.clone()))).await),
        Refusal::DefaultTooLarge(MAX_BODY_BYTES + 1)
    );
    let too_long = AskRequest {
        body: long.clone(),
        ..question("alice")
    };
    assert!(matches!(ask(too_long).await, Err(SendError::TooLarge { .. })));
    assert!(matches!(
        ask(question("bob")).await,
        Err(SendError::AskedItself(_))
    ));
    assert!(matches!(ask(question("system")).await, Err(SendError::ToSystem)));
    assert!(matches!(
        ask(question("nobody")).await,
        Err(SendError::UnknownRecipient(_))
    ));
    let id = ask(question("alice")).await.expect("asked").id;
    let endless = broker.answer(id, address("alice"), long, now()).await;
    assert!(matches!(endless, Err(SendError::TooLarge { .. })));
}

#[tokio::test]
async fn the_same_id_asks_once_and_belongs_to_a_question() {
    let broker = broker().await;
    let once = AskRequest {
        dedupe: Some("one".into()),
        ttl_secs: Some(60),
        ..question("alice")
    };
    let first = broker
        .ask(address("bob"), once.clone(), now())
        .await
        .expect("asked");
    let again = broker
        .ask(address("bob"), once, later(30))
        .await
        .expect("a retry");
    assert_eq!(first, again);
    let plain = Outgoing {
        dedupe: Some("two".into()),
        ..message("hello")
    };
    let id = broker.send(plain, now()).await.expect("sent").id;
    let taken = AskRequest {
        dedupe: Some("two".into()),
        ..question("alice")
    };
    let refused = refusal(broker.ask(address("bob"), taken, now()).await);
    assert_eq!(refused, Refusal::DedupeTaken(id));
}

#[tokio::test]
async fn open_questions_are_bounded_and_their_answers_are_not() {
    let broker = broker().await;
    let mut last = 0;
    for _ in 0..MAX_OPEN {
        last = ask_of(&broker, "bob", "alice").await.id;
    }
    let refused = refusal(broker.ask(address("bob"), question("alice"), now()).await);
    assert_eq!(refused, Refusal::TooMany(address("bob")));
    let by_message = Outgoing {
        kind: MessageKind::Question,
        ..message("one more?")
    };
    assert!(matches!(
        refusal(broker.send(by_message, now()).await),
        Refusal::TooMany(_)
    ));
    let fill = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_INBOX})
         INSERT INTO messages (from_addr, to_addr, kind, body, at, state)
         SELECT 'alice', 'bob', 'message', '', 0, 'queued' FROM n"
    );
    broker
        .ledger
        .write(move |tx| Ok::<_, LedgerError>(tx.execute_batch(&fill)?))
        .await
        .expect("a full inbox");
    broker
        .answer(last, address("alice"), "blue".into(), now())
        .await
        .expect("an answer finds its asker however full its inbox is");
    broker
        .ask(address("bob"), question("alice"), now())
        .await
        .expect("there is room for one more");
}

#[tokio::test]
async fn an_agent_sees_the_questions_that_involve_it_and_no_others() {
    let broker = broker().await;
    let asked = ask_of(&broker, "alice", "operator").await.id;
    let asked_of = ask_of(&broker, "operator", "alice").await.id;
    let others = ask_of(&broker, "bob", "operator").await.id;
    let ids = |listed: Vec<QuestionInfo>| listed.iter().map(|q| q.id).collect::<Vec<_>>();
    let alice = name("alice");
    assert_eq!(
        ids(broker.questions(Some(&alice), false).await.expect("a read")),
        [asked_of, asked]
    );
    broker
        .answer(asked_of, address("alice"), "yes".into(), now())
        .await
        .expect("an answer");
    assert_eq!(
        ids(broker.questions(Some(&alice), false).await.expect("a read")),
        [asked]
    );
    assert_eq!(
        ids(broker.questions(Some(&alice), true).await.expect("a read")),
        [asked_of, asked]
    );
    assert_eq!(
        ids(broker.questions(None, true).await.expect("a read")),
        [others, asked_of, asked]
    );
}

#[tokio::test]
async fn the_operator_is_told_of_questions_and_of_their_end() {
    let broker = broker().await;
    let id = ask_of(&broker, "bob", "operator").await.id;
    broker
        .cancel(id, address("bob"), now())
        .await
        .expect("taken back");
    let of_operator = ask_of(&broker, "operator", "alice").await.id;
    broker
        .answer(of_operator, address("alice"), "fine".into(), now())
        .await
        .expect("an answer");
    let events = broker.ledger.events(0, 10).await.expect("a read");
    let lines: Vec<_> = events
        .iter()
        .map(|e| (e.kind.as_str(), e.message.as_str()))
        .collect();
    assert_eq!(
        lines,
        [
            ("messageToOperator", "bob asks: red or blue?"),
            (
                "questionEnded",
                format!("question {id} of bob was taken back by bob").as_str()
            ),
            ("messageToOperator", "alice says: fine"),
        ]
    );
}

#[tokio::test]
async fn the_questions_of_an_archived_agent_end_and_its_name_brings_nothing_back() {
    let broker = broker().await;
    let its_own = ask_of(&broker, "alice", "bob").await.id;
    let of_it = ask_of(&broker, "bob", "alice").await.id;
    let with_default = AskRequest {
        ttl_secs: Some(60),
        default: Some("blue".into()),
        ..question("alice")
    };
    let defaulted = broker
        .ask(address("bob"), with_default, now())
        .await
        .expect("asked")
        .id;
    let archive = Change::Life {
        uid: AgentUid(Uuid::from_u128(1)),
        life: AgentLife::Archived { since: now() },
    };
    broker.ledger.apply(vec![archive]).await.expect("archived");
    assert_eq!(
        answers(&broker, "bob", of_it).await,
        told("system", "[alice was archived: nobody will answer]")
    );
    assert_eq!(answers(&broker, "bob", defaulted).await, told("system", "blue"));
    assert_eq!(broker.questions(None, false).await.expect("a read"), []);
    assert_eq!(
        mail_of(&broker, "alice").await.len(),
        2,
        "nothing new is sent to it"
    );
    let asked = mail_of(&broker, "bob").await;
    assert_eq!(
        (asked[0].id, asked[0].state),
        (its_own, DeliveryState::Dead),
        "nobody waits for bob's answer"
    );

    let another = Change::Register {
        name: name("alice"),
        uid: AgentUid(Uuid::from_u128(9)),
        origin: AgentOrigin::Spec,
        at: now(),
    };
    broker.ledger.apply(vec![another]).await.expect("another alice");
    let alice = name("alice");
    assert_eq!(broker.questions(Some(&alice), true).await.expect("a read"), []);
    assert_eq!(broker.sent(&alice, None, 10).await.expect("a read"), []);
    assert_eq!(broker.loose_ends(Some(&alice)).await.expect("a read"), []);
    let late = refusal(broker.answer(of_it, address("alice"), "x".into(), now()).await);
    assert!(matches!(late, Refusal::Ended { .. }), "{late}");
}

#[tokio::test]
async fn a_question_that_cannot_be_read_is_reported_once_and_holds_up_no_other() {
    let broker = broker().await;
    let timed = || AskRequest {
        ttl_secs: Some(1),
        ..question("alice")
    };
    let bad = broker
        .ask(address("bob"), timed(), now())
        .await
        .expect("asked")
        .id;
    let good = broker
        .ask(address("bob"), timed(), now())
        .await
        .expect("asked")
        .id;
    let spoil = format!("UPDATE questions SET to_addr = 'Not A Name' WHERE id = {bad}");
    sql(&broker, &spoil).await;
    assert_eq!(broker.settle(later(5)).await.expect("a write"), 2);
    assert_eq!(answers(&broker, "bob", good).await.len(), 1);
    assert_eq!(broker.next_deadline().await.expect("a read"), None);
    let ends = broker.loose_ends(None).await.expect("a read");
    let end = &ends[0];
    assert_eq!(
        (end.kind, end.id.clone()),
        (LooseEndKind::Question, format!("question/{bad}"))
    );
    assert!(
        end.error
            .as_ref()
            .is_some_and(|why| why.contains("cannot be read")),
        "{end:?}"
    );
}
