//! How an update of what all agents are built upon goes round: who is on trial with it, and who waits in line.

use std::collections::BTreeSet;
use std::sync::Mutex;

use shared::AgentName;
use shared::spec::AgentSpec;

use super::reconciler::{Key, Reconciler, lock};
use crate::ledger::LedgerError;
use crate::model::base::Rollout;
use crate::model::records::AgentLedger;
use crate::model::step::Action;
use crate::plan::base::is_outdated;
use crate::plan::{HiveFacts, trial};

/// The agents that wait for their turn. Each says so itself, in every pass: it is no more than a hint whom to look at.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<BTreeSet<AgentName>>);

impl Line {
    pub(super) fn note(&self, name: &AgentName, waits: bool) {
        let mut line = lock(&self.0);
        if !waits {
            line.remove(name);
        } else if !line.contains(name) {
            line.insert(name.clone());
        }
    }

    fn first(&self, most: usize) -> Vec<AgentName> {
        lock(&self.0).iter().take(most).cloned().collect()
    }
}

impl Reconciler {
    /// How far an update has come with the others, for an agent that does not have it yet.
    pub(super) async fn rollout(
        &self,
        ledger: &AgentLedger,
        spec: Option<&AgentSpec>,
        facts: &HiveFacts,
    ) -> Result<Rollout, LedgerError> {
        if !spec.is_some_and(|spec| is_outdated(&ledger.record, spec, facts)) {
            return Ok(Rollout::default());
        }
        let now = self.host.clock.now();
        let (agents, trials) = self.ledger.base_trials().await?;
        let held = |trial| trial::holds_until(trial, facts.watched_since, now);
        let others = trials.iter().filter(|(name, _)| *name != ledger.record.name);
        let on_trial = others.filter_map(|(name, trial)| Some((name.clone(), held(trial)?)));
        Ok(Rollout {
            on_trial: on_trial.collect(),
            ..Rollout::among(agents)
        })
    }

    /// Whose turn it may be now that a step is done, because it took an agent off its trial.
    pub(super) async fn next_in_line(
        &self,
        ledger: &AgentLedger,
        done: &Action,
    ) -> Result<Vec<Key>, LedgerError> {
        let ends = matches!(
            done,
            Action::MarkGood { .. }
                | Action::Revert { .. }
                | Action::Halt { .. }
                | Action::ProbationClock { active: false }
        );
        let on_trial = ledger.probation.as_ref();
        if !ends || !on_trial.is_some_and(|trial| trial.updates_base) {
            return Ok(Vec::new());
        }
        let (agents, _) = self.ledger.base_trials().await?;
        let next = self.line.first(Rollout::among(agents).at_once);
        Ok(next.into_iter().map(Key::Agent).collect())
    }
}
