//! The stories.

use reconciler::host::UnitState;
use reconciler::host::fake::Behaviour;
use serde_json::{Value, json};
use shared::agent_api::ProposalPhase;
use shared::plan::WaitingOn;
use shared::status::{Activity, Health, Sync};

use super::driver::{End, Move, Scenario};

fn spec(agents: Value) -> Move {
    Move::Spec(json!({ "version": 1, "hive": { "name": "sim" }, "agents": agents }).to_string())
}

fn two_agents() -> Move {
    spec(json!({ "queen": { "role": "manager" }, "alice": { "prompt": "tend the wiki" } }))
}

fn scenario(name: &'static str, moves: Vec<Move>, expect: fn(&End)) -> Scenario {
    Scenario {
        name,
        behaviours: Vec::new(),
        unbuildable: Vec::new(),
        moves,
        expect,
    }
}

const WIDER: &str = r#"{ "prompt": "tend the garden" }"#;
const NARROWER: &str = r#"{ "network": "none" }"#;

fn runs(end: &End, agent: &str) -> bool {
    matches!(end.world.unit(&agent.parse().unwrap()), UnitState::Running { .. })
}

fn in_sync(end: &End, agent: &str) {
    let status = end.status(agent);
    assert_eq!(status.sync.value, Sync::InSync, "{status:#?}");
    assert_eq!(status.activity.value, Activity::Idle);
}

fn tags(end: &End, agent: &str) -> Vec<String> {
    end.world
        .refs(&agent.parse().unwrap())
        .unwrap()
        .tags
        .into_keys()
        .collect()
}

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("add", vec![two_agents()], |end| {
            for agent in ["alice", "queen"] {
                assert!(runs(end, agent));
                in_sync(end, agent);
                assert_eq!(end.status(agent).health.value, Health::Healthy);
            }
            assert_eq!((end.count("makeRepo"), end.count("start")), (2, 2));
        }),
        scenario(
            "a manager hears of a new agent",
            vec![spec(json!({ "queen": { "role": "manager" } })), two_agents()],
            |end| {
                assert!(end.was_told("queen", "alice was spawned"), "{:?}", end.told);
                assert!(!end.was_told("alice", ""), "{:?}", end.told);
            },
        ),
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
        Scenario {
            behaviours: vec![("mute", Behaviour::Silent)],
            ..scenario(
                "a first deployment that never reports is stopped and named",
                vec![spec(json!({ "alice": { "prompt": "mute" } }))],
                |end| {
                    assert!(!runs(end, "alice"));
                    let status = end.status("alice");
                    assert_eq!(status.activity.value, Activity::Stalled);
                    assert!(
                        status
                            .waiting
                            .iter()
                            .any(|w| matches!(w.on, WaitingOn::Terminal { .. }))
                    );
                },
            )
        },
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
            "a killed agent comes back, a stopped one does not",
            vec![
                two_agents(),
                Move::Kill("alice"),
                Move::Stop("queen"),
                Move::Wait(120),
            ],
            |end| {
                assert!(runs(end, "alice") && !runs(end, "queen"));
                in_sync(end, "alice");
                assert!(
                    end.was_told("queen", "alice killed by signal 9"),
                    "{:?}",
                    end.told
                );
                assert_eq!(end.status("queen").health.value, Health::Suspended);
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
            "stop and start",
            vec![two_agents(), Move::Stop("alice"), Move::Start("alice")],
            |end| {
                assert!(runs(end, "alice"));
                in_sync(end, "alice");
                assert_eq!((end.count("start"), end.count("stop")), (3, 1));
            },
        ),
    ]
}
