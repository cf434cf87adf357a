//! The plan of a draft: its repo, the build of what is offered, and one gate that makes it an agent.
//!
//! Nothing of a draft has power before that gate: no folders, no process, no socket, no mail.

use std::collections::BTreeSet;

use shared::canonical::NotCanonical;
use shared::gate::{Asker, GateClass, GateView, Verdict};
use shared::plan::WaitingOn;
use shared::spec::AgentSpec;
use shared::{CommitOid, Digest};

use super::agent::Planner;
use super::deploy::altered_servers;
use crate::gate;
use crate::host::UnitState;
use crate::model::build::{BuildOutput, GrantMode};
use crate::model::draft::{Draft, Offer, Standing};
use crate::model::records::BuildState;
use crate::model::step::{Action, Authority};

impl<'a> Planner<'a> {
    pub(super) fn draft(&mut self) -> Result<(), NotCanonical> {
        let record = &self.inputs.ledger.record;
        let Some(draft) = record.draft.as_deref() else {
            self.stuck("the draft", "the ledger does not say what it holds", None);
            return Ok(());
        };
        self.plan.notices.push(described(draft));
        self.plan.ended_because = "the draft was changed, or is not offered any more".to_owned();
        let Some(seed) = &record.seed else {
            return self.free(Action::MakeDraft {
                overlay: draft.overlay.clone(),
                at: draft.since,
            });
        };
        match (&draft.offer, self.inputs.standing) {
            (_, Standing::Named) => {
                let first = format!("the spec declares {} without faults, or not at all", self.name());
                self.plan
                    .wait_with_offer("the draft", WaitingOn::Dependency { first });
                Ok(())
            }
            (None, _) => {
                let first = format!("{} offers it", draft.owner);
                self.plan
                    .wait_with_offer("the draft", WaitingOn::Dependency { first });
                Ok(())
            }
            (Some(offer), Standing::Void(reason)) => self.end_offer(offer, reason),
            (Some(offer), Standing::Fine) => {
                let Some(spec) = self.spec_or_wait() else {
                    return Ok(());
                };
                self.offered(spec, seed, draft, offer)
            }
        }
    }

    /// Deletes a draft that was given up, once it is sure that nothing of it runs.
    pub(super) fn given_up(&mut self) -> Result<(), NotCanonical> {
        self.plan.ended_because = "the draft was given up".to_owned();
        match &self.inputs.inventory.unit {
            Ok(UnitState::Absent) => self.free(Action::DropDraft),
            Ok(UnitState::Foreign { what }) => {
                self.foreign(what);
                Ok(())
            }
            Ok(UnitState::Running { .. } | UnitState::Exited { .. }) => {
                self.stuck("deleting the draft", "it ran, so it is no draft", None);
                Ok(())
            }
            Err(error) => {
                self.unknown("deleting the draft", "runtime", error);
                Ok(())
            }
        }
    }

    /// Deletes the staged files of what is a draft no more.
    pub(super) fn leftovers(&mut self) -> Result<(), NotCanonical> {
        match self.inputs.ledger.record.draft {
            Some(_) => self.free(Action::DropStaged),
            None => Ok(()),
        }
    }

    fn offered(
        &mut self,
        spec: &AgentSpec,
        seed: &'a CommitOid,
        draft: &'a Draft,
        offer: &'a Offer,
    ) -> Result<(), NotCanonical> {
        let asked_by = draft.owner.asker();
        let commit = draft.commit.as_ref().unwrap_or(seed);
        let request = self.request(spec, commit, GrantMode::Asked);
        let key = request.key()?;
        let output = match self.built(&key) {
            None => {
                if let Some(output) = self.vanished(&key) {
                    let class = self.spawn_class(output, asked_by).0;
                    self.later(|planner| planner.spawn(class, key.clone(), output, seed, draft, offer))?;
                }
                let action = Action::Build {
                    key,
                    request: Box::new(request),
                    proposal: None,
                    hosts: BTreeSet::new(),
                };
                return self.gated(action, GateClass::Build, asked_by);
            }
            Some(BuildState::Failed { error }) => {
                return self.end_offer(offer, &format!("the build failed: {error}"));
            }
            Some(BuildState::Wants { hosts }) => {
                return self.fetch(key, request, None, hosts, asked_by);
            }
            Some(BuildState::Built(output)) => output,
        };
        let (class, verdict, rule) = self.spawn_class(output, asked_by);
        if verdict == Verdict::Never {
            return self.end_offer(offer, &format!("the policy {rule} forbids it"));
        }
        self.spawn(class, key, output, seed, draft, offer)
    }

