//! Everything plans are made from, in one document, and the same plans made from it again elsewhere. Pure.
//!
//! A fault report with such a document can be reproduced without the machine it comes from. The document may come from a
//! stranger: it is read within bounds, and what it holds is data and never an instruction. It holds prompts, the
//! environment of MCP servers and diffs; it holds no message of an agent and no secret.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::admin_api::HistoryEntry;
use shared::canonical::NotCanonical;
use shared::event::Event;
use shared::plan::PlanView;
use shared::spec::{AgentSpec, Spec};
use shared::{AgentName, Digest};

use crate::model::base::Rollout;
use crate::model::draft::Standing;
use crate::model::inventory::AgentInventory;
use crate::model::records::{AgentLedger, AgentRecord, Attempt, GateRecord};
use crate::model::step::Step;
use crate::plan::agent::Inputs;
use crate::plan::hive::{DeclaredNames, Doomed};
use crate::plan::schedule::schedule;
use crate::plan::{HiveFacts, Plan, agent as agent_planner, hive as hive_planner, view};

/// The version of the document.
pub const VERSION: u32 = 1;
/// The largest document that is read, in bytes.
pub const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// The document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Export {
    /// [`VERSION`].
    pub version: u32,
    /// The hyperhive that wrote it.
    pub made_by: String,
    /// When.
    pub now: Timestamp,
    /// The spec in force; absent while none is.
    pub spec: Option<Spec>,
    /// What is wrong with the spec file.
    pub faults: Vec<String>,
    /// What planning knows of the hive; absent while no spec is in force.
    pub facts: Option<HiveFacts>,
    /// The hive itself.
    pub hive: Option<HiveExport>,
    /// The agents that are not archived, by name.
    pub agents: Vec<AgentExport>,
    /// Rows of the ledger that cannot be read.
    pub unreadable: Vec<String>,
    /// What was carried out and decided, newest first.
    pub history: Vec<HistoryEntry>,
    /// What happened, newest first, without what agents said.
    pub events: Vec<Event>,
}

/// The hive's own plan, and what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HiveExport {
    /// All agents that are not archived.
    pub records: Vec<AgentRecord>,
    /// What the spec declares.
    pub declared: DeclaredNames,
    /// Archives that are to be deleted.
    pub doomed: Vec<Doomed>,
    /// Gates of the hive that can still matter.
    pub gates: Vec<GateRecord>,
    /// Tries by step.
    pub attempts: std::collections::BTreeMap<Digest, Attempt>,
    /// The plan.
    pub plan: Planned,
}

/// One agent's plan, and what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentExport {
    /// The agent as declared.
    pub spec: Option<AgentSpec>,
    /// What the ledger knows.
    pub ledger: AgentLedger,
    /// What was observed.
    pub inventory: AgentInventory,
    /// What the rest of the hive said to it, while it was a draft.
    #[serde(default)]
    pub standing: Standing,
    /// How far an update of the base had come with the others.
    #[serde(default)]
    pub rollout: Rollout,
    /// When the plan was made.
    pub now: Timestamp,
    /// The plan.
    pub plan: Planned,
}

/// A plan as it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Planned {
    /// Its digest.
    pub digest: Digest,
    /// Its steps.
    pub steps: Vec<Step>,
}

impl Planned {
    /// What is exported of a plan.
    ///
    /// # Errors
    /// Only when a value has no canonical form, which means a fault in the program.
    pub fn of(plan: &Plan) -> Result<Self, NotCanonical> {
        Ok(Self {
            digest: plan.digest()?,
            steps: plan.steps.iter().map(|planned| planned.step.clone()).collect(),
        })
    }
}

/// Why a document cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It has no version of an export.
    #[error("it is not an export of hyperhive")]
    NotAnExport(#[source] serde_json::Error),
    /// It is of another version.
    #[error(
        "it is an export of version {found}, and this hyperhive reads version {VERSION}: use the one that wrote it"
    )]
    Version {
        /// Its version.
        found: u64,
    },
    /// A field is at fault.
    #[error("{path}: {source}")]
    Field {
        /// Which.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A value has no canonical form.
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
}

