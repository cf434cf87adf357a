//! Reads one agent from the outside. Failures are part of the answer, never a reason to give up on the rest.

use std::collections::{BTreeMap, BTreeSet};

use shared::CommitOid;

use crate::host::{Host, HostError, UnitState};
use crate::model::inventory::{AgentInventory, Known};
use crate::model::records::{AgentLedger, AgentLife, BuildState};

/// Observes one agent afresh.
pub async fn agent(host: &Host, ledger: &AgentLedger) -> AgentInventory {
    let name = &ledger.record.name;
    let collected_at = host.clock.now();
    let unit = known(host.runtime.observe(std::slice::from_ref(name)).await)
        .map(|mut units| units.remove(name).unwrap_or(UnitState::Absent));
    let repo = known(host.repos.observe(name).await);
    AgentInventory {
        collected_at,
        unit,
        repo,
        descends: descends(host, ledger).await,
        folders: known(host.folders.observe(name).await),
        systems: systems(host, ledger).await,
        harness: host.harness.state(name),
    }
}

fn known<T>(result: Result<T, HostError>) -> Known<T> {
    result.map_err(|error| error.chain())
}

/// Whether the commits of open proposals descend from where `main` belongs. Asks nothing when there are none.
async fn descends(host: &Host, ledger: &AgentLedger) -> Known<BTreeMap<CommitOid, bool>> {
    let mut answers = BTreeMap::new();
    let Some(main) = ledger.record.main() else {
        return Ok(answers);
    };
    if ledger.record.life != AgentLife::Active {
        return Ok(answers);
    }
    for proposal in ledger.proposals.iter().filter(|p| !p.phase.is_final()) {
        let below = known(
            host.repos
                .is_ancestor(&ledger.record.name, main, &proposal.commit)
                .await,
        )?;
        answers.insert(proposal.commit.clone(), below && *main != proposal.commit);
    }
    Ok(answers)
}

async fn systems(host: &Host, ledger: &AgentLedger) -> Known<BTreeMap<String, bool>> {
    let built = ledger.builds.values().filter_map(|state| match state {
        BuildState::Built(output) => Some(output.system.clone()),
        BuildState::Failed { .. } => None,
    });
    let record = &ledger.record;
    let deployed = record
        .deployed
        .iter()
        .chain(&record.last_good)
        .map(|d| d.output.system.clone());
    let systems: BTreeSet<String> = built.chain(deployed).collect();
    if systems.is_empty() {
        return Ok(BTreeMap::new());
    }
    known(
        host.builder
            .present(&systems.into_iter().collect::<Vec<_>>())
            .await,
    )
}
