//! What agents offer, and what becomes of it.

use reconciler::host::fake::Behaviour;
use serde_json::json;
use shared::gate::GateState;
use shared::status::Activity;

use super::super::driver::{Move, Scenario};
use super::{NARROWER, WIDER, in_sync, runs, scenario, spec, tags, two_agents, with};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        scenario(
            "propose and approve",
            vec![two_agents(), Move::Propose("alice", WIDER), Move::Approve],
            |end| {
                in_sync(end, "alice");
                assert_eq!(
                    end.status("alice").config.as_ref().unwrap().prompt,
                    "tend the garden"
                );
                assert_eq!(tags(end, "alice"), ["approved/1", "deployed/1", "proposal/1"]);
                assert_eq!(end.count("start"), 2);
                for agent in ["alice", "queen"] {
                    assert!(
                        end.was_told(agent, "proposal 1 of alice is deployed"),
                        "{:?}",
                        end.told
                    );
                }
            },
        ),
        scenario(
            "propose and leave open",
            vec![two_agents(), Move::Propose("alice", WIDER)],
            |end| {
                let status = end.status("alice");
                assert_eq!(status.activity.value, Activity::AwaitingGate);
                assert_eq!(status.config.as_ref().unwrap().prompt, "tend the wiki");
                assert_eq!(tags(end, "alice"), ["proposal/1"]);
            },
        ),
        scenario(
            "propose and deny",
            vec![two_agents(), Move::Propose("alice", WIDER), Move::Deny],
            |end| {
                in_sync(end, "alice");
                assert_eq!(
                    end.status("alice").config.as_ref().unwrap().prompt,
                    "tend the wiki"
                );
                assert_eq!(tags(end, "alice"), ["denied/1", "proposal/1"]);
                for agent in ["alice", "queen"] {
                    assert!(end.was_told(agent, "denied gate"), "{:?}", end.told);
                }
            },
        ),
        scenario(
            "a change of the spec supersedes an open gate",
            vec![
                two_agents(),
                Move::Propose("alice", NARROWER),
                spec(json!({ "queen": { "role": "manager" }, "alice": { "prompt": "tend the bees" } })),
                Move::Approve,
            ],
            |end| {
                in_sync(end, "alice");
                let config = end.status("alice").config.clone().unwrap();
                assert_eq!(config.prompt, "tend the bees");
                assert!(
                    end.gates.iter().any(|g| g.ended_because.is_some()),
                    "the first gate was superseded"
                );
                assert_eq!(tags(end, "alice"), ["approved/1", "deployed/1", "proposal/1"]);
            },
        ),
        scenario(
            "of two proposals from one main the second is turned away",
            vec![
                two_agents(),
                Move::ProposeOnSeed("alice", WIDER),
                Move::ProposeOnSeed("alice", r#"{ "prompt": "tend the fire" }"#),
                Move::Approve,
            ],
            |end| {
                in_sync(end, "alice");
                let tags = tags(end, "alice");
                assert_eq!(tags.iter().filter(|t| t.starts_with("deployed/")).count(), 1);
                assert_eq!(tags.iter().filter(|t| t.starts_with("failed/")).count(), 1);
            },
        ),
        Scenario {
            unbuildable: vec!["poison"],
            ..scenario(
                "a proposal that does not build opens no gate",
                vec![two_agents(), Move::Propose("alice", r#"{ "prompt": "poison" }"#)],
                |end| {
                    in_sync(end, "alice");
                    assert_eq!(tags(end, "alice"), ["failed/1", "proposal/1"]);
                    for agent in ["alice", "queen"] {
                        assert!(
                            end.was_told(agent, "proposal 1 of alice failed"),
                            "{:?}",
                            end.told
                        );
                    }
                    assert!(
                        end.gates
                            .iter()
                            .all(|g| g.proposal.is_none() || g.system.is_none())
                    );
                },
            )
        },
        Scenario {
            behaviours: vec![("explode", Behaviour::Crashes)],
            ..scenario(
                "a deployment whose agent crashes is reverted",
                vec![
                    two_agents(),
                    Move::Propose("alice", r#"{ "prompt": "explode" }"#),
                    Move::Approve,
                ],
                |end| {
                    assert!(runs(end, "alice"));
                    in_sync(end, "alice");
                    assert_eq!(
                        end.status("alice").config.as_ref().unwrap().prompt,
                        "tend the wiki"
                    );
                    assert_eq!(tags(end, "alice"), ["approved/1", "failed/1", "proposal/1"]);
                    assert!(end.events.iter().any(|e| e.kind == "reverted"));
                    for agent in ["alice", "queen"] {
                        assert!(end.was_told(agent, "failed its probation"), "{:?}", end.told);
                    }
                },
            )
        },
        scenario(
            "an approval that the spec overtakes is void",
            vec![
                two_agents(),
                Move::Propose("alice", NARROWER),
                Move::Suspend("alice"),
                Move::Approve,
                spec(json!({ "queen": { "role": "manager" }, "alice": { "prompt": "tend the bees" } })),
                Move::Resume("alice"),
            ],
            |end| {
                let status = end.status("alice");
                assert_eq!(status.activity.value, Activity::AwaitingGate, "{status:#?}");
                assert_eq!(status.config.as_ref().unwrap().prompt, "tend the bees");
                assert!(end.gates.iter().any(|g| {
                    g.state == GateState::Superseded && g.decision.as_ref().is_some_and(|d| d.approve)
                }));
            },
        ),
        scenario(
            "main moved by somebody else is put back",
            vec![
                two_agents(),
                Move::Propose("alice", WIDER),
                Move::Approve,
                Move::TamperMain("alice"),
            ],
            |end| {
                in_sync(end, "alice");
                let main = end.world.refs(&"alice".parse().unwrap()).unwrap().main;
                assert_eq!(main, end.status("alice").generations.commit);
            },
        ),
        scenario(
            "an approval that a policy overtakes is void",
            vec![
                two_agents(),
                Move::Propose("alice", NARROWER),
                Move::Suspend("alice"),
                Move::Approve,
                with(json!({ "policy": { "agent": { "deployWithin": "never" } } })),
                Move::Resume("alice"),
            ],
            |end| {
                assert_eq!(tags(end, "alice"), ["denied/1", "proposal/1"]);
                assert!(end.gates.iter().any(|g| g.state == GateState::Superseded));
                assert_eq!(end.count("stop"), 0);
            },
        ),
        scenario(
            "an approval that a new harness overtakes is asked about again",
            vec![
                two_agents(),
                Move::Propose("alice", NARROWER),
                Move::Suspend("alice"),
                Move::Approve,
                with(json!({ "harness": "/fake/another-harness" })),
                Move::Resume("alice"),
                Move::Approve,
            ],
            |end| {
                in_sync(end, "alice");
                assert_eq!(tags(end, "alice"), ["approved/1", "deployed/1", "proposal/1"]);
                assert!(end.gates.iter().any(|g| g.state == GateState::Superseded));
            },
        ),
        scenario(
            "what changes while an approved restart waits for the end of the turn comes with that restart",
            vec![
                two_agents(),
                Move::Propose("alice", NARROWER),
                Move::TurnBegins("alice"),
                Move::Approve,
                spec(json!({ "queen": { "role": "manager" }, "alice": { "prompt": "tend the bees" } })),
                Move::TurnEnds("alice"),
            ],
            |end| {
                in_sync(end, "alice");
                let config = end.status("alice").config.clone().unwrap();
                assert_eq!(config.prompt, "tend the bees");
                assert_eq!((end.count("start"), end.count("stop")), (3, 1));
            },
        ),
        scenario(
            "a proposal that adds an MCP server restarts nothing",
            vec![
                two_agents(),
                Move::Propose(
                    "alice",
                    r#"{ "mcpServers": { "extra": { "command": "/bin/extra" } } }"#,
                ),
                Move::Approve,
            ],
            |end| {
                in_sync(end, "alice");
                assert_eq!((end.count("start"), end.count("stop")), (2, 0));
            },
        ),
        Scenario {
            behaviours: vec![("explode", Behaviour::Crashes)],
            ..scenario(
                "after a failed deployment the next proposal has its own chance",
                vec![
                    two_agents(),
                    Move::Propose("alice", r#"{ "prompt": "explode" }"#),
                    Move::Approve,
                    Move::Propose("alice", WIDER),
                    Move::Approve,
                ],
                |end| {
                    in_sync(end, "alice");
                    let config = end.status("alice").config.clone().unwrap();
                    assert_eq!(config.prompt, "tend the garden");
                    assert!(tags(end, "alice").contains(&"failed/1".to_owned()));
                    assert!(tags(end, "alice").contains(&"deployed/2".to_owned()));
                },
            )
        },
    ]
}
