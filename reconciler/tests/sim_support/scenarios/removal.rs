//! Agents that the spec names no longer.

use serde_json::json;
use shared::plan::WaitingOn;
use shared::status::Activity;

use super::super::driver::{Move, Scenario};
use super::{in_sync, runs, scenario, spec, two_agents};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario(
            "remove and archive",
            vec![
                two_agents(),
                spec(json!({ "queen": { "role": "manager" } })),
                Move::Approve,
            ],
            |end| {
                assert!(!runs(end, "alice"));
                assert_eq!((end.count("stop"), end.count("archive")), (1, 1));
                assert!(end.was_told("queen", "alice was archived"), "{:?}", end.told);
                assert!(end.statuses.iter().all(|s| s.name.as_str() != "alice"));
            },
        ),
        scenario(
            "a removed agent is stopped at once and kept until the operator agrees",
            vec![two_agents(), spec(json!({ "queen": { "role": "manager" } }))],
            |end| {
                assert!(!runs(end, "alice"));
                assert_eq!(end.count("archive"), 0);
                assert_eq!(end.status("alice").activity.value, Activity::AwaitingGate);
            },
        ),
        scenario(
            "an empty spec stops nobody without a gate",
            vec![two_agents(), spec(json!({}))],
            |end| {
                assert!(runs(end, "alice") && runs(end, "queen"));
                assert!(
                    end.hive_waiting
                        .iter()
                        .any(|w| matches!(w.on, WaitingOn::Gate { .. }))
                );
            },
        ),
        scenario(
            "a mass removal that is approved and then archived",
            vec![two_agents(), spec(json!({})), Move::Approve, Move::Approve],
            |end| {
                assert!(!runs(end, "alice") && !runs(end, "queen"));
                assert_eq!(end.count("archive"), 2);
            },
        ),
        scenario(
            "an agent that is declared again before it is archived goes on",
            vec![
                two_agents(),
                spec(json!({ "queen": { "role": "manager" } })),
                two_agents(),
            ],
            |end| {
                assert!(runs(end, "alice"));
                in_sync(end, "alice");
                assert_eq!((end.count("archive"), end.count("makeRepo")), (0, 2));
                assert!(
                    end.gates
                        .iter()
                        .all(|gate| gate.state != shared::gate::GateState::Open)
                );
            },
        ),
    ]
}