/// Reads a document strictly.
///
/// # Errors
/// When it is none, of another version, or malformed; the field at fault is named.
pub fn read(bytes: &[u8]) -> Result<Export, ReadError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    let Versioned { version: found } = serde_json::from_slice(bytes).map_err(ReadError::NotAnExport)?;
    if found != u64::from(VERSION) {
        return Err(ReadError::Version { found });
    }
    let parser = &mut serde_json::Deserializer::from_slice(bytes);
    let export = serde_path_to_error::deserialize(&mut *parser).map_err(|error| ReadError::Field {
        path: error.path().to_string(),
        source: error.into_inner(),
    })?;
    parser.end().map_err(ReadError::NotAnExport)?;
    Ok(export)
}

/// The plans of a document, made again.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// As `hive plan` shows them: the hive's, then the agents' by name.
    pub plans: Vec<PlanView>,
    /// How each compares with the one that was exported.
    pub verdicts: Vec<VerdictOn>,
}

/// How a plan compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictOn {
    /// The agent; absent for the hive.
    pub agent: Option<AgentName>,
    /// The digest as exported.
    pub exported: Digest,
    /// The digest now.
    pub replayed: Digest,
    /// Whether they are equal.
    pub same: bool,
    /// The first step that differs.
    pub difference: Option<Difference>,
}

/// The first step that differs between two plans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Its place, from 1.
    pub step: usize,
    /// As exported; absent: there is none.
    pub exported: Option<String>,
    /// As planned now; absent: there is none.
    pub replayed: Option<String>,
}

/// Makes every plan again from what was exported.
///
/// # Errors
/// Only when a value has no canonical form.
pub fn replay(export: &Export) -> Result<Replay, ReadError> {
    let mut replay = Replay {
        plans: Vec::new(),
        verdicts: Vec::new(),
    };
    let Some(facts) = &export.facts else {
        return Ok(replay);
    };
    if let Some(hive) = &export.hive {
        let plan = hive_planner::plan(facts, &hive.records, &hive.declared, &hive.doomed)?;
        replay.add(
            facts,
            &plan,
            &hive.plan,
            (&hive.gates, &hive.attempts),
            export.now,
        )?;
    }
    for agent in &export.agents {
        let inputs = Inputs {
            facts,
            spec: agent.spec.as_ref(),
            inventory: &agent.inventory,
            ledger: &agent.ledger,
            standing: &agent.standing,
            rollout: &agent.rollout,
            now: agent.now,
        };
        let plan = agent_planner::plan(inputs)?;
        let decided = (agent.ledger.gates.as_slice(), &agent.ledger.attempts);
        replay.add(facts, &plan, &agent.plan, decided, agent.now)?;
    }
    Ok(replay)
}

impl Replay {
    /// Whether every plan is the one that was exported.
    pub fn same(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.same)
    }

    fn add(
        &mut self,
        facts: &HiveFacts,
        plan: &Plan,
        exported: &Planned,
        (gates, attempts): (&[GateRecord], &std::collections::BTreeMap<Digest, Attempt>),
        now: Timestamp,
    ) -> Result<(), NotCanonical> {
        let scheduled = schedule(&facts.policy, plan, gates, attempts, now);
        self.plans.push(plan.view(scheduled.waiting)?);
        let replayed = Planned::of(plan)?;
        // The steps speak for themselves: a document may state any digest.
        let same = replayed == *exported;
        self.verdicts.push(VerdictOn {
            agent: plan.agent.clone(),
            exported: exported.digest.clone(),
            difference: (!same)
                .then(|| difference(&exported.steps, &replayed.steps))
                .flatten(),
            replayed: replayed.digest,
            same,
        });
        Ok(())
    }
}

fn difference(exported: &[Step], replayed: &[Step]) -> Option<Difference> {
    let longest = exported.len().max(replayed.len());
    let at = (0..longest).find(|at| exported.get(*at) != replayed.get(*at))?;
    let (before, now) = (exported.get(at), replayed.get(at));
    let words = |step: &Step| view::summary(step);
    let (mut before_words, mut now_words) = (before.map(words), now.map(words));
    if before_words == now_words {
        // They read the same: show all of them.
        let whole = |step: &Step| serde_json::to_string(step).unwrap_or_default();
        (before_words, now_words) = (before.map(whole), now.map(whole));
    }
    Some(Difference {
        step: at + 1,
        exported: before_words,
        replayed: now_words,
    })
}
