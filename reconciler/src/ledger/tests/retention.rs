use shared::event::Level;
use shared::gate::GateState;

use super::*;
use crate::ledger::Pruned;
use crate::model::records::BuildState;

fn events(count: usize, at: Timestamp) -> Vec<Change> {
    let event = Change::Event {
        agent: None,
        level: Level::Info,
        kind: "tick",
        message: String::new(),
        data: json!(null),
        at,
    };
    vec![event; count]
}

async fn gate_ids(desk: &Desk) -> Vec<u64> {
    let gates = desk.ledger.gates(true).await.expect("a read").items;
    gates.into_iter().map(|gate| gate.id.0).collect()
}

async fn finish(desk: &Desk, id: GateId, effect: &str) {
    let step = digest(effect);
    desk.ledger
        .begin(
            Some(uid(1)),
            step.clone(),
            Some(id),
            &digest(effect),
            now(),
            now(),
        )
        .await
        .expect("it begins");
    desk.ledger
        .complete(Some(uid(1)), step, Some(id), Vec::new(), now())
        .await
        .expect("it is done");
}

async fn supersede(desk: &Desk, gate: GateId) {
    let end = GateAction::End {
        gate,
        reason: "replaced".into(),
    };
    desk.ledger.sync_gates(vec![end], now()).await.expect("a write");
}

#[tokio::test]
async fn decisions_of_people_are_kept_for_good_and_those_of_policies_for_a_week() {
    let desk = Desk::with_alice().await;
    let by_person = desk.open_gate(gate("by a person")).await;
    desk.approve(by_person, &digest("by a person")).await;
    finish(&desk, by_person, "by a person").await;
    let by_policy = desk.open_gate(auto("by a policy")).await;
    finish(&desk, by_policy, "by a policy").await;
    let in_use = desk.open_gate(auto("in use")).await;
    finish(&desk, in_use, "in use").await;
    desk.apply(vec![Change::Deployed {
        uid: uid(1),
        deployed: Some(deployed(in_use)),
    }])
    .await;
    let under_way = desk.open_gate(auto("under way")).await;

    assert_eq!(desk.ledger.prune(days_later(6)).await.expect("a write").gates, 0);
    assert_eq!(desk.ledger.prune(days_later(8)).await.expect("a write").gates, 1);
    assert_eq!(gate_ids(&desk).await, [by_person.0, in_use.0, under_way.0]);
    assert_eq!(
        desk.ledger.prune(days_later(8)).await.expect("a write"),
        Pruned::default()
    );
}

#[tokio::test]
async fn two_superseded_gates_are_kept_and_all_that_a_person_decided() {
    let desk = Desk::with_alice().await;
    let decided = desk.open_gate(gate("decided")).await;
    desk.approve(decided, &digest("decided")).await;
    supersede(&desk, decided).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let id = desk.open_gate(gate(&format!("deploy {number}"))).await;
        supersede(&desk, id).await;
        ids.push(id.0);
    }
    assert_eq!(desk.ledger.prune(now()).await.expect("a write").gates, 3);
    assert_eq!(gate_ids(&desk).await, [decided.0, ids[3], ids[4]]);
    let kept = desk
        .ledger
        .gate(decided)
        .await
        .expect("a read")
        .expect("a gate")
        .gate;
    assert_eq!(kept.state, GateState::Superseded);
    assert!(kept.decision.is_some());
}

#[tokio::test]
async fn a_thousand_events_are_kept_however_old_and_numbers_go_on() {
    let desk = Desk::new().await;
    desk.apply(events(1200, now())).await;
    assert_eq!(
        desk.ledger.prune(days_later(29)).await.expect("a write").events,
        0
    );
    assert_eq!(
        desk.ledger.prune(days_later(31)).await.expect("a write").events,
        200
    );
    let rest = desk.ledger.events(0, 1000).await.expect("a read");
    assert_eq!((rest.len(), rest[0].seq), (1000, 201));
    desk.apply(events(1, now())).await;
    assert_eq!(desk.ledger.last_seq().await.expect("a read"), 1201);
}

