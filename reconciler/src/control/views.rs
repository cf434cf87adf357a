//! What the APIs show, kept in memory: derived from passes, never an input to one.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use shared::AgentName;
use shared::admin_api::DiffEntry;
use shared::plan::{PlanView, Waiting};
use shared::status::AgentStatus;

use crate::spec::Accepted;

/// One agent as its last pass left it.
#[derive(Debug, Clone)]
pub struct AgentView {
    /// Its status.
    pub status: AgentStatus,
    /// Its plan.
    pub plan: PlanView,
    /// Facts that are not as wanted.
    pub diff: Vec<DiffEntry>,
}

/// Everything the APIs show.
#[derive(Debug)]
pub struct Views {
    /// When the daemon started.
    pub started_at: Timestamp,
    /// When the last pass ended.
    pub last_pass_at: Option<Timestamp>,
    /// Keys that wait.
    pub queue_depth: u64,
    /// The agents.
    pub agents: BTreeMap<AgentName, AgentView>,
    /// The plan of the hive itself.
    pub hive_plan: Option<PlanView>,
    /// What the hive itself waits on.
    pub hive_waiting: Vec<Waiting>,
    /// The spec whose agents were all nudged, and the faults they were shown with.
    pub spec_seen: Option<Arc<Accepted>>,
    /// Passes that could not be finished, by key.
    pub failures: BTreeMap<String, String>,
}

impl Views {
    /// Nothing seen yet.
    pub fn new(now: Timestamp) -> Self {
        Self {
            started_at: now,
            last_pass_at: None,
            queue_depth: 0,
            agents: BTreeMap::new(),
            hive_plan: None,
            hive_waiting: Vec::new(),
            spec_seen: None,
            failures: BTreeMap::new(),
        }
    }
}
