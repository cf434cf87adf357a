//! What the tags of a config repo prove. Pure.

use std::collections::BTreeMap;

use shared::agent_api::ProposalPhase;
use shared::gate::Asker;
use shared::{CommitOid, ProposalNumber};

use super::report::AgentReport;
use crate::host::git::RepoSurvey;
use crate::model::records::{Mark, Proposal};
use crate::model::tag;

/// What stands where the title of a proposal is lost.
const LOST: &str = "(what it offered is lost)";

/// Where `main` belongs, and the first commit there: where it is, when a tag says that this was deployed, or when it is
/// the seed; else what was deployed last. A commit that merely lies on `main` was approved by nobody.
pub(super) fn home(
    repo: &RepoSurvey,
    proposals: &[Proposal],
    report: &mut AgentReport,
) -> Option<(CommitOid, CommitOid)> {
    let deployed = proposals.iter().filter(|p| p.phase == ProposalPhase::Deployed);
    let last = deployed.clone().max_by_key(|p| {
        (
            p.marks.get(&ProposalPhase::Deployed).map(|mark| mark.at),
            p.number,
        )
    });
    let root_of = |commit: &CommitOid| {
        let tag = repo.tags.values().find(|tag| tag.commit == *commit);
        tag.map(|tag| tag.root.clone())
    };
    if let (Some(main), Some(root)) = (&repo.main, &repo.root)
        && (main == root || deployed.clone().any(|p| p.commit == *main))
    {
        return Some((main.clone(), root.clone()));
    }
    let home = match last {
        Some(last) => Some((last.commit.clone(), root_of(&last.commit)?)),
        None => {
            let roots = || repo.tags.values().map(|tag| &tag.root);
            let root = repo.root.as_ref().or_else(|| roots().next());
            root.map(|root| (root.clone(), root.clone()))
        }
    };
    if let (Some((home, _)), Some(main)) = (&home, &repo.main) {
        report.notes.push(format!(
            "main is at {}, which no tag says was deployed: it goes back to {}, and the commit stays in the repo",
            main.short(),
            home.short()
        ));
    }
    home
}

/// The proposals that the tags of a repo speak of, by number.
pub(super) fn from_tags(repo: &RepoSurvey, report: &mut AgentReport) -> Vec<Proposal> {
    let mut marks: BTreeMap<ProposalNumber, BTreeMap<ProposalPhase, Mark>> = BTreeMap::new();
    let mut commits: BTreeMap<ProposalNumber, &str> = BTreeMap::new();
    let ours = || {
        repo.tags
            .iter()
            .filter_map(|(name, tag)| tag::parse_name(name).map(|(phase, number)| (name, tag, phase, number)))
    };
    // What was offered under a number is what its first tag says.
    for (name, _, _, number) in ours().filter(|(_, _, phase, _)| *phase == ProposalPhase::Proposed) {
        commits.insert(number, name);
    }
    for (name, tag, phase, number) in ours() {
        let first = *commits.entry(number).or_insert(name);
        let mark = tag::parse_annotation(name, &tag.message, tag.at);
        match mark.filter(|_| repo.tags[first].commit == tag.commit) {
            Some(mark) => {
                marks.entry(number).or_default().insert(phase, mark);
            }
            None => report.notes.push(format!(
                "tag {name} is not as hyperhive writes it, and proves nothing"
            )),
        }
    }
    let mut proposals: Vec<Proposal> = Vec::new();
    for (number, first) in commits {
        let tag = &repo.tags[first];
        let (phase, marks) = settled(marks.remove(&number).unwrap_or_default());
        proposals.push(Proposal {
            number,
            commit: tag.commit.clone(),
            title: tag.title.clone(),
            reason: tag.reason.clone(),
            asked_by: Asker::Agent,
            phase,
            marks,
        });
    }
    proposals.extend(placeholder(repo, &proposals));
    proposals
}

/// Where a proposal stands, given what its tags say; when they contradict each other, where it may do least.
fn settled(mut marks: BTreeMap<ProposalPhase, Mark>) -> (ProposalPhase, BTreeMap<ProposalPhase, Mark>) {
    use ProposalPhase as P;
    let phase = [P::Denied, P::Failed, P::Deployed]
        .into_iter()
        .find(|phase| marks.contains_key(phase));
    let phase = phase.unwrap_or(P::Proposed);
    marks.retain(|reached, _| match reached {
        P::Proposed => true,
        P::Approved => matches!(phase, P::Deployed | P::Failed),
        P::Building | P::Deployed | P::Failed | P::Denied => *reached == phase,
    });
    (phase, marks)
}

/// Keeps the highest number that is taken by tags which lead nowhere.
fn placeholder(repo: &RepoSurvey, known: &[Proposal]) -> Option<Proposal> {
    let taken = repo.broken.keys().filter_map(|name| tag::parse_name(name));
    let number = taken.map(|(_, number)| number).max()?;
    if known.iter().any(|proposal| proposal.number >= number) {
        return None;
    }
    let commit = repo
        .root
        .clone()
        .or_else(|| Some(repo.tags.values().next()?.root.clone()))?;
    Some(Proposal {
        number,
        commit,
        title: LOST.to_owned(),
        reason: String::new(),
        asked_by: Asker::Agent,
        phase: ProposalPhase::Failed,
        marks: BTreeMap::new(),
    })
}
