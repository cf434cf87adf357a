//! Gathers what [`crate::export`] holds, from a running daemon or from its folders while it is down. Changes nothing.

use shared::event::Event;

use super::drafts::draft_rules;
use super::hive_pass::declared_names;
use super::reconciler::{PassError, Reconciler, declared};
use crate::export::{AgentExport, Export, HiveExport, Planned, VERSION};
use crate::ledger::Listing;
use crate::observe;
use crate::plan::agent::Inputs;
use crate::plan::{HiveFacts, agent as agent_planner, hive as hive_planner};
use crate::spec::Accepted;

/// How many lines of history, and how many events.
const RECENT: u32 = 500;

impl Reconciler {
    /// Everything plans are made from, and the plans.
    ///
    /// # Errors
    /// When the ledger or the archive cannot be read.
    pub async fn export(&self) -> Result<Export, PassError> {
        let (_, accepted) = self.judged_spec().await?;
        let facts = self.facts(&accepted);
        let Listing { items, undecodable } = self.ledger.agent_ledgers().await?;
        let mut agents = Vec::new();
        for ledger in items {
            let inventory = observe::agent(&self.host, &observe::Subject::of(&ledger)).await;
            let now = self.host.clock.now();
            let spec = declared(&accepted, &ledger.record).cloned();
            let rules = draft_rules(&accepted, &ledger.record.name);
            let standing = self.standing(&ledger.record, rules).await?;
            let Some(facts) = &facts else {
                continue;
            };
            let rollout = self.rollout(&ledger, spec.as_ref(), facts).await?;
            let plan = agent_planner::plan(Inputs {
                facts,
                spec: spec.as_ref(),
                inventory: &inventory,
                ledger: &ledger,
                standing: &standing,
                rollout: &rollout,
                now,
            })?;
            agents.push(AgentExport {
                plan: Planned::of(&plan)?,
                spec,
                ledger,
                inventory,
                standing,
                rollout,
                now,
            });
        }
        let hive = match &facts {
            None => None,
            Some(facts) => Some(self.export_hive(facts, &accepted).await?),
        };
        let last = self.ledger.last_seq().await?;
        let mut events = self
            .ledger
            .events(last.saturating_sub(u64::from(RECENT)), RECENT)
            .await?;
        events.reverse();
        events.iter_mut().for_each(silence);
        Ok(Export {
            version: VERSION,
            made_by: env!("CARGO_PKG_VERSION").to_owned(),
            now: self.host.clock.now(),
            spec: accepted.in_force().map(|spec| (**spec).clone()),
            faults: accepted.all_faults().map(ToString::to_string).collect(),
            facts,
            hive,
            agents,
            unreadable: undecodable.iter().map(|row| crate::error_chain(row)).collect(),
            history: self.ledger.history(None, RECENT).await?,
            events,
        })
    }

    async fn export_hive(&self, facts: &HiveFacts, accepted: &Accepted) -> Result<HiveExport, PassError> {
        let records = self.ledger.agents().await?.items;
        let declared = declared_names(accepted);
        let doomed = self.doomed().await?;
        let plan = hive_planner::plan(facts, &records, &declared, &doomed)?;
        Ok(HiveExport {
            plan: Planned::of(&plan)?,
            records,
            declared,
            doomed,
            gates: self.ledger.hive_gates().await?,
            attempts: self.ledger.hive_attempts().await?,
        })
    }
}

/// Takes out what an agent said.
fn silence(event: &mut Event) {
    if event.kind == "messageToOperator" {
        event.message = "(what was said is not exported)".to_owned();
    }
}
