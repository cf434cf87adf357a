//! Candidates from the spec, and proposals.

use shared::agent_api::ProposalPhase;
use shared::gate::{GateClass, GateState, Verdict};
use shared::plan::WaitingOn;
use shared::spec::{ConfigField, RunState};
use shared::{CommitOid, ProposalNumber};

use super::world::*;
use crate::gate::{Permission, permission, revalidate};
use crate::host::UnitState;
use crate::model::gates::GateAction;
use crate::model::records::{AgentLife, BuildState, Quarantine};
use crate::model::step::{Action, Interruption, PlannedStep};
use crate::plan::Plan;

fn phases(plan: &Plan) -> Vec<(ProposalPhase, &str)> {
    plan.steps.iter().filter_map(phase).collect()
}

fn phase(planned: &PlannedStep) -> Option<(ProposalPhase, &str)> {
    match &planned.step.action {
        Action::SetPhase { phase, reason, .. } => Some((*phase, reason)),
        _ => None,
    }
}

#[test]
fn an_agent_at_rest_has_no_steps_and_no_waits() {
    let plan = Case::at_rest().plan();
    assert_eq!(
        (kinds(&plan), plan.waiting.len(), plan.wake_at),
        (vec![], 0, None)
    );
}

#[test]
fn a_declared_agent_is_spawned_under_a_gate_of_its_own() {
    let plan = Case::declared().plan();
    assert_eq!(kinds(&plan), ["spawn"]);
    assert_eq!(class(step(&plan, "spawn")), Some(GateClass::Spawn));
}

#[test]
fn a_spawned_agent_is_built_then_deployed_then_written_then_started() {
    let mut case = Case::spawned();
    assert_eq!(case.kinds(), ["build"]);
    let output = case.build_candidate();
    assert_eq!(case.kinds(), ["deploy"]);
    case.deployed(output);
    assert_eq!(case.kinds(), ["activate"]);
    case.running();
    case.absent();
    assert_eq!(case.kinds(), ["start"]);
}

#[test]
fn an_agent_with_a_faulty_entry_that_was_never_accepted_waits_for_the_spec() {
    let mut case = Case::declared();
    case.spec = None;
    assert_eq!(case.kinds(), Vec::<&str>::new());
    assert!(matches!(&case.waits()[..], [WaitingOn::Dependency { first }] if first.contains("agents.alice")));
}

#[test]
fn a_spec_for_another_kind_of_daemon_changes_nothing_and_ends_no_gate() {
    let mut case = Case::at_rest();
    case.facts.unsupported = Some("not part of this version".to_owned());
    let plan = case.plan();
    assert!(plan.steps.is_empty() && plan.partial);
    assert!(matches!(plan.waiting[0].on, WaitingOn::Terminal { .. }));
}

#[test]
fn an_archived_agent_is_left_alone() {
    let mut case = Case::at_rest();
    case.ledger.record.life = AgentLife::Archived { since: at(0) };
    assert!(case.plan().steps.is_empty());
}

#[test]
fn a_removed_agent_is_stopped_and_only_then_asked_about() {
    let mut case = Case::at_rest();
    case.spec = None;
    case.ledger.record.life = AgentLife::Removed { since: at(500) };
    assert_eq!(case.kinds(), ["stop"]);
    case.absent();
    let plan = case.plan();
    assert_eq!(class(step(&plan, "archive")), Some(GateClass::Archive));
    assert_eq!(
        permission(&case.facts.policy, &plan.steps[0], &[]),
        Permission::NoGate
    );
}

#[test]
fn a_removed_agent_is_neither_stopped_nor_archived_while_the_runtime_is_unknown() {
    let mut case = Case::at_rest();
    case.ledger.record.life = AgentLife::Removed { since: at(500) };
    case.inventory.unit = Err("no answer".to_owned());
    let plan = case.plan();
    assert!(plan.steps.is_empty() && plan.partial);
    assert!(matches!(&plan.waiting[0].on, WaitingOn::StaleInventory { source, .. } if source == "runtime"));
}

#[test]
fn what_runs_under_a_removed_agents_name_without_being_ours_is_not_touched() {
    let mut case = Case::at_rest();
    case.ledger.record.life = AgentLife::Removed { since: at(500) };
    case.inventory.unit = Ok(UnitState::Foreign {
        what: "pid 7".to_owned(),
    });
    assert!(case.plan().steps.is_empty());
    assert!(matches!(&case.waits()[..], [WaitingOn::Terminal { error }] if error.contains("pid 7")));
}

