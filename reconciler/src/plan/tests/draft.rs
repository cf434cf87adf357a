//! Drafts: what is planned of an agent that somebody prepares.

use shared::canonical::digest_file;
use shared::config::Overlay;
use shared::draft::StagedFile;
use shared::gate::{Asker, GateClass, GateState, Verdict};
use shared::spec::PolicySpec;

use super::world::*;
use crate::gate::{Permission, effect_digest, permission};
use crate::host::UnitState;
use crate::host::fake::oid;
use crate::model::build::GrantMode;
use crate::model::draft::{Draft, Offer, Owner, Standing};
use crate::model::records::{AgentLife, AgentOrigin, Quarantine};
use crate::model::step::{Action, Authority, PlannedStep};
use crate::plan::Plan;

const WIDER: &str = r#"{ "prompt": "tend the shed" }"#;

/// A draft of a manager, with a repo, and nothing else.
fn draft() -> Case {
    let mut case = Case::spawned();
    case.inventory.folders = Ok(Default::default());
    let record = &mut case.ledger.record;
    record.life = AgentLife::Draft;
    record.origin = AgentOrigin::Spawn;
    let owner = Owner::Manager {
        name: "queen".parse().unwrap(),
        uid: shared::AgentUid(uuid::Uuid::from_u128(9)),
    };
    record.draft = Some(Box::new(Draft::new(owner, at(0))));
    case
}

fn prepared(case: &mut Case) -> &mut Draft {
    case.ledger.record.draft.as_mut().unwrap()
}

/// The draft is offered, with a file and a commit that holds this overlay, which is built.
fn offered(overlay: &str) -> Case {
    let mut case = draft();
    let commit = oid("commit");
    let text = prepared(&mut case);
    text.files = [(
        "notes.md".parse().unwrap(),
        StagedFile {
            digest: digest_file(b"one"),
            size: 3,
        },
    )]
    .into();
    text.commit = Some(commit.clone());
    text.offer = Some(Offer {
        reason: "to tend the shed".to_owned(),
        at: at(50),
    });
    let overlay: Overlay = serde_json::from_str(overlay).unwrap();
    let request = case.request(&commit, GrantMode::Asked);
    case.build(&request, &overlay);
    case
}

fn asker(planned: &PlannedStep) -> Asker {
    match planned.step.authority {
        Authority::Class { asked_by, .. } => asked_by,
        _ => panic!("{planned:?} has no class"),
    }
}

fn spawn(plan: &Plan) -> &PlannedStep {
    step(plan, "spawnDraft")
}

