//! Reminders: what is due comes once, and what cannot come says why.

use shared::loose_end::LooseEndKind;
use shared::reminder::{CronSchedule, MAX_REMINDER_BYTES, Missed, ReminderInfo, ReminderRequest, Schedule};

use super::questions::{later, mail_of};
use super::*;
use crate::broker::reminders::{MAX_REMINDERS, ReminderError};
use crate::broker::schedule::ScheduleError;

fn once(secs: u64) -> ReminderRequest {
    ReminderRequest {
        schedule: Schedule::AfterSecs(secs),
        body: "water the plants".to_owned(),
        missed: Missed::Run,
        dedupe: None,
    }
}

/// At each full hour; `now()` is one.
fn hourly(missed: Missed) -> ReminderRequest {
    ReminderRequest {
        schedule: Schedule::Cron(CronSchedule {
            expression: "0 * * * *".to_owned(),
            time_zone: None,
        }),
        missed,
        ..once(1)
    }
}

async fn set(broker: &Broker, request: ReminderRequest) -> ReminderInfo {
    broker
        .remind(&name("alice"), request, now())
        .await
        .expect("it is set")
}

async fn bodies(broker: &Broker) -> Vec<String> {
    mail_of(broker, "alice")
        .await
        .into_iter()
        .map(|m| m.body)
        .collect()
}

async fn pending(broker: &Broker) -> Vec<ReminderInfo> {
    broker.reminders(&name("alice")).await.expect("a read")
}

/// Alice takes up all she has.
async fn taken_up(broker: &Broker, number: u128) {
    recv(broker, number, 32).await;
    broker
        .ack(&name("alice"), turn(number), None)
        .await
        .expect("an ack");
}

#[tokio::test]
async fn a_reminder_becomes_one_message_when_it_is_due() {
    let broker = broker().await;
    let set = set(&broker, once(60)).await;
    assert_eq!(set.due, Some(later(60)));
    assert_eq!(set.schedule, Schedule::At(later(60)));
    assert_eq!(broker.next_deadline().await.expect("a read"), Some(later(60)));
    assert_eq!(broker.settle(later(59)).await.expect("a write"), 0);
    assert_eq!(broker.settle(later(60)).await.expect("a write"), 1);
    assert_eq!(broker.settle(later(61)).await.expect("a write"), 0);
    let mail = mail_of(&broker, "alice").await;
    assert_eq!(
        (mail[0].from.clone(), mail[0].kind),
        (Address::System, MessageKind::System)
    );
    assert_eq!(
        bodies(&broker).await,
        [format!(
            "reminder {}, due 2026-03-01T12:01:00Z: water the plants",
            set.id
        )]
    );
    assert_eq!(pending(&broker).await, []);
    assert_eq!(broker.next_deadline().await.expect("a read"), None);
}

#[tokio::test]
async fn a_reminder_that_repeats_comes_at_each_time_once_whatever_the_clock_does() {
    let broker = broker().await;
    let id = set(&broker, hourly(Missed::Run)).await.id;
    let mut sent = 0;
    // On time; the clock is set back over it; on time again; a leap ahead.
    for (number, at, comes) in [
        (1, 3600, true),
        (2, 60, false),
        (3, 3601, false),
        (4, 7200, true),
        (5, 86_400, true),
    ] {
        if broker.next_deadline().await.expect("a read") <= Some(later(at)) {
            broker.settle(later(at)).await.expect("a write");
        }
        sent += usize::from(comes);
        assert_eq!(bodies(&broker).await.len(), sent, "at {at}");
        taken_up(&broker, number).await;
    }
    let next = pending(&broker).await;
    assert_eq!((next[0].id, next[0].due), (id, Some(later(90_000))));
    assert!(
        bodies(&broker).await[2].contains("late"),
        "{:?}",
        bodies(&broker).await
    );
}

#[tokio::test]
async fn a_missed_reminder_comes_late_is_skipped_or_is_told_of() {
    let broker = broker().await;
    for missed in [Missed::Run, Missed::Skip, Missed::Notify] {
        let once = ReminderRequest { missed, ..once(60) };
        set(&broker, once).await;
        set(&broker, hourly(missed)).await;
    }
    // The daemon was away for three hours.
    assert_eq!(broker.settle(later(3 * 3600 + 1800)).await.expect("a write"), 6);
    let due = "2026-03-01T12:01:00Z";
    assert_eq!(
        bodies(&broker).await,
        [
            format!("reminder 1, due {due}, late: water the plants"),
            format!("reminder 5, due {due}, was missed and does not come: water the plants"),
            "reminder 2, due 2026-03-01T13:00:00Z, late: water the plants".to_owned(),
            "reminder 6, due 2026-03-01T13:00:00Z, was missed and does not come: water the plants".to_owned(),
        ]
    );
    let left: Vec<_> = pending(&broker)
        .await
        .into_iter()
        .map(|r| (r.id, r.due))
        .collect();
    let next = Some(later(4 * 3600));
    assert_eq!(
        left,
        [(2, next), (4, next), (6, next)],
        "what repeats comes again"
    );
    let events = broker.ledger.events(0, 10).await.expect("a read");
    let missed: Vec<_> = events.iter().filter(|e| e.kind == "reminderMissed").collect();
    assert_eq!(missed.len(), 2, "what is skipped is on record: {events:?}");
}

