//! A deterministic world behind every door, for simulations and tests.
//!
//! It keeps state the way the real world does (processes, refs, folders, systems outlive the daemon), counts what is
//! done to it, and can be told to crash the daemon at, or report an error after, the nth effect.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use camino::Utf8Path;
use jiff::{SignedDuration, Timestamp};
use shared::agent_api::Report;
use shared::canonical::{Encoding, digest};
use shared::config::{ConfigFile, Overlay};
use shared::status::{McpHealth, McpServerState, TurnState};
use shared::{AgentName, AgentUid, CommitOid, Digest, HiveId, ServerName};

use super::{
    Builder, Clock, ExitCause, FolderState, Folders, HarnessLink, HarnessState, Host, HostError, Ids,
    Imported, LaunchFile, RefUpdate, RepoState, Repos, Runtime, SpecFile, TagState, UnitState,
};
use crate::model::build::{BuildOutput, BuildRequest, assemble};

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

impl Clock for World {
    fn now(&self) -> Timestamp {
        self.lock().now
    }
}

impl Ids for World {
    fn agent_uid(&self) -> AgentUid {
        let mut state = self.lock();
        state.agents += 1;
        AgentUid(uuid::Uuid::from_u128(state.agents))
    }

    fn hive_id(&self) -> HiveId {
        HiveId(uuid::Uuid::from_u128(7))
    }

    fn jitter(&self) -> f64 {
        0.0
    }
}

#[async_trait]
impl Runtime for World {
    async fn observe(&self, agents: &[AgentName]) -> Result<BTreeMap<AgentName, UnitState>, HostError> {
        self.see("runtime", |state| {
            let unit = |name: &AgentName| state.units.get(name).cloned().unwrap_or(UnitState::Absent);
            agents.iter().map(|name| (name.clone(), unit(name))).collect()
        })
    }

    async fn start(&self, launch: &LaunchFile) -> Result<(), HostError> {
        let agent = launch.launch.agent.clone();
        self.effect("start", &agent, launch.digest.to_string(), |state| {
            if let Some(UnitState::Running { toplevel, .. }) = state.units.get(&agent) {
                if *toplevel != launch.digest {
                    return Err(HostError::failed(
                        agent.as_str(),
                        "it runs already, from another toplevel",
                    ));
                }
                state.changes_nothing = true;
                return Ok(());
            }
            let config = state.folders.get(&agent).and_then(|(_, config)| config.clone());
            let behaviour = config
                .as_ref()
                .map(|config| state.behaviour(config))
                .unwrap_or_default();
            state.runs += 1;
            let unit = if behaviour == Behaviour::Crashes {
                let cause = ExitCause::Code(1);
                UnitState::Exited {
                    toplevel: Some(launch.digest.clone()),
                    at: state.now,
                    cause,
                }
            } else {
                let run = state.runs.to_string();
                UnitState::Running {
                    toplevel: launch.digest.clone(),
                    since: state.now,
                    run,
                }
            };
            state.units.insert(agent.clone(), unit);
            state.loaded.remove(&agent);
            if let Some(config) = config.filter(|_| behaviour == Behaviour::Good) {
                state.loaded.insert(agent.clone(), config);
            }
            state.forgotten.remove(&agent);
            Ok(())
        })
    }

    async fn stop(&self, agent: &AgentName) -> Result<(), HostError> {
        self.effect("stop", agent, "", |state| {
            if let Some(UnitState::Running { toplevel, .. }) = state.units.get(agent).cloned() {
                let exited = UnitState::Exited {
                    toplevel: Some(toplevel),
                    at: state.now,
                    cause: ExitCause::Clean,
                };
                state.units.insert(agent.clone(), exited);
            } else {
                state.changes_nothing = true;
            }
            state.loaded.remove(agent);
            state.busy.remove(agent);
            Ok(())
        })
    }

    fn unsandboxed(&self) -> Option<String> {
        None
    }
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

#[async_trait]
impl Repos for World {
    async fn ensure(
        &self,
        agent: &AgentName,
        seed: &BTreeMap<String, String>,
    ) -> Result<CommitOid, HostError> {
        let seed = oid(&format!("seed {agent} {}", seed.len()));
        self.effect("makeRepo", agent, seed.to_string(), |state| {
            let repo = state.repos.entry(agent.clone()).or_default();
            if repo.seed.is_none() {
                repo.seed = Some(seed.clone());
                repo.state.main = Some(seed.clone());
                repo.commits.insert(seed.clone(), (None, "{}".to_owned()));
            } else {
                state.changes_nothing = true;
            }
            Ok(seed.clone())
        })
    }

