use shared::gate::GateState;

use super::*;
use crate::ledger::error::{BeginError, LedgerError};
use crate::model::records::{AgentLife, Attempt};

fn step() -> Digest {
    digest("a step")
}

async fn begin(desk: &Desk, gate: Option<GateId>, effect: &str) -> Result<Attempt, BeginError> {
    desk.ledger
        .begin(Some(uid(1)), step(), gate, &digest(effect), now(), days_later(1))
        .await
}

async fn attempt(desk: &Desk) -> Option<Attempt> {
    let alice = desk
        .ledger
        .agent(&name("alice"))
        .await
        .expect("a read")
        .expect("alice");
    alice.attempts.get(&step()).cloned()
}

async fn gate_now(desk: &Desk, id: GateId) -> shared::gate::Gate {
    desk.ledger.gate(id).await.expect("a read").expect("a gate").gate
}

fn refused(outcome: Result<Attempt, BeginError>) -> &'static str {
    match outcome {
        Err(BeginError::NotAuthorised { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_begins_without_a_matching_approval() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![register("bob", 2)]).await;
    let open = desk.open_gate(gate("open")).await;
    assert_eq!(
        refused(begin(&desk, Some(open), "open").await),
        "it was not approved"
    );

    let denied = desk.open_gate(gate("denied")).await;
    desk.ledger
        .decide(
            denied,
            false,
            "unix:root".into(),
            String::new(),
            digest("denied"),
            now(),
        )
        .await
        .expect("a decision");
    assert_eq!(
        refused(begin(&desk, Some(denied), "denied").await),
        "it was denied"
    );

    let approved = desk.open_gate(auto("approved")).await;
    assert_eq!(
        refused(begin(&desk, Some(approved), "other").await),
        "it is about another effect"
    );
    let of_bob = desk
        .ledger
        .begin(
            Some(uid(2)),
            step(),
            Some(approved),
            &digest("approved"),
            now(),
            now(),
        )
        .await;
    assert_eq!(refused(of_bob), "it belongs to another agent");

    let ended = desk.open_gate(auto("ended")).await;
    let end = GateAction::End {
        gate: ended,
        reason: String::new(),
    };
    desk.ledger.sync_gates(vec![end], now()).await.expect("a write");
    assert_eq!(
        refused(begin(&desk, Some(ended), "ended").await),
        "it is not approved any more"
    );
    assert_eq!(
        refused(begin(&desk, Some(GateId(77)), "open").await),
        "there is no such gate"
    );

    assert_eq!(attempt(&desk).await, None, "a refusal leaves no trace");
    assert_eq!(gate_now(&desk, approved).await.state, GateState::Approved);
}

#[tokio::test]
async fn an_approval_is_used_up_together_with_the_attempt() {
    let desk = Desk::with_alice().await;
    let id = desk.open_gate(gate("deploy")).await;
    desk.approve(id, &digest("deploy")).await;

    // The attempt cannot be written, so the approval must still be there.
    desk.raw()
        .execute_batch("CREATE TRIGGER no BEFORE INSERT ON attempts BEGIN SELECT raise(ABORT, 'no'); END")
        .expect("a trigger");
    let failed = begin(&desk, Some(id), "deploy").await;
    assert!(matches!(failed, Err(BeginError::Ledger(LedgerError::Sqlite(_)))));
    assert_eq!(gate_now(&desk, id).await.state, GateState::Approved);
    desk.raw().execute_batch("DROP TRIGGER no").expect("no trigger");

    let begun = begin(&desk, Some(id), "deploy").await.expect("it may begin");
    assert_eq!(
        (begun.count, begun.in_flight, begun.next_at),
        (1, true, days_later(1))
    );
    assert_eq!(attempt(&desk).await, Some(begun));
    let gate = gate_now(&desk, id).await;
    assert_eq!((gate.state, gate.consumed_at), (GateState::Consumed, Some(now())));
}

#[tokio::test]
async fn what_was_begun_may_begin_again_until_it_is_complete() {
    let desk = Desk::with_alice().await;
    let id = desk.open_gate(auto("deploy")).await;
    begin(&desk, Some(id), "deploy").await.expect("a first try");
    let again = begin(&desk, Some(id), "deploy")
        .await
        .expect("a second try, after a crash");
    assert_eq!(again.count, 2);
    let alice = desk
        .ledger
        .agent(&name("alice"))
        .await
        .expect("a read")
        .expect("alice");
    assert_eq!(alice.gates.len(), 1, "planning sees that it is under way");

    let life = Change::Life {
        uid: uid(1),
        life: AgentLife::Active,
    };
    desk.ledger
        .complete(Some(uid(1)), step(), Some(id), vec![life], days_later(1))
        .await
        .expect("it is done");
    let alice = desk
        .ledger
        .agent(&name("alice"))
        .await
        .expect("a read")
        .expect("alice");
    assert_eq!(alice.record.life, AgentLife::Active);
    assert!(alice.attempts.is_empty() && alice.gates.is_empty());
    assert_eq!(gate_now(&desk, id).await.completed_at, Some(days_later(1)));
    assert_eq!(
        refused(begin(&desk, Some(id), "deploy").await),
        "its effect was carried out already"
    );
}

#[tokio::test]
async fn completion_is_all_or_nothing() {
    let desk = Desk::with_alice().await;
    let id = desk.open_gate(auto("deploy")).await;
    begin(&desk, Some(id), "deploy").await.expect("it begins");
    let wrong = Change::Life {
        uid: uid(9),
        life: AgentLife::Active,
    };
    let failed = desk
        .ledger
        .complete(Some(uid(1)), step(), Some(id), vec![wrong], now())
        .await;
    assert!(matches!(failed, Err(LedgerError::UnknownAgent(_))));
    assert!(attempt(&desk).await.is_some());
    assert_eq!(gate_now(&desk, id).await.completed_at, None);
}

#[tokio::test]
async fn a_failure_is_remembered_and_a_new_try_counts_on() {
    let desk = Desk::with_alice().await;
    begin(&desk, None, "free").await.expect("it begins");
    desk.ledger
        .fail(
            Some(uid(1)),
            step(),
            "it broke".into(),
            days_later(2),
            true,
            now(),
        )
        .await
        .expect("a write");
    let failed = attempt(&desk).await.expect("an attempt");
    assert_eq!(
        (failed.count, failed.in_flight, failed.terminal),
        (1, false, true)
    );
    assert_eq!(
        (failed.error.as_str(), failed.next_at),
        ("it broke", days_later(2))
    );
    let again = begin(&desk, None, "free").await.expect("it begins again");
    assert_eq!(
        (again.count, again.terminal, again.error.as_str()),
        (2, false, "it broke")
    );

    desk.apply(vec![Change::Forget { uid: uid(1) }]).await;
    assert_eq!(attempt(&desk).await, None);
    desk.ledger
        .fail(Some(uid(1)), step(), "late".into(), now(), false, now())
        .await
        .expect("a write");
    assert_eq!(attempt(&desk).await.expect("an attempt").error, "late");
}

#[tokio::test]
async fn the_hive_has_attempts_of_its_own() {
    let desk = Desk::with_alice().await;
    let begun = desk
        .ledger
        .begin(None, step(), None, &digest("x"), now(), now())
        .await
        .expect("it begins");
    assert_eq!(attempt(&desk).await, None);
    let of_hive = desk.ledger.hive_attempts().await.expect("a read");
    assert_eq!(of_hive, BTreeMap::from([(step(), begun)]));
    let unknown = desk
        .ledger
        .begin(Some(uid(9)), step(), None, &digest("x"), now(), now())
        .await;
    assert!(matches!(
        unknown,
        Err(BeginError::Ledger(LedgerError::UnknownAgent(_)))
    ));
}

#[tokio::test]
async fn an_abandoned_step_spends_its_gate_and_both_sides_are_told() {
    let desk = Desk::with_alice().await;
    let begun = desk.open_gate(auto("begun")).await;
    begin(&desk, Some(begun), "begun").await.expect("it begins");
    let unused = desk.open_gate(auto("unused")).await;
    for id in [begun, unused] {
        desk.ledger
            .abandon(Some(uid(1)), step(), Some(id), "main moved".into(), now())
            .await
            .expect("a write");
    }
    let spent = gate_now(&desk, begun).await;
    assert_eq!(
        (spent.state, spent.completed_at, spent.ended_because.as_deref()),
        (GateState::Consumed, Some(now()), Some("main moved"))
    );
    assert_eq!(gate_now(&desk, unused).await.state, GateState::Superseded);
    assert_eq!(
        refused(begin(&desk, Some(begun), "begun").await),
        "its effect was carried out already"
    );
    assert_eq!(attempt(&desk).await, None);
    let alice = desk
        .ledger
        .agent(&name("alice"))
        .await
        .expect("a read")
        .expect("alice");
    assert_eq!(alice.inbox, 2);
    let events = desk.ledger.events(0, 100).await.expect("a read");
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "gateAutoApproved",
            "gateAutoApproved",
            "gateWithdrawn",
            "gateSuperseded"
        ]
    );
}
