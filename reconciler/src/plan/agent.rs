//! The plan of one agent: its life, its candidate from the spec, its proposals.

use std::collections::BTreeSet;

use jiff::Timestamp;
use shared::agent_api::ProposalPhase;
use shared::canonical::NotCanonical;
use shared::gate::{Asker, GateClass, GateState, GateView, Verdict};
use shared::plan::WaitingOn;
use shared::spec::{AgentSpec, RuntimeKind};
use shared::{AgentName, AgentUid, CommitOid, Digest, ProposalNumber};

use super::{HiveFacts, Plan, free};
use crate::gate;
use crate::host::UnitState;
use crate::model::base::{Base, Rollout};
use crate::model::build::{BuildOutput, BuildRequest, GrantMode, build_inputs};
use crate::model::draft::Standing;
use crate::model::inventory::AgentInventory;
use crate::model::records::{AgentLedger, AgentLife, BuildState, Proposal};
use crate::model::step::{Action, Authority, Step};
use crate::model::user_range::UserRange;

/// Everything the plan of one agent is made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The hive.
    pub facts: &'a HiveFacts,
    /// The agent as declared; absent when it is not declared, or declared with faults and never accepted before.
    pub spec: Option<&'a AgentSpec>,
    /// What was observed.
    pub inventory: &'a AgentInventory,
    /// What the ledger knows.
    pub ledger: &'a AgentLedger,
    /// What the rest of the hive says to it, while it is a draft or a manager's order about it waits.
    pub standing: &'a Standing,
    /// How far an update of the base has come with the others, while this agent is not up to date.
    pub rollout: &'a Rollout,
    /// Now.
    pub now: Timestamp,
}

/// Plans one agent.
///
/// # Errors
/// Only when a value has no canonical form, which means a fault in the program.
pub fn plan(inputs: Inputs<'_>) -> Result<Plan, NotCanonical> {
    let mut planner = Planner {
        inputs,
        plan: Plan::new(Some(inputs.ledger.record.name.clone())),
        upon: None,
    };
    match inputs.ledger.record.life {
        AgentLife::Archived { .. } | AgentLife::Purged { .. } => {}
        AgentLife::Draft => planner.draft()?,
        AgentLife::GivenUp { .. } => planner.given_up()?,
        AgentLife::Restoring { .. } => planner.free(Action::Restore)?,
        AgentLife::Removed { .. } => planner.removed()?,
        AgentLife::Declared => planner.declared()?,
        AgentLife::Active => planner.active()?,
    }
    Ok(planner.plan)
}

pub(super) struct Planner<'a> {
    pub(super) inputs: Inputs<'a>,
    pub(super) plan: Plan,
    /// What is planned upon, when it is not what the spec says.
    upon: Option<&'a Base>,
}

