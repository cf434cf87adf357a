//! The doors of the fake world.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use async_trait::async_trait;
use camino::Utf8Path;
use jiff::Timestamp;
use shared::agent_api::Report;
use shared::config::{ConfigFile, OVERLAY_FILE, Overlay};
use shared::status::{McpHealth, McpServerState, TurnState};
use shared::{AgentName, AgentUid, CommitOid, HiveId, LoginId, ServerName};

use super::{Behaviour, Source, State, World, oid};
use crate::host::{
    Announcement, ArchiveState, Builder, Clock, ExitCause, FolderState, Folders, HarnessLink, HarnessState,
    HostError, Ids, Imported, LaunchFile, RefUpdate, RepoState, Repos, Space, SpecFile, TagState, UnitState,
};
use crate::model::build::{BuildOutput, BuildRequest, assemble};

impl Clock for World {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    fn steady(&self) -> std::time::Duration {
        let state = self.lock();
        let since = state.now.duration_since(Timestamp::UNIX_EPOCH);
        since.saturating_sub(state.jumped).try_into().unwrap_or_default()
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

    fn login_id(&self) -> LoginId {
        LoginId(uuid::Uuid::from_u128(7))
    }

    fn jitter(&self) -> f64 {
        0.0
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
        .await
    }

    async fn observe(&self, agent: &AgentName) -> Result<Option<RepoState>, HostError> {
        self.see(Source::Repos, |state| {
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
        .await
    }

    async fn is_ancestor(
        &self,
        agent: &AgentName,
        ancestor: &CommitOid,
        descendant: &CommitOid,
    ) -> Result<bool, HostError> {
        self.recall(Source::Repos, |state| {
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

    async fn offered(&self, agent: &AgentName, _: &Utf8Path) -> Result<CommitOid, HostError> {
        Err(HostError::failed(agent.as_str(), "the fake world has no bundles"))
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

    async fn repeat(
        &self,
        agent: &AgentName,
        parent: &CommitOid,
        content: &CommitOid,
        message: &str,
        _: Timestamp,
    ) -> Result<CommitOid, HostError> {
        let overlay = Repos::read_file(self, agent, content, "agent.json", u64::MAX).await?;
        let text = String::from_utf8(overlay.unwrap_or_default()).unwrap_or_default();
        let oid = oid(&format!("{parent}\n{text}\n{message}"));
        self.effect("commit", agent, oid.to_string(), |state| {
            let commits = &mut state.repos.entry(agent.clone()).or_default().commits;
            state.changes_nothing = commits
                .insert(oid.clone(), (Some(parent.clone()), text))
                .is_some();
            Ok(oid)
        })
        .await
    }

    async fn commit(
        &self,
        agent: &AgentName,
        parent: &CommitOid,
        files: &BTreeMap<String, String>,
        message: &str,
        _: Timestamp,
    ) -> Result<CommitOid, HostError> {
        let text = files.get(OVERLAY_FILE).cloned().unwrap_or_default();
        let oid = oid(&format!("{parent}\n{text}\n{message}"));
        self.effect("commit", agent, oid.to_string(), |state| {
            let commits = &mut state.repos.entry(agent.clone()).or_default().commits;
            state.changes_nothing = commits
                .insert(oid.clone(), (Some(parent.clone()), text))
                .is_some();
            Ok(oid)
        })
        .await
    }

    async fn delete(&self, agent: &AgentName) -> Result<(), HostError> {
        self.effect("deleteRepo", agent, "", |state| {
            state.changes_nothing = state.repos.remove(agent).is_none();
            Ok(())
        })
        .await
    }

    async fn read_file(
        &self,
        agent: &AgentName,
        commit: &CommitOid,
        _: &str,
        _: u64,
    ) -> Result<Option<Vec<u8>>, HostError> {
        self.recall(Source::Repos, |state| {
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
        .await
    }

    async fn present(&self, systems: &[String]) -> Result<BTreeMap<String, bool>, HostError> {
        self.see(Source::Systems, |state| {
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
        self.see(Source::Folders, |state| {
            state
                .folders
                .get(agent)
                .map(|(f, _)| f.clone())
                .unwrap_or_default()
        })
    }

    async fn space(&self) -> Result<Space, HostError> {
        self.recall(Source::Folders, |_| Space {
            folder: "/fake/state".to_owned(),
            free: 1 << 40,
            total: 1 << 41,
        })
    }

    async fn prepare(&self, agent: &AgentName) -> Result<(), HostError> {
        self.effect("prepare", agent, "", |state| {
            state.folders.entry(agent.clone()).or_default().0.prepared = true;
            Ok(())
        })
        .await
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
        .await
    }

    async fn archive(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
        self.effect("archive", agent, "", |state| {
            let kept = (state.folders.remove(agent), state.repos.remove(agent));
            state.units.remove(agent);
            match state.archived.entry((agent.clone(), uid)) {
                Entry::Occupied(_) => state.changes_nothing = true,
                Entry::Vacant(place) => {
                    place.insert(kept);
                }
            }
            Ok(())
        })
        .await
    }

    async fn archived(&self, agent: &AgentName, uid: AgentUid) -> Result<ArchiveState, HostError> {
        self.see(Source::Archive, |state| {
            if state.archived.contains_key(&(agent.clone(), uid)) {
                ArchiveState::Ours
            } else {
                ArchiveState::Absent
            }
        })
    }

    async fn restore(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
        self.effect("restore", agent, "", |state| {
            let Some((folder, repo)) = state.archived.remove(&(agent.clone(), uid)) else {
                state.changes_nothing = true;
                return Ok(());
            };
            state.folders.extend(folder.map(|folder| (agent.clone(), folder)));
            state.repos.extend(repo.map(|repo| (agent.clone(), repo)));
            Ok(())
        })
        .await
    }

    async fn doom(&self, _agent: &AgentName, _uid: AgentUid) -> Result<(), HostError> {
        // A rename, which `purge` does too.
        Ok(())
    }

    async fn purge(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
        self.effect("purge", agent, "", |state| {
            state.changes_nothing = state.archived.remove(&(agent.clone(), uid)).is_none();
            Ok(())
        })
        .await
    }
}

/// Every MCP server of a config works, unless its name says that it is broken.
fn probed(config: &ConfigFile) -> BTreeMap<ServerName, McpServerState> {
    let probe = |name: &ServerName| {
        let broken = name.as_str().contains("broken");
        let health = if broken {
            McpHealth::Failed
        } else {
            McpHealth::Healthy
        };
        let state = McpServerState {
            error: broken.then(|| "it does not answer".to_owned()),
            ..McpServerState::of(health)
        };
        (name.clone(), state)
    };
    config.config.mcp_servers.keys().map(probe).collect()
}

impl HarnessLink for World {
    fn state(&self, agent: &AgentName) -> Option<HarnessState> {
        let now = self.lock().now;
        let seen = self.see(Source::Harness, |state| state.harness(agent, now));
        seen.ok().flatten()
    }

    fn forget(&self, agent: &AgentName) {
        self.lock().forgotten.insert(agent.clone(), true);
    }

    fn announce(&self, agent: &AgentName, what: Announcement) {
        let mut state = self.lock();
        state.announced.insert(agent.clone(), what);
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

impl State {
    fn harness(&self, agent: &AgentName, now: Timestamp) -> Option<HarnessState> {
        let running = matches!(self.units.get(agent), Some(UnitState::Running { .. }));
        if !running || self.forgotten.contains_key(agent) {
            return None;
        }
        let config = self.loaded.get(agent)?;
        let busy_since = self.busy.get(agent).copied();
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
            turn_error: None,
            events_error: None,
            instructed: 0,
            model: None,
            turn,
            mcp: probed(config),
            login: None,
        };
        Some(HarnessState {
            report,
            at: busy_since.unwrap_or(now),
        })
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
