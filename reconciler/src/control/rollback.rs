//! Going back to what an agent had before: a new commit with the old content, proposed like any other.
//!
//! `main` never moves backwards, so what an agent builds on keeps its meaning, and the gates, the build, the diffs and
//! the probation of a rollback are those of every proposal.

use jiff::Timestamp;
use shared::agent_api::{ProposalInfo, ProposalPhase};
use shared::event::Level;
use shared::gate::Asker;
use shared::{AgentName, CommitOid, ProposalNumber};

use super::command::{Because, CommandError};
use super::reconciler::Reconciler;
use crate::execute::event;
use crate::host::Imported;
use crate::model::records::{AgentLedger, Proposal};

/// The number that stands for the seed commit.
const SEED: ProposalNumber = ProposalNumber(0);

impl Reconciler {
    /// Proposes, in the operator's name, what was deployed as proposal `to`, or before the present deployment.
    ///
    /// # Errors
    /// When there is nothing to go back to, or repo or ledger fail.
    pub async fn rollback(
        &self,
        name: &AgentName,
        to: Option<ProposalNumber>,
        because: Because,
    ) -> Result<ProposalInfo, CommandError> {
        let ledger = self.command_on(name).await?;
        let proposals = self.ledger.proposals(name).await?.items;
        let unfit = |why| CommandError::Unfit {
            agent: name.clone(),
            why,
        };
        let Some(main) = ledger.record.main() else {
            return Err(unfit("has no config repo yet"));
        };
        let (number, content) = match to {
            Some(number) => deployed_as(&ledger, &proposals, number).ok_or_else(|| {
                unfit("has no such proposal that was deployed and not found bad: hive history has them")
            })?,
            None => before(&ledger, &proposals).ok_or_else(|| unfit("has had no other commit deployed"))?,
        };
        // What lapsed with a lost ledger is granted anew by the same content once more.
        if content == *main && ledger.record.recovered.is_none() {
            return Err(unfit("has that very commit deployed"));
        }
        let title = if number == SEED {
            "Roll back to the seed".to_owned()
        } else {
            format!("Roll back to proposal {number}")
        };
        let now = self.host.clock.now();
        let message = format!(
            "{title}\n\n{}",
            because.said("Ordered by the operator".to_owned())
        );
        let commit = self
            .host
            .repos
            .repeat(name, main, &content, &message, now)
            .await?;
        let told = because.said(format!("{name} is to go back: {}", title.to_lowercase()));
        let imported = Imported {
            commit,
            title,
            reason: because.said("Ordered by the operator".to_owned()),
        };
        let proposal = self.propose(name, imported, Asker::Spec).await?;
        self.ledger
            .apply(vec![event(name, Level::Info, "rollbackOrdered", told, now)])
            .await?;
        Ok(proposal)
    }
}

/// When a proposal was deployed, if it was and nothing bad was found about it since.
fn deployed_at(proposal: &Proposal) -> Option<Timestamp> {
    let mark = proposal.marks.get(&ProposalPhase::Deployed)?;
    (proposal.phase == ProposalPhase::Deployed).then_some(mark.at)
}

/// The commit that was deployed as this proposal.
fn deployed_as(
    ledger: &AgentLedger,
    proposals: &[Proposal],
    number: ProposalNumber,
) -> Option<(ProposalNumber, CommitOid)> {
    if number == SEED {
        return ledger.record.seed.clone().map(|seed| (SEED, seed));
    }
    let proposal = proposals.iter().find(|p| p.number == number)?;
    deployed_at(proposal)?;
    Some((number, proposal.commit.clone()))
}

/// The commit that was deployed before the present one; the seed is the first.
fn before(ledger: &AgentLedger, proposals: &[Proposal]) -> Option<(ProposalNumber, CommitOid)> {
    let main = ledger.record.main()?;
    let current = ledger.record.deployed.as_ref().map_or(SEED, |d| d.proposal);
    let earlier = |p: &&Proposal| p.commit != *main && p.number != current;
    let newest = proposals
        .iter()
        .filter(earlier)
        .filter_map(|p| deployed_at(p).map(|at| (at, p)))
        .max_by_key(|(at, p)| (*at, p.number));
    match newest {
        Some((_, proposal)) => Some((proposal.number, proposal.commit.clone())),
        None => deployed_as(ledger, proposals, SEED).filter(|(_, seed)| seed != main),
    }
}