impl<'a> Planner<'a> {
    pub(super) fn name(&self) -> &'a AgentName {
        &self.inputs.ledger.record.name
    }

    pub(super) fn uid(&self) -> AgentUid {
        self.inputs.ledger.record.uid
    }

    /// A step that needs no decision.
    pub(super) fn free(&mut self, action: Action) -> Result<(), NotCanonical> {
        let step = free(action, self.name(), self.uid());
        self.plan.push(self.inputs.facts, step, GateView::default())
    }

    /// A step under an authority.
    pub(super) fn step(
        &mut self,
        action: Action,
        authority: Authority,
        view: GateView,
    ) -> Result<(), NotCanonical> {
        let step = Step {
            agent: Some(self.name().clone()),
            uid: Some(self.uid()),
            action,
            authority,
        };
        self.plan.push(self.inputs.facts, step, view)
    }

    /// A step that needs a decision and has nothing to show but its summary.
    pub(super) fn gated(
        &mut self,
        action: Action,
        class: GateClass,
        asked_by: Asker,
    ) -> Result<(), NotCanonical> {
        let summary = format!("{}: {}", self.name(), super::view::action(&action));
        let view = GateView {
            summary,
            ..GateView::default()
        };
        self.step(action, Authority::Class { class, asked_by }, view)
    }

    /// What is wanted, and not before something else is done. Whoever agreed to it is not asked again because of that.
    pub(super) fn later(
        &mut self,
        plan: impl FnOnce(&mut Self) -> Result<(), NotCanonical>,
    ) -> Result<(), NotCanonical> {
        let before = self.plan.steps.len();
        plan(self)?;
        let later = self.plan.steps.split_off(before);
        self.plan
            .later
            .extend(later.into_iter().map(|planned| planned.effect_digest));
        Ok(())
    }

    pub(super) fn unknown(&mut self, what: &str, source: &str, error: &str) {
        let on = WaitingOn::StaleInventory {
            source: source.to_owned(),
            error: Some(error.to_owned()),
        };
        self.plan.partial = true;
        // It is looked at again by itself, but not at once.
        let hint = format!("hive retry {}", self.inputs.ledger.record.name);
        self.plan.wait(what, on, Some(hint));
    }

    pub(super) fn stuck(&mut self, what: &str, error: impl Into<String>, hint: Option<String>) {
        self.plan
            .wait(what, WaitingOn::Terminal { error: error.into() }, hint);
    }

    fn declared(&mut self) -> Result<(), NotCanonical> {
        self.plan.ended_because = "the spec says what becomes of it now".to_owned();
        self.leftovers()?;
        if self.spec_or_wait().is_none() {
            return Ok(());
        }
        self.gated(Action::Spawn, GateClass::Spawn, Asker::Spec)
    }

    /// The declared agent, or a wait that says why nothing is planned.
    pub(super) fn spec_or_wait(&mut self) -> Option<&'a AgentSpec> {
        if let Some(why) = &self.inputs.facts.unsupported {
            self.stuck("everything", why.clone(), None);
            self.plan.partial = true;
            return None;
        }
        if self.inputs.spec.is_none() {
            let first = format!(
                "agents.{} is declared without faults, or its removal is approved",
                self.name()
            );
            let hint = Some("hive explain hive".to_owned());
            self.plan
                .wait("everything", WaitingOn::Dependency { first }, hint);
        }
        self.inputs.spec
    }

    /// A removed agent is stopped at once; its state is archived once the operator agrees.
    fn removed(&mut self) -> Result<(), NotCanonical> {
        self.leftovers()?;
        match &self.inputs.inventory.unit {
            Err(error) => self.unknown("stopping and archiving", "runtime", error),
            Ok(UnitState::Running { run, .. }) => {
                let action = Action::Stop { run: run.clone() };
                self.later(Self::archive)?;
                self.gated(action, GateClass::Stop, Asker::Spec)?;
            }
            Ok(UnitState::Foreign { what }) => self.foreign(what),
            Ok(UnitState::Absent | UnitState::Exited { .. }) => self.archive()?,
        }
        Ok(())
    }

    /// Whoever agreed to a manager's order is not asked again.
    fn archive(&mut self) -> Result<(), NotCanonical> {
        match self.inputs.ledger.record.archived_under() {
            Some(gate) => self.step(Action::Archive, Authority::Under(gate), GateView::default()),
            None => self.gated(Action::Archive, GateClass::Archive, Asker::Spec),
        }
    }

    pub(super) fn foreign(&mut self, what: &str) {
        let error = format!("something else runs under this agent's name: {what}");
        self.stuck(
            "the run state",
            error,
            Some(format!("stop it, then run: hive retry {}", self.name())),
        );
    }

    fn active(&mut self) -> Result<(), NotCanonical> {
        let ledger = self.inputs.ledger;
        let suspended = ledger.overrides.suspended_at(self.inputs.now);
        let Some(suspended) = suspended else {
            return self.converge();
        };
        let on = WaitingOn::Suspended {
            until: suspended.until,
            by: suspended.by.clone(),
            reason: suspended.reason.clone(),
        };
        self.plan
            .wait("everything", on, Some(format!("hive resume {}", self.name())));
        let wake_at = self.plan.wake_at;
        self.converge()?;
        // Shown, not done: all of it waits for the resumption alone.
        self.plan.held = std::mem::take(&mut self.plan.steps);
        self.plan.waiting.truncate(1);
        self.plan.offers.clear();
        self.plan.in_line = false;
        self.plan.wake_at = wake_at;
        self.plan.partial = true;
        // The running agent keeps running, with the config it was told of.
        self.announce();
        Ok(())
    }

    fn converge(&mut self) -> Result<(), NotCanonical> {
        let Some(spec) = self.spec_or_wait() else {
            return Ok(());
        };
        if self.inputs.facts.runtime == RuntimeKind::Nspawn && self.inputs.ledger.user_range.is_none() {
            let error = format!("all {} ranges of user ids are taken", UserRange::COUNT);
            let hint = "let go of archived agents: hive archive, then hive destroy --purge NAME".to_owned();
            self.stuck("running in a container", error, Some(hint));
            return Ok(());
        }
        self.leftovers()?;
        self.order(spec)?;
        self.refs()?;
        self.upon = self.base(spec)?;
        let settled = self.candidate(spec)?;
        self.proposals(spec, settled)?;
        self.trial(spec)?;
        self.files()?;
        self.run(spec)
    }

    pub(super) fn request(&self, spec: &AgentSpec, commit: &CommitOid, grants: GrantMode) -> BuildRequest {
        let request = BuildRequest {
            agent: self.name().clone(),
            uid: self.uid(),
            hive: self.inputs.facts.name.clone(),
            operator: self.inputs.facts.operator.clone(),
            commit: commit.clone(),
            spec: build_inputs(spec),
            harness: self.inputs.facts.harness.clone(),
            programs: self.inputs.facts.programs.clone(),
            model_url: self.inputs.facts.model_url.clone(),
            user_range: match self.inputs.facts.runtime {
                RuntimeKind::Process => None,
                RuntimeKind::Nspawn => self.inputs.ledger.user_range,
            },
            nix: self.inputs.facts.nix.clone(),
            provides_key: Some(self.inputs.facts.provides_key),
            grants,
        };
        match self.upon {
            Some(base) => request.upon(base),
            None => request,
        }
    }

    /// What a request led to, as far as it is known and still there.
    pub(super) fn built(&self, key: &Digest) -> Option<&'a BuildState> {
        let state = self.inputs.ledger.builds.get(key)?;
        self.vanished(key).is_none().then_some(state)
    }

    /// What was built and is not there any more. It is built again; one that could not be looked for is taken to be there.
    pub(super) fn vanished(&self, key: &Digest) -> Option<&'a BuildOutput> {
        let (BuildState::Built(output), Ok(present)) = (
            self.inputs.ledger.builds.get(key)?,
            &self.inputs.inventory.systems,
        ) else {
            return None;
        };
        (present.get(&output.system) == Some(&false)).then_some(&**output)
    }

    /// The system that the spec and the deployed commit ask for. Returns whether it is the deployed one.
    fn candidate(&mut self, spec: &AgentSpec) -> Result<bool, NotCanonical> {
        let ledger = self.inputs.ledger;
        let Some(commit) = ledger.record.main() else {
            self.stuck("deploying", "the agent has no seed commit", None);
            return Ok(false);
        };
        let deployed = ledger.record.deployed.as_ref();
        let granted = deployed.map(|d| d.output.grants.clone()).unwrap_or_default();
        let request = self.request(spec, commit, GrantMode::Granted(granted));
        let key = request.key()?;
        // What failed is tried again, and what did not is built beside what is there.
        let anew = ledger.record.rebuild;
        let output = match self.built(&key).filter(|state| !(anew && state.is_failed())) {
            None => {
                let vanished = self.vanished(&key);
                if let Some(output) = vanished {
                    self.later(|planner| planner.deploy(key.clone(), output, None, Asker::Spec))?;
                }
                let action = Action::Build {
                    key,
                    request: Box::new(request),
                    proposal: None,
                    hosts: BTreeSet::new(),
                };
                self.gated(action, GateClass::Build, Asker::Spec)?;
                return Ok(vanished.is_some_and(|v| deployed.is_some_and(|d| d.output.system == v.system)));
            }
            Some(BuildState::Failed { error }) => {
                let hint = Some(format!("hive explain {}", self.name()));
                self.stuck(
                    "deploying what the spec asks for",
                    format!("the build failed: {error}"),
                    hint,
                );
                return Ok(false);
            }
            Some(BuildState::Wants { hosts }) => {
                self.fetch(key, request, None, hosts, Asker::Spec)?;
                return Ok(false);
            }
            Some(BuildState::Built(output)) => output,
        };
        if anew {
            let action = Action::Build {
                key: key.clone(),
                request: Box::new(request),
                proposal: None,
                hosts: BTreeSet::new(),
            };
            self.gated(action, GateClass::Build, Asker::Spec)?;
        }
        self.plan.desired_system = Some(output.system.clone());
        if deployed.is_some_and(|d| d.output.system == output.system) {
            return Ok(true);
        }
        if let Some(quarantine) = ledger.quarantine.get(&output.system) {
            let error = format!("this system failed its probation: {}", quarantine.reason);
            let hint = Some(format!("change the spec, or run: hive retry {}", self.name()));
            self.stuck("deploying what the spec asks for", error, hint);
            // What is deployed is the last good system: proposals may be built on it, as they may hold the cure.
            return Ok(deployed.is_some());
        }
        if self.update_waits(spec, output) {
            self.later(|planner| planner.deploy(key, output, None, Asker::Spec))?;
        } else {
            self.deploy(key, output, None, Asker::Spec)?;
        }
        Ok(false)
    }

    fn proposals(&mut self, spec: &AgentSpec, settled: bool) -> Result<(), NotCanonical> {
        for proposal in self
            .inputs
            .ledger
            .proposals
            .iter()
            .filter(|p| !p.phase.is_final())
        {
            if settled {
                self.proposal(spec, proposal)?;
            } else {
                let on = WaitingOn::Dependency {
                    first: "what the spec asks for is deployed".to_owned(),
                };
                self.plan
                    .wait_with_offer(format!("proposal {}", proposal.number), on);
                self.plan.ended_because = "the spec changed underneath it".to_owned();
            }
        }
        Ok(())
    }

    fn proposal(&mut self, spec: &AgentSpec, proposal: &'a Proposal) -> Result<(), NotCanonical> {
        let number = proposal.number;
        let what = format!("proposal {number}");
        match &self.inputs.inventory.descends {
            Err(error) => {
                self.unknown(&what, "config repo", error);
                return Ok(());
            }
            Ok(descends) => match descends.get(&proposal.commit) {
                Some(true) => {}
                Some(false) => {
                    self.plan.ended_because =
                        "main moved on; the proposal no longer descends from it".to_owned();
                    let reason = "main moved on: fetch it, rebase your commit onto it, and propose again";
                    return self.phase(number, ProposalPhase::Failed, reason);
                }
                None => {
                    self.unknown(&what, "config repo", "not looked at yet");
                    return Ok(());
                }
            },
        }
        let request = self.request(spec, &proposal.commit, GrantMode::Asked);
        let key = request.key()?;
        let output = match self.built(&key) {
            None => {
                if let Some(output) = self.vanished(&key) {
                    let asked_by = proposal.asked_by;
                    self.later(|planner| planner.deploy(key.clone(), output, Some(proposal), asked_by))?;
                } else if proposal.phase != ProposalPhase::Building {
                    self.phase(number, ProposalPhase::Building, "")?;
                }
                let action = Action::Build {
                    key,
                    request: Box::new(request),
                    proposal: Some(number),
                    hosts: BTreeSet::new(),
                };
                return self.gated(action, GateClass::Build, proposal.asked_by);
            }
            Some(BuildState::Failed { error }) => {
                return self.phase(number, ProposalPhase::Failed, error);
            }
            Some(BuildState::Wants { hosts }) => {
                return self.fetch(key, request, Some(proposal), hosts, proposal.asked_by);
            }
            Some(BuildState::Built(output)) => output,
        };
        if let Some(quarantine) = self.inputs.ledger.quarantine.get(&output.system) {
            return self.phase(number, ProposalPhase::Failed, &quarantine.reason);
        }
        if let Some(trial) = &self.inputs.ledger.probation {
            let on = if trial.active_since.is_some() {
                let until = super::trial::ends_at(trial, self.inputs.facts.watched_since, self.inputs.now);
                WaitingOn::Health { until }
            } else {
                let first = "what is deployed now passes its probation".to_owned();
                WaitingOn::Dependency { first }
            };
            self.plan.wait_with_offer(what, on);
            return Ok(());
        }
        let class = self.deploy_class(output);
        if let (Verdict::Never, rule) = gate::verdict(&self.inputs.facts.policy, class, proposal.asked_by) {
            return self.phase(
                number,
                ProposalPhase::Denied,
                &format!("the policy {rule} forbids it"),
            );
        }
        let decided = self.inputs.ledger.gates.iter().any(|record| {
            record.gate.proposal == Some(number)
                && record.gate.class != GateClass::Build
                && matches!(record.gate.state, GateState::Approved | GateState::Consumed)
        });
        if proposal.phase == ProposalPhase::Building
            || (proposal.phase == ProposalPhase::Approved && !decided)
        {
            self.phase(number, ProposalPhase::Proposed, "")?;
        }
        self.deploy(key, output, Some(proposal), proposal.asked_by)
    }

    fn phase(
        &mut self,
        number: ProposalNumber,
        phase: ProposalPhase,
        reason: &str,
    ) -> Result<(), NotCanonical> {
        self.free(Action::SetPhase {
            number,
            phase,
            reason: reason.to_owned(),
        })
    }
}
