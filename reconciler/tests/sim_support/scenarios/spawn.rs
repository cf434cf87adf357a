//! Stories of agents that no spec declares: prepared, offered, approved or not.

use serde_json::{Value, json};
use shared::AgentName;
use shared::gate::{Asker, Gate, GateClass, GateState};

use super::super::driver::{End, Move, Scenario};
use super::{in_sync, runs, scenario, spec};
use reconciler::host::fake::Behaviour;

const OVERLAY: &str = r#"{ "prompt": "tend the shed" }"#;

fn queen() -> Move {
    spec(json!({ "queen": { "role": "manager" } }))
}

/// A hive with these fields besides its name, and a manager.
fn hive(fields: &Value) -> Move {
    let mut document =
        json!({ "version": 1, "hive": { "name": "sim" }, "agents": { "queen": { "role": "manager" } } });
    for (field, value) in fields.as_object().unwrap() {
        document[field] = value.clone();
    }
    Move::Spec(document.to_string())
}

/// A draft of helper with a file and a commit, offered.
fn two_steps() -> Vec<Move> {
    vec![
        queen(),
        Move::Draft("queen", "helper"),
        Move::Stage("queen", "helper", "notes.md", "one"),
        Move::DraftCommit("queen", "helper", OVERLAY),
        Move::Offer("queen", "helper"),
    ]
}

fn after_two_steps(more: impl IntoIterator<Item = Move>) -> Vec<Move> {
    two_steps().into_iter().chain(more).collect()
}

fn spawns(end: &End) -> Vec<&Gate> {
    let about_helper = |gate: &&Gate| {
        gate.agent
            .as_ref()
            .is_some_and(|agent| agent.as_str() == "helper")
    };
    let of_class = |gate: &&Gate| matches!(gate.class, GateClass::Spawn | GateClass::DeployWidens);
    end.gates.iter().filter(about_helper).filter(of_class).collect()
}

fn states(end: &End) -> Vec<GateState> {
    spawns(end).iter().map(|gate| gate.state).collect()
}

fn laid(end: &End, agent: &str) -> Vec<String> {
    let laid = end.world.laid_down(&agent.parse().unwrap());
    laid.into_iter()
        .map(|(path, digest)| format!("{path} {}", digest.short()))
        .collect()
}

fn exists(end: &End, agent: &str) -> bool {
    end.statuses.iter().any(|status| status.name.as_str() == agent)
}

fn prompt(end: &End, agent: &str) -> String {
    end.status(agent).config.as_ref().unwrap().prompt.clone()
}

/// It is there, and nothing of it has power.
fn is_only_prepared(end: &End, agent: &str) {
    assert!(!runs(end, agent));
    assert!(laid(end, agent).is_empty());
    assert!(end.status(agent).config.is_none());
    assert!(
        end.told[&agent.parse::<AgentName>().unwrap()].is_empty(),
        "a draft gets no mail"
    );
}

pub(super) fn all() -> Vec<Scenario> {
    let mut all = decided();
    all.extend(undecided());
    all.extend(void());
    all
}

