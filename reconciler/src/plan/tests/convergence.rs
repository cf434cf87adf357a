//! Planning after applying is empty: whatever is carried out as planned is not planned again, and it comes to an end.

use proptest::prelude::*;
use shared::agent_api::ProposalPhase;
use shared::config::Overlay;
use shared::gate::GateState;
use shared::spec::RunState;

use super::laws::{cases, is_converged};
use super::world::*;
use crate::execute::bookkeeping;
use crate::gate::{Permission, permission, revalidate};
use crate::host::fake::oid;
use crate::host::{RefUpdate, RepoState, TagState, UnitState};
use crate::invariants;
use crate::model::build::BuildRequest;
use crate::model::change::Change;
use crate::model::gates::GateAction;
use crate::model::records::{AgentLedger, AgentLife, BuildState, Deployed, Probation};
use crate::model::step::{Action, PlannedStep};
use crate::plan::Plan;

/// More rounds than any of these worlds needs.
const MAX_ROUNDS: usize = 200;

/// Opens and ends gates as planned; an operator says yes to all.
fn decide(case: &mut Case, plan: &Plan) {
    for action in revalidate(&case.facts.policy, plan, &case.ledger.gates) {
        match action {
            GateAction::Open(gate) => {
                let asks = |step: &&PlannedStep| step.effect_digest == gate.digest;
                let planned = plan.steps.iter().find(asks).unwrap();
                case.gate(planned, GateState::Approved);
            }
            GateAction::End { gate, .. } => case.ledger.gates.retain(|record| record.gate.id != gate),
        }
    }
}

/// What the daemon notes, as the ledger would.
fn note(ledger: &mut AgentLedger, change: Change) {
    match change {
        Change::Life { life, .. } => ledger.record.life = life,
        Change::Seeded { commit, .. } => ledger.record.seed = Some(commit),
        Change::Deployed { deployed, .. } => ledger.record.deployed = deployed.map(|deployed| *deployed),
        Change::LastGood { deployed, .. } => ledger.record.last_good = Some(*deployed),
        Change::Phase {
            number, phase, mark, ..
        } => {
            let proposal = ledger.proposals.iter_mut().find(|p| p.number == number).unwrap();
            proposal.phase = phase;
            proposal.marks.insert(phase, mark);
        }
        Change::InPhase { number, phase, .. } => {
            let proposal = ledger.proposals.iter().find(|p| p.number == number).unwrap();
            assert_eq!(proposal.phase, phase, "a phase is set from one it is not in");
        }
        Change::Probation { probation, .. } => ledger.probation = probation,
        Change::Quarantine {
            system, quarantine, ..
        } => drop(ledger.quarantine.insert(system, quarantine)),
        Change::Failures { failures, .. } => ledger.failures = failures,
        Change::OutOfMemory { told, .. } => ledger.record.out_of_memory = Some(told),
        Change::Event { .. } | Change::Notify { .. } | Change::NotifyManagers { .. } => {}
        other => panic!("no step of an agent makes this change: {other:?}"),
    }
}

/// Carries out a step in the world of plain values.
fn apply(case: &mut Case, action: &Action) {
    let watched_since = case.facts.watched_since;
    if let Some(changes) = bookkeeping::changes(action, &case.ledger, watched_since, case.now) {
        changes
            .into_iter()
            .for_each(|change| note(&mut case.ledger, change));
        return;
    }
    match action {
        Action::Spawn => {
            let seed = oid("seed");
            case.ledger.record.life = AgentLife::Active;
            case.ledger.record.seed = Some(seed.clone());
            case.inventory.repo = Ok(Some(RepoState {
                main: Some(seed),
                ..RepoState::default()
            }));
        }
        Action::Build { request, .. } => drop(case.build(request, &overlay(case, request))),
        Action::Deploy { .. } => deploy(case, action),
        Action::ProjectRef(update) => project(case.repo(), update),
        Action::Activate { toplevel, config, .. } => {
            let folders = case.inventory.folders.as_mut().unwrap();
            folders.toplevel = Some(toplevel.clone());
            folders.config = Some(config.clone());
        }
        Action::Start { toplevel } | Action::Restart { toplevel, .. } => {
            case.inventory.unit = Ok(UnitState::Running {
                toplevel: toplevel.clone(),
                since: case.now,
                run: format!("run at {}", case.now),
                resources: crate::host::Resources::default(),
            });
            case.inventory.harness = None;
        }
        Action::Stop { .. } => case.absent(),
        Action::Archive => case.ledger.record.life = AgentLife::Archived { since: case.now },
        Action::Restore => case.ledger.record.life = AgentLife::Active,
        other => panic!("not a step of an agent: {other:?}"),
    }
}

/// What the commit of a request holds: the seed nothing, all others the same.
fn overlay(case: &Case, request: &BuildRequest) -> Overlay {
    let text = if case.ledger.record.seed.as_ref() == Some(&request.commit) {
        "{}"
    } else {
        r#"{ "prompt": "other" }"#
    };
    serde_json::from_str(text).unwrap()
}