    async fn observe(&self, agent: &AgentName) -> Result<Option<RepoState>, HostError> {
        self.see("repos", |state| {
            state.repos.get(agent).map(|repo| repo.state.clone())
        })
    }

    async fn update_ref(&self, agent: &AgentName, update: &RefUpdate) -> Result<(), HostError> {
        let detail = match update {
            RefUpdate::Main { to, .. } => format!("main {to}"),
            RefUpdate::Tag { name, .. } => format!("tag {name}"),
            RefUpdate::DeleteTag { name, .. } => format!("delete {name}"),
        };
        self.effect("updateRef", agent, detail, |state| {
            let moved = |what: &str| {
                Err(HostError::Moved {
                    subject: what.to_owned(),
                    message: "it is elsewhere".into(),
                })
            };
            let Some(repo) = state.repos.get_mut(agent) else {
                return moved("the repo");
            };
            match update {
                RefUpdate::Main { from, to } => {
                    if repo.state.main.as_ref() == Some(to) {
                        state.changes_nothing = true;
                        return Ok(());
                    }
                    if repo.state.main != *from {
                        return moved("main");
                    }
                    repo.state.main = Some(to.clone());
                }
                RefUpdate::Tag {
                    name,
                    from,
                    commit,
                    message,
                    at,
                } => {
                    let object = oid(&format!("{name} {commit} {message} {at}"));
                    let seen = repo.state.tags.get(name).map(|tag| tag.object.clone());
                    if seen.as_ref() == Some(&object) {
                        state.changes_nothing = true;
                        return Ok(());
                    }
                    if seen != *from {
                        return moved(name);
                    }
                    let tag = TagState {
                        object,
                        commit: commit.clone(),
                        message: message.clone(),
                    };
                    repo.state.tags.insert(name.clone(), tag);
                }
                RefUpdate::DeleteTag { name, .. } => {
                    repo.state.tags.remove(name);
                }
            }
            Ok(())
        })
    }

    async fn is_ancestor(
        &self,
        agent: &AgentName,
        ancestor: &CommitOid,
        descendant: &CommitOid,
    ) -> Result<bool, HostError> {
        self.see("repos", |state| {
            let Some(repo) = state.repos.get(agent) else {
                return false;
            };
            let mut at = Some(descendant);
            while let Some(commit) = at {
                if commit == ancestor {
                    return true;
                }
                at = repo.commits.get(commit).and_then(|(parent, _)| parent.as_ref());
            }
            false
        })
    }

    async fn import(&self, agent: &AgentName, _: &Utf8Path, _: &CommitOid) -> Result<Imported, HostError> {
        Err(HostError::failed(
            agent.as_str(),
            "the fake world takes commits through `World::commit`",
        ))
    }

    async fn export(&self, agent: &AgentName, _: &Utf8Path) -> Result<(), HostError> {
        Err(HostError::failed(agent.as_str(), "the fake world has no bundles"))
    }

    async fn read_file(
        &self,
        agent: &AgentName,
        commit: &CommitOid,
        _: &str,
        _: u64,
    ) -> Result<Option<Vec<u8>>, HostError> {
        self.see("repos", |state| {
            let commits = state.repos.get(agent).map(|repo| &repo.commits);
            commits
                .and_then(|commits| commits.get(commit))
                .map(|(_, overlay)| overlay.clone().into_bytes())
        })
    }

    async fn write_tree(&self, _: &AgentName, _: &CommitOid, _: &Utf8Path) -> Result<(), HostError> {
        Ok(())
    }

    async fn diff(
        &self,
        _: &AgentName,
        from: &CommitOid,
        to: &CommitOid,
        _: usize,
    ) -> Result<String, HostError> {
        Ok(format!("{from} -> {to}"))
    }
}

#[async_trait]
impl Builder for World {
    async fn build(&self, request: &BuildRequest) -> Result<BuildOutput, HostError> {
        let overlay = Repos::read_file(self, &request.agent, &request.commit, "agent.json", u64::MAX).await?;
        let text = String::from_utf8(overlay.unwrap_or_default()).unwrap_or_default();
        self.effect("build", &request.agent, request.commit.to_string(), |state| {
            if let Some(bad) = state.unbuildable.iter().find(|bad| text.contains(bad.as_str())) {
                return Err(HostError::refused("agent.json", format!("it holds {bad}")));
            }
            let overlay: Overlay = serde_json::from_str(&text)
                .map_err(|error| HostError::refused("agent.json", error.to_string()))?;
            let output = assemble(request, &overlay, |digest| format!("/systems/{digest}"))
                .map_err(|error| HostError::refused("agent.json", error.to_string()))?;
            state.changes_nothing = state
                .systems
                .insert(output.system.clone(), output.clone())
                .is_some();
            Ok(output)
        })
    }

