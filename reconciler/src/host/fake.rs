//! A deterministic world behind every door, for simulations and tests.
//!
//! It keeps state the way the real world does (processes, refs, folders, systems outlive the daemon), counts what is
//! done to it, and can be told to crash the daemon at, or report an error after, the nth effect.

mod doors;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use shared::canonical::{Encoding, digest};
use shared::config::ConfigFile;
use shared::{AgentName, AgentUid, CommitOid, Digest};

use super::{ExitCause, FolderState, Host, HostError, RepoState, UnitState};
use crate::model::build::BuildOutput;

/// What becomes of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

/// The state of the world.
#[derive(Debug, Clone)]
pub struct State {
    /// Now.
    pub now: Timestamp,
    /// The spec file; an error when it cannot be read.
    pub spec: Result<Vec<u8>, String>,
    /// Everything done to the world.
    pub effects: Vec<Effect>,
    /// What to do to the effect of this number, counted from 0.
    pub fault: Option<(usize, Fault)>,
    /// How many effects were begun.
    pub begun: usize,
    /// The daemon is dead: every door refuses.
    pub crashed: bool,
    /// Sources that cannot be observed: `runtime`, `repos`, `folders`, `systems`.
    pub blind: Vec<&'static str>,
    /// How harnesses behave, by the text their prompt holds.
    pub behaviours: BTreeMap<String, Behaviour>,
    /// Overlays whose build is refused, by the text they hold.
    pub unbuildable: Vec<String>,
    /// Agents in the middle of a turn, and since when.
    pub busy: BTreeMap<AgentName, Timestamp>,
    units: BTreeMap<AgentName, UnitState>,
    repos: BTreeMap<AgentName, Repo>,
    folders: BTreeMap<AgentName, (FolderState, Option<ConfigFile>)>,
    systems: BTreeMap<String, BuildOutput>,
    archived: Vec<(AgentName, AgentUid)>,
    loaded: BTreeMap<AgentName, ConfigFile>,
    announced: BTreeMap<AgentName, (Digest, bool)>,
    forgotten: BTreeMap<AgentName, bool>,
    runs: u64,
    agents: u128,
    /// Set by an effect that found everything as it wants it.
    changes_nothing: bool,
}

/// The world. Cheap to share; a daemon that dies leaves it as it is.
#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty world at a fixed time.
    pub fn new() -> Self {
        let state = State {
            now: Timestamp::from_second(1_800_000_000).unwrap_or(Timestamp::UNIX_EPOCH),
            spec: Err("there is no spec".to_owned()),
            effects: Vec::new(),
            fault: None,
            begun: 0,
            crashed: false,
            blind: Vec::new(),
            behaviours: BTreeMap::new(),
            unbuildable: Vec::new(),
            busy: BTreeMap::new(),
            units: BTreeMap::new(),
            repos: BTreeMap::new(),
            folders: BTreeMap::new(),
            systems: BTreeMap::new(),
            archived: Vec::new(),
            loaded: BTreeMap::new(),
            announced: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            runs: 0,
            agents: 0,
            changes_nothing: false,
        };
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
            harness: door.clone(),
            spec: door,
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

    /// The daemon starts again: what it held in memory is gone, harnesses call again.
    pub fn restart_daemon(&self) {
        let mut state = self.lock();
        state.crashed = false;
        state.announced.clear();
        state.forgotten.clear();
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
        self.lock().units.get(agent).cloned().unwrap_or(UnitState::Absent)
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
        let archived: std::collections::BTreeSet<_> = state.archived.iter().map(|(agent, _)| agent).collect();
        for agent in archived {
            line(format!("archived {agent}"));
        }
        text
    }

    /// Carries out one effect, or what the planned fault makes of it.
    fn effect<T>(
        &self,
        kind: &'static str,
        agent: &AgentName,
        detail: impl Into<String>,
        act: impl FnOnce(&mut State) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        let mut state = self.lock();
        if state.crashed {
            return Err(HostError::failed(kind, "the daemon is dead"));
        }
        let number = state.begun;
        state.begun += 1;
        let fault = state
            .fault
            .filter(|(at, _)| *at == number)
            .map(|(_, fault)| fault);
        match fault {
            Some(Fault::CrashBefore) => {
                state.crashed = true;
                return Err(HostError::failed(kind, "the daemon died before it"));
            }
            Some(Fault::ErrorBefore) => return Err(HostError::failed(kind, "it did not work this time")),
            Some(Fault::CrashAfter | Fault::ErrorAfter) | None => {}
        }
        state.changes_nothing = false;
        let result = act(&mut state)?;
        if !state.changes_nothing {
            state.effects.push(Effect {
                kind,
                agent: agent.clone(),
                detail: detail.into(),
            });
        }
        match fault {
            Some(Fault::CrashAfter) => {
                state.crashed = true;
                Err(HostError::failed(kind, "the daemon died after it"))
            }
            Some(Fault::ErrorAfter) => Err(HostError::failed(kind, "its answer was lost")),
            _ => Ok(result),
        }
    }

    fn see<T>(&self, source: &'static str, look: impl FnOnce(&State) -> T) -> Result<T, HostError> {
        let state = self.lock();
        if state.crashed || state.blind.contains(&source) {
            return Err(HostError::failed(source, "it cannot be observed"));
        }
        Ok(look(&state))
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
    fn behaviour(&self, config: &ConfigFile) -> Behaviour {
        let prompt = &config.config.prompt;
        let found = self
            .behaviours
            .iter()
            .find(|(text, _)| prompt.contains(text.as_str()));
        found.map(|(_, behaviour)| *behaviour).unwrap_or_default()
    }
}
