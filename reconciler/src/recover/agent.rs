//! One agent of a rebuilt ledger, from its row and from what lies on disk. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use shared::agent_api::ProposalPhase;
use shared::gate::GateState;
use shared::{AgentName, AgentUid, ProposalNumber};

use super::report::AgentReport;
use super::tags::{from_tags, home};
use crate::execute::deploy::PROBATION_SECS;
use crate::host::remains::{ArchiveRemnant, Remnant};
use crate::ledger::{RebuiltAgent, Salvage};
use crate::model::records::{
    AgentLife, AgentOrigin, AgentRecord, Deployed, GateRecord, Overrides, Probation, Proposal, Recovered,
};
use crate::model::step::Action;

/// An agent whose row could be read.
pub(super) fn from_row(
    row: &AgentRecord,
    found: Option<&Remnant>,
    salvage: &Salvage,
    now: Timestamp,
    report: &mut AgentReport,
) -> RebuiltAgent {
    let of = |uid: &AgentUid| *uid == row.uid;
    let repo = found.and_then(|found| found.repo.as_ref().ok()?.as_ref());
    if !row.life.is_over() && row.seed.is_some() && repo.is_none() {
        let why = found.and_then(|found| found.repo.as_ref().err());
        let why = why.map_or_else(|| "is gone".to_owned(), |why| format!("cannot be read ({why})"));
        report.notes.push(format!(
            "its config repo {why}: put it back from a copy of the state folder"
        ));
    }
    let mut record = row.clone();
    record.last_good = row
        .last_good
        .clone()
        .filter(|good| is_proven(good, &salvage.gates));
    let mut proposals: BTreeMap<ProposalNumber, Proposal> = BTreeMap::new();
    for (_, proposal) in salvage.proposals.iter().filter(|(uid, _)| of(uid)) {
        proposals.insert(proposal.number, reopened(proposal.clone()));
    }
    for proposal in repo.map(|repo| from_tags(repo, report)).unwrap_or_default() {
        proposals.entry(proposal.number).or_insert(proposal);
    }
    let proposals: Vec<Proposal> = proposals.into_values().collect();
    if let Some(deployed) = &row.deployed
        && !is_proven(deployed, &salvage.gates)
    {
        report.lapsed.extend(
            deployed
                .output
                .grants
                .keys()
                .map(|field| field.as_str().to_owned()),
        );
        record.deployed = None;
        let main = if deployed.output.is_intact() {
            Some(deployed.output.commit.clone())
        } else {
            repo.and_then(|repo| home(repo, &proposals, report))
                .map(|(main, _)| main)
        };
        record.recovered = Some(Recovered {
            at: now,
            main,
            adopts: true,
        });
    }
    let quarantine: Vec<_> = salvage
        .quarantine
        .iter()
        .filter(|(uid, _)| of(uid))
        .map(|(_, row)| row.clone())
        .collect();
    let halted = |system: &str| quarantine.iter().any(|(other, _)| other == system);
    let probation = record.deployed.as_ref().and_then(|deployed| {
        let system = &deployed.output.system;
        let kept = salvage
            .probations
            .iter()
            .find(|(uid, trial)| of(uid) && trial.system == *system);
        let passed = record
            .last_good
            .as_ref()
            .is_some_and(|good| good.output.system == *system);
        kept.map(|(_, trial)| trial.clone())
            .or_else(|| (!passed && !halted(system)).then(|| trial(deployed, now)))
    });
    let overrides = salvage.overrides.iter().find(|(uid, _)| of(uid));
    let failures = salvage.failures.iter().find(|(uid, _)| of(uid));
    RebuiltAgent {
        overrides: overrides
            .map(|(_, overrides)| overrides.clone())
            .unwrap_or_default(),
        failures: failures.map(|(_, failures)| failures.clone()).unwrap_or_default(),
        record,
        proposals,
        probation,
        quarantine,
    }
}

/// An agent of which no row could be read.
pub(super) fn from_remains(
    name: &AgentName,
    uid: AgentUid,
    found: &Remnant,
    now: Timestamp,
    report: &mut AgentReport,
) -> RebuiltAgent {
    if let Some(active) = &found.active {
        report
            .lapsed
            .extend(active.grants.keys().map(|field| field.as_str().to_owned()));
    }
    let repo = found.repo.as_ref().ok().and_then(Option::as_ref);
    let (life, seed, main, proposals) = match repo {
        None => (AgentLife::Declared, None, None, Vec::new()),
        Some(repo) => {
            let proposals = from_tags(repo, report);
            match home(repo, &proposals, report) {
                Some((main, root)) => (AgentLife::Active, Some(root), Some(main), proposals),
                None => (AgentLife::Declared, None, None, proposals),
            }
        }
    };
    if repo.is_none() {
        report.notes.push(
            "its config repo is gone, and with it its commits and proposals: it starts from a new one"
                .to_owned(),
        );
    }
    bare(
        AgentRecord {
            life,
            seed,
            recovered: Some(Recovered {
                at: now,
                main,
                adopts: true,
            }),
            ..blank(name, uid, now)
        },
        proposals,
    )
}

