//! The door to what turns commits into systems.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use shared::spec::BuilderKind;
use shared::{AgentName, AgentUid};

use super::{HostError, Output};
use crate::model::build::{BuildOutput, BuildRequest};

/// Turns commits into systems.
#[async_trait]
pub trait Builder: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> BuilderKind {
        BuilderKind::Plain
    }

    /// Builds, or finds it built. A [`HostError::Refused`] says that the input is at fault and trying again is vain.
    async fn build(&self, request: &BuildRequest) -> Result<BuildOutput, HostError>;

    /// Which of these systems are there.
    async fn present(&self, systems: &[String]) -> Result<BTreeMap<String, bool>, HostError>;

    /// Keeps the deployed system of an agent and those that somebody still needs; others may be forgotten.
    async fn retain(
        &self,
        agent: &AgentName,
        deployed: &str,
        needed: &BTreeSet<String>,
    ) -> Result<(), HostError> {
        let _ = (agent, deployed, needed);
        Ok(())
    }

    /// Keeps no system of this agent any longer: it is archived. What is needed again is built again.
    async fn forget(&self, agent: &AgentName) -> Result<(), HostError> {
        let _ = agent;
        Ok(())
    }

    /// At most the last `max` bytes of what this agent's newest build said, also while it runs; `None`: builds of this
    /// kind say nothing. Untrusted.
    async fn log(&self, uid: AgentUid, max: u64) -> Result<Option<Output>, HostError> {
        let _ = (uid, max);
        Ok(None)
    }

    /// How two built systems differ besides their configs, in lines for people, bounded and safe to show.
    async fn difference(&self, from: Option<&str>, to: &str) -> Result<Vec<String>, HostError> {
        let _ = (from, to);
        Ok(Vec::new())
    }
}
