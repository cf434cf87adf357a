//! Reads one agent from the outside. Failures are part of the answer, never a reason to give up on the rest.

use std::collections::{BTreeMap, BTreeSet};

use shared::{AgentName, CommitOid};

use crate::host::{Host, HostError, UnitState};
use crate::model::inventory::{AgentInventory, Known};
use crate::model::records::{AgentLedger, AgentLife, BuildState};

/// What there is to look at, of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    name: AgentName,
    /// Where `main` belongs, and the commits of open proposals, of an agent that has both.
    commits: Option<(CommitOid, BTreeSet<CommitOid>)>,
    /// The systems that the ledger knows.
    systems: Vec<String>,
}

impl Subject {
    /// What the ledger knows of the agent decides.
    pub fn of(ledger: &AgentLedger) -> Self {
        let record = &ledger.record;
        let main = record.main().filter(|_| record.life == AgentLife::Active);
        let open = || {
            let open = ledger.proposals.iter().filter(|p| !p.phase.is_final());
            open.map(|proposal| proposal.commit.clone()).collect()
        };
        let built = ledger.builds.values().filter_map(|state| match state {
            BuildState::Built(output) => Some(output.system.clone()),
            BuildState::Failed { .. } | BuildState::Wants { .. } => None,
        });
        let deployed = record
            .deployed
            .iter()
            .chain(&record.last_good)
            .map(|d| d.output.system.clone());
        let systems: BTreeSet<String> = built.chain(deployed).collect();
        Self {
            name: record.name.clone(),
            commits: main.map(|main| (main.clone(), open())),
            systems: systems.into_iter().collect(),
        }
    }
}

/// Observes one agent afresh.
pub async fn agent(host: &Host, subject: &Subject) -> AgentInventory {
    let Subject {
        name,
        commits,
        systems,
    } = subject;
    let collected_at = host.clock.now();
    let unit = known(host.runtime.observe(std::slice::from_ref(name)).await)
        .map(|mut units| units.remove(name).unwrap_or(UnitState::Absent));
    let repo = known(host.repos.observe(name).await);
    AgentInventory {
        collected_at,
        unit,
        repo,
        descends: descends(host, name, commits.as_ref()).await,
        folders: known(host.folders.observe(name).await),
        systems: present(host, systems).await,
        harness: host.harness.state(name),
    }
}

fn known<T>(result: Result<T, HostError>) -> Known<T> {
    result.map_err(|error| error.chain())
}

/// Whether the commits of open proposals descend from where `main` belongs. Asks nothing when there are none.
async fn descends(
    host: &Host,
    name: &AgentName,
    commits: Option<&(CommitOid, BTreeSet<CommitOid>)>,
) -> Known<BTreeMap<CommitOid, bool>> {
    let mut answers = BTreeMap::new();
    let Some((main, open)) = commits else {
        return Ok(answers);
    };
    for commit in open {
        let below = known(host.repos.is_ancestor(name, main, commit).await)?;
        answers.insert(commit.clone(), below && main != commit);
    }
    Ok(answers)
}

async fn present(host: &Host, systems: &[String]) -> Known<BTreeMap<String, bool>> {
    if systems.is_empty() {
        return Ok(BTreeMap::new());
    }
    known(host.builder.present(systems).await)
}

#[cfg(test)]
mod tests {
    use crate::host::fake::World;
    use crate::model::records::{AgentOrigin, AgentRecord, Failures, Overrides};

    use super::*;
    use crate::host::fake::Source;

    /// An agent of which nothing exists but its row.
    fn declared() -> AgentLedger {
        let record = AgentRecord {
            uid: shared::AgentUid(uuid::Uuid::from_u128(1)),
            name: "alice".parse().expect("a name"),
            life: AgentLife::Declared,
            origin: AgentOrigin::Spec,
            declared_at: jiff::Timestamp::UNIX_EPOCH,
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
        };
        AgentLedger {
            record,
            proposals: Vec::new(),
            gates: Vec::new(),
            builds: BTreeMap::new(),
            attempts: BTreeMap::new(),
            probation: None,
            quarantine: BTreeMap::new(),
            overrides: Overrides::default(),
            failures: Failures::default(),
            user_range: None,
            inbox: 0,
        }
    }

    #[tokio::test]
    async fn a_source_that_cannot_be_observed_is_unknown() {
        let world = World::new();
        let whole = agent(&world.host(), &Subject::of(&declared())).await;
        assert_eq!(whole.unit, Ok(UnitState::Absent));
        for (source, unknown) in [
            (Source::Runtime, [true, false, false]),
            (Source::Repos, [false, true, false]),
            (Source::Folders, [false, false, true]),
        ] {
            world.lock().blind = vec![source];
            let AgentInventory {
                unit, repo, folders, ..
            } = agent(&world.host(), &Subject::of(&declared())).await;
            assert_eq!(
                [unit.is_err(), repo.is_err(), folders.is_err()],
                unknown,
                "{source:?}"
            );
        }
    }
}