#[tokio::test]
async fn a_sleeping_agent_wakes_to_one_message_of_a_reminder() {
    let broker = broker().await;
    set(&broker, hourly(Missed::Run)).await;
    for hour in 1..=5 {
        broker.settle(later(hour * 3600)).await.expect("a write");
    }
    assert_eq!(bodies(&broker).await.len(), 1);
    taken_up(&broker, 1).await;
    broker.settle(later(6 * 3600)).await.expect("a write");
    assert_eq!(bodies(&broker).await.len(), 2);
}

#[tokio::test]
async fn a_full_inbox_keeps_a_reminder_until_there_is_room() {
    let broker = broker().await;
    let id = set(&broker, once(60)).await.id;
    let fill = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_INBOX})
         INSERT INTO messages (from_addr, to_addr, kind, body, at, state)
         SELECT 'bob', 'alice', 'message', '', 0, 'queued' FROM n"
    );
    let sql = |sql: String| {
        broker
            .ledger
            .write(move |tx| Ok::<_, LedgerError>(tx.execute_batch(&sql)?))
    };
    sql(fill).await.expect("a full inbox");
    broker.settle(later(60)).await.expect("a write");
    let ends = broker.loose_ends(Some(&name("alice"))).await.expect("a read");
    assert_eq!(
        (ends[0].kind, ends[0].id.clone()),
        (LooseEndKind::Reminder, format!("reminder/{id}"))
    );
    let why = ends[0].error.clone().unwrap_or_default();
    assert!(why.contains("inbox of alice is full"), "{why}");
    assert_eq!(broker.next_deadline().await.expect("a read"), Some(later(120)));
    sql("DELETE FROM messages".into()).await.expect("room");
    broker.settle(later(7200)).await.expect("a write");
    let body = format!("reminder {id}, due 2026-03-01T12:01:00Z, late: water the plants");
    assert_eq!(bodies(&broker).await, [body]);
    assert_eq!(pending(&broker).await, []);
}

#[tokio::test]
async fn what_is_wrong_with_a_reminder_is_said() {
    let broker = broker().await;
    let refused = async |request| {
        let alice = name("alice");
        broker.remind(&alice, request, now()).await.expect_err("refused")
    };
    assert!(matches!(
        refused(once(0)).await,
        ReminderError::Schedule(ScheduleError::AtOnce)
    ));
    let long = ReminderRequest {
        body: "x".repeat(MAX_REMINDER_BYTES + 1),
        ..once(1)
    };
    assert!(matches!(refused(long).await, ReminderError::TooLarge(_)));
    let named = ReminderRequest {
        dedupe: Some("x".repeat(65)),
        ..once(1)
    };
    assert!(matches!(refused(named).await, ReminderError::BadDedupe(_)));
    for _ in 0..MAX_REMINDERS {
        set(&broker, once(1)).await;
    }
    assert!(matches!(refused(once(1)).await, ReminderError::TooMany(_)));
}

#[tokio::test]
async fn the_same_id_sets_a_reminder_once() {
    let broker = broker().await;
    let named = ReminderRequest {
        dedupe: Some("plants".into()),
        ..once(60)
    };
    let first = set(&broker, named.clone()).await;
    let again = broker
        .remind(&name("alice"), named.clone(), later(30))
        .await
        .expect("a retry");
    assert_eq!(first, again);
    let other = broker
        .remind(&name("bob"), named, now())
        .await
        .expect("another's");
    assert_ne!(first.id, other.id);
}

