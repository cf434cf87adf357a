use shared::event::Level;
use shared::gate::GateState;

use super::*;
use crate::ledger::error::{DecideError, LedgerError};
use crate::model::records::AgentLife;

async fn decide(desk: &Desk, id: GateId, approve: bool, of: &str) -> Result<(), DecideError> {
    desk.ledger
        .decide(
            id,
            approve,
            "unix:root".into(),
            "because".into(),
            digest(of),
            now(),
        )
        .await
        .map(drop)
}

async fn state(desk: &Desk, id: GateId) -> GateState {
    desk.ledger
        .gate(id)
        .await
        .expect("a read")
        .expect("a gate")
        .gate
        .state
}

async fn kinds(desk: &Desk) -> Vec<String> {
    let events = desk.ledger.events(0, 1000).await.expect("a read");
    events.into_iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn a_gate_comes_back_as_it_was_opened() {
    let desk = Desk::with_alice().await;
    let new = NewGate {
        proposal: Some(ProposalNumber(3)),
        commit: Some(commit('b')),
        system: Some("/systems/b".into()),
        ..gate("deploy")
    };
    let id = desk.open_gate(new.clone()).await;
    let record = desk.ledger.gate(id).await.expect("a read").expect("a gate");
    assert_eq!(record.step, new.step);
    let gate = &record.gate;
    assert_eq!((gate.state, gate.opened_at), (GateState::Open, now()));
    assert_eq!((&gate.agent, gate.uid), (&new.agent, new.uid));
    assert_eq!(
        (gate.proposal, &gate.commit, &gate.system),
        (new.proposal, &new.commit, &new.system)
    );
    assert_eq!(
        (&gate.view, &gate.digest, gate.class),
        (&new.view, &new.digest, new.class)
    );
    let events = desk.ledger.events(0, 10).await.expect("a read");
    assert_eq!(
        (events[0].kind.as_str(), events[0].level),
        ("gateOpened", Level::Alert)
    );
    assert_eq!(
        desk.ledger.gates(false).await.expect("a read").items,
        [record.gate]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_racing_decisions_exactly_one_is_recorded() {
    let desk = Desk::with_alice().await;
    for round in 0..20 {
        let effect = format!("deploy {round}");
        let id = desk.open_gate(gate(&effect)).await;
        let race = |approve| {
            let (ledger, digest) = (desk.ledger.clone(), digest(&effect));
            tokio::spawn(async move {
                ledger
                    .decide(id, approve, "unix:root".into(), String::new(), digest, now())
                    .await
            })
        };
        let (yes, no) = (race(true), race(false));
        let (yes, no) = (yes.await.expect("no panic"), no.await.expect("no panic"));
        let (won, lost) = match (yes, no) {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            both => panic!("{both:?}"),
        };
        let DecideError::NotOpen { state, decision, .. } = lost else {
            panic!("{lost}");
        };
        assert_eq!(state, won.state);
        assert_eq!(decision.as_deref(), won.decision.as_ref());
    }
}

#[tokio::test]
async fn a_decision_must_quote_what_the_gate_asks_for() {
    let desk = Desk::with_alice().await;
    let id = desk.open_gate(gate("deploy")).await;
    let moved = decide(&desk, id, true, "something else").await;
    assert!(matches!(moved, Err(DecideError::Moved { current, .. }) if current == digest("deploy")));
    assert_eq!(state(&desk, id).await, GateState::Open);
    let missing = decide(&desk, GateId(77), true, "deploy").await;
    assert!(matches!(missing, Err(DecideError::NotFound(GateId(77)))));
    let beyond = decide(&desk, GateId(u64::MAX), true, "deploy").await;
    assert!(matches!(beyond, Err(DecideError::NotFound(_))));
}

#[tokio::test]
async fn the_schema_itself_keeps_decisions_and_gates() {
    let desk = Desk::with_alice().await;
    let decided = desk.open_gate(gate("deploy")).await;
    decide(&desk, decided, false, "deploy").await.expect("a decision");
    let open = desk.open_gate(gate("other")).await;
    let raw = desk.raw();
    for (sql, id) in [
        ("UPDATE decisions SET approve = 1 WHERE gate = ?1", decided),
        ("DELETE FROM decisions WHERE gate = ?1", decided),
        ("UPDATE gates SET state = 'consumed' WHERE id = ?1", decided),
        ("UPDATE gates SET state = 'consumed' WHERE id = ?1", open),
        ("UPDATE gates SET digest = 'x' WHERE id = ?1", open),
        ("UPDATE gates SET step = '{}' WHERE id = ?1", open),
    ] {
        let refused = raw.execute(sql, [i64::try_from(id.0).expect("small")]);
        assert!(refused.is_err(), "{sql}");
    }
    let forged =
        raw.execute_batch("UPDATE gates SET state = 'approved'; UPDATE gates SET state = 'consumed';");
    assert!(forged.is_err(), "a gate without an approval was consumed");
}

#[tokio::test]
async fn a_denial_ends_the_proposal_and_tells_the_agent() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![propose(1, proposal(1))]).await;
    let id = desk
        .open_gate(NewGate {
            proposal: Some(ProposalNumber(1)),
            ..gate("deploy")
        })
        .await;
    decide(&desk, id, false, "deploy").await.expect("a decision");
    assert_eq!(state(&desk, id).await, GateState::Denied);

    let alice = desk
        .ledger
        .agent(&name("alice"))
        .await
        .expect("a read")
        .expect("alice");
    let denied = &alice.proposals[0];
    assert_eq!(denied.phase, ProposalPhase::Denied);
    let mark = &denied.marks[&ProposalPhase::Denied];
    assert_eq!(
        (mark.gate, mark.digest.as_ref()),
        (Some(id), Some(&digest("deploy")))
    );
    assert_eq!(
        (mark.by.as_deref(), mark.reason.as_str()),
        (Some("unix:root"), "because")
    );
    assert_eq!(alice.inbox, 1);
    let body: String = desk
        .raw()
        .query_row(
            "SELECT body FROM messages WHERE from_addr = 'system'",
            [],
            |row| row.get(0),
        )
        .expect("a message");
    assert!(body.contains("because") && body.contains("do deploy"), "{body}");
    assert_eq!(kinds(&desk).await, ["gateOpened", "gateDenied"]);
}

#[tokio::test]
async fn a_phase_that_was_planned_before_a_decision_does_not_undo_it() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![propose(1, proposal(1))]).await;
    let phase = |phase| Change::Phase {
        uid: uid(1),
        number: ProposalNumber(1),
        phase,
        mark: mark(),
    };
    desk.apply(vec![phase(ProposalPhase::Building)]).await;
    let id = desk
        .open_gate(NewGate {
            proposal: Some(ProposalNumber(1)),
            ..gate("deploy")
        })
        .await;
    // What a pass that saw it being built is about to write.
    let planned = vec![
        Change::InPhase {
            uid: uid(1),
            number: ProposalNumber(1),
            phase: ProposalPhase::Building,
        },
        Change::Life {
            uid: uid(1),
            life: AgentLife::Declared,
        },
        phase(ProposalPhase::Proposed),
    ];
    decide(&desk, id, false, "deploy").await.expect("a decision");
    let look = async || {
        desk.ledger
            .agent(&name("alice"))
            .await
            .expect("a read")
            .expect("alice")
    };
    let before = look().await;
    let written = desk.ledger.apply(planned).await;
    assert!(
        matches!(written, Err(LedgerError::Overtaken { .. })),
        "{written:?}"
    );
    assert_eq!(before.proposals[0].phase, ProposalPhase::Denied);
    assert_eq!(look().await, before, "nothing of it happens");
}

