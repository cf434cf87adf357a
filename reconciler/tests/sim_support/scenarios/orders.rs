//! Stories of managers that start, stop and restart other agents.

use serde_json::json;
use shared::gate::{Asker, GateClass, GateState};
use shared::status::Health;

use super::super::driver::{End, Move, Scenario};
use super::{WIDER, in_sync, runs, scenario, spec, two_agents, with};

fn order(verb: &'static str) -> Move {
    Move::Order("queen", "alice", verb)
}

/// Two agents, under this policy for what managers order.
fn under(verdict: &str) -> Move {
    let table = json!({ "start": verdict, "stop": verdict, "restart": verdict });
    with(json!({ "policy": { "agent": table } }))
}

/// The gates that managers' orders led to, in this state.
fn gates(end: &End, state: GateState) -> usize {
    let ours = |gate: &&shared::gate::Gate| gate.asked_by == Asker::Manager && gate.state == state;
    end.gates.iter().filter(ours).count()
}

/// How many builds were carried out, those that made what was there already among them.
fn builds(end: &End) -> usize {
    let of_builds =
        |gate: &&shared::gate::Gate| gate.class == GateClass::Build && gate.completed_at.is_some();
    end.gates.iter().filter(of_builds).count()
}

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario(
            "a manager's restart is carried out once",
            vec![two_agents(), Move::Wait(60), order("restart")],
            |end| {
                in_sync(end, "alice");
                assert_eq!((end.count("stop"), end.count("start")), (1, 3));
                assert_eq!(gates(end, GateState::Consumed), 1);
            },
        ),
        scenario(
            "a manager's restart waits for the operator where the policy asks",
            vec![under("ask"), Move::Wait(60), order("restart")],
            |end| {
                assert_eq!((end.count("stop"), end.count("start")), (0, 2));
                assert_eq!(gates(end, GateState::Open), 1);
                assert!(runs(end, "alice"));
            },
        ),
        scenario(
            "a manager's restart that the operator approves is carried out once",
            vec![under("ask"), Move::Wait(60), order("restart"), Move::Approve],
            |end| {
                in_sync(end, "alice");
                assert_eq!((end.count("stop"), end.count("start")), (1, 3));
            },
        ),
        scenario(
            "a manager's restart that is denied comes to nothing and is asked about no more",
            vec![under("ask"), order("restart"), Move::Deny],
            |end| {
                in_sync(end, "alice");
                assert_eq!((end.count("stop"), end.count("start")), (0, 2));
                assert_eq!(
                    (gates(end, GateState::Denied), gates(end, GateState::Open)),
                    (1, 0)
                );
                assert!(end.was_told("queen", "denied"), "{:?}", end.told);
            },
        ),
        scenario(
            "a manager's restart waits for the turn",
            vec![
                two_agents(),
                Move::Wait(60),
                Move::TurnBegins("alice"),
                order("restart"),
                Move::TurnEnds("alice"),
            ],
            |end| {
                in_sync(end, "alice");
                assert_eq!((end.count("stop"), end.count("start")), (1, 3));
            },
        ),
        scenario(
            "what a manager stopped stays stopped until it starts it",
            vec![two_agents(), order("stop"), order("start")],
            |end| {
                in_sync(end, "alice");
                assert!(runs(end, "alice"));
                assert_eq!((end.count("stop"), end.count("start")), (1, 3));
            },
        ),
        scenario(
            "a manager's stop that was approved holds",
            vec![under("ask"), order("stop"), Move::Approve],
            |end| {
                in_sync(end, "alice");
                assert_eq!(end.status("alice").health.value, Health::Suspended);
                assert_eq!(end.count("stop"), 1);
            },
        ),
        scenario(
            "a manager's stop that nobody approved keeps no crashed agent down",
            vec![under("ask"), order("stop"), Move::Kill("alice")],
            |end| {
                assert!(runs(end, "alice"));
                assert_eq!(gates(end, GateState::Open), 1);
            },
        ),
        scenario(
            "a manager orders nothing that the policy forbids",
            vec![under("never"), order("stop"), order("restart")],
            |end| {
                in_sync(end, "alice");
                assert_eq!((end.count("stop"), end.count("start")), (0, 2));
                assert_eq!(gates(end, GateState::Open), 0);
            },
        ),
        scenario(
            "an order that waits ends when the policy forbids it",
            vec![under("ask"), order("stop"), under("never")],
            |end| {
                in_sync(end, "alice");
                assert_eq!(gates(end, GateState::Superseded), 1);
                assert!(end.was_told("queen", "came to nothing"), "{:?}", end.told);
            },
        ),
        scenario(
            "an order that waits ends when whoever gave it is no manager any more",
            vec![
                under("ask"),
                order("stop"),
                Move::Spec(
                    json!({ "version": 1, "hive": { "name": "sim" },
                        "policy": { "agent": { "stop": "ask" } },
                        "agents": { "queen": {}, "alice": { "prompt": "tend the wiki" } } })
                    .to_string(),
                ),
            ],
            |end| {
                assert!(runs(end, "alice"));
                assert_eq!(gates(end, GateState::Superseded), 1);
                assert_eq!(gates(end, GateState::Open), 0);
            },
        ),
        scenario(
            "an order takes the place of one that waits",
            vec![
                under("ask"),
                Move::Wait(60),
                order("stop"),
                order("restart"),
                Move::Approve,
            ],
            |end| {
                in_sync(end, "alice");
                assert!(runs(end, "alice"));
                assert_eq!(
                    (gates(end, GateState::Superseded), gates(end, GateState::Consumed)),
                    (1, 1)
                );
            },
        ),
        scenario(
            "an order of the operator stands against a manager's",
            vec![two_agents(), Move::Stop("alice"), order("start")],
            |end| {
                assert!(!runs(end, "alice"));
                assert_eq!(end.count("start"), 2);
            },
        ),
        scenario(
            "the operator takes a manager's stop back",
            vec![two_agents(), order("stop"), Move::Start("alice")],
            |end| {
                in_sync(end, "alice");
                assert!(runs(end, "alice"));
            },
        ),
        scenario(
            "a manager's stop lapses when the spec says something else",
            vec![
                two_agents(),
                order("stop"),
                spec(
                    json!({ "queen": { "role": "manager" }, "alice": { "prompt": "tend the wiki", "run": "paused" } }),
                ),
            ],
            |end| assert!(runs(end, "alice")),
        ),
        scenario(
            "only a manager's order counts",
            vec![two_agents(), Move::Order("alice", "queen", "stop")],
            |end| {
                assert!(runs(end, "queen"));
                assert_eq!(end.count("stop"), 0);
            },
        ),
        scenario(
            "a rebuild builds once more, and the same again changes nothing",
            vec![two_agents(), order("rebuild")],
            |end| {
                in_sync(end, "alice");
                assert_eq!((builds(end), end.count("stop")), (3, 0));
            },
        ),
        scenario(
            "a rebuild leaves the gate of a proposal as it is",
            vec![two_agents(), Move::Propose("alice", WIDER), order("rebuild")],
            |end| {
                assert_eq!(builds(end), 4);
                let about = |gate: &&shared::gate::Gate| gate.class == GateClass::DeployWidens;
                let open = end
                    .gates
                    .iter()
                    .filter(about)
                    .filter(|gate| gate.state == GateState::Open);
                assert_eq!(open.count(), 1);
                let ended = end
                    .gates
                    .iter()
                    .filter(about)
                    .filter(|gate| gate.state == GateState::Superseded);
                assert_eq!(ended.count(), 0, "the operator is not asked twice");
            },
        ),
        scenario(
            "an agent that a manager archives is asked about once",
            vec![
                two_agents(),
                Move::SpawnOnce("queen", "carol", "{}"),
                Move::Approve,
                Move::Order("queen", "carol", "archive"),
                Move::Approve,
            ],
            |end| {
                assert_eq!(end.count("archive"), 1);
                assert!(end.fingerprint.contains("archived carol"), "{}", end.fingerprint);
                let asked = end.gates.iter().filter(|gate| gate.class == GateClass::Archive);
                assert_eq!(asked.count(), 1);
            },
        ),
        scenario(
            "an agent whose archiving is denied goes on",
            vec![
                two_agents(),
                Move::SpawnOnce("queen", "carol", "{}"),
                Move::Approve,
                Move::Order("queen", "carol", "archive"),
                Move::Deny,
            ],
            |end| {
                in_sync(end, "carol");
                assert!(runs(end, "carol"));
                assert_eq!(end.count("archive"), 0);
            },
        ),
        scenario(
            "an agent that came back from the archive is asked about anew",
            vec![
                two_agents(),
                Move::SpawnOnce("queen", "carol", "{}"),
                Move::Approve,
                Move::Order("queen", "carol", "archive"),
                Move::Approve,
                Move::Restore("carol"),
                Move::Destroy("carol"),
            ],
            |end| {
                assert_eq!(end.count("archive"), 1);
                let open = end.gates.iter().filter(|gate| gate.state == GateState::Open);
                assert_eq!(
                    open.map(|gate| gate.class).collect::<Vec<_>>(),
                    [GateClass::Archive]
                );
            },
        ),
        scenario(
            "what the spec declares no manager archives",
            vec![two_agents(), order("archive")],
            |end| {
                in_sync(end, "alice");
                assert!(runs(end, "alice"));
                assert_eq!(gates(end, GateState::Open), 0);
            },
        ),
    ]
}
