//! The plan of the hive itself: which agents are no longer declared. Pure.

use std::collections::BTreeSet;

use shared::canonical::NotCanonical;
use shared::gate::{Asker, GateClass, GateView};
use shared::{AgentName, AgentUid, Digest};

use super::{HiveFacts, Plan};
use crate::model::records::{AgentLife, AgentOrigin, AgentRecord};
use crate::model::step::{Action, Authority, Step};

/// Which names the accepted spec has, faulty entries included: a faulty entry is not an absent one.
#[derive(Debug, Clone)]
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

/// Plans the hive.
///
/// # Errors
/// Only when a value has no canonical form, which means a fault in the program.
pub fn plan(
    facts: &HiveFacts,
    records: &[AgentRecord],
    declared: &DeclaredNames,
) -> Result<Plan, NotCanonical> {
    let mut plan = Plan::new(None);
    let gone = removed(records, declared);
    if gone.is_empty() {
        return Ok(plan);
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
    )?;
    Ok(plan)
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
