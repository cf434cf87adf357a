//! `main` and the tags as projections of the ledger: what is missing or was moved is written again.

use std::collections::{BTreeMap, BTreeSet};

use shared::CommitOid;
use shared::agent_api::ProposalPhase;
use shared::canonical::NotCanonical;

use super::agent::Planner;
use crate::host::{RefUpdate, RepoState};
use crate::model::records::{AgentRecord, Proposal};
use crate::model::step::Action;
use crate::model::tag;

/// A tag as the ledger wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedTag {
    /// The commit.
    pub commit: CommitOid,
    /// The annotation.
    pub message: String,
    /// The time in the tag object.
    pub at: jiff::Timestamp,
}

/// The tags that the ledger's proposals ask for, by name.
pub fn wanted_tags(proposals: &[Proposal]) -> BTreeMap<String, WantedTag> {
    let mut tags = BTreeMap::new();
    for proposal in proposals {
        for (phase, mark) in &proposal.marks {
            if shows(*phase, proposal.phase) {
                let name = tag::name(*phase, proposal.number);
                let message = tag::annotation(&name, mark);
                tags.insert(
                    name,
                    WantedTag {
                        commit: proposal.commit.clone(),
                        message,
                        at: mark.at,
                    },
                );
            }
        }
    }
    tags
}

/// Whether the tag of a phase that was reached is shown now. A phase that was taken back is not.
fn shows(reached: ProposalPhase, now: ProposalPhase) -> bool {
    match reached {
        ProposalPhase::Proposed => true,
        ProposalPhase::Approved => {
            matches!(
                now,
                ProposalPhase::Approved | ProposalPhase::Deployed | ProposalPhase::Failed
            )
        }
        ProposalPhase::Building | ProposalPhase::Deployed | ProposalPhase::Failed | ProposalPhase::Denied => {
            reached == now
        }
    }
}

/// Whether `main` was moved by somebody else: it is nowhere it ever belonged.
pub fn main_drifted(record: &AgentRecord, proposals: &[Proposal], observed: &CommitOid) -> bool {
    let deployed = proposals
        .iter()
        .filter(|p| p.marks.contains_key(&ProposalPhase::Deployed));
    let known: BTreeSet<&CommitOid> = deployed
        .map(|p| &p.commit)
        .chain(record.seed.as_ref())
        .chain(record.main())
        .collect();
    !known.contains(observed)
}

/// What somebody else did that this update repairs; `None` when it only projects what happened here.
pub fn drift(record: &AgentRecord, proposals: &[Proposal], update: &RefUpdate) -> Option<String> {
    match update {
        RefUpdate::Main { from: Some(seen), .. } if main_drifted(record, proposals, seen) => {
            Some("main was moved by somebody else and is put back".to_owned())
        }
        RefUpdate::Tag {
            name, from: Some(_), ..
        } => Some(format!("tag {name} was changed by somebody else and is put back")),
        RefUpdate::Main { .. } | RefUpdate::Tag { .. } | RefUpdate::DeleteTag { .. } => None,
    }
}

impl Planner<'_> {
    /// Repairs `main` and the tags.
    pub(super) fn refs(&mut self) -> Result<(), NotCanonical> {
        let ledger = self.inputs.ledger;
        let repo = match &self.inputs.inventory.repo {
            Err(error) => {
                self.unknown("main and the tags", "config repo", error);
                return Ok(());
            }
            Ok(None) => {
                let error = "its config repo is gone";
                self.stuck(
                    "main and the tags",
                    error,
                    Some("put it back from a copy of the state folder".into()),
                );
                return Ok(());
            }
            Ok(Some(repo)) => repo,
        };
        if let Some(main) = ledger
            .record
            .main()
            .filter(|main| repo.main.as_ref() != Some(main))
        {
            let update = RefUpdate::Main {
                from: repo.main.clone(),
                to: main.clone(),
            };
            self.plan
                .notices
                .extend(drift(&ledger.record, &ledger.proposals, &update));
            self.free(Action::ProjectRef(update))?;
        }
        self.tags(repo)
    }

    fn tags(&mut self, repo: &RepoState) -> Result<(), NotCanonical> {
        let wanted = wanted_tags(&self.inputs.ledger.proposals);
        for (name, tag) in &wanted {
            let seen = repo.tags.get(name);
            if seen.is_some_and(|seen| seen.commit == tag.commit && seen.message == tag.message) {
                continue;
            }
            let update = RefUpdate::Tag {
                name: name.clone(),
                from: seen.map(|seen| seen.object.clone()),
                commit: tag.commit.clone(),
                message: tag.message.clone(),
                at: tag.at,
            };
            let ledger = self.inputs.ledger;
            self.plan
                .notices
                .extend(drift(&ledger.record, &ledger.proposals, &update));
            self.free(Action::ProjectRef(update))?;
        }
        for (name, seen) in repo
            .tags
            .iter()
            .filter(|(name, _)| tag::is_ours(name) && !wanted.contains_key(*name))
        {
            let update = RefUpdate::DeleteTag {
                name: name.clone(),
                from: seen.object.clone(),
            };
            self.free(Action::ProjectRef(update))?;
        }
        Ok(())
    }
}
