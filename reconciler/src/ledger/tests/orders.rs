//! What becomes of an order, on what holds at that moment.

use shared::spec::RunState;

use super::*;
use crate::model::order::{ManagerOrder, OrderState, Verb};
use crate::model::records::{AgentLedger, AgentLife, Override};

fn order(number: u64, verb: Verb) -> Change {
    Change::Order {
        uid: uid(1),
        order: Box::new(ManagerOrder {
            number,
            verb,
            by: name("queen"),
            by_uid: uid(9),
            reason: String::new(),
            at: now(),
            dedupe: None,
            state: OrderState::Pending,
            gate: None,
        }),
    }
}

fn obey(number: u64) -> Change {
    Change::Obey {
        uid: uid(1),
        number,
        declared: RunState::Running,
        gate: Some(GateId(7)),
        at: days_later(1),
    }
}

async fn apply(desk: &Desk, change: Change) {
    desk.ledger.apply(vec![change]).await.expect("a write");
}

async fn alice(desk: &Desk) -> AgentLedger {
    desk.ledger
        .agent(&name("alice"))
        .await
        .expect("a read")
        .expect("alice")
}

#[tokio::test]
async fn an_order_that_is_allowed_holds_and_is_obeyed_once() {
    let desk = Desk::with_alice().await;
    apply(&desk, order(1, Verb::Stop)).await;
    apply(&desk, obey(1)).await;
    let after = alice(&desk).await;
    let stop = after.overrides.run.clone().unwrap();
    assert_eq!(
        (stop.value, stop.over, stop.by.as_str()),
        (RunState::Stopped, Some(RunState::Running), "agent:queen")
    );
    assert_eq!(after.record.order.as_ref().unwrap().state, OrderState::Done);
    apply(
        &desk,
        Change::RunOverride {
            uid: uid(1),
            run: None,
        },
    )
    .await;
    apply(&desk, obey(1)).await;
    assert_eq!(alice(&desk).await.overrides.run, None, "it was obeyed before");
}

#[tokio::test]
async fn a_restart_is_of_what_ran_when_it_was_ordered() {
    let desk = Desk::with_alice().await;
    apply(&desk, order(1, Verb::Restart)).await;
    apply(&desk, obey(1)).await;
    assert_eq!(alice(&desk).await.record.restart_before, Some(now()));
}

#[tokio::test]
async fn an_order_whose_place_was_taken_is_not_obeyed() {
    let desk = Desk::with_alice().await;
    apply(&desk, order(1, Verb::Stop)).await;
    apply(&desk, order(2, Verb::Restart)).await;
    apply(&desk, obey(1)).await;
    let after = alice(&desk).await;
    assert_eq!(after.overrides.run, None);
    assert!(after.record.order.unwrap().is_pending());
}

#[tokio::test]
async fn the_operator_who_orders_meanwhile_has_the_last_word() {
    let desk = Desk::with_alice().await;
    apply(&desk, order(1, Verb::Start)).await;
    let theirs = Override {
        value: RunState::Stopped,
        by: "unix:root".into(),
        reason: String::new(),
        since: now(),
        until: None,
        over: None,
    };
    let run = Some(theirs.clone());
    apply(&desk, Change::RunOverride { uid: uid(1), run }).await;
    apply(&desk, obey(1)).await;
    let after = alice(&desk).await;
    assert_eq!(after.overrides.run, Some(theirs));
    let OrderState::Ended { reason } = after.record.order.unwrap().state else {
        panic!("it is over");
    };
    assert!(reason.contains("the operator ordered"), "{reason}");
}

#[tokio::test]
async fn a_denial_ends_the_order_it_is_about() {
    let desk = Desk::with_alice().await;
    apply(&desk, order(1, Verb::Stop)).await;
    let about = |class| NewGate {
        class,
        asked_by: Asker::Manager,
        ..gate("obey")
    };
    for (class, ends) in [(GateClass::Restart, false), (GateClass::Stop, true)] {
        let new = NewGate {
            digest: digest(class.as_str()),
            ..about(class)
        };
        let id = desk.open_gate(new).await;
        let (by, of) = ("unix:root".to_owned(), digest(class.as_str()));
        let denied = desk.ledger.decide(id, false, by, "no".into(), of, now()).await;
        assert!(denied.is_ok());
        let waits = alice(&desk).await.record.order.unwrap().is_pending();
        assert_eq!(waits, !ends, "{class}");
    }
}

#[tokio::test]
async fn an_order_to_archive_is_about_this_end_alone_and_not_about_what_the_spec_declares() {
    let desk = Desk::with_alice().await;
    apply(&desk, order(1, Verb::Archive)).await;
    apply(&desk, obey(1)).await;
    let declared = alice(&desk).await.record;
    assert_eq!(declared.life, AgentLife::Declared);
    assert!(matches!(declared.order.unwrap().state, OrderState::Ended { .. }));

    let origin = AgentOrigin::Spawn;
    apply(&desk, Change::Origin { uid: uid(1), origin }).await;
    apply(&desk, order(2, Verb::Archive)).await;
    apply(&desk, obey(2)).await;
    assert_eq!(alice(&desk).await.record.archived_under(), Some(GateId(7)));
    for life in [AgentLife::Active, AgentLife::Removed { since: now() }] {
        apply(&desk, Change::Life { uid: uid(1), life }).await;
        assert_eq!(alice(&desk).await.record.archived_under(), None);
    }
}
