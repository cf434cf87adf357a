//! A deterministic world behind every door, for simulations and tests.
//!
//! It keeps state the way the real world does (processes, refs, folders, systems outlive the daemon), counts what is
//! done to it, and can be told to crash the daemon, to report an error or to stop for a while at the nth boundary. A
//! boundary is an effect, or a write of a ledger that the world was made the [`Boundary`] of.
//!
//! [`Boundary`]: crate::ledger::Boundary

mod boundary;
mod doors;
mod runtime;
mod staging;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use shared::canonical::{Encoding, digest};
use shared::config::ConfigFile;
use shared::draft::StatePath;
use shared::{AgentName, AgentUid, CommitOid, Digest};

pub use boundary::{Auditor, Lag, Probe, Source, Stop, Trouble};

use super::{
    Announcement, ExitCause, FolderState, Host, HostError, Limits, OwnProcess, RepoState, UnitState, Usage,
};
use crate::model::build::BuildOutput;

/// What becomes of an effect, or of a write of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// The daemon dies before it.
    CrashBefore,
    /// It is done, and the daemon dies before it learns so.
    CrashAfter,
    /// It is done, but an error is returned.
    ErrorAfter,
    /// It is not done, and an error is returned.
    ErrorBefore,
}

/// One effect that happened, in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effect {
    /// What kind.
    pub kind: &'static str,
    /// To whom.
    pub agent: AgentName,
    /// With what.
    pub detail: String,
}

/// How an agent's harness behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Behaviour {
    /// Loads whatever is written, and reports it.
    #[default]
    Good,
    /// Ends right after every start.
    Crashes,
    /// Never reports.
    Silent,
}

#[derive(Debug, Default, Clone)]
struct Repo {
    seed: Option<CommitOid>,
    state: RepoState,
    /// Commit to parent and overlay.
    commits: BTreeMap<CommitOid, (Option<CommitOid>, String)>,
}

type Folder = (FolderState, Option<ConfigFile>);
/// What the archive keeps of one agent.
type Kept = (Option<Folder>, Option<Repo>);

/// The state of the world.
#[derive(Debug, Clone)]
pub struct State {
    /// Now.
    pub now: Timestamp,
    /// How far the clock was moved by hand.
    pub jumped: SignedDuration,
    /// The spec file; an error when it cannot be read.
    pub spec: Result<Vec<u8>, String>,
    /// Everything done to the world.
    pub effects: Vec<Effect>,
    /// What to do at the boundary of this number, counted from 0. It is taken once it happened.
    pub fault: Option<(usize, Fault)>,
    /// Where to stop until whoever carries out the pass polls it again.
    pub stop: Stop,
    /// The boundary at which something stopped, and whether after it.
    pub stopped: Option<(usize, bool)>,
    /// How many boundaries were reached.
    pub boundaries: usize,
    /// How many effects were begun.
    pub begun: usize,
    /// The daemon is dead: nothing it was about goes on.
    pub crashed: bool,
    /// Sources that cannot be observed.
    pub blind: Vec<Source>,
    /// A source that shows what was, and since when that is.
    pub lag: Option<(Source, Lag)>,
    /// Whether an answer was refused, or not true any more.
    pub misled: bool,
    /// Finds out what would be noticed, while it is there.
    pub probe: Option<Probe>,
    /// The world before the latest effect.
    pub before_effect: Option<Arc<Self>>,
    /// The world as it was remembered.
    pub remembered: Option<Arc<Self>>,
    /// Who looks at each effect before it happens.
    pub auditor: Option<Auditor>,
    /// How harnesses behave, by the text their prompt holds.
    pub behaviours: BTreeMap<String, Behaviour>,
    /// Overlays whose build is refused, by the text they hold.
    pub unbuildable: Vec<String>,
    /// Agents in the middle of a turn, and since when.
    pub busy: BTreeMap<AgentName, Timestamp>,
    /// What agents printed.
    pub printed: BTreeMap<AgentName, Vec<u8>>,
    units: BTreeMap<AgentName, UnitState>,
    repos: BTreeMap<AgentName, Repo>,
    folders: BTreeMap<AgentName, Folder>,
    systems: BTreeMap<String, BuildOutput>,
    archived: BTreeMap<(AgentName, AgentUid), Kept>,
    staged: BTreeMap<AgentUid, BTreeMap<Digest, Vec<u8>>>,
    laid: BTreeMap<AgentName, BTreeMap<StatePath, Digest>>,
    loaded: BTreeMap<AgentName, ConfigFile>,
    announced: BTreeMap<AgentName, Announcement>,
    forgotten: BTreeMap<AgentName, bool>,
    runs: u64,
    agents: u128,
    /// Set by an effect that found everything as it wants it.
    changes_nothing: bool,
}

