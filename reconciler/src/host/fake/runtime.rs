//! Containers of the fake world.

use std::collections::BTreeMap;

use async_trait::async_trait;
use shared::spec::{LimitsSpec, RuntimeKind};
use shared::{AgentName, AgentUid};

use super::{Behaviour, Source, World};
use crate::host::{ExitCause, HostError, LaunchFile, Limits, Lines, Output, Resources, Runtime, UnitState};

#[async_trait]
impl Runtime for World {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    async fn observe(&self, agents: &[AgentName]) -> Result<BTreeMap<AgentName, UnitState>, HostError> {
        self.see(Source::Runtime, |state| {
            let unit = |name: &AgentName| state.units.get(name).cloned().unwrap_or(UnitState::Absent);
            agents.iter().map(|name| (name.clone(), unit(name))).collect()
        })
    }

    async fn can_start(&self, _launch: &LaunchFile) -> Result<(), HostError> {
        Ok(())
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
                // Its harness goes on calling, whatever the daemon forgot.
                state.forgotten.remove(&agent);
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
                    resources: Resources {
                        limits: Limits::of(&launch.launch.limits).ok(),
                        oom_kills: Some(0),
                    },
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
        .await
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
        .await
    }

    async fn limit(&self, agent: &AgentName, limits: &LimitsSpec) -> Result<(), HostError> {
        let wanted = Limits::of(limits)?;
        let detail = serde_json::to_string(limits).unwrap_or_default();
        self.effect("limit", agent, detail, |state| {
            match state.units.get_mut(agent) {
                Some(UnitState::Running { resources, .. }) if resources.limits != Some(wanted) => {
                    resources.limits = Some(wanted);
                }
                _ => state.changes_nothing = true,
            }
            Ok(())
        })
        .await
    }

    async fn output(&self, agent: &AgentName, max: u64) -> Result<Output, HostError> {
        let printed = self.lock().printed.get(agent).cloned().unwrap_or_default();
        let begin = printed
            .len()
            .saturating_sub(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(Output {
            end: printed[begin..].to_vec(),
            cut: begin > 0,
        })
    }

    async fn follow(&self, _agent: &AgentName, _lines: u32) -> Result<Lines, HostError> {
        Ok(Lines::none())
    }

    async fn wipe(&self, _agent: &AgentName, _uid: AgentUid) -> Result<(), HostError> {
        Ok(())
    }

    fn unsandboxed(&self) -> Option<String> {
        None
    }
}
