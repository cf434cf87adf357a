//! What must hold of every plan, checked apart from the planner. A plan that breaks one is not carried out.

use shared::GateId;

use crate::model::inventory::AgentInventory;
use crate::model::records::{AgentLedger, AgentLife, AgentRecord};
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
    /// A step that claims to follow from a gate that allowed nothing of what is deployed.
    #[error("{kind} is planned under gate {gate}, which did not allow what is deployed or on trial")]
    Unfounded {
        /// The step.
        kind: &'static str,
        /// The gate.
        gate: GateId,
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
    /// A draft acts, or what is no draft is treated as one.
    #[error("{kind} is planned in the wrong part of the agent's life")]
    OutOfLife {
        /// The step.
        kind: &'static str,
    },
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
        if let Authority::Under(gate) = planned.step.authority
            && !follows_from(gate, action, ledger)
        {
            violations.push(Violation::Unfounded { kind, gate });
        }
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
            Action::Build { .. } | Action::Spawn | Action::SpawnDraft { .. } | Action::Obey { .. }
                if !gated =>
            {
                violations.push(Violation::Ungated { kind });
            }
            // What a manager's order allowed is judged above.
            Action::Archive if !gated && !matches!(planned.step.authority, Authority::Under(_)) => {
                violations.push(Violation::Ungated { kind });
            }
            _ => {}
        }
        if !fits_life(action, &ledger.record) {
            violations.push(Violation::OutOfLife { kind });
        }
        let needs_unit = matches!(
            action,
            Action::Stop { .. } | Action::Restart { .. } | Action::Archive | Action::DropDraft
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

/// A draft has no power and an agent is no draft: nothing else is planned for one, and nothing of it is deleted as one.
fn fits_life(action: &Action, record: &AgentRecord) -> bool {
    match action {
        Action::MakeDraft { .. } | Action::SpawnDraft { .. } | Action::EndOffer { .. } => {
            record.life == AgentLife::Draft && record.deployed.is_none()
        }
        Action::DropDraft => matches!(record.life, AgentLife::GivenUp { .. }) && record.deployed.is_none(),
        Action::DropStaged => !matches!(record.life, AgentLife::Draft | AgentLife::GivenUp { .. }),
        Action::Build { .. } => !matches!(record.life, AgentLife::GivenUp { .. }),
        _ => !matches!(record.life, AgentLife::Draft | AgentLife::GivenUp { .. }),
    }
}

/// Whether this gate allowed what is deployed or on trial, or a manager's order, and with it this step. A deployment is recorded in the
/// transaction that completes its gate, so the gate of one is used up.
fn follows_from(gate: GateId, action: &Action, ledger: &AgentLedger) -> bool {
    if matches!(action, Action::Archive) {
        return ledger.record.archived_under() == Some(gate);
    }
    let deployed = ledger.record.deployed.as_ref();
    let known = deployed.map(|deployed| deployed.gate);
    let on_trial = ledger.probation.as_ref().map(|trial| trial.gate);
    let follows = match action {
        Action::Restart { toplevel, .. } => deployed.is_some_and(|d| d.output.toplevel == *toplevel),
        Action::Stop { .. } => true,
        _ => false,
    };
    follows && (known == Some(gate) || on_trial == Some(gate))
}

fn may_be_archived(inventory: &AgentInventory, ledger: &AgentLedger) -> bool {
    use crate::host::UnitState;
    let removed = matches!(ledger.record.life, AgentLife::Removed { .. });
    removed && matches!(inventory.unit, Ok(UnitState::Absent | UnitState::Exited { .. }))
}
