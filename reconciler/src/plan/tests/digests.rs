//! What an approval is of: every field of an effect, and nothing else.

use serde_json::{Value, json};
use shared::gate::{Asker, GateClass, Verdict};
use shared::spec::PolicySpec;
use shared::{AgentUid, Digest, HiveId};

use super::world::*;
use crate::gate::effect_digest;
use crate::model::step::{Action, Authority, Step};

const RICH: &str = r#"{
    "role": "manager", "run": "paused", "prompt": "tend the wiki",
    "driver": { "kind": "scripted", "model": "haiku" },
    "mcpServers": { "wiki": { "command": "/bin/wiki", "args": ["a"], "env": { "A": "b" }, "allowedTools": ["read"] } },
    "tools": { "allow": ["Read"], "deny": ["Bash"] }, "recipients": ["queen"],
    "binds": [{ "source": "/srv/wiki", "target": "/wiki", "readOnly": true }],
    "limits": { "cpu": "200%", "memory": "4G", "tasks": 4096 },
    "network": "hosts", "egress": ["example.org"], "drain": "immediate",
    "budget": { "usdPerDay": 5.0, "tokensPerDay": 2000000 }, "maxTurnMinutes": 7,
    "locked": ["tools"], "modules": ["/m.nix"]
}"#;

fn deploy() -> Step {
    let mut case = Case::at_rest_with(RICH);
    case.propose(1);
    case.build_proposal(
        r#"{ "prompt": "x", "mcpServers": { "new": { "command": "/bin/new" } }, "network": "none" }"#,
    );
    let plan = case.plan();
    step(&plan, "deploy").step.clone()
}

fn build() -> Step {
    let mut case = Case::at_rest_with(RICH);
    case.propose(1);
    let plan = case.plan();
    step(&plan, "build").step.clone()
}

fn digest_of(step: &Step) -> Digest {
    effect_digest(facts().id, &facts().policy, step).unwrap()
}

/// Where the scalars are, and the ends of lists and maps, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{index}"), found);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(item, &format!("{at}/{key}"), found);
            }
        }
        _ => {}
    }
}

/// Other values that a field of any type may take.
fn others(value: &Value) -> Vec<Value> {
    let words = [
        "none",
        "reload",
        "restart",
        "claude",
        "scripted",
        "worker",
        "manager",
        "host",
        "model",
        "running",
        "stopped",
        "turnBoundary",
        "immediate",
        "prompt",
        "driver",
        "spec",
        "agent",
        "spawn",
        "asked",
    ];
    match value {
        Value::Bool(flag) => vec![json!(!flag)],
        Value::Number(number) => vec![json!(number.as_u64().unwrap_or(0) + 1), json!(0.5)],
        Value::String(text) => {
            let mut chars: Vec<char> = text.chars().collect();
            let mut changed = Vec::new();
            for last in ['0', '1'] {
                if let Some(end) = chars.last_mut() {
                    *end = last;
                }
                changed.push(json!(chars.iter().collect::<String>()));
            }
            changed.extend(words.map(|word| json!(word)));
            changed.push(json!({ "granted": {} }));
            changed
        }
        Value::Null => vec![json!("x"), json!(1), json!(["queen"])],
        Value::Array(items) => vec![json!(items.get(1..).unwrap_or_default())],
        Value::Object(_) => Vec::new(),
    }
}

/// Changes every field of the step in turn and expects another digest each time. Returns the fields it could change.
fn notices_every_field(step: &Step) -> Vec<String> {
    let before = digest_of(step);
    let whole = serde_json::to_value(&step.action).unwrap();
    let mut all = Vec::new();
    places(&whole, "", &mut all);
    let mut changed_fields = Vec::new();
    for place in all {
        let Some(value) = whole.pointer(&place) else {
            panic!("{place}")
        };
        let scalar = !value.is_object() && !value.is_array();
        let mut tried = 0;
        for other in others(value) {
            let mut changed = whole.clone();
            *changed.pointer_mut(&place).unwrap() = other;
            let Ok(action) = serde_json::from_value::<Action>(changed) else {
                continue;
            };
            if action == step.action {
                continue;
            }
            tried += 1;
            let other = Step {
                action,
                ..step.clone()
            };
            assert_ne!(digest_of(&other), before, "{place} is not part of the digest");
        }
        assert!(
            !scalar || tried > 0,
            "no other value was found for {place}: {value}"
        );
        if tried > 0 {
            changed_fields.push(place);
        }
    }
    changed_fields
}

#[test]
fn the_digest_of_a_deployment_notices_every_field() {
    let fields = notices_every_field(&deploy());
    for field in [
        "build",
        "system",
        "from",
        "commit",
        "main",
        "proposal",
        "interrupts",
        "grants/prompt",
    ] {
        let place = format!("/deploy/{field}");
        assert!(fields.contains(&place), "{place} of {fields:?}");
    }
    assert!(fields.iter().any(|place| place.starts_with("/deploy/watched")));
}

#[test]
fn the_digest_of_a_build_notices_every_field() {
    let fields = notices_every_field(&build());
    assert!(fields.len() > 30, "the request lost its fields: {fields:?}");
}

#[test]
fn the_digest_notices_hive_uid_class_asker_and_rule() {
    let step = deploy();
    let before = digest_of(&step);
    let other_hive = HiveId(uuid::Uuid::from_u128(99));
    assert_ne!(effect_digest(other_hive, &facts().policy, &step).unwrap(), before);
    let mut ruled = PolicySpec::default();
    ruled.agent.insert(GateClass::DeployWidens, Verdict::Auto);
    assert_ne!(effect_digest(facts().id, &ruled, &step).unwrap(), before);
    let uid = Some(AgentUid(uuid::Uuid::from_u128(98)));
    assert_ne!(digest_of(&Step { uid, ..step.clone() }), before);
    for (class, asked_by) in [
        (GateClass::DeployWithin, Asker::Agent),
        (GateClass::DeployWidens, Asker::Manager),
        (GateClass::DeployWidens, Asker::Spec),
    ] {
        let authority = Authority::Class { class, asked_by };
        assert_ne!(
            digest_of(&Step {
                authority,
                ..step.clone()
            }),
            before,
            "{class} {asked_by:?}"
        );
    }
}

#[test]
fn a_rule_about_another_class_changes_no_digest() {
    let mut ruled = PolicySpec::default();
    ruled.agent.insert(GateClass::Spawn, Verdict::Never);
    ruled.spec.insert(GateClass::DeployWidens, Verdict::Never);
    assert_eq!(
        effect_digest(facts().id, &ruled, &deploy()).unwrap(),
        digest_of(&deploy())
    );
}

/// Time, unit state, the order in which tags were made, and texts for people.
#[test]
fn what_is_not_part_of_the_effect_changes_no_digest() {
    let mut case = Case::at_rest();
    case.propose(1);
    case.build_proposal(r#"{ "prompt": "x" }"#);
    let before = step(&case.plan(), "deploy").effect_digest.clone();
    let same = |case: &Case, what: &str| {
        assert_eq!(step(&case.plan(), "deploy").effect_digest, before, "{what}");
    };
    case.now = at(NOW + 77);
    same(&case, "time");
    case.ledger.proposals[0].title = "another title".to_owned();
    case.ledger.proposals[0].reason = "another reason".to_owned();
    same(&case, "texts");
    case.repo().tags.clear();
    same(&case, "tags");
    case.busy();
    same(&case, "a turn");
    case.absent();
    same(&case, "the unit");
    case.ledger.failures.count = 3;
    case.ledger.inbox = 9;
    same(&case, "failures and inbox");
}
