use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::trace::TraceEventCodes;
use shared::event::Level;
use shared::spec::RunState;
use shared::topic::Topic;

use super::*;
use crate::ledger::agents::load;
use crate::ledger::error::{LedgerError, Undecodable};
use crate::model::change::Notice;
use crate::model::records::{AgentLedger, AgentLife, BuildState, Failures, Override, Probation, Quarantine};
use crate::model::user_range::UserRange;

async fn alice(desk: &Desk) -> AgentLedger {
    desk.ledger
        .agent(&name("alice"))
        .await
        .expect("a read")
        .expect("alice")
}

fn failed_build(key: &str, at: Timestamp) -> Change {
    Change::Built {
        uid: uid(1),
        key: digest(key),
        state: BuildState::Failed { error: "no".into() },
        at,
    }
}

fn notify(agent: &str, dedupe: &str) -> Change {
    Change::Notify {
        agent: name(agent),
        notice: Notice {
            topic: Topic::Order,
            body: "hello".into(),
            dedupe: dedupe.into(),
            at: now(),
        },
    }
}

fn quarantine() -> Quarantine {
    Quarantine {
        reason: "unhealthy".into(),
        since: now(),
    }
}

/// One change of each kind that belongs to an agent.
fn one_of_each() -> Vec<Change> {
    let uid = uid(1);
    vec![
        Change::Life {
            uid,
            life: AgentLife::Active,
        },
        Change::Seeded {
            uid,
            commit: commit('a'),
        },
        Change::Deployed {
            uid,
            deployed: Some(deployed(GateId(1))),
        },
        Change::LastGood {
            uid,
            deployed: deployed(GateId(2)),
        },
        Change::RestartBefore { uid, at: now() },
        propose(1, proposal(1)),
        Change::Phase {
            uid,
            number: ProposalNumber(1),
            phase: ProposalPhase::Building,
            mark: mark(),
        },
        failed_build("failed", now()),
        Change::Built {
            uid,
            key: digest("built"),
            state: BuildState::Built(Box::new(deployed(GateId(1)).output)),
            at: now(),
        },
        Change::Probation {
            uid,
            probation: Some(Probation {
                system: "/systems/a".into(),
                since: now(),
                window_secs: 60,
                active_secs: 0,
                active_since: None,
                failed_starts: 0,
                watched: BTreeSet::new(),
                gate: GateId(1),
                proposal: None,
                updates_base: false,
            }),
        },
        Change::Quarantine {
            uid,
            system: "/systems/b".into(),
            quarantine: quarantine(),
        },
        Change::RunOverride {
            uid,
            run: Some(Override {
                value: RunState::Stopped,
                by: "unix:root".into(),
                reason: String::new(),
                since: now(),
                until: None,
                over: None,
            }),
        },
        Change::Failures {
            uid,
            failures: Failures {
                count: 2,
                last_at: Some(now()),
                last: "crashed".into(),
            },
        },
        Change::Event {
            agent: Some(name("alice")),
            level: Level::Info,
            kind: "somethingHappened",
            message: "it did".into(),
            data: json!({ "n": 1 }),
            at: now(),
        },
        notify("alice", "one"),
    ]
}

#[tokio::test]
async fn every_change_comes_back_as_it_was_made() {
    let desk = Desk::with_alice().await;
    desk.apply(one_of_each()).await;
    let alice = alice(&desk).await;
    let record = &alice.record;
    assert_eq!(
        (&record.life, record.origin),
        (&AgentLife::Active, AgentOrigin::Spec)
    );
    assert_eq!((record.declared_at, &record.seed), (now(), &Some(commit('a'))));
    assert_eq!(record.deployed, Some(*deployed(GateId(1))));
    assert_eq!(record.last_good, Some(*deployed(GateId(2))));
    assert_eq!(record.restart_before, Some(now()));
    assert_eq!(alice.proposals[0].phase, ProposalPhase::Building);
    assert_eq!(alice.proposals[0].marks.len(), 2);
    assert_eq!(alice.builds.len(), 2);
    assert_eq!(alice.probation.as_ref().map(|p| p.window_secs), Some(60));
    assert_eq!(alice.quarantine["/systems/b"], quarantine());
    assert!(alice.overrides.run.is_some());
    assert_eq!(alice.failures.count, 2);
    assert_eq!(alice.inbox, 1);
    let events = desk
        .ledger
        .events_about(&name("alice"), 10)
        .await
        .expect("a read");
    assert_eq!(
        (events[0].kind.as_str(), &events[0].data),
        ("somethingHappened", &json!({ "n": 1 }))
    );
    assert_eq!(desk.ledger.agent_ledgers().await.expect("a read").items, [alice]);
    assert_eq!(
        desk.ledger.next_proposal(uid(1)).await.expect("a read"),
        ProposalNumber(2)
    );
}