#[tokio::test]
async fn an_approval_moves_the_proposal_but_the_approval_of_its_build_does_not() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![propose(1, proposal(1))]).await;
    let phase = async || {
        let alice = desk
            .ledger
            .agent(&name("alice"))
            .await
            .expect("a read")
            .expect("alice");
        alice.proposals[0].phase
    };
    let build = NewGate {
        class: GateClass::Build,
        proposal: Some(ProposalNumber(1)),
        ..gate("build")
    };
    let id = desk.open_gate(build).await;
    decide(&desk, id, true, "build").await.expect("a decision");
    assert_eq!(phase().await, ProposalPhase::Proposed);

    let deploy = NewGate {
        proposal: Some(ProposalNumber(1)),
        ..gate("deploy")
    };
    let id = desk.open_gate(deploy).await;
    decide(&desk, id, true, "deploy").await.expect("a decision");
    assert_eq!(phase().await, ProposalPhase::Approved);
}

#[tokio::test]
async fn a_policy_approves_by_a_decision_of_its_own() {
    let desk = Desk::with_alice().await;
    let id = desk.open_gate(auto("deploy")).await;
    let gate = desk.ledger.gate(id).await.expect("a read").expect("a gate").gate;
    assert_eq!(gate.state, GateState::Approved);
    let decision = gate.decision.expect("a decision");
    assert_eq!(decision.by, "policy:spec.deployWidens=auto");
    assert_eq!(decision.digest, gate.digest);
    assert_eq!(kinds(&desk).await, ["gateAutoApproved"]);
}

