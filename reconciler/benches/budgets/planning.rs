//! The planner alone, on what a real hive looks like, when every agent's declaration has changed.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result};
use reconciler::host::Ids as _;
use reconciler::host::clock::RandomIds;
use reconciler::ledger::Ledger;
use reconciler::model::base::Rollout;
use reconciler::model::draft::Standing;
use reconciler::observe;
use reconciler::plan::HiveFacts;
use reconciler::plan::agent::{Inputs, plan};
use reconciler::plan::hive::{self, DeclaredNames};
use serde_json::Map;
use shared::canonical::{Encoding, digest};

use super::Effort;
use super::hive::{Hive, agent, name, spec};
use super::pass::{harness, host};
use super::row::{Budget, Row, median, ms, spread};

pub(crate) fn measure(on: &Hive, effort: Effort) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(plans(on, effort.choose(25, 7)))
}

async fn plans(on: &Hive, rounds: usize) -> Result<()> {
    let host = host(on).await?;
    let now = host.clock.now();
    let ledger = Ledger::open(&on.layout.ledger(), now, RandomIds.hive_id()).await?;
    let ledgers = ledger.agent_ledgers().await?.complete()?;
    let count = ledgers.len();
    let mut inventories = Vec::new();
    for ledger in &ledgers {
        inventories.push(observe::agent(&host, &observe::Subject::of(ledger)).await);
    }
    let changed: Map<_, _> = (0..count)
        .map(|number| {
            let prompt = format!("Quite another prompt {number}.");
            (name(number), agent("stopped", &prompt))
        })
        .collect();
    let parsed = reconciler::spec::parse(&spec(&changed));
    let spec = parsed.spec.context("a good spec")?;
    let facts = HiveFacts {
        id: ledger.meta().hive_id,
        name: spec.hive.name.clone(),
        operator: spec.operator.clone(),
        policy: spec.policy.clone(),
        harness: harness(),
        programs: spec.programs.clone(),
        model_url: None,
        runtime: shared::spec::RuntimeKind::Process,
        nix: None,
        provides_key: false,
        unsupported: None,
        watched_since: now,
    };
    let records: Vec<_> = ledgers.iter().map(|ledger| ledger.record.clone()).collect();
    let declared = DeclaredNames {
        names: spec.agents.keys().cloned().collect(),
        spec: digest(Encoding::Spec, &spec)?,
    };
    let (mut times, mut raw) = (Vec::new(), Vec::new());
    let mut steps = 0;
    let rollout = Rollout::default();
    for _ in 0..rounds {
        let started = Instant::now();
        for agent in spec.agents.values() {
            black_box(digest(Encoding::Spec, agent)?);
        }
        raw.push(started.elapsed());
        steps = 0;
        let started = Instant::now();
        steps += hive::plan(&facts, &records, &declared, &[])?.steps.len();
        for (ledger, inventory) in ledgers.iter().zip(&inventories) {
            let spec = spec.agents.get(&ledger.record.name);
            let inputs = Inputs {
                facts: &facts,
                spec,
                standing: &Standing::Fine,
                rollout: &rollout,
                inventory,
                ledger,
                now,
            };
            steps += black_box(plan(inputs)?).steps.len();
        }
        times.push(started.elapsed());
    }
    anyhow::ensure!(steps >= count, "{steps} steps for {count} changed agents");
    let (p50, p90) = spread(&times);
    Row::new("plan, every agent changed", ms(p50), "ms")
        .of(count)
        .beside("encode and hash what is declared", ms(median(&raw)))
        .within(Budget::AtMost(20.0))
        .note(format!("{steps} steps; p90 {:.1} ms", ms(p90)))
        .print()
}
