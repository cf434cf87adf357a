//! What a recovery found, made, and could not bring back; as a value that is shown as it is.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use serde::Serialize;
use shared::agent_api::ProposalPhase;
use shared::{AgentName, AgentUid, CommitOid, HiveId};

use crate::ledger::{RebuiltAgent, Tally};
use crate::model::records::AgentLife;

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The state folder.
    pub state: Utf8PathBuf,
    /// Nothing was changed.
    pub dry_run: bool,
    /// What is wrong with the ledger.
    pub ledger: String,
    /// Under which name the old ledger is kept.
    pub kept: Option<Utf8PathBuf>,
    /// The hive's id.
    pub hive: HiveId,
    /// It is the id of the ledger that was lost.
    pub same_hive: bool,
    /// The agents, by name.
    pub agents: Vec<AgentReport>,
    /// What could be read of each table of the damaged ledger.
    pub salvaged: BTreeMap<&'static str, TallyReport>,
    /// What could not be brought back.
    pub gone: Vec<String>,
    /// What to do next.
    pub next: Vec<String>,
}

/// Rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TallyReport {
    /// How many were read and carried over, or count as history.
    pub read: usize,
    /// How many were there and made no sense.
    pub unreadable: usize,
    /// There were more; nobody knows how many.
    pub cut_short: bool,
}

impl From<&Tally> for TallyReport {
    fn from(tally: &Tally) -> Self {
        let Tally {
            read,
            unreadable,
            cut_short,
        } = *tally;
        Self {
            read,
            unreadable,
            cut_short,
        }
    }
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentReport {
    /// Its name.
    pub name: AgentName,
    /// Its uid.
    pub uid: AgentUid,
    /// Where its record is from: `ledger`, `disk`, `archive`.
    pub from: &'static str,
    /// Where it is in its life.
    pub life: AgentLife,
    /// Where `main` belongs.
    pub main: Option<CommitOid>,
    /// Its process, if it runs: it is adopted.
    pub process: Option<i32>,
    /// How many proposals are in which phase.
    pub proposals: BTreeMap<&'static str, usize>,
    /// Fields that it had beyond what the spec allows, and whose approval cannot be proven.
    pub lapsed: Vec<String>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

impl AgentReport {
    pub(super) fn new(name: &AgentName, uid: AgentUid, from: &'static str) -> Self {
        Self {
            name: name.clone(),
            uid,
            from,
            life: AgentLife::Declared,
            main: None,
            process: None,
            proposals: BTreeMap::new(),
            lapsed: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Fills in what the record says.
    pub(super) fn tell(&mut self, agent: &RebuiltAgent) {
        self.life = agent.record.life.clone();
        self.main = agent.record.main().cloned();
        for proposal in &agent.proposals {
            let word = match proposal.phase {
                ProposalPhase::Proposed | ProposalPhase::Building | ProposalPhase::Approved => "open",
                ProposalPhase::Deployed => "deployed",
                ProposalPhase::Failed => "failed",
                ProposalPhase::Denied => "denied",
            };
            *self.proposals.entry(word).or_default() += 1;
        }
    }
}