#[tokio::test]
async fn what_says_nothing_leaves_no_row() {
    let desk = Desk::with_alice().await;
    desk.apply(one_of_each()).await;
    let uid = uid(1);
    desk.apply(vec![
        Change::Probation { uid, probation: None },
        Change::RunOverride { uid, run: None },
        Change::Failures {
            uid,
            failures: Failures::default(),
        },
        Change::Forget { uid },
    ])
    .await;
    let alice = alice(&desk).await;
    assert!(alice.probation.is_none() && alice.quarantine.is_empty());
    assert_eq!(alice.builds.keys().collect::<Vec<_>>(), [&digest("built")]);
    let rows: i64 = desk
        .raw()
        .query_row(
            "SELECT (SELECT count(*) FROM probations) + (SELECT count(*) FROM overrides) + (SELECT count(*) FROM failures)",
            [],
            |row| row.get(0),
        )
        .expect("a count");
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_list_of_changes_is_applied_whole_or_not_at_all() {
    let desk = Desk::with_alice().await;
    let mut changes = one_of_each();
    changes.push(Change::Seeded {
        uid: uid(9),
        commit: commit('b'),
    });
    let before = alice(&desk).await;
    let failed = desk.ledger.apply(changes).await;
    assert!(matches!(failed, Err(LedgerError::UnknownAgent(unknown)) if unknown == uid(9)));
    assert_eq!(alice(&desk).await, before);
    assert_eq!(desk.ledger.last_seq().await.expect("a read"), 0);
}

#[tokio::test]
async fn every_change_of_an_unknown_agent_is_an_error() {
    let desk = Desk::new().await;
    for change in one_of_each() {
        if matches!(change, Change::Event { .. } | Change::Notify { .. }) {
            continue;
        }
        let text = format!("{change:?}");
        let failed = desk.ledger.apply(vec![change]).await;
        assert!(
            matches!(failed, Err(LedgerError::UnknownAgent(_))),
            "{text}: {failed:?}"
        );
    }
}

#[tokio::test]
async fn a_name_belongs_to_one_agent_at_a_time() {
    let desk = Desk::with_alice().await;
    let taken = desk.ledger.apply(vec![register("alice", 2)]).await;
    assert!(matches!(taken, Err(LedgerError::NameInUse { uid: owner, .. }) if owner == uid(1)));
    let same = desk.ledger.apply(vec![register("bob", 1)]).await;
    assert!(matches!(same, Err(LedgerError::UidInUse(_))));

    let archive = |number| Change::Life {
        uid: uid(number),
        life: AgentLife::Archived { since: now() },
    };
    desk.apply(vec![notify("alice", "old"), archive(1), register("alice", 2)])
        .await;
    assert_eq!(alice(&desk).await.record.uid, uid(2));
    assert_eq!(
        alice(&desk).await.inbox,
        0,
        "she does not get her predecessor's mail"
    );
    assert_eq!(desk.ledger.archived().await.expect("a read").items[0].uid, uid(1));
    let events = desk.ledger.events(0, 10).await.expect("a read");
    assert_eq!(events[0].kind, "messageDead");
    let back = Change::Life {
        uid: uid(1),
        life: AgentLife::Active,
    };
    assert!(matches!(
        desk.ledger.apply(vec![back]).await,
        Err(LedgerError::NameInUse { .. })
    ));
    desk.apply(vec![notify("alice", "old")]).await;
    assert_eq!(
        alice(&desk).await.inbox,
        1,
        "an id used for her predecessor is free"
    );
}

#[tokio::test]
async fn a_proposal_number_is_used_once() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![propose(1, proposal(1))]).await;
    let again = desk.ledger.apply(vec![propose(1, proposal(1))]).await;
    assert!(matches!(again, Err(LedgerError::ProposalExists { .. })));
    let unknown = Change::Phase {
        uid: uid(1),
        number: ProposalNumber(2),
        phase: ProposalPhase::Failed,
        mark: mark(),
    };
    assert!(matches!(
        desk.ledger.apply(vec![unknown]).await,
        Err(LedgerError::UnknownProposal { .. })
    ));
}