    /// The class that decides: `spawn`, unless the overlay goes beyond `spawnDefaults` and the policy is stricter about
    /// that.
    fn spawn_class(&self, output: &BuildOutput, asked_by: Asker) -> (GateClass, Verdict, String) {
        let of = |class| {
            let (verdict, rule) = gate::verdict(&self.inputs.facts.policy, class, asked_by);
            (class, verdict, rule)
        };
        let spawn = of(GateClass::Spawn);
        if output.grants.is_empty() {
            return spawn;
        }
        let widens = of(GateClass::DeployWidens);
        if strictness(widens.1) > strictness(spawn.1) {
            widens
        } else {
            spawn
        }
    }

    fn spawn(
        &mut self,
        class: GateClass,
        build: Digest,
        output: &BuildOutput,
        seed: &CommitOid,
        draft: &Draft,
        offer: &Offer,
    ) -> Result<(), NotCanonical> {
        let action = Action::SpawnDraft {
            name: self.name().clone(),
            build,
            system: output.system.clone(),
            seed: seed.clone(),
            commit: output.commit.clone(),
            grants: output.grants.clone(),
            files: draft.files.clone(),
            watched: altered_servers(None, output),
        };
        let view = self.spawn_view(output, draft, offer);
        let asked_by = draft.owner.asker();
        self.step(action, Authority::Class { class, asked_by }, view)
    }

    fn spawn_view(&self, output: &BuildOutput, draft: &Draft, offer: &Offer) -> GateView {
        let name = self.name();
        let beyond = match output.grants.len() {
            0 => "within spawnDefaults".to_owned(),
            1 => "beyond spawnDefaults in 1 field".to_owned(),
            n => format!("beyond spawnDefaults in {n} fields"),
        };
        let mut steps = vec![format!("the folders of {name} are made")];
        if !draft.files.is_empty() {
            steps.push(format!(
                "{} of {} bytes in all are laid down in its /state",
                counted(draft.files.len()),
                draft.bytes()
            ));
        }
        steps.push(format!("{name} starts from the commit, and is on probation"));
        steps.push("when it does not become healthy, it is stopped".to_owned());
        GateView {
            summary: format!("spawn {name} for {}, {beyond}", draft.owner),
            reason: Some(offer.reason.clone()).filter(|reason| !reason.is_empty()),
            closure_diff: vec![format!("new: {}", output.system)],
            capabilities: output.capability_diff(None),
            steps,
            files: draft.files.clone(),
            ..GateView::default()
        }
    }

    fn end_offer(&mut self, offer: &Offer, reason: &str) -> Result<(), NotCanonical> {
        self.plan.ended_because = reason.to_owned();
        self.free(Action::EndOffer {
            offered_at: offer.at,
            reason: reason.to_owned(),
        })
    }
}

fn strictness(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Auto => 0,
        Verdict::Ask => 1,
        Verdict::Never => 2,
    }
}

fn counted(files: usize) -> String {
    match files {
        1 => "1 file".to_owned(),
        n => format!("{n} files"),
    }
}

fn described(draft: &Draft) -> String {
    let owner = &draft.owner;
    let files = counted(draft.files.len());
    let rest = match (&draft.offer, &draft.denied, &draft.failed) {
        (Some(_), _, _) => "offered".to_owned(),
        (None, _, Some(why)) => format!("not offered any more: {why}"),
        (None, Some(denied), None) => format!("denied by gate {}: {}", denied.gate, denied.reason),
        (None, None, None) => "not offered yet".to_owned(),
    };
    format!("a draft of {owner} with {files} staged, {rest}")
}
