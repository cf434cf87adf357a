//! The planner: spec, inventory, decisions and now in, ordered steps and waits out. Pure.
//!
//! The same inputs give the same bytes. A plan leaves nothing to decide at execution. A step is planned only when
//! the facts allow it; whether it is *permitted* is asked afterwards, in [`schedule`].

pub mod agent;
pub mod base;
pub mod budget;
pub mod deploy;
pub mod draft;
mod fetch;
pub mod hive;
pub mod order;
pub mod refs;
pub mod run;
pub mod schedule;
pub mod status;
pub mod support;
pub mod trial;
pub mod view;

use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::canonical::{Encoding, NotCanonical, digest};
use shared::gate::GateView;
use shared::plan::{PlanView, Waiting, WaitingOn};
use shared::spec::{OperatorSpec, PolicySpec, ProgramsSpec, RuntimeKind};
use shared::{AgentName, Digest, HiveId};

use crate::gate;
use crate::host::Announcement;
use crate::model::build::NixInputs;
use crate::model::step::{Action, Authority, PlannedStep, Step};

/// What planning needs to know of the hive as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HiveFacts {
    /// The hive's id.
    pub id: HiveId,
    /// Its name.
    pub name: String,
    /// The human.
    pub operator: OperatorSpec,
    /// The operator's changes to the policy.
    pub policy: PolicySpec,
    /// The harness program.
    pub harness: Utf8PathBuf,
    /// The programs that drivers run.
    #[serde(default, skip_serializing_if = "ProgramsSpec::is_empty")]
    pub programs: ProgramsSpec,
    /// The model provider's address, if the operator declared one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_url: Option<String>,
    /// How agents run.
    #[serde(default)]
    pub runtime: RuntimeKind,
    /// What the Nix builder takes; absent with another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nix: Option<NixInputs>,
    /// Whether the operator gave the model gateway the provider's key.
    #[serde(default)]
    pub provides_key: bool,
    /// Why agents of this spec cannot be run by this daemon at all.
    pub unsupported: Option<String>,
    /// When this daemon began to watch.
    pub watched_since: Timestamp,
}

/// What to do about one agent, or about the hive, and what is blocked.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The agent; absent for the hive.
    pub agent: Option<AgentName>,
    /// In the order in which they are carried out.
    pub steps: Vec<PlannedStep>,
    /// What proposals wait on. They are offers: until one is approved nothing about it is wanted, so it is no drift.
    pub offers: Vec<Waiting>,
    /// Effects that are wanted once others are done. Their gates stay as they are.
    pub later: Vec<Digest>,
    /// What would be done if the agent were not suspended.
    pub held: Vec<PlannedStep>,
    /// What is blocked by facts. Waits for decisions and retries come from [`schedule`].
    pub waiting: Vec<Waiting>,
    /// What the harness should be told.
    pub announce: Option<Announcement>,
    /// When to look again even if nothing happens.
    pub wake_at: Option<Timestamp>,
    /// Why a gate that no longer fits ends.
    pub ended_because: String,
    /// Things an operator should know.
    pub notices: Vec<String>,
    /// The system that spec and deployed commit ask for, once it is built.
    pub desired_system: Option<String>,
    /// Not everything could be looked at: a step that is missing here may still be wanted, so no gate ends.
    pub partial: bool,
    /// It waits for others to try a new base before it.
    pub in_line: bool,
}

impl Plan {
    /// Whether there is nothing to do and nothing to wait for, now or later.
    pub(crate) fn is_rest(&self) -> bool {
        let Self {
            agent: _,
            steps,
            offers,
            later,
            held,
            waiting,
            announce: _,
            wake_at,
            ended_because: _,
            notices: _,
            desired_system: _,
            partial,
            in_line: _,
        } = self;
        let empty = steps.is_empty() && offers.is_empty() && later.is_empty() && held.is_empty();
        empty && waiting.is_empty() && wake_at.is_none() && !partial
    }

    pub(crate) fn new(agent: Option<AgentName>) -> Self {
        Self {
            agent,
            steps: Vec::new(),
            later: Vec::new(),
            held: Vec::new(),
            offers: Vec::new(),
            waiting: Vec::new(),
            announce: None,
            wake_at: None,
            ended_because: "its effect is no longer wanted".to_owned(),
            notices: Vec::new(),
            desired_system: None,
            partial: false,
            in_line: false,
        }
    }

    fn push(&mut self, facts: &HiveFacts, step: Step, view: GateView) -> Result<(), NotCanonical> {
        let id = gate::step_id(&step)?;
        let effect_digest = gate::effect_digest(facts.id, &facts.policy, &step)?;
        self.steps.push(PlannedStep {
            step,
            id,
            effect_digest,
            view,
        });
        Ok(())
    }

    fn wait(&mut self, what: impl Into<String>, on: WaitingOn, hint: Option<String>) {
        self.wake_for(&on);
        self.waiting.push(Waiting {
            what: what.into(),
            on,
            hint,
        });
    }

    /// The same for a proposal.
    fn wait_with_offer(&mut self, what: impl Into<String>, on: WaitingOn) {
        self.wake_for(&on);
        let what = what.into();
        self.offers.push(Waiting { what, on, hint: None });
    }

    fn wake_for(&mut self, on: &WaitingOn) {
        if let Some(at) = deadline(on) {
            self.wake(at);
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// The digest of the whole plan, for history.
    ///
    /// # Errors
    /// Only when a value has no canonical form, which means a fault in the program.
    pub fn digest(&self) -> Result<Digest, NotCanonical> {
        let steps: Vec<&Step> = self.steps.iter().map(|planned| &planned.step).collect();
        digest(Encoding::Plan, &(&self.agent, steps))
    }

    /// One generated line.
    pub fn summary(&self) -> String {
        match self.steps.as_slice() {
            [] => "nothing to do".to_owned(),
            steps => steps
                .iter()
                .map(|step| view::action(&step.step.action))
                .collect::<Vec<_>>()
                .join("; "),
        }
    }

    /// The plan as shown.
    ///
    /// # Errors
    /// Only when a value has no canonical form, which means a fault in the program.
    pub fn view(&self, waiting: Vec<Waiting>) -> Result<PlanView, NotCanonical> {
        Ok(PlanView {
            agent: self.agent.clone(),
            digest: self.digest()?,
            summary: self.summary(),
            steps: self.steps.iter().chain(&self.held).map(view::step).collect(),
            waiting,
        })
    }
}

/// When a wait ends by itself.
pub fn deadline(on: &WaitingOn) -> Option<Timestamp> {
    match on {
        WaitingOn::TurnBoundary { deadline } => Some(*deadline),
        WaitingOn::Backoff { until, .. } | WaitingOn::Health { until } | WaitingOn::Breaker { until, .. } => {
            Some(*until)
        }
        WaitingOn::Suspended { until, .. } => *until,
        WaitingOn::Gate { .. }
        | WaitingOn::StaleInventory { .. }
        | WaitingOn::Dependency { .. }
        | WaitingOn::Terminal { .. } => None,
    }
}

/// `time` plus whole seconds, at most the end of time.
pub fn after(time: Timestamp, secs: i64) -> Timestamp {
    time.checked_add(jiff::SignedDuration::from_secs(secs))
        .unwrap_or(Timestamp::MAX)
}

/// Whether an action is free of any gate.
pub(crate) fn free(action: Action, agent: &AgentName, uid: shared::AgentUid) -> Step {
    Step {
        agent: Some(agent.clone()),
        uid: Some(uid),
        action,
        authority: Authority::Free,
    }
}

#[cfg(test)]
mod tests;