fn decided() -> Vec<Scenario> {
    vec![
        scenario(
            "a draft that is approved runs what was approved, with its files",
            after_two_steps([Move::Approve]),
            |end| {
                assert!(runs(end, "helper"));
                in_sync(end, "helper");
                assert_eq!(prompt(end, "helper"), "tend the shed");
                assert_eq!(laid(end, "helper").len(), 1);
                assert_eq!(end.world.staged_drafts(), 0, "nothing stays staged");
                assert_eq!(states(end), [GateState::Consumed]);
                let gate = spawns(end)[0];
                assert_eq!((gate.class, gate.asked_by), (GateClass::Spawn, Asker::Manager));
                assert_eq!(gate.view.files.len(), 1);
                assert!(gate.view.commit_diff.contains("->"), "{}", gate.view.commit_diff);
                assert!(end.was_told("queen", "helper was spawned"), "{:?}", end.told);
            },
        ),
        scenario(
            "asked for in one go, it is the same",
            vec![
                queen(),
                Move::SpawnOnce("queen", "helper", OVERLAY),
                Move::Approve,
            ],
            |end| {
                in_sync(end, "helper");
                assert_eq!(prompt(end, "helper"), "tend the shed");
                assert_eq!(laid(end, "helper").len(), 1);
                assert_eq!(states(end), [GateState::Consumed]);
            },
        ),
        scenario(
            "what the operator spawns asks nobody",
            vec![queen(), Move::OperatorSpawns("helper", OVERLAY)],
            |end| {
                in_sync(end, "helper");
                assert_eq!(prompt(end, "helper"), "tend the shed");
                let gate = spawns(end)[0];
                assert_eq!((gate.state, gate.asked_by), (GateState::Consumed, Asker::Spec));
                assert!(
                    gate.decision
                        .as_ref()
                        .unwrap()
                        .by
                        .starts_with("policy:spec.spawn")
                );
            },
        ),
        scenario(
            "denied, changed and approved, it runs what was approved last",
            after_two_steps([
                Move::Deny,
                Move::Stage("queen", "helper", "notes.md", "two"),
                Move::Offer("queen", "helper"),
                Move::Approve,
            ]),
            |end| {
                in_sync(end, "helper");
                assert_eq!(states(end), [GateState::Denied, GateState::Consumed]);
                let digest = shared::canonical::digest_file(b"two");
                assert_eq!(laid(end, "helper"), [format!("notes.md {}", digest.short())]);
                assert!(end.was_told("queen", "because"), "the reason: {:?}", end.told);
            },
        ),
        scenario(
            "what was denied is not asked about again",
            after_two_steps([Move::Deny, Move::Offer("queen", "helper")]),
            |end| {
                is_only_prepared(end, "helper");
                assert_eq!(states(end), [GateState::Denied]);
            },
        ),
        scenario(
            "a first system that fails stops the agent, and nothing else comes in its place",
            after_two_steps([Move::Approve]),
            |end| {
                assert!(!runs(end, "helper"));
                assert_eq!(states(end), [GateState::Consumed]);
                assert_eq!(
                    end.events.iter().filter(|e| e.kind == "deployed").count(),
                    1,
                    "the queen"
                );
                assert!(end.was_told("queen", "failed its probation"), "{:?}", end.told);
            },
        )
        .with_behaviour("shed", Behaviour::Silent),
        scenario(
            "a spawned agent that the spec names keeps its uid, its files and what the spec allows",
            after_two_steps([
                Move::Approve,
                spec(json!({ "queen": { "role": "manager" }, "helper": { "prompt": "tend the wiki" } })),
            ]),
            |end| {
                in_sync(end, "helper");
                assert_eq!(prompt(end, "helper"), "tend the wiki");
                assert_eq!(laid(end, "helper").len(), 1);
                assert_eq!(end.count("makeRepo"), 2);
            },
        ),
        scenario(
            "a spawned agent is destroyed like any that no spec declares",
            after_two_steps([Move::Approve, Move::Destroy("helper"), Move::Approve]),
            |end| {
                assert!(!exists(end, "helper"));
                assert_eq!(end.count("archive"), 1);
            },
        ),
    ]
}

fn undecided() -> Vec<Scenario> {
    vec![
        scenario(
            "an offer that nobody decided about has no power",
            two_steps(),
            |end| {
                is_only_prepared(end, "helper");
                assert_eq!(states(end), [GateState::Open]);
                assert_eq!(
                    end.status("helper").sync.value,
                    shared::status::Sync::InSync,
                    "an offer is no drift"
                );
            },
        ),
        scenario(
            "a draft that is not offered asks nobody",
            vec![queen(), Move::Draft("queen", "helper")],
            |end| {
                is_only_prepared(end, "helper");
                assert!(spawns(end).is_empty());
                assert_eq!(end.count("build"), 1, "the queen's alone");
            },
        ),
        scenario(
            "a changed draft takes its offer back",
            after_two_steps([Move::Stage("queen", "helper", "notes.md", "two"), Move::Approve]),
            |end| {
                is_only_prepared(end, "helper");
                assert_eq!(states(end), [GateState::Superseded]);
            },
        ),
        scenario(
            "a draft that is given up leaves nothing",
            after_two_steps([Move::GiveUp("queen", "helper"), Move::Approve]),
            |end| {
                assert!(!exists(end, "helper"));
                assert!(!end.fingerprint.contains("helper"), "{}", end.fingerprint);
                assert_eq!(end.world.staged_drafts(), 0);
            },
        ),
        scenario(
            "a name that was given up is free again",
            after_two_steps([
                Move::GiveUp("queen", "helper"),
                Move::SpawnOnce("queen", "helper", OVERLAY),
                Move::Approve,
            ]),
            |end| in_sync(end, "helper"),
        ),
        scenario(
            "a manager cannot touch another's draft",
            vec![
                spec(json!({ "queen": { "role": "manager" }, "rook": { "role": "manager" }, "pawn": {} })),
                Move::Draft("queen", "helper"),
                Move::Stage("rook", "helper", "notes.md", "mine"),
                Move::Offer("rook", "helper"),
                Move::GiveUp("rook", "helper"),
                Move::SpawnOnce("pawn", "other", OVERLAY),
            ],
            |end| {
                is_only_prepared(end, "helper");
                assert_eq!(end.world.staged_drafts(), 0);
                assert!(spawns(end).is_empty());
                assert!(!exists(end, "other"));
            },
        ),
    ]
}

