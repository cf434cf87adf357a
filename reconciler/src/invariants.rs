//! What must hold of every plan, checked apart from the planner. A plan that breaks one is not carried out.

use crate::model::inventory::AgentInventory;
use crate::model::records::{AgentLedger, AgentLife};
use crate::model::step::{Action, Authority};
use crate::plan::Plan;

/// A plan that must not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A step that takes something away, planned without knowing what is there.
    #[error("{kind} is planned although the {source_name} is unknown")]
    DestructiveOnUnknown {
        /// The step.
        kind: &'static str,
        /// The source.
        source_name: &'static str,
    },
    /// A step that only a person or a policy may allow, planned without asking.
    #[error("{kind} is planned without a gate class")]
    Ungated {
        /// The step.
        kind: &'static str,
    },
    /// Two steps that undo each other.
    #[error("{first} and {second} are planned together")]
    Contradiction {
        /// One step.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A system that failed its probation.
    #[error("a quarantined system is deployed: {system}")]
    Quarantined {
        /// The system.
        system: String,
    },
    /// A running agent would be archived.
    #[error("the agent is archived while it runs or is still declared")]
    ArchivedAlive,
    /// Two deployments that nobody asked a person about compete.
    #[error("the spec asks for more than one deployment at once")]
    TwoDeployments,
}

/// Checks the plan of one agent.
pub fn check(plan: &Plan, inventory: &AgentInventory, ledger: &AgentLedger) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut spec_deployments = 0;
    for planned in &plan.steps {
        let action = &planned.step.action;
        let kind = action.kind();
        let gated = matches!(planned.step.authority, Authority::Class { .. });
        match action {
            Action::Deploy { system, proposal, .. } => {
                if !gated {
                    violations.push(Violation::Ungated { kind });
                }
                if ledger.quarantine.contains_key(system) {
                    violations.push(Violation::Quarantined {
                        system: system.clone(),
                    });
                }
                spec_deployments += usize::from(proposal.is_none());
            }
            Action::Build { .. } | Action::Spawn | Action::Archive if !gated => {
                violations.push(Violation::Ungated { kind });
            }
            _ => {}
        }
        let needs_unit = matches!(
            action,
            Action::Stop { .. } | Action::Restart { .. } | Action::Archive
        );
        if needs_unit && inventory.unit.is_err() {
            violations.push(Violation::DestructiveOnUnknown {
                kind,
                source_name: "runtime",
            });
        }
        if matches!(action, Action::ProjectRef(_)) && inventory.repo.is_err() {
            violations.push(Violation::DestructiveOnUnknown {
                kind,
                source_name: "config repo",
            });
        }
        if matches!(action, Action::Archive) && !may_be_archived(inventory, ledger) {
            violations.push(Violation::ArchivedAlive);
        }
    }
    if spec_deployments > 1 {
        violations.push(Violation::TwoDeployments);
    }
    let has = |kind: &str| plan.steps.iter().any(|p| p.step.action.kind() == kind);
    for (first, second) in [
        ("start", "stop"),
        ("start", "restart"),
        ("stop", "restart"),
        ("markGood", "revert"),
    ] {
        if has(first) && has(second) {
            violations.push(Violation::Contradiction { first, second });
        }
    }
    violations
}

fn may_be_archived(inventory: &AgentInventory, ledger: &AgentLedger) -> bool {
    use crate::host::UnitState;
    let removed = matches!(ledger.record.life, AgentLife::Removed { .. });
    removed && matches!(inventory.unit, Ok(UnitState::Absent | UnitState::Exited { .. }))
}
