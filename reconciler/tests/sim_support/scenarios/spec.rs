//! Specs that change, and specs that are broken.

use reconciler::host::fake::Behaviour;
use serde_json::json;
use shared::agent_api::ProposalPhase;
use shared::gate::GateClass;
use shared::status::Activity;

use super::super::driver::{Move, Scenario};
use super::{in_sync, runs, scenario, spec, two_agents};

/// Three agents on a host with this harness.
fn three_agents(harness: &str) -> Move {
    let agents = json!({ "queen": { "role": "manager" }, "alice": {}, "bob": {} });
    Move::Spec(
        json!({ "version": 1, "hive": { "name": "sim" }, "harness": harness, "agents": agents }).to_string(),
    )
}

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario(
            "change",
            vec![
                two_agents(),
                spec(json!({ "queen": { "role": "manager" }, "alice": { "prompt": "tend the bees" } })),
            ],
            |end| {
                in_sync(end, "alice");
                assert_eq!(end.count("start"), 2, "a new prompt restarts nothing");
                assert_eq!(
                    end.status("alice").config.as_ref().unwrap().prompt,
                    "tend the bees"
                );
            },
        ),
        scenario(
            "a change of what it is started from restarts it once",
            vec![
                two_agents(),
                spec(json!({ "queen": { "role": "manager" }, "alice": { "network": "none" } })),
            ],
            |end| {
                in_sync(end, "alice");
                assert_eq!((end.count("start"), end.count("stop")), (3, 1));
            },
        ),
        scenario(
            "an update of what all agents are built upon goes from one to the next",
            vec![
                three_agents("/nix/store/old/bin/hive-harness"),
                Move::TurnBegins("alice"),
                three_agents("/nix/store/new/bin/hive-harness"),
                Move::TurnEnds("alice"),
            ],
            |end| {
                for agent in ["alice", "bob", "queen"] {
                    in_sync(end, agent);
                }
                assert_eq!((end.count("start"), end.count("stop")), (6, 3));
                let updates = end
                    .gates
                    .iter()
                    .filter(|gate| gate.class == GateClass::BaseUpdate);
                assert_eq!(updates.count(), 3);
            },
        ),
        Scenario {
            behaviours: vec![("sulk", Behaviour::Silent)],
            ..scenario(
                "a narrowed agent that fails is stopped and does not get its power back",
                vec![
                    spec(json!({ "alice": { "prompt": "tend the wiki", "network": "host" } })),
                    spec(json!({ "alice": { "prompt": "sulk", "network": "none" } })),
                ],
                |end| {
                    assert!(!runs(end, "alice"));
                    let status = end.status("alice");
                    assert_eq!(status.activity.value, Activity::Stalled);
                    assert_eq!(
                        status.config.as_ref().unwrap().prompt,
                        "sulk",
                        "what the spec says stays deployed"
                    );
                    assert!(end.events.iter().any(|e| e.kind == "halted"));
                    assert!(end.events.iter().all(|e| e.kind != "reverted"));
                },
            )
        },
        scenario(
            "a spec that breaks changes nothing, and mends",
            vec![
                two_agents(),
                Move::Spec("{ not json".to_owned()),
                Move::SpecVanishes,
                spec(json!({ "queen": { "role": "manager" }, "alice": { "prompt": 7 } })),
                two_agents(),
            ],
            |end| {
                in_sync(end, "alice");
                assert_eq!((end.count("start"), end.count("stop")), (2, 0));
                assert!(end.hive_waiting.is_empty());
            },
        ),
        scenario(
            "a restart waits for the end of the turn",
            vec![
                two_agents(),
                Move::TurnBegins("alice"),
                spec(json!({ "queen": { "role": "manager" }, "alice": { "network": "none" } })),
                Move::TurnEnds("alice"),
            ],
            |end| {
                in_sync(end, "alice");
                assert_eq!(end.count("stop"), 1);
                let phases: Vec<_> = end.events.iter().map(|e| e.kind.as_str()).collect();
                assert!(
                    phases.contains(&"deployed"),
                    "{phases:?} {:?}",
                    ProposalPhase::Deployed
                );
            },
        ),
        scenario(
            "an agent that is declared stopped stops, and starts when it is declared running",
            vec![
                two_agents(),
                spec(
                    json!({ "queen": { "role": "manager" }, "alice": { "prompt": "tend the wiki", "run": "stopped" } }),
                ),
                two_agents(),
            ],
            |end| {
                in_sync(end, "alice");
                assert_eq!((end.count("start"), end.count("stop")), (3, 1));
            },
        ),
    ]
}
