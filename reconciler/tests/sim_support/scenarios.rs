//! The stories, by theme.
//!
//! A theme is a file with `fn all() -> Vec<Scenario>`, named here twice: as a module and in [`all`].

mod agents;
mod lifecycle;
mod orders;
mod proposals;
mod removal;
mod spawn;
mod spec;

use reconciler::host::UnitState;
use serde_json::{Value, json};
use shared::status::{Activity, Sync};

use super::driver::{End, Move, Scenario};

/// Every scenario. The disturbances multiply over this list.
pub(crate) fn all() -> Vec<Scenario> {
    [
        agents::all(),
        lifecycle::all(),
        orders::all(),
        proposals::all(),
        removal::all(),
        spawn::all(),
        spec::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn spec(agents: Value) -> Move {
    Move::Spec(json!({ "version": 1, "hive": { "name": "sim" }, "agents": agents }).to_string())
}

fn two_agents() -> Move {
    spec(json!({ "queen": { "role": "manager" }, "alice": { "prompt": "tend the wiki" } }))
}

/// The spec of two agents with more in it.
fn with(more: Value) -> Move {
    let agents = json!({ "queen": { "role": "manager" }, "alice": { "prompt": "tend the wiki" } });
    let mut spec = json!({ "version": 1, "hive": { "name": "sim" }, "agents": agents });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    Move::Spec(spec.to_string())
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
