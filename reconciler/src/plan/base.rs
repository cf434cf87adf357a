//! An update of what all agents are built upon: it yields to what the operator was asked about, and takes its turn.

use shared::canonical::NotCanonical;
use shared::gate::{Asker, GateClass, GateState, Verdict};
use shared::plan::WaitingOn;
use shared::spec::{AgentSpec, RunState};

use super::HiveFacts;
use super::agent::Planner;
use crate::gate;
use crate::model::base::{Ahead, Base, Programs};
use crate::model::build::{BuildOutput, GrantMode};
use crate::model::records::{AgentRecord, BuildState, GateRecord, Proposal};
use crate::model::step::Action;

const UPDATE: &str = "the update of what all agents are built upon";

impl<'a> Planner<'a> {
    /// What is planned upon: what the spec says, or what is deployed, while a deployment made upon that is asked about.
    /// Whoever reads a diff must not lose it to an update of the host.
    pub(super) fn base(&mut self, spec: &AgentSpec) -> Result<Option<&'a Base>, NotCanonical> {
        let deployed = self.inputs.ledger.record.deployed.as_ref();
        let Some((deployed, old)) = deployed.and_then(|d| Some((d, &d.output.made_from.as_ref()?.base)))
        else {
            return Ok(None);
        };
        let request = |commit, mode| self.request(spec, commit, mode);
        let settled = request(
            &deployed.output.commit,
            GrantMode::Granted(deployed.output.grants.clone()),
        );
        let new = current(spec, self.inputs.facts);
        let startable = old.programs == new.programs || old.programs.outlast_updates();
        if *old == new || !startable {
            return Ok(None);
        }
        // What would have to be built again cannot be waited with: what it is built upon may be gone as well.
        let settled = self.built(&settled.upon(old).key()?);
        if !matches!(settled, Some(BuildState::Built(now)) if now.system == deployed.output.system) {
            return Ok(None);
        }
        for record in &self.inputs.ledger.gates {
            let Some((proposal, build)) = self.asked_about(record) else {
                continue;
            };
            let request = request(&proposal.commit, GrantMode::Asked).upon(old);
            if request.key()? == *build && self.built(build).is_some() {
                let (gate, class) = (record.gate.id, record.gate.class);
                let hint = Some(format!("hive gate show {gate}"));
                self.plan.wait(UPDATE, WaitingOn::Gate { gate, class }, hint);
                return Ok(Some(old));
            }
        }
        Ok(None)
    }

    /// The proposal whose deployment a gate is about, and its build, while that can still happen.
    fn asked_about<'g>(&self, record: &'g GateRecord) -> Option<(&'a Proposal, &'g shared::Digest)> {
        let can_happen = match record.gate.state {
            GateState::Open | GateState::Approved => true,
            GateState::Consumed => record.gate.completed_at.is_none(),
            GateState::Denied | GateState::Superseded | GateState::Expired => false,
        };
        let Action::Deploy {
            build,
            proposal: Some(number),
            ..
        } = &record.step.action
        else {
            return None;
        };
        let mut proposals = self.inputs.ledger.proposals.iter();
        let proposal = proposals.find(|p| p.number == *number && !p.phase.is_final())?;
        can_happen.then_some((proposal, build))
    }

    /// Whether nothing but what all agents are built upon is different.
    pub(super) fn is_base_update(&self, output: &BuildOutput) -> bool {
        let Some(now) = self.deployed_output() else {
            return false;
        };
        let (Some(before), Some(after)) = (&now.made_from, &output.made_from) else {
            return false;
        };
        now.commit == output.commit && before.declared == after.declared && before.base != after.base
    }

    /// Whether an update has to wait for the agent's own trial, or for its turn; if so, the wait is noted.
    pub(super) fn update_waits(&mut self, spec: &AgentSpec, output: &BuildOutput) -> bool {
        if !self.is_base_update(output) {
            return false;
        }
        let proposed = self.inputs.ledger.probation.as_ref();
        if proposed.is_some_and(|trial| trial.proposal.is_some()) {
            let first = "what is deployed now passes its probation".to_owned();
            self.plan.wait(UPDATE, WaitingOn::Dependency { first }, None);
            return true;
        }
        let policy = &self.inputs.facts.policy;
        let (verdict, _) = gate::verdict(policy, GateClass::BaseUpdate, Asker::Spec);
        // Whoever decides about each agent decides about the order too; and what does not run is not interrupted.
        if verdict != Verdict::Auto || self.wanted_run(spec) == RunState::Stopped {
            return false;
        }
        let Some(Ahead { agents, until }) = self.inputs.rollout.ahead() else {
            return false;
        };
        let first = format!("the probation of {} with the same update", names(&agents));
        self.plan.wait(UPDATE, WaitingOn::Dependency { first }, None);
        self.plan.wake(until);
        self.plan.in_line = true;
        true
    }
}

/// Whether what is deployed was made upon something else than what the spec says now.
pub fn is_outdated(record: &AgentRecord, spec: &AgentSpec, facts: &HiveFacts) -> bool {
    let made_from = record.deployed.as_ref().and_then(|d| d.output.made_from.as_ref());
    made_from.is_some_and(|made_from| made_from.base != current(spec, facts))
}

fn current(spec: &AgentSpec, facts: &HiveFacts) -> Base {
    let programs = Programs {
        harness: facts.harness.clone(),
        drivers: facts.programs.clone(),
    };
    Base::new(programs, facts.nix.as_ref(), spec.system.as_deref())
}

/// The first few, and how many more.
fn names(agents: &[shared::AgentName]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = agents.iter().take(SHOWN).map(|name| name.as_str()).collect();
    match agents.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