/// An archived agent of which no row could be read.
pub(super) fn from_archive(found: &ArchiveRemnant, now: Timestamp, report: &mut AgentReport) -> RebuiltAgent {
    let repo = found.repo.as_ref().ok().and_then(Option::as_ref);
    if let Err(error) = &found.repo {
        report
            .notes
            .push(format!("its config repo cannot be read: {error}"));
    }
    let proposals = repo.map(|repo| from_tags(repo, report)).unwrap_or_default();
    let home = repo.and_then(|repo| home(repo, &proposals, report));
    let (main, seed) = home.unzip();
    bare(
        AgentRecord {
            life: AgentLife::Archived { since: found.since },
            seed,
            recovered: Some(Recovered {
                at: now,
                main,
                adopts: false,
            }),
            ..blank(&found.name, found.uid, now)
        },
        proposals,
    )
}

fn blank(name: &AgentName, uid: AgentUid, now: Timestamp) -> AgentRecord {
    AgentRecord {
        uid,
        name: name.clone(),
        life: AgentLife::Declared,
        // Whoever is not declared any more is stopped, and archived only when the operator agrees.
        origin: AgentOrigin::Spec,
        declared_at: now,
        seed: None,
        deployed: None,
        last_good: None,
        restart_before: None,
        order: None,
        rebuild: false,
        purge: None,
        draft: None,
        recovered: None,
        out_of_memory: None,
    }
}

fn bare(record: AgentRecord, proposals: Vec<Proposal>) -> RebuiltAgent {
    RebuiltAgent {
        record,
        proposals,
        overrides: Overrides::default(),
        probation: None,
        quarantine: Vec::new(),
        failures: crate::model::records::Failures::default(),
    }
}

fn trial(deployed: &Deployed, now: Timestamp) -> Probation {
    Probation {
        system: deployed.output.system.clone(),
        since: now,
        window_secs: PROBATION_SECS,
        active_secs: 0,
        active_since: None,
        failed_starts: 0,
        watched: BTreeSet::new(),
        gate: deployed.gate,
        proposal: Some(deployed.proposal).filter(|number| number.0 > 0),
        updates_base: false,
    }
}

/// Whether a deployment is what its digests say, and, when it goes beyond the spec, the very gate is there that was
/// approved and used for that.
fn is_proven(deployed: &Deployed, gates: &[GateRecord]) -> bool {
    let output = &deployed.output;
    let allowed = |record: &GateRecord| {
        let gate = &record.gate;
        let approved = gate
            .decision
            .as_ref()
            .is_some_and(|d| d.approve && d.digest == gate.digest);
        let same = matches!(&record.step.action, Action::Deploy { system, commit, grants, .. }
            if *system == output.system && *commit == output.commit && *grants == output.grants);
        gate.id == deployed.gate && gate.state == GateState::Consumed && approved && same
    };
    output.is_intact() && (output.grants.is_empty() || gates.iter().any(allowed))
}

