//! Exit statuses, and the one place that decides them.

use shared::admin_api::DiffEntry;
use shared::plan::{PlanView, Waiting, WaitingOn};
use shared::status::{Activity, AgentStatus, HiveStatus, Sync};

/// How a command ended. The numbers are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done; or everything is as wanted.
    Done = 0,
    /// It could not be done.
    Error = 1,
    /// Changes are pending, and will come by themselves.
    Pending = 2,
    /// Something waits for the operator's decision.
    Gate = 3,
    /// Something will not go on without new input.
    Stalled = 4,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
}

impl Exit {
    /// Of a command line that asks for nothing to be run: help was wanted, or the command line is wrong.
    pub(crate) fn of_usage(error: &clap::Error) -> Self {
        if error.use_stderr() {
            Self::Usage
        } else {
            Self::Done
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The table above for `--help`.
pub(crate) const HELP: &str = "\
Exit status:
  0   done; for status, plan and diff: everything is as declared
  1   error
  2   changes are pending (status, plan, diff)
  3   something waits on a gate (status, plan)
  4   something is stalled and needs new input (status, plan)
  64  wrong usage
When several hold, the highest of 2, 3 and 4 counts.";

/// What a document says about progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Something will not go on without new input.
    pub(crate) stalled: bool,
    /// Something waits for a decision.
    pub(crate) gate: bool,
    /// Something is not as wanted, or not known.
    pub(crate) pending: bool,
}

/// The exit status that follows from the facts: what needs the operator most counts.
pub(crate) fn exit(facts: Facts) -> Exit {
    match facts {
        Facts { stalled: true, .. } => Exit::Stalled,
        Facts { gate: true, .. } => Exit::Gate,
        Facts { pending: true, .. } => Exit::Pending,
        _ => Exit::Done,
    }
}

impl Facts {
    /// Of one agent.
    pub(crate) fn of_agent(agent: &AgentStatus) -> Self {
        let waiting = Self::of_waiting(&agent.waiting);
        Self {
            stalled: waiting.stalled || agent.activity.value == Activity::Stalled || !agent.faults.is_empty(),
            gate: waiting.gate || agent.activity.value == Activity::AwaitingGate || !agent.gates.is_empty(),
            pending: agent.sync.value != Sync::InSync,
        }
    }

    /// Of the whole hive. A spec that is not in force will never be reached as it is: that is a stall.
    pub(crate) fn of_hive(status: &HiveStatus) -> Self {
        let mut facts = Self::of_waiting(&status.waiting);
        facts.gate |= !status.gates.is_empty();
        facts.stalled |= status.spec.stale || !status.spec.faults.is_empty();
        status
            .agents
            .iter()
            .fold(facts, |facts, agent| facts.or(Self::of_agent(agent)))
    }

    /// Of plans.
    pub(crate) fn of_plans(plans: &[PlanView]) -> Self {
        plans.iter().fold(Self::default(), |facts, plan| {
            let gated = plan.steps.iter().any(|step| step.gate.is_some());
            facts.or(Self::of_waiting(&plan.waiting)).or(Self {
                stalled: false,
                gate: gated,
                pending: !plan.steps.is_empty(),
            })
        })
    }

    /// Of differences.
    pub(crate) fn of_diff(entries: &[DiffEntry]) -> Self {
        Self {
            pending: !entries.is_empty(),
            ..Self::default()
        }
    }

    fn of_waiting(waiting: &[Waiting]) -> Self {
        Self {
            stalled: waiting
                .iter()
                .any(|one| matches!(one.on, WaitingOn::Terminal { .. })),
            gate: waiting.iter().any(|one| matches!(one.on, WaitingOn::Gate { .. })),
            pending: !waiting.is_empty(),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            stalled: self.stalled | other.stalled,
            gate: self.gate | other.gate,
            pending: self.pending | other.pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn what_needs_the_operator_most_decides_the_status() {
        let of = |stalled, gate, pending| {
            exit(Facts {
                stalled,
                gate,
                pending,
            })
        };
        assert_eq!(of(false, false, false), Exit::Done);
        assert_eq!(of(false, false, true), Exit::Pending);
        for pending in [false, true] {
            assert_eq!(of(false, true, pending), Exit::Gate);
            for gate in [false, true] {
                assert_eq!(of(true, gate, pending), Exit::Stalled);
            }
        }
    }

    #[test]
    fn a_hive_in_sync_is_done_and_an_open_gate_waits() {
        assert_eq!(exit(Facts::of_hive(&fixtures::calm_hive())), Exit::Done);
        assert_eq!(exit(Facts::of_hive(&fixtures::hive())), Exit::Gate);
    }

    #[test]
    fn a_spec_that_is_not_in_force_is_a_stall() {
        let mut status = fixtures::calm_hive();
        status.spec.stale = true;
        assert_eq!(exit(Facts::of_hive(&status)), Exit::Stalled);
    }

    #[test]
    fn one_stalled_agent_stalls_the_hive() {
        let mut status = fixtures::hive();
        status.agents[0].activity.value = Activity::Stalled;
        assert_eq!(exit(Facts::of_hive(&status)), Exit::Stalled);
    }

    #[test]
    fn a_difference_is_pending_and_none_is_done() {
        assert_eq!(exit(Facts::of_diff(&[])), Exit::Done);
        assert_eq!(exit(Facts::of_diff(&fixtures::diff())), Exit::Pending);
    }

    #[test]
    fn a_plan_waits_on_its_gates_and_else_is_pending() {
        let mut plans = fixtures::plans();
        assert_eq!(exit(Facts::of_plans(&plans)), Exit::Stalled);
        for plan in &mut plans {
            plan.waiting
                .retain(|one| !matches!(one.on, WaitingOn::Terminal { .. }));
        }
        assert_eq!(exit(Facts::of_plans(&plans)), Exit::Gate);
        for plan in &mut plans {
            plan.waiting.clear();
            plan.steps.retain(|step| step.gate.is_none());
        }
        assert_eq!(exit(Facts::of_plans(&plans)), Exit::Pending);
        assert_eq!(exit(Facts::of_plans(&[])), Exit::Done);
    }
}