/// The world. Cheap to share; a daemon that dies leaves it as it is.
#[derive(Debug, Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl OwnProcess for World {
    async fn usage(&self) -> Result<Usage, HostError> {
        Ok(Usage {
            resident_bytes: 16 << 20,
            open_files: 32,
            max_files: Some(1024),
        })
    }
}

impl World {
    /// An empty world at a fixed time.
    pub fn new() -> Self {
        let state = State {
            now: Timestamp::from_second(1_800_000_000).unwrap_or(Timestamp::UNIX_EPOCH),
            jumped: SignedDuration::ZERO,
            spec: Err("there is no spec".to_owned()),
            effects: Vec::new(),
            fault: None,
            stop: Stop::Nowhere,
            stopped: None,
            boundaries: 0,
            begun: 0,
            crashed: false,
            blind: Vec::new(),
            lag: None,
            misled: false,
            probe: None,
            before_effect: None,
            remembered: None,
            auditor: None,
            behaviours: BTreeMap::new(),
            unbuildable: Vec::new(),
            busy: BTreeMap::new(),
            printed: BTreeMap::new(),
            units: BTreeMap::new(),
            repos: BTreeMap::new(),
            folders: BTreeMap::new(),
            systems: BTreeMap::new(),
            archived: BTreeMap::new(),
            staged: BTreeMap::new(),
            laid: BTreeMap::new(),
            loaded: BTreeMap::new(),
            announced: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            runs: 0,
            agents: 0,
            changes_nothing: false,
        };
        Self::of(state)
    }