#[tokio::test]
async fn builds_are_kept_while_a_proposal_may_wait_on_them() {
    let desk = Desk::with_alice().await;
    let built = |number: i64| Change::Built {
        uid: uid(1),
        key: digest(&number.to_string()),
        state: BuildState::Failed { error: String::new() },
        at: days_later(number),
    };
    desk.apply((0..30).map(built).collect()).await;
    let open: Vec<_> = (1..=4).map(|number| propose(1, proposal(number))).collect();
    desk.apply(open).await;
    assert_eq!(desk.ledger.prune(now()).await.expect("a write").builds, 6);
    desk.apply(
        (1..=4)
            .map(|number| Change::Phase {
                uid: uid(1),
                number: ProposalNumber(number),
                phase: ProposalPhase::Failed,
                mark: mark(),
            })
            .collect(),
    )
    .await;
    assert_eq!(desk.ledger.prune(now()).await.expect("a write").builds, 8);
    let alice = desk
        .ledger
        .agent(&name("alice"))
        .await
        .expect("a read")
        .expect("alice");
    assert_eq!(alice.builds.len(), 16);
    assert!(alice.builds.contains_key(&digest("29")) && !alice.builds.contains_key(&digest("13")));
}

#[tokio::test]
async fn the_same_plan_again_only_counts() {
    let desk = Desk::with_alice().await;
    let record = |plan: &str, at| {
        desk.ledger.record_plan(
            Some(uid(1)),
            Some(name("alice")),
            digest(plan),
            format!("plan {plan}"),
            json!({}),
            at,
        )
    };
    record("a", now()).await.expect("a write");
    record("a", days_later(1)).await.expect("a write");
    record("b", days_later(2)).await.expect("a write");
    record("a", days_later(3)).await.expect("a write");
    let history = desk
        .ledger
        .history(Some(name("alice")), 10)
        .await
        .expect("a read");
    let told: Vec<_> = history
        .iter()
        .map(|entry| (entry.summary.as_str(), entry.at))
        .collect();
    assert_eq!(
        told,
        [
            ("plan a", days_later(3)),
            ("plan b", days_later(2)),
            ("plan a (planned 2 times)", days_later(1))
        ]
    );
    for number in 0..210 {
        record(&number.to_string(), now()).await.expect("a write");
    }
    assert_eq!(desk.ledger.prune(now()).await.expect("a write").plans, 13);
}

#[tokio::test]
async fn history_tells_decisions_proposals_and_the_spec() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![register("bob", 2), propose(1, proposal(1))])
        .await;
    desk.ledger
        .store_spec("{}".into(), digest("spec"), 3, now())
        .await
        .expect("a write");
    let id = desk.open_gate(gate("deploy")).await;
    desk.ledger
        .decide(
            id,
            true,
            "unix:root".into(),
            "looks good".into(),
            digest("deploy"),
            days_later(1),
        )
        .await
        .expect("a decision");
    let history = desk.ledger.history(None, 10).await.expect("a read");
    let told: Vec<_> = history.iter().map(|entry| entry.summary.as_str()).collect();
    assert_eq!(
        told,
        [
            "unix:root approved do deploy: looks good",
            "proposal 1 of alice (aaaaaaaaaa, proposed): Adds a server",
            "spec generation 3 came into force",
        ]
    );
    assert_eq!(
        (history[0].gate, history[0].kind.as_str()),
        (Some(id), "decision")
    );
    assert!(
        desk.ledger
            .history(Some(name("bob")), 10)
            .await
            .expect("a read")
            .is_empty()
    );
    assert_eq!(desk.ledger.history(None, 1).await.expect("a read").len(), 1);

    desk.raw()
        .execute("UPDATE proposals SET doc = '{}'", [])
        .expect("a bad row");
    let history = desk
        .ledger
        .history(Some(name("alice")), 10)
        .await
        .expect("a read");
    assert_eq!(history[1].kind, "proposal");
    assert!(
        history[1].summary.contains("table proposals"),
        "{}",
        history[1].summary
    );
}
