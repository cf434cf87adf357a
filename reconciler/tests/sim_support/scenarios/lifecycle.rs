//! Stories of agents that go away and come back.

use serde_json::json;
use shared::gate::{GateClass, GateState};
use shared::status::Activity;

use super::super::driver::{End, Move, Scenario};
use super::{WIDER, in_sync, runs, scenario, spec, two_agents};

fn queen_alone() -> Move {
    spec(json!({ "queen": { "role": "manager" } }))
}

fn is_live(end: &End, agent: &str) -> bool {
    end.statuses.iter().any(|status| status.name.as_str() == agent)
}

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario(
            "archived, ordered away for good, and purged",
            vec![
                two_agents(),
                queen_alone(),
                Move::Approve,
                Move::Purge("alice"),
                Move::Approve,
            ],
            |end| {
                assert!(!is_live(end, "alice"));
                assert_eq!((end.count("archive"), end.count("purge")), (1, 1));
                assert!(!end.fingerprint.contains("archived alice"), "{}", end.fingerprint);
            },
        ),
        scenario(
            "an order to purge deletes nothing before it is approved",
            vec![two_agents(), queen_alone(), Move::Approve, Move::Purge("alice")],
            |end| {
                assert_eq!(end.count("purge"), 0);
                assert!(end.fingerprint.contains("archived alice"), "{}", end.fingerprint);
                let open = end.gates.iter().filter(|gate| gate.state == GateState::Open);
                assert_eq!(
                    open.map(|gate| gate.class).collect::<Vec<_>>(),
                    [GateClass::Purge]
                );
            },
        ),
        scenario(
            "a purge that is denied deletes nothing",
            vec![
                two_agents(),
                queen_alone(),
                Move::Approve,
                Move::Purge("alice"),
                Move::Deny,
            ],
            |end| {
                assert_eq!(end.count("purge"), 0);
                assert!(end.fingerprint.contains("archived alice"), "{}", end.fingerprint);
            },
        ),
        scenario(
            "a purge ordered before the archiving asks twice",
            vec![
                two_agents(),
                queen_alone(),
                Move::Purge("alice"),
                Move::Approve,
                Move::Approve,
            ],
            |end| {
                assert_eq!((end.count("archive"), end.count("purge")), (1, 1));
                assert!(!end.fingerprint.contains("alice"), "{}", end.fingerprint);
            },
        ),
        scenario(
            "archived and restored, it is what it was under the settings of spawned agents",
            vec![
                two_agents(),
                Move::Propose("alice", WIDER),
                Move::Approve,
                queen_alone(),
                Move::Approve,
                Move::Restore("alice"),
            ],
            |end| {
                assert!(runs(end, "alice"));
                in_sync(end, "alice");
                assert_eq!((end.count("makeRepo"), end.count("restore")), (2, 1));
                assert!(end.was_told("queen", "alice is back"), "{:?}", end.told);
            },
        ),
        scenario(
            "a restored agent that is declared again keeps its uid and its repo",
            vec![
                two_agents(),
                queen_alone(),
                Move::Approve,
                Move::Restore("alice"),
                two_agents(),
            ],
            |end| {
                in_sync(end, "alice");
                assert_eq!(end.count("makeRepo"), 2, "no second repo is made");
                assert_eq!(
                    end.status("alice").config.as_ref().unwrap().prompt,
                    "tend the wiki"
                );
            },
        ),
        scenario(
            "a restoration takes an order to purge back",
            vec![
                two_agents(),
                queen_alone(),
                Move::Approve,
                Move::Purge("alice"),
                Move::Restore("alice"),
            ],
            |end| {
                assert!(runs(end, "alice"));
                assert_eq!(end.count("purge"), 0);
                assert!(end.gates.iter().all(|gate| gate.state != GateState::Open));
            },
        ),
        scenario(
            "an agent that is removed and not archived yet is restored where it lies",
            vec![two_agents(), queen_alone(), Move::Restore("alice")],
            |end| {
                assert!(runs(end, "alice"));
                in_sync(end, "alice");
                assert_eq!((end.count("archive"), end.count("restore")), (0, 0));
            },
        ),
        scenario(
            "an agent that no spec declares is destroyed and waits for its archiving",
            vec![
                two_agents(),
                queen_alone(),
                Move::Restore("alice"),
                Move::Destroy("alice"),
            ],
            |end| {
                assert!(!runs(end, "alice"));
                assert_eq!(end.status("alice").activity.value, Activity::AwaitingGate);
            },
        ),
        scenario(
            "an agent that the spec declares cannot be destroyed",
            vec![two_agents(), Move::Destroy("alice"), Move::Purge("alice")],
            |end| {
                assert!(runs(end, "alice"));
                assert_eq!((end.count("stop"), end.count("archive")), (0, 0));
            },
        ),
        scenario(
            "a rollback brings the old content back as a new commit",
            vec![
                two_agents(),
                Move::Propose("alice", WIDER),
                Move::Approve,
                Move::Rollback("alice"),
            ],
            |end| {
                in_sync(end, "alice");
                assert_eq!(
                    end.status("alice").config.as_ref().unwrap().prompt,
                    "tend the wiki"
                );
                assert_eq!(end.status("alice").generations.proposal.unwrap().0, 2);
                assert_eq!(end.count("start"), 2, "a new prompt restarts nothing");
            },
        ),
        scenario(
            "a rollback of a rollback brings the newer content back",
            vec![
                two_agents(),
                Move::Propose("alice", WIDER),
                Move::Approve,
                Move::Rollback("alice"),
                Move::Rollback("alice"),
            ],
            |end| {
                in_sync(end, "alice");
                assert_eq!(
                    end.status("alice").config.as_ref().unwrap().prompt,
                    "tend the garden"
                );
            },
        ),
        scenario(
            "an agent that has only its seed has nothing to go back to",
            vec![two_agents(), Move::Rollback("alice")],
            |end| {
                in_sync(end, "alice");
                assert!(end.status("alice").generations.proposal.unwrap().0 == 0);
            },
        ),
        scenario(
            "a renamed agent keeps its old name until it is declared beside the new one",
            vec![
                two_agents(),
                spec(json!({ "queen": { "role": "manager" }, "bob": { "prompt": "tend the wiki" } })),
            ],
            |end| {
                assert!(runs(end, "alice"));
                assert!(!is_live(end, "bob"));
                let said = |waiting: &shared::plan::Waiting| format!("{:?}", waiting.on).contains("renamed");
                assert!(end.hive_waiting.iter().any(said), "{:?}", end.hive_waiting);
            },
        ),
    ]
}
