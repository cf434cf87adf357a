//! What an agent says to the daemon in the middle of a turn, through its tools.

use std::time::Duration;

use reqwest::Method;
use shared::AgentName;
use shared::agent_api::{BroadcastRequest, BroadcastResponse, ProposalInfo, SentMessage, WhoAmI};
use shared::agent_event::{EventBatch, EventBatchAnswer};
use shared::draft::{DraftInfo, DraftRequest, OfferRequest, SpawnRequest, StatePath};
use shared::loose_end::{LooseEnd, LooseEndId};
use shared::question::{AnswerRequest, AskRequest, QuestionInfo};
use shared::reminder::{ReminderInfo, ReminderRequest};

use super::{ClientError, HostClient, SLACK, json};

/// Every method fails as [`ClientError`] says.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl HostClient {
    /// Tells what happens in turns.
    pub async fn tell_events(&self, batch: &EventBatch) -> Result<EventBatchAnswer, ClientError> {
        self.post("events", "/v1/events", batch, Duration::ZERO).await
    }

    /// Who this agent is, and what it may do.
    pub async fn whoami(&self) -> Result<WhoAmI, ClientError> {
        self.get("whoami", "/v1/whoami").await
    }

    /// This agent's own messages older than `before`, newest first.
    pub async fn sent(&self, before: Option<u64>, limit: u32) -> Result<Vec<SentMessage>, ClientError> {
        let before = before.map(|id| format!("&before={id}")).unwrap_or_default();
        self.get(
            "messages/sent",
            &format!("/v1/messages/sent?limit={limit}{before}"),
        )
        .await
    }

    /// Sends a message to everybody.
    pub async fn broadcast(&self, body: &str, dedupe: &str) -> Result<BroadcastResponse, ClientError> {
        let request = BroadcastRequest {
            body: body.to_owned(),
            dedupe: Some(dedupe.to_owned()),
        };
        self.post("broadcast", "/v1/broadcast", &request, Duration::ZERO)
            .await
    }

    /// Asks.
    pub async fn ask(&self, request: &AskRequest) -> Result<QuestionInfo, ClientError> {
        self.post("questions", "/v1/questions", request, Duration::ZERO)
            .await
    }

    /// Answers a question.
    pub async fn answer_question(
        &self,
        id: u64,
        request: &AnswerRequest,
    ) -> Result<QuestionInfo, ClientError> {
        let path = format!("/v1/questions/{id}/answer");
        self.post("questions/answer", &path, request, Duration::ZERO)
            .await
    }

    /// Sets a reminder.
    pub async fn remind(&self, request: &ReminderRequest) -> Result<ReminderInfo, ClientError> {
        self.post("reminders", "/v1/reminders", request, Duration::ZERO)
            .await
    }

    /// What is open and involves this agent, the oldest first.
    pub async fn loose_ends(&self) -> Result<Vec<LooseEnd>, ClientError> {
        self.get("loose-ends", "/v1/loose-ends").await
    }

    /// Takes a loose end back.
    pub async fn cancel_loose_end(&self, id: LooseEndId) -> Result<(), ClientError> {
        self.delete("loose-ends", &format!("/v1/loose-ends/{id}")).await
    }

    /// This agent's proposals, newest first.
    pub async fn proposals(&self) -> Result<Vec<ProposalInfo>, ClientError> {
        self.get("proposals", "/v1/proposals").await
    }

    /// Makes a draft with config and files, and offers it.
    pub async fn spawn(&self, request: &SpawnRequest) -> Result<DraftInfo, ClientError> {
        self.post("spawn", "/v1/spawn", request, Duration::ZERO).await
    }

    /// This agent's drafts, by name.
    pub async fn drafts(&self) -> Result<Vec<DraftInfo>, ClientError> {
        self.get("drafts", "/v1/drafts").await
    }

    /// One draft.
    pub async fn draft(&self, name: &AgentName) -> Result<DraftInfo, ClientError> {
        self.get("draft", &format!("/v1/drafts/{name}")).await
    }

    /// Begins a draft.
    pub async fn begin_draft(&self, name: &AgentName) -> Result<DraftInfo, ClientError> {
        let request = DraftRequest { name: name.clone() };
        self.post("drafts", "/v1/drafts", &request, Duration::ZERO).await
    }

    /// Gives a draft up.
    pub async fn give_up_draft(&self, name: &AgentName) -> Result<(), ClientError> {
        self.delete("draft", &format!("/v1/drafts/{name}")).await
    }

    /// Stages a file of a draft.
    pub async fn stage(
        &self,
        name: &AgentName,
        path: &StatePath,
        text: &str,
    ) -> Result<DraftInfo, ClientError> {
        let path = format!("/v1/drafts/{name}/files/{path}");
        self.hand_in("draft file", Method::PUT, &path, text.into()).await
    }

    /// Takes a staged file away.
    pub async fn unstage(&self, name: &AgentName, path: &StatePath) -> Result<DraftInfo, ClientError> {
        let what = "draft file";
        let path = format!("/v1/drafts/{name}/files/{path}");
        let request = self.request(Method::DELETE, &path, SLACK);
        json(what, self.answer(what, request).await?).await
    }

    /// A bundle of a draft's config repo.
    pub async fn draft_bundle(&self, name: &AgentName) -> Result<Vec<u8>, ClientError> {
        self.bundle("draft bundle", &format!("/v1/drafts/{name}/bundle"))
            .await
    }

    /// Sets a draft's config to the one commit in a bundle.
    pub async fn commit_draft(&self, name: &AgentName, bundle: Vec<u8>) -> Result<DraftInfo, ClientError> {
        let path = format!("/v1/drafts/{name}/bundle");
        self.hand_in("draft bundle", Method::POST, &path, bundle).await
    }

    /// Offers a draft to the operator.
    pub async fn offer_draft(&self, name: &AgentName, reason: &str) -> Result<DraftInfo, ClientError> {
        let request = OfferRequest {
            reason: reason.to_owned(),
        };
        let path = format!("/v1/drafts/{name}/commit");
        self.post("draft commit", &path, &request, Duration::ZERO).await
    }

    pub(super) async fn get<A: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
    ) -> Result<A, ClientError> {
        let request = self.request(Method::GET, path, SLACK);
        json(what, self.answer(what, request).await?).await
    }

    async fn delete(&self, what: &'static str, path: &str) -> Result<(), ClientError> {
        let request = self.request(Method::DELETE, path, SLACK);
        self.answer(what, request).await?;
        Ok(())
    }
}
