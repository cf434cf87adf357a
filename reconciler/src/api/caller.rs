//! Who asks: an agent at its own door, or the operator at the admin door. The handlers that both doors have take this;
//! who asks is the door's to say.

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use jiff::Timestamp;
use shared::{Address, AgentName};
use tokio::sync::OwnedSemaphorePermit;

use super::Context;
use super::admin::{by, nobody_known};
use super::agent::{AgentContext, transfers};
use super::error::{ApiError, ApiResult};
use super::peer::Peer;
use crate::control::Reconciler;
use crate::control::drafts::Asking;

/// Who asks, and with what the answer is made.
pub(super) struct Caller {
    pub(super) context: Context,
    who: Who,
}

enum Who {
    /// At its own door, which has bounds.
    Agent(Box<AgentContext>),
    /// Whoever the kernel says is at the other end.
    Operator(Option<Peer>),
}

impl FromRequestParts<()> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &()) -> Result<Self, ApiError> {
        let door = AgentContext::from_request_parts(parts, state).await?;
        Ok(Self {
            context: door.context.clone(),
            who: Who::Agent(Box::new(door)),
        })
    }
}

impl FromRequestParts<Context> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>();
        Ok(Self {
            context: context.clone(),
            who: Who::Operator(peer.map(|ConnectInfo(peer)| *peer)),
        })
    }
}

impl Caller {
    /// The agent; `None` for the operator, who has no bounds.
    pub(super) fn agent(&self) -> Option<&AgentName> {
        match &self.who {
            Who::Agent(door) => Some(&door.agent),
            Who::Operator(_) => None,
        }
    }

    /// As whom it sends and receives.
    pub(super) fn address(&self) -> Address {
        self.agent().cloned().map_or(Address::Operator, Address::Agent)
    }

    /// Under which name it is kept what this one allows.
    pub(super) async fn author(&self) -> String {
        let person = match self.who {
            Who::Operator(Some(peer)) => peer.identity().await,
            Who::Operator(None) | Who::Agent(_) => None,
        };
        person.unwrap_or_else(|| self.address().to_string())
    }

    /// Who prepares drafts.
    ///
    /// # Errors
    /// When it is a person of whom the kernel does not say who that is.
    pub(super) async fn asking(&self) -> ApiResult<Asking> {
        Ok(match &self.who {
            Who::Agent(door) => Asking::Agent(door.agent.clone()),
            Who::Operator(peer) => Asking::Operator(by(peer.ok_or_else(nobody_known)?).await?),
        })
    }

    /// What carries out what it asks for.
    pub(super) fn reconciler(&self) -> &Reconciler {
        &self.context.reconciler
    }

    /// The time, by the daemon's clock.
    pub(super) fn now(&self) -> Timestamp {
        self.reconciler().host().clock.now()
    }

    /// Takes from an agent's allowance what a text costs that is kept this many times.
    ///
    /// # Errors
    /// When that is more than is left.
    pub(super) fn spend(&self, bytes: usize, copies: usize, to_operator: bool) -> ApiResult<()> {
        match &self.who {
            Who::Agent(door) => door.spend(bytes, copies, to_operator),
            Who::Operator(_) => Ok(()),
        }
    }

    /// The right to one transfer; the operator needs none.
    ///
    /// # Errors
    /// When the agent has as many under way as it may.
    pub(super) fn transfer(&self) -> ApiResult<Option<OwnedSemaphorePermit>> {
        match &self.who {
            Who::Agent(door) => transfers::transfer(&door.transfers()).map(Some),
            Who::Operator(_) => Ok(None),
        }
    }
}
