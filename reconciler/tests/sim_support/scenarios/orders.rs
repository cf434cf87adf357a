//! Stories of managers that start, stop and restart other agents.

use serde_json::json;
use shared::gate::{Asker, GateState};
use shared::status::Health;

use super::super::driver::{End, Move, Scenario};
use super::{in_sync, runs, scenario, spec, two_agents, with};

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
    ]
}