#[tokio::test]
async fn a_look_from_before_a_decision_does_not_take_the_decision_back() {
    let desk = Desk::with_alice().await;
    let phase = |phase| Change::Phase {
        uid: uid(1),
        number: ProposalNumber(1),
        phase,
        mark: mark(),
    };
    desk.apply(vec![propose(1, proposal(1)), phase(ProposalPhase::Denied)])
        .await;
    // Planned while its gate was open, carried out after the operator had denied it.
    for late in [
        ProposalPhase::Proposed,
        ProposalPhase::Building,
        ProposalPhase::Failed,
    ] {
        desk.apply(vec![phase(late)]).await;
        assert_eq!(
            alice(&desk).await.proposals[0].phase,
            ProposalPhase::Denied,
            "{late:?}"
        );
    }
    desk.apply(vec![propose(1, proposal(2))]).await;
    let second = |phase| Change::Phase {
        uid: uid(1),
        number: ProposalNumber(2),
        phase,
        mark: mark(),
    };
    desk.apply(vec![
        second(ProposalPhase::Deployed),
        second(ProposalPhase::Failed),
    ])
    .await;
    assert_eq!(
        alice(&desk).await.proposals[1].phase,
        ProposalPhase::Failed,
        "what is deployed may still fail its probation"
    );
}

#[tokio::test]
async fn a_proposal_that_comes_back_from_its_build_was_offered_when_it_was_offered() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![propose(1, proposal(1))]).await;
    let later = Mark {
        at: now() + jiff::SignedDuration::from_secs(5),
        ..mark()
    };
    for phase in [ProposalPhase::Building, ProposalPhase::Proposed] {
        desk.apply(vec![Change::Phase {
            uid: uid(1),
            number: ProposalNumber(1),
            phase,
            mark: later.clone(),
        }])
        .await;
    }
    let marks = &alice(&desk).await.proposals[0].marks;
    assert_eq!(marks[&ProposalPhase::Proposed], mark());
    assert_eq!(marks[&ProposalPhase::Building], later);
}

#[tokio::test]
async fn what_follows_from_a_phase_is_void_once_somebody_decided() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![propose(1, proposal(1))]).await;
    let number = ProposalNumber(1);
    let phase = |phase| Change::Phase {
        uid: uid(1),
        number,
        phase,
        mark: mark(),
    };
    let planned_from = |phase| Change::InPhase {
        uid: uid(1),
        number,
        phase,
    };
    let building = [
        planned_from(ProposalPhase::Proposed),
        phase(ProposalPhase::Building),
    ];
    desk.apply(building.into()).await;
    desk.apply(vec![phase(ProposalPhase::Denied)]).await;
    let late = [
        notify("alice", "x"),
        planned_from(ProposalPhase::Building),
        phase(ProposalPhase::Proposed),
    ];
    let refused = desk.ledger.apply(late.into()).await;
    assert!(
        matches!(refused, Err(LedgerError::Overtaken { .. })),
        "{refused:?}"
    );
    let agent = desk.ledger.agent(&name("alice")).await.unwrap().unwrap();
    assert_eq!(agent.proposals[0].phase, ProposalPhase::Denied);
    assert_eq!(agent.inbox, 0, "all of it is void");
}

#[tokio::test]
async fn the_daemon_says_a_thing_once_and_never_fails_over_it() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![register("bob", 2)]).await;
    desk.apply(vec![
        notify("alice", "x"),
        notify("alice", "x"),
        notify("bob", "x"),
    ])
    .await;
    assert_eq!(alice(&desk).await.inbox, 1);
    let bob = desk
        .ledger
        .agent(&name("bob"))
        .await
        .expect("a read")
        .expect("bob");
    assert_eq!(bob.inbox, 1, "another agent's message has another id");
    desk.apply(vec![notify("nobody", "x")]).await;
    let events = desk.ledger.events(0, 10).await.expect("a read");
    assert_eq!(events[0].kind, "messageUndeliverable");
}

#[tokio::test]
async fn planning_sees_unfinished_proposals_however_old_they_are() {
    let desk = Desk::with_alice().await;
    let mut changes: Vec<_> = (1..=40).map(|number| propose(1, proposal(number))).collect();
    changes.extend((2..=40).map(|number| Change::Phase {
        uid: uid(1),
        number: ProposalNumber(number),
        phase: ProposalPhase::Denied,
        mark: mark(),
    }));
    desk.apply(changes).await;
    let seen: Vec<u64> = alice(&desk).await.proposals.iter().map(|p| p.number.0).collect();
    let expected: Vec<u64> = [1].into_iter().chain(21..=40).collect();
    assert_eq!(seen, expected);
    let listed = desk.ledger.proposals(&name("alice")).await.expect("a read").items;
    assert_eq!((listed.len(), listed[0].number), (40, ProposalNumber(40)));
    assert!(
        desk.ledger
            .proposals(&name("bob"))
            .await
            .expect("a read")
            .items
            .is_empty()
    );
}

