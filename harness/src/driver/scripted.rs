//! The `scripted` driver: carries out the first rule that fits a message. It calls no model.
//!
//! What it sends carries an id made of the message's number and the action's place in its rule. A message that is
//! delivered again, to this run of the harness or the next, therefore causes no second copy of what was sent.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shared::AgentName;
use shared::agent_api::{Message, MessageKind, SendRequest};
use shared::name::Address;
use shared::spec::{ScriptAction, ScriptPropose, ScriptRule};
use shared::turn::Tokens;
use tokio::sync::mpsc;

use super::{Driver, RunningTurn, TurnEnd, TurnEvent, TurnSpec, Used};
use crate::config;
use crate::host_client::retry::until_answered;
use crate::host_client::{ClientError, HostClient};
use crate::repo::{ConfigRepo, ProposeError};

/// Runs turns by rules.
#[derive(Debug, Clone)]
pub struct Scripted {
    client: Arc<HostClient>,
    repo: ConfigRepo,
    /// Instead of the rules in the config.
    rules: Option<Arc<[ScriptRule]>>,
}

impl Scripted {
    /// A driver that speaks through `client`; `rules` replace those of the config.
    pub fn new(client: Arc<HostClient>, repo: ConfigRepo, rules: Option<Arc<[ScriptRule]>>) -> Self {
        Self { client, repo, rules }
    }
}

#[async_trait]
impl Driver for Scripted {
    async fn start_turn(&self, turn: TurnSpec) -> RunningTurn {
        let driver = self.clone();
        RunningTurn::spawn(|events, mut interrupted| async move {
            let mut script = Script {
                rules: config::script(&turn.config, driver.rules.as_deref()),
                agent: turn.config.agent.clone(),
                driver,
                events,
                used: Tokens::default(),
            };
            tokio::select! {
                end = script.run(&turn.messages) => end,
                _ = interrupted.wait_for(|interrupted| *interrupted) => TurnEnd::Interrupted,
            }
        })
    }
}

/// One turn.
struct Script {
    driver: Scripted,
    agent: AgentName,
    rules: Vec<ScriptRule>,
    events: mpsc::Sender<TurnEvent>,
    used: Tokens,
}

impl Script {
    async fn run(&mut self, messages: &[Message]) -> TurnEnd {
        for message in messages {
            let fitting = self.rules.iter().find(|rule| message.body.contains(&rule.on));
            let Some(rule) = fitting.cloned() else {
                tracing::debug!(message = message.id, "no rule fits");
                continue;
            };
            for (index, action) in rule.actions.iter().enumerate() {
                if let Some(end) = self.act(message, index, action).await {
                    return end;
                }
            }
        }
        TurnEnd::Completed
    }

    /// Carries out one action; some end the turn.
    async fn act(&mut self, message: &Message, index: usize, action: &ScriptAction) -> Option<TurnEnd> {
        let id = format!("m{}-{index}", message.id);
        match action {
            ScriptAction::Reply(body) => self.send(message, reply(message, body, id)).await,
            ScriptAction::Send(send) => {
                let request = SendRequest {
                    to: send.to.clone(),
                    kind: MessageKind::Message,
                    body: send.body.clone(),
                    reply_to: None,
                    dedupe: Some(id),
                };
                self.send(message, request).await;
            }
            ScriptAction::Ask(question) => {
                let request = SendRequest {
                    to: Address::Operator,
                    kind: MessageKind::Question,
                    body: question.clone(),
                    reply_to: None,
                    dedupe: Some(id),
                };
                self.send(message, request).await;
            }
            ScriptAction::Propose(change) => self.propose(message, &id, change).await,
            ScriptAction::Sleep(millis) => tokio::time::sleep(Duration::from_millis(*millis)).await,
            ScriptAction::Use(tokens) => self.used(*tokens).await,
            ScriptAction::Crash(status) => return Some(TurnEnd::ExitHarness(*status)),
            ScriptAction::Hang(true) => std::future::pending().await,
            ScriptAction::Hang(false) => {}
        }
        None
    }

    /// Sends. A refusal does not end the turn, since the next turn would meet it too; the one who caused the message
    /// is told instead.
    async fn send(&self, cause: &Message, request: SendRequest) {
        let Err(refused) = self.deliver(&request).await else {
            return;
        };
        let refused = crate::error_chain(&refused);
        self.notice(format!("message to {} not sent: {refused}", request.to))
            .await;
        if request.to != cause.from {
            let body = format!("I could not write to {}: {refused}", request.to);
            self.tell_refusal(cause, &body, request.dedupe.as_deref().unwrap_or_default())
                .await;
        }
    }

    async fn propose(&self, cause: &Message, id: &str, change: &ScriptPropose) {
        let Scripted { client, repo, .. } = &self.driver;
        match repo.propose(client, &self.agent, change, cause.at).await {
            Ok(info) => {
                self.notice(format!("proposal {} sent", info.number)).await;
            }
            // So it is when a turn is carried out once more whose proposal is deployed: nobody needs to be told.
            Err(error @ ProposeError::NothingChanged) => {
                self.notice(format!("nothing proposed: {error}")).await;
            }
            Err(error) => {
                let error = crate::error_chain(&error);
                self.notice(format!("nothing proposed: {error}")).await;
                let title = crate::tame(&change.title, 200);
                self.tell_refusal(cause, &format!("I could not propose {title:?}: {error}"), id)
                    .await;
            }
        }
    }

    async fn tell_refusal(&self, cause: &Message, body: &str, id: &str) {
        let request = SendRequest {
            kind: MessageKind::Message,
            ..reply(cause, body, format!("{id}-refused"))
        };
        if let Err(error) = self.deliver(&request).await {
            self.notice(format!("{} not told about a refusal: {error}", cause.from))
                .await;
        }
    }

    /// Waits while the daemon is away. Nobody writes to `system`, which reads nothing.
    async fn deliver(&self, request: &SendRequest) -> Result<(), ClientError> {
        if request.to != Address::System {
            until_answered(|| self.driver.client.send(request)).await?;
        }
        Ok(())
    }

    async fn used(&mut self, tokens: u64) {
        self.used.output = self.used.output.saturating_add(tokens);
        let used = Used {
            tokens: self.used,
            ..Used::default()
        };
        if self.events.send(TurnEvent::Used(used)).await.is_err() {
            tracing::debug!("nobody listens to the turn any more");
        }
    }

    async fn notice(&self, text: String) {
        if self.events.send(TurnEvent::Notice(text)).await.is_err() {
            tracing::debug!("nobody listens to the turn any more");
        }
    }
}

/// An answer to a question, else a message.
fn reply(message: &Message, body: &str, id: String) -> SendRequest {
    SendRequest {
        to: message.from.clone(),
        kind: match message.kind {
            MessageKind::Question => MessageKind::Answer,
            MessageKind::Message | MessageKind::Answer | MessageKind::System | MessageKind::Unknown => {
                MessageKind::Message
            }
        },
        body: body.to_owned(),
        reply_to: Some(message.id),
        dedupe: Some(id),
    }
}
