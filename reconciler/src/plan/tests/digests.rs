//! What an approval is of: every field of an effect, and nothing else.

use std::collections::BTreeSet;

use shared::canonical::{Encoding, digest};
use shared::config::{AgentConfig, Overlay};
use shared::gate::{Asker, GateClass, GateView, Verdict};
use shared::spec::{PolicySpec, SecretSpec};
use shared::{AgentUid, Digest, HiveId};

use super::world::*;
use crate::gate::effect_digest;
use crate::host::Launch;
use crate::host::fake::oid;
use crate::model::build::{BuildRequest, assemble, build_inputs};
use crate::model::step::{Action, Authority, Step};
use crate::model::testing::notices_every_field;
use crate::plan::Plan;

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

/// The fields of the action that its effect digest notices: all that could be changed.
fn noticed(step: &Step) -> Vec<String> {
    let digest_with = |action: &Action| {
        let action = action.clone();
        digest_of(&Step {
            action,
            ..step.clone()
        })
    };
    notices_every_field(&step.action, digest_with, PartialEq::eq)
}

#[test]
fn the_digest_of_a_deployment_notices_every_field() {
    let fields = noticed(&deploy());
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
    let fields = noticed(&build());
    assert!(fields.len() > 30, "the request lost its fields: {fields:?}");
}

/// But whether the agent should run, when it may be interrupted and what it may spend.
#[test]
fn the_key_of_a_build_notices_every_input() {
    let request = Case::at_rest_with(RICH).candidate();
    let inputs = |request: &BuildRequest| BuildRequest {
        spec: build_inputs(&request.spec),
        ..request.clone()
    };
    let key = |request: &BuildRequest| request.key().unwrap();
    let fields = notices_every_field(&request, key, |one, other| inputs(one) == inputs(other));
    assert!(fields.len() > 30, "the request lost its fields: {fields:?}");
    for budget in ["usdPerDay", "tokensPerDay"] {
        assert!(!fields.contains(&format!("/spec/budget/{budget}")));
    }
}

#[test]
fn a_system_is_told_apart_by_launch_config_and_host_side() {
    let case = Case::at_rest_with(RICH);
    let system = |change: fn(&mut BuildRequest)| {
        let mut request = case.candidate();
        change(&mut request);
        let output = assemble(&request, &Overlay::default(), Digest::to_string);
        output.unwrap().system
    };
    let changes: [fn(&mut BuildRequest); 7] = [
        |_| {},
        |request| request.harness = "/bin/another".into(),
        |request| request.spec.limits.tasks = Some(1),
        |request| request.spec.prompt = "another".to_owned(),
        |request| request.commit = oid("another"),
        |request| request.spec.egress = ["another.example".to_owned()].into(),
        |request| {
            let secret = SecretSpec {
                file: "/run/key".to_owned(),
                version: "2".to_owned(),
            };
            request.spec.secrets.insert("key".to_owned(), secret);
        },
    ];
    let systems: BTreeSet<String> = changes.into_iter().map(system).collect();
    assert_eq!(systems.len(), changes.len());
}

/// Another program restarts the agent, another provider is taken up between two turns; an agent that uses neither is
/// left alone.
#[test]
fn what_a_driver_needs_of_the_host_changes_only_the_agents_that_use_it() {
    let differs = |driver: &str, network: &str, change: fn(&mut BuildRequest)| {
        let spec = format!(r#"{{ "driver": {{ "kind": "{driver}" }}, "network": "{network}" }}"#);
        let request = Case::at_rest_with(&spec).candidate();
        let mut other = request.clone();
        change(&mut other);
        assert_ne!(request.key().unwrap(), other.key().unwrap());
        let [before, after] =
            [request, other].map(|r| assemble(&r, &Overlay::default(), Digest::to_string).unwrap());
        let widened = after.capability_diff(Some(&before)).into_iter();
        let widened: Vec<_> = widened
            .filter(|change| change.widens)
            .map(|change| change.field)
            .collect();
        let restarts = before.toplevel != after.toplevel;
        (restarts, before.config_digest != after.config_digest, widened)
    };
    let program: fn(&mut BuildRequest) = |request| request.programs.claude = Some("/opt/claude".to_owned());
    let provider: fn(&mut BuildRequest) = |request| request.model_url = Some("http://another".to_owned());
    let nothing = || (false, false, Vec::new());
    assert_eq!(
        differs("claude", "host", program),
        (true, false, vec!["programs.claude".to_owned()])
    );
    assert_eq!(
        differs("claude", "host", provider),
        (false, true, vec!["egress.modelUrl".to_owned()])
    );
    assert_eq!(differs("claude", "model", provider), nothing());
    assert_eq!(differs("scripted", "host", program), nothing());
    assert_eq!(differs("scripted", "host", provider), nothing());
}

#[test]
fn launch_config_and_plan_are_told_apart_by_every_field() {
    let output = Case::at_rest_with(RICH).output();
    let toplevel = |launch: &Launch| digest(Encoding::Toplevel, launch).unwrap();
    assert_eq!(toplevel(&output.launch), output.toplevel);
    notices_every_field(&output.launch, toplevel, PartialEq::eq);
    let config = |config: &AgentConfig| digest(Encoding::Config, config).unwrap();
    assert_eq!(config(&output.config), output.config_digest);
    notices_every_field(&output.config, config, PartialEq::eq);
    notices_every_field(
        &deploy(),
        |step| plan_of([step], "").digest().unwrap(),
        PartialEq::eq,
    );
}

fn plan_of<const N: usize>(steps: [&Step; N], summary: &str) -> Plan {
    let mut plan = Plan::new(None);
    for step in steps {
        let view = GateView {
            summary: summary.to_owned(),
            ..GateView::default()
        };
        plan.push(&facts(), step.clone(), view).unwrap();
    }
    plan
}

#[test]
fn the_order_of_steps_is_part_of_a_plan_and_their_texts_are_not() {
    let (build, deploy) = (build(), deploy());
    let before = plan_of([&build, &deploy], "").digest().unwrap();
    assert_ne!(plan_of([&deploy, &build], "").digest().unwrap(), before);
    assert_eq!(
        plan_of([&build, &deploy], "other words").digest().unwrap(),
        before
    );
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
