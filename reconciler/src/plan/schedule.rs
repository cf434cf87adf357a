//! Which planned steps may be carried out now, and what the others wait on. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use shared::plan::{Waiting, WaitingOn};
use shared::spec::PolicySpec;
use shared::{Digest, GateId};

use super::{Plan, deadline, view};
use crate::gate::{Permission, permission};
use crate::model::records::{Attempt, GateRecord};
use crate::model::step::{Action, Authority, PlannedStep};

/// A step that may be carried out now.
#[derive(Debug, Clone, PartialEq)]
pub struct Ready {
    /// The step as planned.
    pub planned: PlannedStep,
    /// The gate that allows it, when it needs one.
    pub gate: Option<GateId>,
}

/// What a plan comes to under the decisions and tries so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// May be carried out now, in order.
    pub ready: Vec<Ready>,
    /// Everything that waits: the plan's own waits, then those of steps.
    pub waiting: Vec<Waiting>,
    /// When to look again even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// Schedules a plan.
pub fn schedule(
    policy: &PolicySpec,
    plan: &Plan,
    gates: &[GateRecord],
    attempts: &BTreeMap<Digest, Attempt>,
    now: Timestamp,
) -> Schedule {
    let mut schedule = Schedule {
        ready: Vec::new(),
        waiting: plan.waiting.iter().chain(&plan.offers).cloned().collect(),
        wake_at: plan.wake_at,
    };
    // A deployment that may happen, and only waits for its next try.
    let mut deploying: Option<String> = None;
    for planned in &plan.steps {
        let is_deployment = matches!(planned.step.action, Action::Deploy { .. });
        let blocked = match permission(policy, planned, gates) {
            // The second would make the first impossible, although it may have begun.
            Permission::Granted(_) if is_deployment && deploying.is_some() => {
                let first = deploying.clone().unwrap_or_default();
                (WaitingOn::Dependency { first }, None)
            }
            Permission::Granted(gate) => match held_back(attempts.get(&planned.id), now) {
                None => {
                    schedule.ready.push(Ready {
                        planned: planned.clone(),
                        gate,
                    });
                    continue;
                }
                Some(on) => {
                    if is_deployment && matches!(on, WaitingOn::Backoff { .. }) {
                        deploying = Some(view::action(&planned.step.action));
                    }
                    let agent = planned.step.agent.as_ref();
                    (on, agent.map(|agent| format!("hive retry {agent}")))
                }
            },
            Permission::Waits(gate) => (
                waits(planned, gate, gates),
                Some(format!("hive gate show {gate}")),
            ),
            Permission::Denied(gate) => {
                let error = format!("gate {gate} was denied");
                (
                    WaitingOn::Terminal { error },
                    Some(format!("hive gate show {gate}")),
                )
            }
            Permission::Never(rule) => {
                let error = format!("the policy {rule} forbids it");
                (
                    WaitingOn::Terminal { error },
                    Some("change the policy in the spec".to_owned()),
                )
            }
            Permission::NoGate => (
                WaitingOn::Dependency {
                    first: "its gate is opened".to_owned(),
                },
                None,
            ),
        };
        let (on, hint) = blocked;
        if let Some(at) = deadline(&on) {
            schedule.wake_at = Some(schedule.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
        schedule.waiting.push(Waiting {
            what: view::action(&planned.step.action),
            on,
            hint,
        });
    }
    schedule
}

fn waits(planned: &PlannedStep, gate: GateId, gates: &[GateRecord]) -> WaitingOn {
    let record = gates.iter().find(|record| record.gate.id == gate);
    let planned_class = match planned.step.authority {
        Authority::Class { class, .. } => Some(class),
        Authority::Free | Authority::Under(_) => None,
    };
    match record.map(|record| record.gate.class).or(planned_class) {
        Some(class) => WaitingOn::Gate { gate, class },
        None => WaitingOn::Dependency {
            first: format!("gate {gate}"),
        },
    }
}

/// Why an earlier try holds this step back.
fn held_back(attempt: Option<&Attempt>, now: Timestamp) -> Option<WaitingOn> {
    let attempt = attempt?;
    if attempt.terminal {
        return Some(WaitingOn::Terminal {
            error: attempt.error.clone(),
        });
    }
    // A try that lies in the future says that the clock was set back: its next one would be as far away.
    (attempt.last_at <= now && now < attempt.next_at).then(|| WaitingOn::Backoff {
        until: attempt.next_at,
        attempts: attempt.count,
        error: if attempt.error.is_empty() {
            "the last try was interrupted".to_owned()
        } else {
            attempt.error.clone()
        },
    })
}