fn void() -> Vec<Scenario> {
    vec![
        scenario(
            "the spec names a draft: its gate ends, its manager is told, and nothing prepared is in force",
            after_two_steps([spec(json!({ "queen": { "role": "manager" }, "helper": {} }))]),
            |end| {
                in_sync(end, "helper");
                assert!(runs(end, "helper"));
                assert_eq!(prompt(end, "helper"), "");
                assert!(laid(end, "helper").is_empty());
                assert_eq!(end.world.staged_drafts(), 0);
                assert_eq!(spawns(end)[0].state, GateState::Superseded);
                assert!(
                    end.was_told("queen", "the spec declares helper"),
                    "{:?}",
                    end.told
                );
            },
        ),
        scenario(
            "the hive fills up while the gate is open: the offer is void",
            vec![
                hive(&json!({ "maxAgents": 2 })),
                Move::SpawnOnce("queen", "helper", OVERLAY),
                spec_of_two(2),
                Move::Approve,
            ],
            |end| {
                is_only_prepared(end, "helper");
                assert_eq!(states(end), [GateState::Superseded]);
                assert!(end.was_told("queen", "maxAgents is 2"), "{:?}", end.told);
            },
        ),
        scenario(
            "offered drafts count as agents",
            vec![
                hive(&json!({ "maxAgents": 2 })),
                Move::SpawnOnce("queen", "helper", OVERLAY),
                Move::SpawnOnce("queen", "other", OVERLAY),
            ],
            |end| assert!(!exists(end, "other")),
        ),
        scenario(
            "fewer agents allowed than there are removes nobody",
            after_two_steps([Move::Approve, hive(&json!({ "maxAgents": 1 }))]),
            |end| in_sync(end, "helper"),
        ),
        scenario(
            "a draft whose build fails is told and stays",
            after_two_steps([]),
            |end| {
                is_only_prepared(end, "helper");
                assert!(spawns(end).is_empty());
                assert!(end.was_told("queen", "the build failed"), "{:?}", end.told);
            },
        )
        .with_unbuildable("shed"),
        scenario(
            "a manager that is removed takes its offers along",
            after_two_steps([spec(json!({ "alice": {} })), Move::Approve]),
            |end| {
                is_only_prepared(end, "helper");
                assert!(states(end).iter().all(|state| *state != GateState::Consumed));
            },
        ),
        scenario(
            "a policy that never lets anybody spawn ends the offer",
            vec![
                hive(&json!({ "policy": { "agent": { "spawn": "never" } } })),
                Move::SpawnOnce("queen", "helper", OVERLAY),
            ],
            |end| {
                is_only_prepared(end, "helper");
                assert!(spawns(end).is_empty());
                assert!(end.was_told("queen", "agent.spawn=never"), "{:?}", end.told);
            },
        ),
        scenario(
            "what goes beyond spawnDefaults is asked about by the stricter class",
            vec![
                hive(&json!({ "policy": { "agent": { "spawn": "auto" } } })),
                Move::SpawnOnce("queen", "plain", "{}"),
                Move::SpawnOnce("queen", "helper", OVERLAY),
            ],
            |end| {
                in_sync(end, "plain");
                is_only_prepared(end, "helper");
                assert_eq!(spawns(end)[0].class, GateClass::DeployWidens);
            },
        ),
    ]
}

fn spec_of_two(max: u32) -> Move {
    let agents = json!({ "queen": { "role": "manager" }, "alice": {} });
    let document = json!({ "version": 1, "hive": { "name": "sim" }, "maxAgents": max, "agents": agents });
    Move::Spec(document.to_string())
}