#[tokio::test]
async fn a_reminder_is_taken_back_by_its_owner_and_not_by_a_stranger() {
    let broker = broker().await;
    let id = set(&broker, once(60)).await.id;
    let by = async |who: &str, id| broker.forget_reminder(id, address(who), now()).await;
    assert!(matches!(by("bob", id).await, Err(ReminderError::NotOwner { .. })));
    assert!(matches!(by("alice", 99).await, Err(ReminderError::NotFound(99))));
    by("alice", id).await.expect("its own");
    by("alice", id).await.expect("a retry");
    assert_eq!(pending(&broker).await, []);
    assert_eq!(broker.settle(later(999)).await.expect("a write"), 0);
    let id = set(&broker, once(60)).await.id;
    by("operator", id).await.expect("the operator may");
}

#[tokio::test]
async fn what_the_operator_sets_for_an_agent_comes_to_it_and_is_not_its_own_to_take_back() {
    let broker = broker().await;
    let named = ReminderRequest {
        dedupe: Some("plants".into()),
        ..once(60)
    };
    let own = set(&broker, named.clone()).await;
    let ordered = async || {
        let set = broker
            .remind_for_operator(&name("alice"), named.clone(), now())
            .await;
        set.expect("it is set")
    };
    let id = ordered().await.id;
    assert_ne!(id, own.id, "its own id is another one");
    assert_eq!(ordered().await.id, id);
    assert_eq!(pending(&broker).await.len(), 2);
    broker
        .forget_reminder(own.id, address("alice"), now())
        .await
        .expect("its own");
    let refused = broker.forget_reminder(id, address("alice"), now()).await;
    assert!(
        matches!(refused, Err(ReminderError::NotOwner { .. })),
        "{refused:?}"
    );
    let ends = broker.loose_ends(Some(&name("alice"))).await.expect("a read");
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].owner, Address::Operator);
    assert_eq!(ends[0].about, "for alice: water the plants");
    broker.settle(later(60)).await.expect("a write");
    let body = format!("reminder {id} of the operator, due 2026-03-01T12:01:00Z: water the plants");
    assert_eq!(bodies(&broker).await, [body]);
    assert_eq!(pending(&broker).await, []);
}

#[tokio::test]
async fn the_reminders_of_an_archived_agent_are_over() {
    let broker = broker().await;
    set(&broker, hourly(Missed::Run)).await;
    let archive = Change::Life {
        uid: AgentUid(Uuid::from_u128(1)),
        life: AgentLife::Archived { since: now() },
    };
    broker.ledger.apply(vec![archive]).await.expect("archived");
    assert_eq!(broker.next_deadline().await.expect("a read"), None);
    assert_eq!(broker.settle(later(9999)).await.expect("a write"), 0);
    assert_eq!(bodies(&broker).await, [""; 0]);
}

#[tokio::test]
async fn a_reminder_that_cannot_be_read_is_reported_and_holds_up_no_other() {
    let broker = broker().await;
    let bad = set(&broker, once(1)).await.id;
    set(&broker, once(1)).await;
    let spoil = format!("UPDATE reminders SET schedule = '[]' WHERE id = {bad}");
    sql(&broker, &spoil).await;
    assert_eq!(broker.settle(later(5)).await.expect("a write"), 2);
    assert_eq!(bodies(&broker).await.len(), 1);
    assert_eq!(broker.next_deadline().await.expect("a read"), None);
    let ends = broker.loose_ends(None).await.expect("a read");
    assert_eq!(ends.len(), 1);
    assert!(
        ends[0]
            .error
            .as_ref()
            .is_some_and(|why| why.contains("cannot be read")),
        "{ends:?}"
    );
    broker
        .forget_reminder(bad, Address::Operator, now())
        .await
        .expect("the operator gets rid of it");
    assert_eq!(broker.loose_ends(None).await.expect("a read"), []);
}

#[tokio::test]
async fn what_has_ended_is_kept_for_a_month_and_what_is_open_for_good() {
    let broker = broker().await;
    let ended = super::questions::ask_of(&broker, "bob", "alice").await.id;
    super::questions::ask_of(&broker, "bob", "alice").await;
    broker
        .answer(ended, address("alice"), "blue".into(), now())
        .await
        .expect("an answer");
    let over = set(&broker, once(1)).await.id;
    broker
        .forget_reminder(over, address("alice"), now())
        .await
        .expect("over");
    set(&broker, hourly(Missed::Run)).await;
    let days = |days: i64| now() + SignedDuration::from_hours(24 * days);
    let pruned = async |at| {
        let pruned = broker.ledger.prune(at).await.expect("a write");
        (pruned.questions, pruned.reminders)
    };
    assert_eq!(pruned(days(29)).await, (0, 0));
    assert_eq!(pruned(days(31)).await, (1, 1));
    assert_eq!(pruned(days(9999)).await, (0, 0));
    assert_eq!(broker.questions(None, true).await.expect("a read").len(), 1);
}
