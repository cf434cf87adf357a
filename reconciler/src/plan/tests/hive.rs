//! Removals.

use std::collections::BTreeSet;

use shared::canonical::{Encoding, digest};
use shared::gate::{GateClass, Verdict};
use shared::plan::WaitingOn;
use shared::{AgentName, AgentUid};

use super::world::*;
use crate::gate::{Permission, permission};
use crate::host::ArchiveState;
use crate::model::records::{AgentLife, AgentOrigin, AgentRecord};
use crate::plan::hive::{DeclaredNames, Doomed, plan, removed};
use crate::plan::{HiveFacts, Plan};

fn records(count: usize) -> Vec<AgentRecord> {
    let numbered = |number: usize| AgentRecord {
        name: format!("agent-{number}").parse().unwrap(),
        uid: AgentUid(uuid::Uuid::from_u128(number as u128)),
        life: AgentLife::Active,
        ..Case::at_rest().ledger.record
    };
    (0..count).map(numbered).collect()
}

fn declaring(names: impl IntoIterator<Item = AgentName>) -> DeclaredNames {
    DeclaredNames {
        names: names.into_iter().collect(),
        spec: digest(Encoding::Spec, "spec").unwrap(),
    }
}

/// The plan when the first `gone` of these are no longer declared.
fn without_first(facts: &HiveFacts, records: &[AgentRecord], gone: usize) -> Plan {
    plan(
        facts,
        records,
        &declaring(records[gone..].iter().map(|r| r.name.clone())),
        &[],
    )
    .unwrap()
}

#[test]
fn as_long_as_all_are_declared_there_is_nothing_to_do() {
    assert!(without_first(&facts(), &records(5), 0).steps.is_empty());
}

#[test]
fn a_few_removals_are_accepted_freely_because_only_stopping_follows() {
    let plan = without_first(&facts(), &records(10), 2);
    assert_eq!(
        (kinds(&plan), class(&plan.steps[0])),
        (vec!["acceptRemoval"], None)
    );
}

#[test]
fn many_at_once_need_a_person_even_when_the_policy_says_auto() {
    let mut facts = facts();
    facts.policy.spec.insert(GateClass::MassRemoval, Verdict::Auto);
    let plan = without_first(&facts, &records(10), 3);
    assert_eq!(class(&plan.steps[0]), Some(GateClass::MassRemoval));
    assert_eq!(
        crate::gate::verdict(&facts.policy, GateClass::MassRemoval, shared::gate::Asker::Spec).0,
        Verdict::Ask
    );
    assert_eq!(permission(&facts.policy, &plan.steps[0], &[]), Permission::NoGate);
}

#[test]
fn a_spec_that_declares_nobody_needs_a_person() {
    assert_eq!(
        class(&without_first(&facts(), &records(1), 1).steps[0]),
        Some(GateClass::MassRemoval)
    );
}

#[test]
fn what_an_approval_of_a_removal_covers_are_these_agents_and_no_more() {
    let digest = |gone| {
        without_first(&facts(), &records(10), gone).steps[0]
            .effect_digest
            .clone()
    };
    assert_ne!(digest(3), digest(4));
}

#[test]
fn agents_that_are_gone_already_or_were_never_declared_are_not_removed() {
    let mut records = records(5);
    records[0].life = AgentLife::Archived { since: at(0) };
    records[1].life = AgentLife::Removed { since: at(0) };
    records[2].origin = AgentOrigin::Spawn;
    records[3].life = AgentLife::Declared;
    let gone: BTreeSet<String> = removed(&records, &declaring([]))
        .into_iter()
        .map(|(name, _)| name.to_string())
        .collect();
    assert_eq!(gone, ["agent-3".to_owned(), "agent-4".to_owned()].into());
}

#[test]
fn a_thousand_agents_take_one_step_and_look_at_each_once() {
    let plan = without_first(&facts(), &records(1_000), 500);
    assert_eq!(plan.steps.len(), 1);
}

#[test]
fn a_thousand_agents_that_all_changed_take_one_step_each() {
    let mut case = Case::at_rest();
    case.spec.as_mut().unwrap().prompt = "new".to_owned();
    case.build_candidate();
    let steps: usize = (0..1_000)
        .map(|number: u128| {
            case.ledger.record.uid = AgentUid(uuid::Uuid::from_u128(number));
            case.ledger.builds.clear();
            case.plan().steps.len()
        })
        .sum();
    assert_eq!(steps, 1_000);
}

/// The plan when the operator ordered one archived agent to be purged.
fn with_order(facts: &HiveFacts, archive: Result<ArchiveState, String>) -> Plan {
    let record = AgentRecord {
        life: AgentLife::Archived { since: at(0) },
        ..records(1).remove(0)
    };
    plan(facts, &[], &declaring([]), &[Doomed { record, archive }]).unwrap()
}

#[test]
fn purging_needs_a_person_even_when_the_policy_says_auto() {
    let mut facts = facts();
    facts.policy.spec.insert(GateClass::Purge, Verdict::Auto);
    for archive in [ArchiveState::Ours, ArchiveState::Absent] {
        let plan = with_order(&facts, Ok(archive));
        assert_eq!(
            (kinds(&plan), class(&plan.steps[0])),
            (vec!["purge"], Some(GateClass::Purge))
        );
        assert_eq!(permission(&facts.policy, &plan.steps[0], &[]), Permission::NoGate);
    }
}

#[test]
fn what_does_not_bear_our_mark_is_never_purged() {
    let plan = with_order(&facts(), Ok(ArchiveState::Foreign));
    assert_eq!(kinds(&plan), Vec::<&str>::new());
    assert!(
        matches!(plan.waiting[0].on, WaitingOn::Terminal { .. }),
        "{:?}",
        plan.waiting
    );
}

#[test]
fn an_archive_that_cannot_be_looked_at_is_not_purged_and_no_gate_about_it_ends() {
    let plan = with_order(&facts(), Err("no permission".to_owned()));
    assert_eq!(kinds(&plan), Vec::<&str>::new());
    assert!(plan.partial);
    assert!(matches!(plan.waiting[0].on, WaitingOn::StaleInventory { .. }));
}
