//! The plan of the hive itself: which agents are no longer declared. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use shared::canonical::NotCanonical;
use shared::gate::{Asker, GateClass, GateView};
use shared::plan::WaitingOn;
use shared::{AgentName, AgentUid, Digest};

use super::{HiveFacts, Plan};
use crate::host::ArchiveState;
use crate::model::inventory::Known;
use crate::model::records::{AgentLife, AgentOrigin, AgentRecord};
use crate::model::step::{Action, Authority, Step};

/// Which names the accepted spec has, faulty entries included: a faulty entry is not an absent one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeclaredNames {
    /// The names.
    pub names: BTreeSet<AgentName>,
    /// The spec.
    pub spec: Digest,
}

/// Agents that exist because the spec declared them, and that it no longer declares.
pub fn removed(records: &[AgentRecord], declared: &DeclaredNames) -> Vec<(AgentName, AgentUid)> {
    records
        .iter()
        .filter(|record| record.origin == AgentOrigin::Spec)
        .filter(|record| matches!(record.life, AgentLife::Declared | AgentLife::Active))
        .filter(|record| !declared.names.contains(&record.name))
        .map(|record| (record.name.clone(), record.uid))
        .collect()
}

/// More than max(2, 20 %) at once, or all of them, is a mass removal whatever the policy says.
pub fn is_mass_removal(removed: usize, known: usize, declared: usize) -> bool {
    removed > 0 && (declared == 0 || (removed > 2 && removed * 100 > known * 20))
}

/// An archived agent of which the operator wants nothing to be kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Doomed {
    /// The agent.
    pub record: AgentRecord,
    /// What the archive keeps of it.
    pub archive: Known<ArchiveState>,
}

/// Plans the hive.
///
/// # Errors
/// Only when a value has no canonical form, which means a fault in the program.
pub fn plan(
    facts: &HiveFacts,
    records: &[AgentRecord],
    declared: &DeclaredNames,
    doomed: &[Doomed],
) -> Result<Plan, NotCanonical> {
    let mut plan = Plan::new(None);
    removals(&mut plan, facts, records, declared)?;
    for doomed in doomed {
        purge(&mut plan, facts, doomed)?;
    }
    Ok(plan)
}

fn purge(plan: &mut Plan, facts: &HiveFacts, doomed: &Doomed) -> Result<(), NotCanonical> {
    let (name, uid) = (&doomed.record.name, doomed.record.uid);
    let what = format!("purging {name}");
    match &doomed.archive {
        Err(error) => {
            plan.partial = true;
            let on = WaitingOn::StaleInventory {
                source: "archive".to_owned(),
                error: Some(error.clone()),
            };
            plan.wait(what, on, None);
            return Ok(());
        }
        Ok(ArchiveState::Foreign) => {
            let error = format!(
                "archive/{name}-{uid} does not bear the mark that it is the archive of {name}: look at it, and \
                 delete it by hand"
            );
            let hint = Some(format!("hive restore {name} --uid {uid}, to take the order back"));
            plan.wait(what, WaitingOn::Terminal { error }, hint);
            return Ok(());
        }
        Ok(ArchiveState::Ours | ArchiveState::Absent) => {}
    }
    let view = GateView {
        summary: format!("delete what the archive keeps of {name}"),
        steps: vec![format!(
            "config repo and /state of {name} ({uid}) are deleted; this cannot be undone"
        )],
        ..GateView::default()
    };
    let step = Step {
        agent: None,
        uid: None,
        action: Action::Purge {
            agent: name.clone(),
            uid,
        },
        authority: Authority::Class {
            class: GateClass::Purge,
            asked_by: Asker::Spec,
        },
    };
    plan.push(facts, step, view)
}

fn removals(
    plan: &mut Plan,
    facts: &HiveFacts,
    records: &[AgentRecord],
    declared: &DeclaredNames,
) -> Result<(), NotCanonical> {
    let gone = removed(records, declared);
    if gone.is_empty() {
        return Ok(());
    }
    let known = records
        .iter()
        .filter(|r| matches!(r.life, AgentLife::Declared | AgentLife::Active))
        .count();
    let names: Vec<&str> = gone.iter().map(|(name, _)| name.as_str()).collect();
    let view = GateView {
        summary: format!(
            "stop {} of {known} agents that the spec no longer declares",
            gone.len()
        ),
        steps: names
            .iter()
            .map(|name| format!("{name} is stopped; archiving its state asks again"))
            .collect(),
        ..GateView::default()
    };
    let authority = if is_mass_removal(gone.len(), known, declared.names.len()) {
        Authority::Class {
            class: GateClass::MassRemoval,
            asked_by: Asker::Spec,
        }
    } else {
        Authority::Free
    };
    let action = Action::AcceptRemoval {
        agents: gone,
        spec: declared.spec.clone(),
    };
    plan.ended_because = "the spec changed".to_owned();
    plan.push(
        facts,
        Step {
            agent: None,
            uid: None,
            action,
            authority,
        },
        view,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_removal_guard_is_more_than_two_and_more_than_a_fifth() {
        assert!(
            !is_mass_removal(2, 4, 2),
            "two are never a mass, however few are left"
        );
        assert!(is_mass_removal(3, 4, 1));
        assert!(
            !is_mass_removal(3, 15, 12),
            "exactly a fifth is not more than a fifth"
        );
        assert!(is_mass_removal(4, 15, 11));
        assert!(!is_mass_removal(200, 1_000, 800));
        assert!(is_mass_removal(201, 1_000, 799));
    }

    #[test]
    fn an_empty_spec_is_a_mass_removal_even_of_one() {
        assert!(is_mass_removal(1, 1, 0));
        assert!(!is_mass_removal(0, 0, 0));
    }
}