/// Loads everything, and counts the statements that takes.
fn counted(desk: &Desk) -> (usize, usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let mut raw = desk.raw();
    let count_one = move |_: rusqlite::trace::TraceEvent<'_>| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    raw.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(count_one))
        .expect("a trace");
    let agents = load(&raw, None).expect("a read").items.len();
    (agents, count.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_thousand_agents_are_read_with_as_many_statements_as_one() {
    let desk = Desk::with_alice().await;
    desk.apply(one_of_each()).await;
    let (agents, few) = counted(&desk);
    assert_eq!(agents, 1);
    desk.apply((2..=1000).map(|n| register(&format!("agent-{n}"), n)).collect())
        .await;
    let (agents, many) = counted(&desk);
    assert_eq!(agents, 1000);
    assert_eq!(many, few);
    assert!((1..20).contains(&many), "{many} statements");
}

async fn range(desk: &Desk, agent: &str) -> Option<UserRange> {
    desk.ledger
        .agent(&name(agent))
        .await
        .expect("a read")
        .expect("an agent")
        .user_range
}

#[tokio::test]
async fn user_ids_belong_to_one_agent_until_nothing_is_kept_of_it() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![register("bob", 2)]).await;
    let (first, second) = (UserRange::of_slot(0), UserRange::of_slot(1));
    assert_eq!(
        (range(&desk, "alice").await, range(&desk, "bob").await),
        (first, second)
    );

    let life = |life| Change::Life { uid: uid(1), life };
    desk.apply(vec![
        life(AgentLife::Archived { since: now() }),
        register("carol", 3),
    ])
    .await;
    assert_eq!(
        range(&desk, "carol").await,
        UserRange::of_slot(2),
        "what is archived keeps its own"
    );

    desk.apply(vec![life(AgentLife::Purged { since: now() })]).await;
    desk.raw()
        .execute("UPDATE agents SET doc = '{' WHERE name = 'bob'", [])
        .expect("a bad agent");
    desk.apply(vec![register("dora", 4), register("erin", 5)]).await;
    assert_eq!(range(&desk, "dora").await, first, "purged: given to the next");
    assert_eq!(
        range(&desk, "erin").await,
        UserRange::of_slot(3),
        "who cannot be read keeps its own too"
    );
}

#[tokio::test]
async fn an_agent_for_whom_no_user_ids_are_left_is_kept_without() {
    let desk = Desk::with_alice().await;
    let fill = format!(
        "WITH RECURSIVE n (slot) AS (SELECT 1 UNION ALL SELECT slot + 1 FROM n WHERE slot + 1 < {})
         INSERT INTO user_slots SELECT slot, 'somebody ' || slot FROM n",
        UserRange::COUNT
    );
    desk.raw().execute(&fill, []).expect("all taken");
    desk.apply(vec![register("bob", 2)]).await;
    assert_eq!(range(&desk, "bob").await, None);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_others_are_not_harmed() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![register("bob", 2), register("carol", 3)]).await;
    desk.apply(one_of_each()).await;
    let id = desk.open_gate(gate("deploy")).await;
    let raw = desk.raw();
    raw.execute(
        "UPDATE builds SET doc = '{\"failed\":{}}' WHERE key = ?1",
        [digest("failed").as_str()],
    )
    .expect("a bad build");
    raw.execute("UPDATE agents SET doc = '{' WHERE name = 'bob'", [])
        .expect("a bad agent");
    raw.execute("UPDATE events SET level = 'loud' WHERE seq = 1", [])
        .expect("a bad event");
    raw.execute(
        "UPDATE gates SET state = 'expired', opened_at = 1 WHERE id = ?1",
        [i64::try_from(id.0).expect("small")],
    )
    .expect("a gate");

    let all = desk.ledger.agent_ledgers().await.expect("a read");
    let good: Vec<_> = all.items.iter().map(|agent| agent.record.name.as_str()).collect();
    assert_eq!(good, ["carol"]);
    let mut bad: Vec<_> = all
        .undecodable
        .iter()
        .map(|row| (row.table, row.agent.as_ref().map(AgentName::as_str), row.uid))
        .collect();
    bad.sort_unstable();
    assert_eq!(
        bad,
        [
            ("agents", Some("bob"), Some(uid(2))),
            ("builds", Some("alice"), Some(uid(1)))
        ]
    );
    let one = desk.ledger.agent(&name("alice")).await.expect_err("a bad row");
    let LedgerError::Undecodable(row) = &one else {
        panic!("{one}")
    };
    let Undecodable { table, key, .. } = &**row;
    assert_eq!(
        (*table, key.clone()),
        ("builds", format!("{}/{}", uid(1), digest("failed")))
    );
    assert!(
        crate::error_chain(&one).contains("missing field `error`"),
        "{}",
        crate::error_chain(&one)
    );

    let listed = desk.ledger.agents().await.expect("a read");
    assert_eq!((listed.items.len(), listed.undecodable.len()), (2, 1));
    let events = desk.ledger.events(0, 10).await.expect("a read");
    assert_eq!((events[0].seq, events[0].kind.as_str()), (1, "undecodable"));
    assert_eq!(events.len(), 2, "its place in the stream is kept");
}