#[tokio::test]
async fn no_policy_approves_what_only_a_person_may() {
    let desk = Desk::with_alice().await;
    let purge = NewGate {
        class: GateClass::Purge,
        ..auto("purge")
    };
    let actions = vec![
        GateAction::Open(Box::new(gate("deploy"))),
        GateAction::Open(Box::new(purge)),
    ];
    let refused = desk.ledger.sync_gates(actions, now()).await;
    assert!(matches!(refused, Err(LedgerError::NeverAuto(GateClass::Purge))));
    assert!(
        desk.ledger.gates(true).await.expect("a read").items.is_empty(),
        "all or nothing"
    );
}

#[tokio::test]
async fn an_unchanged_effect_never_asks_twice() {
    let desk = Desk::with_alice().await;
    let id = desk.open_gate(gate("deploy")).await;
    assert_eq!(desk.open_gate(gate("deploy")).await, id);
    assert_eq!(desk.open_gate(auto("deploy")).await, id);
    assert_eq!(
        state(&desk, id).await,
        GateState::Approved,
        "the policy changed its mind"
    );
    assert_eq!(desk.open_gate(gate("deploy")).await, id);
    assert_ne!(desk.open_gate(gate("other")).await, id);
    assert_eq!(
        kinds(&desk).await,
        ["gateOpened", "gateAutoApproved", "gateOpened"]
    );
}

#[tokio::test]
async fn ending_a_gate_does_not_undo_a_decision() {
    let desk = Desk::with_alice().await;
    let (open, approved, denied) = (
        desk.open_gate(gate("open")).await,
        desk.open_gate(gate("approved")).await,
        desk.open_gate(gate("denied")).await,
    );
    decide(&desk, approved, true, "approved")
        .await
        .expect("a decision");
    decide(&desk, denied, false, "denied").await.expect("a decision");
    let end = |gate| GateAction::End {
        gate,
        reason: "it is gone".into(),
    };
    let ids = vec![open, approved, denied];
    let actions = ids.iter().copied().map(end).collect();
    assert_eq!(
        desk.ledger.sync_gates(actions, now()).await.expect("a write"),
        ids
    );
    assert_eq!(state(&desk, open).await, GateState::Superseded);
    assert_eq!(state(&desk, approved).await, GateState::Superseded);
    assert_eq!(state(&desk, denied).await, GateState::Denied);
    let late = decide(&desk, open, true, "open").await;
    assert!(matches!(
        late,
        Err(DecideError::NotOpen {
            state: GateState::Superseded,
            ..
        })
    ));
    let missing = desk.ledger.sync_gates(vec![end(GateId(77))], now()).await;
    assert!(matches!(missing, Err(LedgerError::UnknownGate(GateId(77)))));
}

#[tokio::test]
async fn planning_sees_the_gates_that_can_still_matter() {
    let desk = Desk::with_alice().await;
    let first = desk.open_gate(gate("no")).await;
    decide(&desk, first, false, "no").await.expect("a decision");
    let second = desk.open_gate(gate("no")).await;
    decide(&desk, second, false, "no").await.expect("a decision");
    let gone = desk.open_gate(gate("gone")).await;
    let end = GateAction::End {
        gate: gone,
        reason: String::new(),
    };
    desk.ledger.sync_gates(vec![end], now()).await.expect("a write");
    let open = desk.open_gate(gate("open")).await;
    let hive = desk
        .open_gate(NewGate {
            agent: None,
            uid: None,
            ..gate("removal")
        })
        .await;

    let alice = desk
        .ledger
        .agent(&name("alice"))
        .await
        .expect("a read")
        .expect("alice");
    let seen: Vec<_> = alice.gates.iter().map(|record| record.gate.id).collect();
    assert_eq!(seen, [second, open]);
    let hive_gates = desk.ledger.hive_gates().await.expect("a read");
    assert_eq!(hive_gates.len(), 1);
    assert_eq!(hive_gates[0].gate.id, hive);
    assert_eq!(desk.ledger.gates(true).await.expect("a read").items.len(), 5);
}

#[tokio::test]
async fn subscribers_learn_of_events_once_they_can_be_read() {
    let desk = Desk::with_alice().await;
    let mut last = desk.ledger.subscribe();
    assert_eq!(*last.borrow_and_update(), 0);
    desk.open_gate(gate("deploy")).await;
    assert!(
        last.has_changed().expect("open"),
        "the write returned, so it was announced"
    );
    let seq = *last.borrow_and_update();
    assert_eq!(seq, 1);
    assert_eq!(desk.ledger.events(0, 10).await.expect("a read")[0].seq, seq);
    assert!(desk.ledger.events(seq, 10).await.expect("a read").is_empty());
    let refused = desk
        .ledger
        .sync_gates(
            vec![GateAction::Open(Box::new(NewGate {
                uid: Some(uid(9)),
                ..gate("x")
            }))],
            now(),
        )
        .await;
    assert!(matches!(refused, Err(LedgerError::UnknownAgent(_))));
    assert!(
        !last.has_changed().expect("open"),
        "what was undone is not announced"
    );
}