/// Each source in turn: no step that takes anything away, and a wait that names the source.
#[test]
fn unknown_is_not_absent() {
    type Blind = fn(&mut Case);
    let sources: [(&str, Blind); 4] = [
        ("runtime", |case| {
            case.inventory.unit = Err("no answer".to_owned());
        }),
        ("config repo", |case| {
            case.inventory.repo = Err("no answer".to_owned());
        }),
        ("config repo", |case| {
            case.inventory.descends = Err("no answer".to_owned());
        }),
        ("folders", |case| {
            case.inventory.folders = Err("no answer".to_owned());
        }),
    ];
    for (index, (source, blind)) in sources.into_iter().enumerate() {
        let mut case = Case::at_rest();
        case.propose(1);
        case.build_proposal(r#"{ "network": "none" }"#);
        blind(&mut case);
        let plan = case.plan();
        assert!(plan.partial, "{index}: a gate must not end");
        assert!(
            plan.waiting.iter().any(
                |w| matches!(&w.on, WaitingOn::StaleInventory { source: named, error: Some(_) } if named == source)
            ),
            "{index}: {source} is not named: {:?}",
            plan.waiting
        );
        let away = [
            "stop",
            "restart",
            "start",
            "archive",
            "projectRef",
            "activate",
            "revert",
        ];
        assert!(
            kinds(&plan).iter().all(|kind| !away.contains(kind)),
            "{index}: {:?}",
            kinds(&plan)
        );
    }
}

#[test]
fn systems_that_could_not_be_looked_for_are_not_built_again() {
    let mut case = Case::at_rest();
    case.inventory.systems = Err("no answer".to_owned());
    assert!(case.plan().steps.is_empty());
    case.inventory.systems = Ok([(case.output().system, false)].into());
    assert_eq!(case.kinds(), ["build"]);
}

#[test]
fn a_deployed_system_that_vanished_is_not_written_before_it_is_built_again() {
    let mut case = Case::at_rest();
    case.inventory.folders = Ok(Default::default());
    case.inventory.systems = Ok([(case.output().system, false)].into());
    assert_eq!(case.kinds(), ["build"]);
}

#[test]
fn a_system_that_vanished_keeps_the_approval_to_deploy_it_until_it_is_built_again() {
    let mut case = Case::at_rest();
    case.propose(1).phase = ProposalPhase::Approved;
    let output = case.build_proposal(r#"{ "prompt": "tend the shed" }"#);
    let deploy = step(&case.plan(), "deploy").clone();
    let approved = case.gate(&deploy, GateState::Approved);
    case.inventory.systems = Ok([(output.system, false)].into());

    let plan = case.plan();
    let steps: Vec<_> = kinds(&plan)
        .into_iter()
        .filter(|kind| *kind != "projectRef")
        .collect();
    assert_eq!(steps, ["build"]);
    let ended = revalidate(&case.facts.policy, &plan, &case.ledger.gates);
    let ends = |action: &GateAction| matches!(action, GateAction::End { gate, .. } if *gate == approved);
    assert!(!ended.iter().any(ends), "{ended:?}");

    case.inventory.systems = Ok(Default::default());
    let again = step(&case.plan(), "deploy").clone();
    assert_eq!(
        permission(&case.facts.policy, &again, &case.ledger.gates),
        Permission::Granted(Some(approved))
    );
}

#[test]
fn a_build_that_failed_is_named_and_not_tried_again() {
    let mut case = Case::at_rest();
    case.spec.as_mut().unwrap().prompt = "new".to_owned();
    let request = case.candidate();
    case.build_fails(&request);
    assert!(case.kinds().is_empty());
    assert!(matches!(&case.waits()[..], [WaitingOn::Terminal { error }] if error.contains("no such model")));
}

#[test]
fn whether_it_should_run_and_what_it_may_spend_builds_nothing() {
    let mut case = Case::at_rest();
    let spec = case.spec.as_mut().unwrap();
    spec.budget.usd_per_day = Some(3.0);
    spec.drain = shared::spec::Drain::Immediate;
    assert!(case.kinds().is_empty());
    case.spec.as_mut().unwrap().run = RunState::Stopped;
    assert_eq!(case.kinds(), ["stop"]);
}

#[test]
fn a_quarantined_system_is_never_deployed() {
    let mut case = Case::at_rest();
    case.spec.as_mut().unwrap().prompt = "new".to_owned();
    let output = case.build_candidate();
    assert_eq!(case.kinds(), ["deploy"]);
    let quarantine = Quarantine {
        reason: "it crashed".to_owned(),
        since: at(500),
    };
    case.ledger.quarantine.insert(output.system, quarantine);
    assert!(case.kinds().is_empty());
    assert!(matches!(&case.waits()[..], [WaitingOn::Terminal { error }] if error.contains("it crashed")));
}

#[test]
fn a_proposal_whose_system_is_quarantined_fails_with_the_reason() {
    let mut case = Case::at_rest();
    case.propose(1);
    let output = case.build_proposal(r#"{ "prompt": "explode" }"#);
    let quarantine = Quarantine {
        reason: "it crashed".to_owned(),
        since: at(500),
    };
    case.ledger.quarantine.insert(output.system, quarantine);
    assert_eq!(phases(&case.plan()), [(ProposalPhase::Failed, "it crashed")]);
}

#[test]
fn a_new_spec_deploys_during_a_probation_and_a_proposal_does_not() {
    let mut case = Case::at_rest();
    case.on_trial();
    case.report().config = None;
    case.propose(1);
    case.build_proposal(r#"{ "network": "none" }"#);
    let plan = case.plan();
    assert!(!kinds(&plan).contains(&"deploy"));
    assert!(
        plan.offers
            .iter()
            .any(|w| w.what == "proposal 1" && matches!(w.on, WaitingOn::Health { .. }))
    );

    case.spec.as_mut().unwrap().prompt = "new".to_owned();
    case.build_candidate();
    let plan = case.plan();
    assert!(matches!(
        &step(&plan, "deploy").step.action,
        Action::Deploy { proposal: None, .. }
    ));
}

#[test]
fn a_proposal_waits_until_what_the_spec_asks_for_is_deployed() {
    let mut case = Case::at_rest();
    case.propose(1);
    case.build_proposal(r#"{ "network": "none" }"#);
    case.spec.as_mut().unwrap().prompt = "new".to_owned();
    case.build_candidate();
    let plan = case.plan();
    assert!(matches!(
        &step(&plan, "deploy").step.action,
        Action::Deploy { proposal: None, .. }
    ));
    assert!(plan.offers.iter().any(|w| w.what == "proposal 1"));
    assert_eq!(plan.ended_because, "the spec changed underneath it");
}

#[test]
fn a_proposal_is_built_before_anybody_is_asked() {
    let mut case = Case::at_rest();
    case.propose(1);
    let plan = case.plan();
    assert_eq!(kinds(&plan), ["setPhase", "build"]);
    assert_eq!(phases(&plan), [(ProposalPhase::Building, "")]);
    case.ledger.proposals[0].phase = ProposalPhase::Building;
    case.write_tags();
    assert_eq!(case.kinds(), ["build"]);
    case.build_proposal(r#"{ "network": "none" }"#);
    assert_eq!(phases(&case.plan()), [(ProposalPhase::Proposed, "")]);
    case.ledger.proposals[0].phase = ProposalPhase::Proposed;
    assert_eq!(case.kinds(), ["deploy"]);
}

#[test]
fn a_proposal_that_does_not_build_fails_with_the_builders_words() {
    let mut case = Case::at_rest();
    let commit = case.propose(1).commit.clone();
    let request = case.request(&commit, crate::model::build::GrantMode::Asked);
    case.build_fails(&request);
    assert_eq!(phases(&case.plan()), [(ProposalPhase::Failed, "no such model")]);
}

#[test]
fn a_proposal_on_a_main_that_moved_fails_with_advice() {
    let mut case = Case::at_rest();
    let commit = case.propose(1).commit.clone();
    case.build_proposal(r#"{ "network": "none" }"#);
    case.inventory.descends = Ok([(commit, false)].into());
    let plan = case.plan();
    let [(ProposalPhase::Failed, reason)] = phases(&plan)[..] else {
        panic!("{:?}", phases(&plan));
    };
    assert!(
        reason.contains("rebase") && reason.contains("propose again"),
        "{reason}"
    );
    assert!(plan.ended_because.contains("main moved on"));
}

#[test]
fn a_commit_that_was_not_looked_at_yet_is_unknown() {
    let mut case = Case::at_rest();
    case.propose(1);
    case.inventory.descends = Ok(Default::default());
    let plan = case.plan();
    assert!(plan.steps.is_empty() && plan.partial);
}

#[test]
fn a_policy_that_says_never_denies_the_proposal_and_names_the_rule() {
    let mut case = Case::at_rest();
    case.facts
        .policy
        .agent
        .insert(GateClass::DeployWidens, Verdict::Never);
    case.propose(1);
    case.build_proposal(r#"{ "prompt": "other" }"#);
    assert_eq!(
        phases(&case.plan()),
        [(
            ProposalPhase::Denied,
            "the policy agent.deployWidens=never forbids it"
        )]
    );
}

#[test]
fn a_locked_field_is_not_overlaid_and_its_proposal_widens_nothing() {
    let mut case = Case::at_rest_with(r#"{ "prompt": "fixed", "locked": ["prompt"] }"#);
    case.propose(1);
    let output = case.build_proposal(r#"{ "prompt": "other" }"#);
    assert_eq!(output.config.prompt, "fixed");
    assert_eq!(
        output.origins[&ConfigField::Prompt],
        shared::status::Origin::Locked
    );
    let plan = case.plan();
    assert_eq!(class(step(&plan, "deploy")), Some(GateClass::DeployWithin));
}

#[test]
fn the_class_says_what_changes_and_whether_it_widens() {
    let wiki = r#"{ "mcpServers": { "wiki": { "command": "/bin/wiki" } } }"#;
    let table = [
        ("{}", wiki, GateClass::DeployWidens, Interruption::Reload),
        (
            wiki,
            r#"{ "mcpServers": { "wiki": null } }"#,
            GateClass::DeployWithin,
            Interruption::Reload,
        ),
        (
            "{}",
            r#"{ "prompt": "other" }"#,
            GateClass::DeployWidens,
            Interruption::Reload,
        ),
        (
            "{}",
            r#"{ "network": "none" }"#,
            GateClass::DeployWithin,
            Interruption::Restart,
        ),
        (
            "{}",
            r#"{ "network": "host" }"#,
            GateClass::DeployWidens,
            Interruption::Restart,
        ),
        (
            "{}",
            r#"{ "mcpServers": { "wiki": { "command": "/bin/wiki" } }, "network": "none" }"#,
            GateClass::DeployWidens,
            Interruption::Restart,
        ),
    ];
    for (spec, overlay, wanted, interruption) in table {
        let mut case = Case::at_rest_with(spec);
        case.propose(1);
        case.build_proposal(overlay);
        let plan = case.plan();
        let planned = step(&plan, "deploy");
        assert_eq!(class(planned), Some(wanted), "{spec} then {overlay}");
        let Action::Deploy { interrupts, .. } = &planned.step.action else {
            unreachable!()
        };
        assert_eq!(*interrupts, interruption, "{spec} then {overlay}");
    }
}

/// A commit can bring any file along, so only the spec's own change of nothing but MCP servers is a mere reload.
#[test]
fn only_a_change_of_the_spec_is_a_mere_reload() {
    let wiki = r#"{ "mcpServers": { "wiki": { "command": "/bin/wiki" } } }"#;
    for (before, after, wanted) in [
        ("{}", wiki, GateClass::ReloadWidens),
        (wiki, "{}", GateClass::ReloadWithin),
    ] {
        let mut case = Case::at_rest_with(before);
        case.spec = Some(agent_spec(after));
        case.build_candidate();
        let plan = case.plan();
        assert_eq!(
            class(step(&plan, "deploy")),
            Some(wanted),
            "{before} then {after}"
        );

        // The same change, but brought by a commit.
        let mut case = Case::at_rest_with(before);
        case.propose(1);
        let overlay = if before == "{}" {
            wiki
        } else {
            r#"{ "mcpServers": { "wiki": null } }"#
        };
        case.build_proposal(overlay);
        let plan = case.plan();
        let deploys = [GateClass::DeployWithin, GateClass::DeployWidens];
        let asked = class(step(&plan, "deploy")).unwrap();
        assert!(deploys.contains(&asked), "{before} then {overlay}: {asked}");
    }
}

#[test]
fn a_deployment_watches_the_servers_it_adds_or_alters() {
    let mut case = Case::at_rest_with(
        r#"{ "mcpServers": { "kept": { "command": "/bin/kept" }, "moved": { "command": "/bin/a" } } }"#,
    );
    case.propose(1);
    case.build_proposal(
        r#"{ "mcpServers": { "moved": { "command": "/bin/b" }, "new": { "command": "/bin/new" } } }"#,
    );
    let plan = case.plan();
    let Action::Deploy { watched, .. } = &step(&plan, "deploy").step.action else {
        unreachable!()
    };
    let watched: Vec<_> = watched.iter().map(shared::ServerName::as_str).collect();
    assert_eq!(watched, ["moved", "new"]);
}

#[test]
fn approved_without_a_decision_that_still_holds_is_taken_back() {
    let mut case = Case::at_rest();
    case.propose(1).phase = ProposalPhase::Approved;
    case.build_proposal(r#"{ "network": "none" }"#);
    case.write_tags();
    let plan = case.plan();
    assert_eq!(phases(&plan), [(ProposalPhase::Proposed, "")]);
    case.gate(step(&plan, "deploy"), GateState::Approved);
    assert_eq!(case.kinds(), ["deploy"]);
}

#[test]
fn every_proposal_is_judged_by_itself() {
    let mut case = Case::at_rest();
    case.propose(1);
    case.build_proposal(r#"{ "network": "none" }"#);
    case.propose(2);
    case.build_proposal(r#"{ "prompt": "other" }"#);
    let plan = case.plan();
    let of = |planned: &PlannedStep| match &planned.step.action {
        Action::Deploy { proposal, .. } => *proposal,
        _ => None,
    };
    let numbers: Vec<_> = plan.steps.iter().filter_map(of).collect();
    assert_eq!(numbers, [ProposalNumber(1), ProposalNumber(2)]);
}

#[test]
fn an_ended_proposal_plans_nothing() {
    for phase in [
        ProposalPhase::Deployed,
        ProposalPhase::Failed,
        ProposalPhase::Denied,
    ] {
        let mut case = Case::at_rest();
        case.propose(1).phase = phase;
        case.write_tags();
        assert!(case.kinds().is_empty(), "{phase:?}");
    }
}

#[test]
fn suspended_plans_nothing_ends_no_gate_and_still_announces() {
    let mut case = Case::at_rest();
    case.spec.as_mut().unwrap().prompt = "new".to_owned();
    let config = case.output().config_digest;
    case.ledger.overrides.suspended = Some(over((), Some(at(NOW + 60))));
    let plan = case.plan();
    assert!(plan.steps.is_empty() && plan.partial);
    assert_eq!(plan.announce, Some(announcement(config, false)));
    assert_eq!(plan.wake_at, Some(at(NOW + 60)));
    assert!(matches!(&plan.waiting[0].on, WaitingOn::Suspended { reason, .. } if reason == "for a reason"));

    case.now = at(NOW + 60);
    assert_eq!(case.kinds(), ["build"]);
}

#[test]
fn a_gate_keeps_its_digest_as_long_as_its_effect_is_the_same() {
    let mut case = Case::at_rest();
    case.propose(1);
    case.build_proposal(r#"{ "network": "none" }"#);
    let plan = case.plan();
    case.gate(step(&plan, "deploy"), GateState::Approved);
    case.now = at(NOW + 5_000);
    case.absent();
    case.ledger.inbox = 7;
    let later = case.plan();
    let actions = revalidate(&case.facts.policy, &later, &case.ledger.gates);
    let ends = actions
        .iter()
        .filter(|action| matches!(action, GateAction::End { .. }));
    assert_eq!(ends.count(), 0, "the approval holds: {actions:?}");
}

#[test]
fn an_agent_without_a_seed_says_so() {
    let mut case = Case::spawned();
    case.ledger.record.seed = None;
    assert!(case.kinds().is_empty());
    assert!(
        case.waits()
            .iter()
            .any(|on| matches!(on, WaitingOn::Terminal { error } if error.contains("seed")))
    );
}

#[test]
fn the_build_of_a_removed_grant_lapses_into_the_specs_own_value() {
    let mut case = Case::at_rest_with(r#"{ "prompt": "tend the wiki" }"#);
    case.propose(1);
    let asked = case.build_proposal(r#"{ "prompt": "tend the garden" }"#);
    case.deployed(asked.clone());
    case.spec.as_mut().unwrap().prompt = "tend nothing".to_owned();
    let request = case.candidate();
    let overlay = serde_json::from_str(r#"{ "prompt": "tend the garden" }"#).unwrap();
    let output =
        crate::model::build::assemble(&request, &overlay, |digest| format!("/systems/{digest}")).unwrap();
    assert_eq!(output.config.prompt, "tend nothing");
    let commit: &CommitOid = &output.commit;
    assert_eq!(*commit, asked.commit);
    case.ledger
        .builds
        .insert(request.key().unwrap(), BuildState::Built(Box::new(output)));
    assert!(case.kinds().contains(&"deploy"));
}