/// A proposal whose approval is not used yet is asked about again.
fn reopened(mut proposal: Proposal) -> Proposal {
    if !proposal.phase.is_final() {
        proposal.phase = ProposalPhase::Proposed;
        proposal
            .marks
            .retain(|phase, _| *phase == ProposalPhase::Proposed);
    }
    proposal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::oid;
    use crate::host::git::{RepoSurvey, SurveyedTag};
    use crate::model::records::Mark;
    use crate::model::tag;

    fn mark(secs: i64) -> Mark {
        Mark {
            at: Timestamp::from_second(secs).expect("a time"),
            gate: None,
            digest: None,
            by: Some("unix:root".to_owned()),
            reason: String::new(),
        }
    }

    /// A repo with these tags, each at its commit and time; `main` is at the first commit given.
    fn repo(main: &str, tags: &[(&str, &str, i64)]) -> RepoSurvey {
        let tag = |(name, commit, secs): &(&str, &str, i64)| {
            let tag = SurveyedTag {
                commit: oid(commit),
                root: oid("seed"),
                message: tag::annotation(name, &mark(*secs)),
                at: mark(*secs).at,
                title: "A change".to_owned(),
                reason: String::new(),
                below_main: true,
            };
            ((*name).to_owned(), tag)
        };
        RepoSurvey {
            main: Some(oid(main)),
            root: Some(oid("seed")),
            tags: tags.iter().map(tag).collect(),
            broken: BTreeMap::new(),
        }
    }

    fn report() -> AgentReport {
        AgentReport::new(
            &"alice".parse().expect("a name"),
            AgentUid(uuid::Uuid::nil()),
            "disk",
        )
    }

    fn rebuilt(repo: RepoSurvey) -> (RebuiltAgent, AgentReport) {
        let mut report = report();
        let remnant = Remnant {
            folder: true,
            launch: None,
            config: None,
            active: None,
            repo: Ok(Some(repo)),
            process: None,
        };
        let name = report.name.clone();
        let agent = from_remains(&name, report.uid, &remnant, mark(99).at, &mut report);
        (agent, report)
    }

    fn phases(agent: &RebuiltAgent) -> Vec<(u64, ProposalPhase)> {
        agent.proposals.iter().map(|p| (p.number.0, p.phase)).collect()
    }

    #[test]
    fn an_approval_without_a_deployment_is_asked_about_again() {
        let (agent, _) = rebuilt(repo(
            "seed",
            &[
                ("proposal/1", "a", 1),
                ("approved/1", "a", 2),
                ("building/1", "a", 2),
            ],
        ));
        assert_eq!(phases(&agent), [(1, ProposalPhase::Proposed)]);
        let marks: Vec<_> = agent.proposals[0].marks.keys().collect();
        assert_eq!(marks, [&ProposalPhase::Proposed]);
        assert_eq!(agent.record.main(), Some(&oid("seed")));
    }

    #[test]
    fn an_approval_in_a_row_that_was_saved_is_asked_about_again_and_a_denial_stays() {
        let of = |number, phase| Proposal {
            number: ProposalNumber(number),
            commit: oid("a"),
            title: "A change".to_owned(),
            reason: String::new(),
            asked_by: shared::gate::Asker::Agent,
            phase,
            marks: [ProposalPhase::Proposed, phase].map(|at| (at, mark(1))).into(),
        };
        let uid = AgentUid(uuid::Uuid::nil());
        let saved = [of(1, ProposalPhase::Approved), of(2, ProposalPhase::Denied)];
        let salvage = Salvage {
            proposals: saved.map(|proposal| (uid, proposal)).into(),
            ..Salvage::default()
        };
        let row = blank(&"alice".parse().expect("a name"), uid, mark(1).at);
        let agent = from_row(&row, None, &salvage, mark(99).at, &mut report());
        assert_eq!(
            phases(&agent),
            [(1, ProposalPhase::Proposed), (2, ProposalPhase::Denied)]
        );
        let marks: Vec<_> = agent.proposals[0].marks.keys().collect();
        assert_eq!(marks, [&ProposalPhase::Proposed]);
    }

    #[test]
    fn tags_that_contradict_each_other_count_where_they_allow_least() {
        let (agent, _) = rebuilt(repo(
            "a",
            &[
                ("proposal/1", "a", 1),
                ("deployed/1", "a", 2),
                ("denied/1", "a", 3),
                ("proposal/2", "b", 1),
                ("failed/2", "b", 4),
            ],
        ));
        assert_eq!(
            phases(&agent),
            [(1, ProposalPhase::Denied), (2, ProposalPhase::Failed)]
        );
        assert_eq!(
            agent.record.main(),
            Some(&oid("seed")),
            "a denied commit is nothing to build on"
        );
    }

    #[test]
    fn main_goes_where_a_deployment_is_proven_and_else_to_the_last_one() {
        let tags = [
            ("proposal/1", "a", 1),
            ("deployed/1", "a", 2),
            ("proposal/2", "b", 3),
            ("deployed/2", "b", 4),
        ];
        let (agent, report) = rebuilt(repo("a", &tags));
        assert_eq!((agent.record.main(), report.notes.len()), (Some(&oid("a")), 0));
        let (agent, report) = rebuilt(repo("foreign", &tags));
        assert_eq!(agent.record.main(), Some(&oid("b")));
        assert!(report.notes[0].contains("no tag says was deployed"), "{report:?}");
        assert!(agent.record.deployed.is_none() && agent.record.adopts());
    }

    #[test]
    fn a_tag_at_another_commit_or_in_other_words_proves_nothing() {
        let mut found = repo(
            "b",
            &[
                ("proposal/1", "a", 1),
                ("deployed/1", "b", 2),
                ("proposal/2", "c", 1),
                ("deployed/2", "c", 2),
            ],
        );
        found.tags.get_mut("deployed/2").expect("a tag").message =
            "deployed/2\n\nby: me\nand: you\n".to_owned();
        let (agent, report) = rebuilt(found);
        assert_eq!(
            phases(&agent),
            [(1, ProposalPhase::Proposed), (2, ProposalPhase::Proposed)]
        );
        assert_eq!(report.notes.len(), 3, "{report:?}");
        assert_eq!(agent.record.main(), Some(&oid("seed")));
    }

    #[test]
    fn a_number_whose_commit_is_lost_is_not_given_away_again() {
        let mut found = repo("seed", &[("proposal/1", "a", 1)]);
        found
            .broken
            .insert("proposal/4".to_owned(), "it leads to no commit".to_owned());
        let (agent, _) = rebuilt(found);
        assert_eq!(
            phases(&agent),
            [(1, ProposalPhase::Proposed), (4, ProposalPhase::Failed)]
        );
        assert!(agent.proposals[1].marks.is_empty(), "no tag is asked for");
    }
}
