//! Agents that come, run, die, are stopped and started.

use reconciler::host::fake::Behaviour;
use serde_json::json;
use shared::plan::WaitingOn;
use shared::status::{Activity, Health};

use super::super::driver::{Move, Scenario};
use super::{in_sync, runs, scenario, spec, two_agents};

pub(super) fn all() -> Vec<Scenario> {
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
            "limits that somebody changes are put back while the agent runs on",
            vec![two_agents(), Move::Wait(60), Move::ChangeLimits("alice")],
            |end| {
                in_sync(end, "alice");
                assert_eq!((end.count("start"), end.count("stop")), (2, 0));
                assert_eq!(end.count("limit"), 1);
            },
        ),
        scenario(
            "a process that is killed for want of memory is told of while the agent runs on",
            vec![two_agents(), Move::Wait(60), Move::OutOfMemory("alice")],
            |end| {
                in_sync(end, "alice");
                assert_eq!((end.count("start"), end.count("stop")), (2, 0));
                for agent in ["alice", "queen"] {
                    assert!(end.was_told(agent, "killed a process of alice"), "{:?}", end.told);
                }
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
        scenario(
            "a restart that the operator asks for happens once",
            vec![
                two_agents(),
                Move::Wait(60),
                Move::RestartAgent("alice"),
                Move::Wait(600),
            ],
            |end| {
                in_sync(end, "alice");
                assert_eq!((end.count("start"), end.count("stop")), (3, 1));
            },
        ),
    ]
}