    /// A world that goes on from a state.
    pub fn of(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The doors to this world.
    pub fn host(&self) -> Host {
        let door = Arc::new(self.clone());
        Host {
            clock: door.clone(),
            ids: door.clone(),
            runtime: door.clone(),
            repos: door.clone(),
            builder: door.clone(),
            folders: door.clone(),
            staging: door.clone(),
            harness: door.clone(),
            spec: door.clone(),
            own_process: door,
        }
    }

    /// The state, to look at or to change.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass.
    pub fn advance(&self, secs: i64) {
        let mut state = self.lock();
        state.now = state
            .now
            .checked_add(SignedDuration::from_secs(secs))
            .unwrap_or(Timestamp::MAX);
    }

    /// Somebody sets the clock: no time passes.
    pub fn set_clock(&self, by: SignedDuration) {
        let mut state = self.lock();
        state.now = state.now.checked_add(by).unwrap_or(state.now);
        state.jumped = state.jumped.saturating_add(by);
    }

    /// The daemon starts again: what it held in memory is gone, harnesses call again.
    pub fn restart_daemon(&self) {
        let mut state = self.lock();
        state.crashed = false;
        state.announced.clear();
        state.forgotten.clear();
    }

    /// So many uids are in use: the next one that is drawn is the one after. Uids that were drawn and never used are
    /// drawn again, so that two runs of a story in which a daemon died meanwhile can be compared.
    pub fn uids_in_use(&self, count: usize) {
        self.lock().agents = u128::try_from(count).unwrap_or_default();
    }

    /// An agent commits an overlay on top of `parent` and sends it in.
    pub fn commit(&self, agent: &AgentName, parent: &CommitOid, overlay: &str) -> CommitOid {
        let mut state = self.lock();
        let oid = oid(&format!("{parent}\n{overlay}"));
        let repo = state.repos.entry(agent.clone()).or_default();
        repo.commits
            .insert(oid.clone(), (Some(parent.clone()), overlay.to_owned()));
        oid
    }

    /// Somebody moves a ref behind the daemon's back.
    pub fn tamper_main(&self, agent: &AgentName, to: Option<CommitOid>) {
        if let Some(repo) = self.lock().repos.get_mut(agent) {
            repo.state.main = to;
        }
    }

    /// The refs of an agent's repo.
    pub fn refs(&self, agent: &AgentName) -> Option<RepoState> {
        self.lock().repos.get(agent).map(|repo| repo.state.clone())
    }

    /// An agent's container.
    pub fn unit(&self, agent: &AgentName) -> UnitState {
        self.lock().unit(agent)
    }

    /// Somebody holds a running agent to other limits.
    pub fn change_limits(&self, agent: &AgentName, limits: Limits) {
        if let Some(UnitState::Running { resources, .. }) = self.lock().units.get_mut(agent) {
            resources.limits = Some(limits);
        }
    }

    /// The kernel kills a process of a running agent for want of memory.
    pub fn kill_for_memory(&self, agent: &AgentName) {
        if let Some(UnitState::Running { resources, .. }) = self.lock().units.get_mut(agent) {
            resources.oom_kills = resources.oom_kills.map(|kills| kills + 1);
        }
    }

    /// An agent's process ends unasked.
    pub fn kill(&self, agent: &AgentName) {
        let mut state = self.lock();
        let now = state.now;
        if let Some(UnitState::Running { toplevel, .. }) = state.units.get(agent).cloned() {
            let exited = UnitState::Exited {
                toplevel: Some(toplevel),
                at: now,
                cause: ExitCause::Signal(9),
            };
            state.units.insert(agent.clone(), exited);
            state.loaded.remove(agent);
            state.busy.remove(agent);
        }
    }

    /// What can be compared between two runs of the same story: no times, no run ids.
    pub fn fingerprint(&self) -> String {
        use std::fmt::Write as _;
        let state = self.lock();
        let mut text = String::new();
        let mut line = |line: String| {
            // Writing to a String cannot fail.
            let _infallible = writeln!(text, "{line}");
        };
        for (agent, unit) in &state.units {
            let unit = match unit {
                UnitState::Running { toplevel, .. } => format!("running {toplevel}"),
                UnitState::Exited { .. } | UnitState::Absent => "not running".to_owned(),
                UnitState::Foreign { what } => format!("foreign {what}"),
            };
            line(format!("unit {agent}: {unit}"));
        }
        for (agent, repo) in &state.repos {
            line(format!("main {agent}: {:?}", repo.state.main));
            for (name, tag) in &repo.state.tags {
                line(format!("tag {agent} {name}: {}", tag.commit));
            }
        }
        for (agent, (folder, _)) in &state.folders {
            line(format!(
                "folder {agent}: {:?} {:?}",
                folder.toplevel, folder.config
            ));
        }
        for (agent, config) in &state.loaded {
            line(format!("loaded {agent}: {}", config.digest));
        }
        for (agent, files) in &state.laid {
            for (path, digest) in files {
                line(format!("state {agent}/{path}: {digest}"));
            }
        }
        for staged in state.staged.values() {
            line(format!("staged {:?}", staged.keys()));
        }
        let archived: BTreeSet<_> = state.archived.keys().map(|(agent, _)| agent).collect();
        for agent in archived {
            line(format!("archived {agent}"));
        }
        text
    }
}

/// A commit id made from a text.
pub fn oid(text: &str) -> CommitOid {
    let hex = digest(Encoding::Content, text)
        .map(|d| d.hex()[..40].to_owned())
        .unwrap_or_default();
    hex.parse()
        .unwrap_or_else(|_| unreachable!("forty hex digits are a commit id"))
}

impl State {
    /// An agent's container.
    pub fn unit(&self, agent: &AgentName) -> UnitState {
        self.units.get(agent).cloned().unwrap_or(UnitState::Absent)
    }

    fn behaviour(&self, config: &ConfigFile) -> Behaviour {
        let prompt = &config.config.prompt;
        let found = self
            .behaviours
            .iter()
            .find(|(text, _)| prompt.contains(text.as_str()));
        found.map(|(_, behaviour)| *behaviour).unwrap_or_default()
    }
}