    async fn present(&self, systems: &[String]) -> Result<BTreeMap<String, bool>, HostError> {
        self.see("systems", |state| {
            systems
                .iter()
                .map(|system| (system.clone(), state.systems.contains_key(system)))
                .collect()
        })
    }
}

#[async_trait]
impl Folders for World {
    async fn observe(&self, agent: &AgentName) -> Result<FolderState, HostError> {
        self.see("folders", |state| {
            state
                .folders
                .get(agent)
                .map(|(f, _)| f.clone())
                .unwrap_or_default()
        })
    }

    async fn prepare(&self, agent: &AgentName) -> Result<(), HostError> {
        self.effect("prepare", agent, "", |state| {
            state.folders.entry(agent.clone()).or_default().0.prepared = true;
            Ok(())
        })
    }

    async fn activate(
        &self,
        agent: &AgentName,
        system: &str,
        launch: &LaunchFile,
        config: &ConfigFile,
    ) -> Result<(), HostError> {
        self.effect("activate", agent, system, |state| {
            let folder = state.folders.entry(agent.clone()).or_default();
            folder.0 = FolderState {
                prepared: true,
                toplevel: Some(launch.digest.clone()),
                config: Some(config.digest.clone()),
            };
            folder.1 = Some(config.clone());
            Ok(())
        })
    }

    async fn archive(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
        self.effect("archive", agent, "", |state| {
            state.folders.remove(agent);
            state.repos.remove(agent);
            state.units.remove(agent);
            if state.archived.contains(&(agent.clone(), uid)) {
                state.changes_nothing = true;
            } else {
                state.archived.push((agent.clone(), uid));
            }
            Ok(())
        })
    }
}

/// Every MCP server of a config works, unless its name says that it is broken.
fn probed(config: &ConfigFile) -> BTreeMap<ServerName, McpServerState> {
    let probe = |name: &ServerName| {
        let broken = name.as_str().contains("broken");
        let state = McpServerState {
            health: if broken {
                McpHealth::Failed
            } else {
                McpHealth::Healthy
            },
            tools: Vec::new(),
            error: broken.then(|| "it does not answer".to_owned()),
        };
        (name.clone(), state)
    };
    config.config.mcp_servers.keys().map(probe).collect()
}

impl HarnessLink for World {
    fn state(&self, agent: &AgentName) -> Option<HarnessState> {
        let state = self.lock();
        let running = matches!(state.units.get(agent), Some(UnitState::Running { .. }));
        if !running || state.forgotten.contains_key(agent) {
            return None;
        }
        let config = state.loaded.get(agent)?;
        let busy_since = state.busy.get(agent).copied();
        let turn = match busy_since {
            Some(_) => TurnState::Thinking,
            None => TurnState::Idle,
        };
        let report = Report {
            version: "fake".to_owned(),
            run_id: "fake".to_owned(),
            seq: 0,
            lease: None,
            config: Some(config.digest.clone()),
            config_error: None,
            turn,
            mcp: probed(config),
        };
        Some(HarnessState {
            report,
            at: busy_since.unwrap_or(state.now),
        })
    }

    fn forget(&self, agent: &AgentName) {
        self.lock().forgotten.insert(agent.clone(), true);
    }

    fn announce(&self, agent: &AgentName, config: &Digest, paused: bool) {
        let mut state = self.lock();
        state.announced.insert(agent.clone(), (config.clone(), paused));
        let written = state.folders.get(agent).and_then(|(_, config)| config.clone());
        let running = matches!(state.units.get(agent), Some(UnitState::Running { .. }));
        let busy = state.busy.contains_key(agent);
        if let Some(written) = written.filter(|_| running && !busy) {
            match state.behaviour(&written) {
                Behaviour::Good => {
                    state.loaded.insert(agent.clone(), written);
                }
                Behaviour::Silent => {
                    state.loaded.remove(agent);
                }
                Behaviour::Crashes => {
                    let exited = UnitState::Exited {
                        toplevel: None,
                        at: state.now,
                        cause: ExitCause::Code(1),
                    };
                    state.units.insert(agent.clone(), exited);
                    state.loaded.remove(agent);
                }
            }
        }
    }
}

#[async_trait]
impl SpecFile for World {
    fn path(&self) -> String {
        "/fake/hive.json".to_owned()
    }

    async fn read(&self) -> Result<Vec<u8>, HostError> {
        self.lock()
            .spec
            .clone()
            .map_err(|error| HostError::failed("/fake/hive.json", error))
    }
}