fn ends_because(case: &Case) -> String {
    let plan = case.plan();
    assert_eq!(kinds(&plan), ["endOffer"]);
    match &plan.steps[0].step.action {
        Action::EndOffer { reason, .. } => reason.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_draft_gets_a_repo_without_a_gate_and_then_waits_for_its_owner() {
    let mut case = draft();
    case.ledger.record.seed = None;
    let plan = case.plan();
    assert_eq!((kinds(&plan), class(&plan.steps[0])), (vec!["makeDraft"], None));
    let plan = draft().plan();
    assert_eq!(kinds(&plan), Vec::<&str>::new());
    assert_eq!(plan.offers.len(), 1, "it says what it waits on");
    assert!(plan.waiting.is_empty(), "a draft is no drift");
}

#[test]
fn an_offer_is_built_for_its_manager_before_anybody_is_asked() {
    let mut case = offered("{}");
    case.ledger.builds.clear();
    let plan = case.plan();
    assert_eq!(
        (kinds(&plan), class(&plan.steps[0])),
        (vec!["build"], Some(GateClass::Build))
    );
    assert_eq!(asker(&plan.steps[0]), Asker::Manager);
}

#[test]
fn one_gate_asks_for_all_of_a_spawn_and_shows_all_of_it() {
    let plan = offered(WIDER).plan();
    assert_eq!(kinds(&plan), ["spawnDraft"]);
    let planned = spawn(&plan);
    assert_eq!(
        (class(planned), asker(planned)),
        (Some(GateClass::Spawn), Asker::Manager)
    );
    assert_eq!(
        permission(&PolicySpec::default(), planned, &[]),
        Permission::NoGate
    );
    let view = &planned.view;
    assert_eq!(view.files.len(), 1);
    assert_eq!(view.reason.as_deref(), Some("to tend the shed"));
    assert!(view.capabilities.iter().any(|change| change.field == "prompt"));
    assert!(view.summary.contains("beyond spawnDefaults"), "{}", view.summary);
    assert!(
        offered("{}").plan().steps[0]
            .view
            .summary
            .contains("within spawnDefaults")
    );
}

#[test]
fn an_approval_is_of_the_name_the_commit_the_grants_and_every_byte_of_the_files() {
    let digest = |case: &Case| {
        let plan = case.plan();
        effect_digest(case.facts.id, &case.facts.policy, &spawn(&plan).step).unwrap()
    };
    let case = offered(WIDER);
    let before = digest(&case);
    assert_eq!(digest(&offered(WIDER)), before);
    assert_ne!(digest(&offered("{}")), before, "another commit's system");
    let mut other = offered(WIDER);
    for file in prepared(&mut other).files.values_mut() {
        file.digest = digest_file(b"two");
    }
    assert_ne!(digest(&other), before, "other bytes");
    let mut other = offered(WIDER);
    prepared(&mut other).files.clear();
    assert_ne!(digest(&other), before, "no file");
    let mut other = offered(WIDER);
    other.ledger.record.uid = shared::AgentUid(uuid::Uuid::from_u128(77));
    let plan = case.plan();
    let mut moved = spawn(&plan).step.clone();
    moved.uid = Some(other.ledger.record.uid);
    assert_ne!(
        effect_digest(case.facts.id, &case.facts.policy, &moved).unwrap(),
        before
    );
    let mut said = offered(WIDER);
    prepared(&mut said).offer.as_mut().unwrap().reason = "in other words".to_owned();
    assert_eq!(digest(&said), before, "words are no effect");
}

#[test]
fn the_stricter_of_spawning_and_widening_decides() {
    let with = |spawn: Verdict, widens: Verdict, overlay: &str| {
        let mut case = offered(overlay);
        case.facts.policy.agent.insert(GateClass::Spawn, spawn);
        case.facts.policy.agent.insert(GateClass::DeployWidens, widens);
        let plan = case.plan();
        class(&plan.steps[0])
    };
    let (auto, ask, never) = (Verdict::Auto, Verdict::Ask, Verdict::Never);
    assert_eq!(with(auto, ask, WIDER), Some(GateClass::DeployWidens));
    assert_eq!(with(ask, auto, WIDER), Some(GateClass::Spawn));
    assert_eq!(with(ask, ask, WIDER), Some(GateClass::Spawn));
    assert_eq!(with(auto, never, "{}"), Some(GateClass::Spawn), "nothing widens");
    assert_eq!(with(auto, never, WIDER), None, "it ends");
    assert_eq!(with(never, auto, "{}"), None);
}

#[test]
fn an_operators_draft_is_asked_for_by_the_spec() {
    let mut case = offered(WIDER);
    prepared(&mut case).owner = Owner::Operator {
        by: "unix:root".to_owned(),
    };
    assert_eq!(asker(spawn(&case.plan())), Asker::Spec);
}

#[test]
fn an_offer_that_can_come_to_nothing_ends_with_the_reason() {
    let mut full = offered(WIDER);
    full.standing = Standing::Void("the hive is full".to_owned());
    assert_eq!(ends_because(&full), "the hive is full");
    assert_eq!(full.plan().ended_because, "the hive is full", "so does its gate");
    let mut broken = offered(WIDER);
    let request = broken.request(&oid("commit"), GrantMode::Asked);
    broken.build_fails(&request);
    assert!(ends_because(&broken).contains("no such model"));
    let mut never = offered(WIDER);
    never.facts.policy.agent.insert(GateClass::Spawn, Verdict::Never);
    assert!(ends_because(&never).contains("agent.spawn=never"));
}

#[test]
fn an_offered_system_that_vanished_is_built_again_and_its_gate_stays() {
    let mut case = offered(WIDER);
    let asked = spawn(&case.plan()).clone();
    case.gate(&asked, GateState::Approved);
    let Action::SpawnDraft { system, .. } = &asked.step.action else {
        panic!("{asked:?}");
    };
    case.inventory.systems = Ok([(system.clone(), false)].into());
    let plan = case.plan();
    assert_eq!(kinds(&plan), ["build"]);
    assert_eq!(plan.later, [asked.effect_digest]);
}

#[test]
fn a_draft_that_the_spec_names_waits_and_its_gate_ends() {
    let mut case = offered(WIDER);
    let plan = case.plan();
    case.gate(spawn(&plan), GateState::Open);
    case.standing = Standing::Named;
    let plan = case.plan();
    assert_eq!((kinds(&plan), plan.offers.len()), (vec![], 1));
    let actions = crate::gate::revalidate(&case.facts.policy, &plan, &case.ledger.gates);
    assert_eq!(actions.len(), 1, "{actions:?}");
}

#[test]
fn a_denied_offer_asks_nobody_again() {
    let mut case = offered(WIDER);
    let plan = case.plan();
    let gate = case.gate(spawn(&plan), GateState::Denied);
    let plan = case.plan();
    assert_eq!(
        permission(&case.facts.policy, spawn(&plan), &case.ledger.gates),
        Permission::Denied(gate)
    );
    assert_eq!(
        crate::gate::revalidate(&case.facts.policy, &plan, &case.ledger.gates),
        []
    );
}

#[test]
fn a_draft_that_was_given_up_is_deleted_once_it_is_sure_that_nothing_runs() {
    let mut case = draft();
    case.ledger.record.life = AgentLife::GivenUp { since: at(1) };
    assert_eq!(case.kinds(), ["dropDraft"]);
    case.inventory.unit = Err("no answer".to_owned());
    assert_eq!(case.kinds(), Vec::<&str>::new());
    case.inventory.unit = Ok(UnitState::Foreign {
        what: "pid 7".to_owned(),
    });
    assert_eq!(case.kinds(), Vec::<&str>::new());
    assert!(!case.plan().waiting.is_empty());
}

#[test]
fn what_is_a_draft_no_more_drops_what_was_staged() {
    let staged = draft().ledger.record.draft;
    for life in [
        AgentLife::Declared,
        AgentLife::Active,
        AgentLife::Removed { since: at(1) },
    ] {
        let mut case = Case::spawned();
        case.ledger.record.life = life.clone();
        case.ledger.record.draft = staged.clone();
        assert_eq!(case.kinds()[0], "dropStaged", "{life:?}");
    }
}

#[test]
fn a_spawned_agent_whose_first_system_fails_is_stopped_and_nothing_comes_in_its_place() {
    let mut case = Case::at_rest();
    case.ledger.record.origin = AgentOrigin::Spawn;
    case.ledger.record.last_good = None;
    case.on_trial().failed_starts = 3;
    case.absent();
    assert_eq!(case.kinds()[0], "halt");
    case.ledger.probation = None;
    let quarantine = Quarantine {
        reason: "it does not start".to_owned(),
        since: at(1),
    };
    let system = case.output().system;
    case.ledger.quarantine.insert(system, quarantine);
    let plan = case.plan();
    assert_eq!(kinds(&plan), Vec::<&str>::new());
    let said = format!("{:?}", plan.waiting);
    assert!(
        said.contains("none before it") && said.contains("hive retry"),
        "{said}"
    );
}