fn deploy(case: &mut Case, action: &Action) {
    let Action::Deploy {
        build,
        system,
        commit,
        proposal,
        watched,
        ..
    } = action
    else {
        panic!("{action:?}");
    };
    let Some(BuildState::Built(output)) = case.ledger.builds.get(build).cloned() else {
        panic!("what was never built is deployed: {action:?}");
    };
    assert_eq!((&output.system, &output.commit), (system, commit));
    let before = case
        .ledger
        .record
        .deployed
        .as_ref()
        .map(|deployed| deployed.proposal);
    let gate = shared::GateId(1);
    case.ledger.record.deployed = Some(Deployed {
        output: *output,
        proposal: proposal.or(before).unwrap_or(shared::ProposalNumber(0)),
        gate,
        at: case.now,
    });
    case.ledger.probation = Some(Probation {
        system: system.clone(),
        since: case.now,
        window_secs: 60,
        active_secs: 0,
        active_since: None,
        failed_starts: 0,
        watched: watched.clone(),
        gate,
        proposal: *proposal,
        updates_base: false,
    });
    if let Some(number) = proposal {
        let proposals = &mut case.ledger.proposals;
        let deployed = proposals.iter_mut().find(|p| p.number == *number).unwrap();
        deployed.phase = ProposalPhase::Deployed;
        deployed.marks.insert(ProposalPhase::Deployed, mark(""));
        // Main is that commit now, and no other descends from it.
        for below in case
            .inventory
            .descends
            .iter_mut()
            .flat_map(|all| all.values_mut())
        {
            *below = false;
        }
    }
}

fn project(repo: &mut RepoState, update: &RefUpdate) {
    match update {
        RefUpdate::Main { from, to } => {
            assert_eq!(repo.main, *from, "a swap that cannot work is planned");
            repo.main = Some(to.clone());
        }
        RefUpdate::Tag {
            name,
            from,
            commit,
            message,
            ..
        } => {
            let there = repo.tags.get(name).map(|tag| tag.object.clone());
            assert_eq!(there, *from, "a swap that cannot work is planned");
            let tag = TagState {
                object: oid(&format!("{name} {message}")),
                commit: commit.clone(),
                message: message.clone(),
            };
            repo.tags.insert(name.clone(), tag);
        }
        RefUpdate::DeleteTag { name, from } => {
            let gone = repo.tags.remove(name);
            assert_eq!(gone.map(|tag| tag.object).as_ref(), Some(from));
        }
    }
}

/// The harness of a running agent, told of its config, loads it once. Whether there was anything to load.
fn load(case: &mut Case, plan: &Plan) -> bool {
    let Some(config) = plan.announce.as_ref().and_then(|told| told.config.as_ref()) else {
        return false;
    };
    let loaded = case.inventory.harness.as_ref().is_some_and(|harness| {
        harness.report.config.as_ref() == Some(config)
            && harness.report.config_error.is_none()
            && !harness.is_busy()
    });
    if loaded || !matches!(case.inventory.unit, Ok(UnitState::Running { .. })) {
        return false;
    }
    let before = (case.inventory.unit.clone(), case.inventory.folders.clone());
    case.running();
    (case.inventory.unit, case.inventory.folders) = before;
    case.report().config = Some(config.clone());
    true
}

/// Carries out all that is planned and permitted, lets the harness load and time pass, until nothing is left of any.
fn converge(case: &mut Case) -> Result<Plan, String> {
    let mut done = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let plan = case.plan_unchecked();
        let violations = invariants::check(&plan, &case.inventory, &case.ledger);
        if !violations.is_empty() {
            return Err(format!("{violations:?} after {done:?}"));
        }
        decide(case, &plan);
        let schedule = case.scheduled(&plan);
        if let Some(ready) = schedule.ready.first() {
            let planned = &ready.planned;
            apply(case, &planned.step.action);
            case.ledger
                .gates
                .retain(|record| Some(record.gate.id) != ready.gate);
            let again = case.plan_unchecked();
            if again.steps.iter().any(|step| step.id == planned.id) {
                return Err(format!(
                    "{:?} is planned again after {done:?}",
                    planned.step.action
                ));
            }
            done.push(planned.step.action.kind());
        } else if load(case, &plan) {
            done.push("(the harness loads)");
        } else if let Some(at) = schedule.wake_at.filter(|at| *at > case.now) {
            case.now = at;
            done.push("(time passes)");
        } else {
            return Ok(plan);
        }
    }
    Err(format!("no end: {done:?}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn planning_after_applying_is_empty((twists, mut case) in cases()) {
        let plan = converge(&mut case).map_err(|why| TestCaseError::fail(format!("{twists:?}: {why}")))?;
        for step in &plan.steps {
            let permitted = permission(&case.facts.policy, step, &case.ledger.gates);
            prop_assert!(matches!(permitted, Permission::Never(_)), "{twists:?}: {step:?} {permitted:?}");
        }
        if plan.steps.is_empty() && plan.waiting.is_empty() && plan.offers.is_empty() {
            prop_assert!(is_converged(&case), "{twists:?}: silent, and not converged");
        }
    }
}

#[test]
fn a_declared_agent_gets_all_it_needs_and_then_there_is_nothing_left_to_do() {
    let mut case = Case::declared();
    let plan = converge(&mut case).unwrap();
    assert!(plan.steps.is_empty() && plan.waiting.is_empty(), "{plan:?}");
    assert!(is_converged(&case) && case.ledger.record.last_good.is_some());
}

#[test]
fn a_removed_agent_is_stopped_and_archived_and_then_there_is_nothing_left_to_do() {
    let mut case = Case::at_rest();
    case.spec.as_mut().unwrap().run = RunState::Running;
    case.ledger.record.life = AgentLife::Removed { since: at(0) };
    let plan = converge(&mut case).unwrap();
    assert!(plan.steps.is_empty() && plan.waiting.is_empty(), "{plan:?}");
    assert!(matches!(case.ledger.record.life, AgentLife::Archived { .. }));
}
