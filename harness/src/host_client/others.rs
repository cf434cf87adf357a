//! What an agent asks about agents, itself among them, and what a manager asks of others.

use std::time::Duration;

use reqwest::Method;
use shared::AgentName;
use shared::admin_api::Acknowledged;
use shared::agent_api::ProposalInfo;
use shared::look::{AgentLog, ConfigInfo};
use shared::order::OrderRequest;
use shared::status::AgentStatus;

use super::{ClientError, HostClient};

/// Every method fails as [`ClientError`] says.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl HostClient {
    /// How all agents are, by name. For managers alone.
    pub async fn agents(&self) -> Result<Vec<AgentStatus>, ClientError> {
        self.get("agents", "/v1/agents").await
    }

    /// How an agent is. Only managers see others.
    pub async fn agent(&self, name: &AgentName) -> Result<AgentStatus, ClientError> {
        self.get("agent", &format!("/v1/agents/{name}")).await
    }

    /// An agent's config. Only managers see that of others.
    pub async fn config_of(&self, name: &AgentName) -> Result<ConfigInfo, ClientError> {
        self.get("agent config", &format!("/v1/agents/{name}/config"))
            .await
    }

    /// Orders something about an agent, as in `restart`. Only managers may.
    pub async fn order(
        &self,
        name: &AgentName,
        verb: &str,
        request: &OrderRequest,
    ) -> Result<Acknowledged, ClientError> {
        let path = format!("/v1/agents/{name}/{verb}");
        self.post("order", &path, request, Duration::ZERO).await
    }

    /// A bundle of another agent's config repo. Only managers get one.
    pub async fn repo_bundle_of(&self, name: &AgentName) -> Result<Vec<u8>, ClientError> {
        self.bundle("repo bundle", &format!("/v1/agents/{name}/repo/bundle"))
            .await
    }

    /// Offers a commit for another agent. Only managers may.
    pub async fn propose_for(&self, name: &AgentName, bundle: Vec<u8>) -> Result<ProposalInfo, ClientError> {
        let path = format!("/v1/agents/{name}/proposals");
        self.hand_in("proposals", Method::POST, &path, bundle).await
    }

    /// The end of an agent's log. Only managers see that of others.
    pub async fn logs(
        &self,
        name: &AgentName,
        lines: u32,
        events: u32,
        build: bool,
    ) -> Result<AgentLog, ClientError> {
        let build = if build { "&build=true" } else { "" };
        let path = format!("/v1/agents/{name}/logs?lines={lines}&events={events}{build}");
        self.get("agent logs", &path).await
    }
}
