//! An agent's door. See [`shared::agent_api`] for the table of routes. Everything that comes in here is untrusted;
//! who it comes from is the name this door was opened for.

mod allowance;
mod events;
mod login;
mod messages;
mod report;
pub(super) mod transfers;
mod turns;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request};
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use futures_util::StreamExt as _;
use shared::agent_api::{
    AckRequest, MAX_BODY_BYTES, MAX_WAIT_SECS, PollRequest, PollResponse, ProposalInfo, RecvRequest,
    RecvResponse,
};
use shared::status::TurnState;
use shared::version::{AGENT_API, AGENT_API_HEADER, agent_api_accepts};
use shared::wire_error::ErrorCode;
use shared::{AgentName, Digest, TurnId};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::allowance::Allowance;
pub use self::transfers::MAX_TRANSFERS;
use super::error::{ApiError, ApiResult, in_one_shape};
use super::{Context, endpoint};
use crate::broker::instructions::Instructions;
use crate::broker::{Ask, Batch, Turns};
use crate::control::Key;
use crate::host::Announcement;
use crate::host::harness_link::{Heard, Link};

pub(super) mod routes;

/// The largest request besides a bundle; a message of the largest size fits however it is escaped.
pub(super) const MAX_REQUEST: usize = MAX_BODY_BYTES * 6 + 4096;
/// A harness that does not take up what it was told is told again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// Another day or another spec may allow an agent what it had not: that is looked at so often.
const LOOK_AT_BUDGET: Duration = Duration::from_secs(30);
/// How long a message waits for a deployment to be laid down, so that the turn which reads of it has what it brings.
const LAID_DOWN_WITHIN: Duration = Duration::from_secs(5);

/// How long the body of a request may take, besides that of a bundle.
const BODY_WITHIN: Duration = Duration::from_secs(20);

/// What an agent's handlers work with.
#[derive(Clone)]
pub struct AgentContext {
    /// What all handlers work with.
    pub context: Context,
    /// Whose door this is.
    pub agent: AgentName,
    /// The right to one transfer of a bundle: each costs memory, disk and a git program.
    pub(super) transfers: Arc<Semaphore>,
    allowance: Arc<Mutex<Allowance>>,
    /// Of its own: what an agent sends must not keep its turns from being counted.
    turns: Arc<Mutex<Allowance>>,
    /// The turn that gave its messages back last, who had woken it, and how many they were: its row is told of later.
    given_back: Arc<Mutex<Option<GivenBack>>>,
}

type GivenBack = (TurnId, Vec<String>, u64);

impl Turns for Link {
    fn goes_on(&self, agent: &AgentName, turn: TurnId) -> bool {
        Self::goes_on(self, agent, turn)
    }

    fn end(&self, agent: &AgentName, turn: TurnId) {
        self.end_turn(agent, turn);
    }
}

impl AgentContext {
    /// A door of this agent, at which nothing goes on yet.
    pub fn new(context: Context, agent: AgentName) -> Self {
        let now = context.reconciler.host().clock.now();
        let broker = context.broker.knowing(Arc::clone(&context.link) as _);
        Self {
            context: Context { broker, ..context },
            agent,
            transfers: Arc::new(Semaphore::new(MAX_TRANSFERS)),
            allowance: Arc::new(Mutex::new(Allowance::new(now))),
            turns: Arc::new(Mutex::new(Allowance::new(now))),
            given_back: Arc::default(),
        }
    }

    /// Takes from the allowance what a text costs that is kept this many times.
    ///
    /// # Errors
    /// When that is more than is left.
    pub(super) fn spend(&self, bytes: usize, copies: usize, to_operator: bool) -> ApiResult<()> {
        let now = self.context.reconciler.host().clock.now();
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        allowance
            .take_all(bytes, copies, to_operator, now)
            .map_err(|secs| {
                let message = format!("{} has sent more than it may: wait {secs} s", self.agent);
                ApiError::new(ErrorCode::Exhausted, message)
            })
    }

    /// Takes from the allowance for turns what so many bytes about one cost. A harness that is refused keeps what it
    /// has to tell, and waits.
    ///
    /// # Errors
    /// When that is more than is left.
    pub(super) fn spend_on_turn(&self, bytes: usize) -> ApiResult<()> {
        let now = self.context.reconciler.host().clock.now();
        let mut allowance = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        allowance.take_all(bytes, 1, false, now).map_err(|secs| {
            let message = format!("{} has more turns than it may: wait {secs} s", self.agent);
            ApiError::new(ErrorCode::Exhausted, message)
        })
    }

    fn given_back(&self) -> MutexGuard<'_, Option<GivenBack>> {
        self.given_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to transfers.
    pub(super) fn transfers(&self) -> Arc<Semaphore> {
        Arc::clone(&self.transfers)
    }
}

impl<S: Sync> FromRequestParts<S> for AgentContext {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Put there by the door that the request came through, and by nothing else.
        parts.extensions.get().cloned().ok_or_else(|| {
            ApiError::new(
                ErrorCode::Forbidden,
                "this route is an agent's, and this is no agent's door",
            )
        })
    }
}

/// The router behind every agent's door. Whose door it is, each request carries with it as an [`AgentContext`].
pub fn router() -> Router {
    // A bundle or a staged file is read as a stream, and counted and timed there.
    let (streams, documents) = routes::endpoints()
        .into_iter()
        .partition(endpoint::Endpoint::takes_bytes);
    endpoint::router(documents)
        .fallback(nothing)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(whole_body))
        .merge(endpoint::router(streams))
        .layer(middleware::map_response(in_one_shape))
        .layer(middleware::from_fn(versions))
}

async fn openapi() -> Json<&'static serde_json::Value> {
    Json(super::openapi::agent())
}

async fn nothing() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "the agent API has no such route")
}

/// Both sides name their version; a harness too old or too new is told so.
async fn versions(request: Request, next: Next) -> Response {
    let theirs = request
        .headers()
        .get(AGENT_API_HEADER)
        .and_then(|v| v.to_str().ok()?.parse().ok());
    let mut response = match theirs {
        Some(version) if !agent_api_accepts(version) => {
            let message = format!("this daemon speaks version {AGENT_API} of the agent API, not {version}");
            ApiError::new(ErrorCode::BadRequest, message)
                .hint("restart the agent with this daemon's harness")
                .into_response()
        }
        _ => next.run(request).await,
    };
    response.headers_mut().insert(
        HeaderName::from_static(AGENT_API_HEADER),
        HeaderValue::from(AGENT_API),
    );
    response
}

/// Handlers get the whole body, which is small and came in time, or are not called.
async fn whole_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let read = tokio::time::timeout(BODY_WITHIN, collect(&parts.headers, body)).await;
    let read = read.unwrap_or_else(|_| {
        let message = format!("the request did not arrive within {} s", BODY_WITHIN.as_secs());
        Err(ApiError::new(ErrorCode::BadRequest, message))
    });
    match read {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(error) => error.into_response(),
    }
}

async fn collect(headers: &HeaderMap, body: Body) -> ApiResult<Vec<u8>> {
    let too_large = || {
        let message = format!("the request is larger than {MAX_REQUEST} bytes");
        Err(ApiError::new(ErrorCode::TooLarge, message))
    };
    if stated_length(headers).is_some_and(|length| length > MAX_REQUEST as u64) {
        return too_large();
    }
    let mut whole = Vec::new();
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, format!("the request broke off: {error}"))
        })?;
        if whole.len() + chunk.len() > MAX_REQUEST {
            return too_large();
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

/// What a request says about the length of its body.
fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn wait_until(secs: u32) -> Instant {
    Instant::now() + Duration::from_secs(u64::from(secs.min(MAX_WAIT_SECS)))
}

async fn poll(door: AgentContext, Json(request): Json<PollRequest>) -> ApiResult<Json<PollResponse>> {
    let AgentContext {
        mut context, agent, ..
    } = door;
    let report = report::bounded(request.report)?;
    let heard = context.link.report(&agent, report.clone());
    if heard == Heard::NewRun {
        // The run before it is over: what its turns held is delivered again.
        let now = context.reconciler.host().clock.now();
        context.broker.release_all_but(&agent, report.lease, now).await?;
        context.link.settled(&agent, &report.run_id);
    }
    if heard != Heard::Nothing {
        context.reconciler.nudge(Key::Agent(agent.clone()));
    }
    let mut told = context.link.listen(&agent);
    let mut logins = context.link.login_orders(&agent);
    let mut inbox = context.broker.subscribe(&agent);
    let until = wait_until(request.wait_secs);
    // Told at once the first time, then only every few seconds: a harness that cannot follow must not spin.
    let link = &context.link;
    let mut grace = link.is_news(&agent, &report.run_id) || link.is_new_order(&agent, &report.run_id);
    loop {
        let announcement = told.borrow_and_update().clone();
        inbox.borrow_and_update();
        let login = logins.borrow_and_update().clone();
        let unheeded = login
            .as_ref()
            .is_some_and(|order| !order.is_heeded(report.login.as_ref()));
        let queued = context.broker.queued(&agent).await?;
        let Announcement {
            config,
            paused,
            model,
        } = announcement.clone();
        let Instructions {
            pending: instructions,
            conversation,
        } = context
            .broker
            .instructions(&agent, report.instructed, context.reconciler.host().clock.now())
            .await?;
        let last_instruction = instructions.last().map_or(0, |instruction| instruction.id);
        let another_instruction =
            context
                .link
                .is_another_instruction(&agent, &report.run_id, last_instruction);
        // What a turn that runs may use is said when it tells what it uses.
        let over_budget = !report.turn.is_busy() && turns::over_budget(&context, &agent).await?;
        // A message may end a nap; whether it does is for the agent to say.
        let can_work = matches!(report.turn, TurnState::Idle | TurnState::Napping)
            && report.lease.is_none()
            && report.config_error.is_none()
            && !paused
            && !over_budget;
        let differs = config.is_some() && config != report.config
            || paused != (report.turn == TurnState::Paused)
            || !paused && !report.turn.is_busy() && over_budget != (report.turn == TurnState::OverBudget)
            || unheeded;
        let now = Instant::now();
        let another_model = context.link.is_another_model(&agent, &report.run_id);
        // Nobody waits longer than needed for what the operator has just allowed.
        let allowed_again = !paused && !over_budget && report.turn == TurnState::OverBudget;
        let wakes = queued > 0 && can_work;
        let settled_at = if wakes {
            let rest = unsettled(&context, &agent, config.as_ref()).await?;
            now + rest.unwrap_or_default()
        } else {
            now
        };
        if wakes && now >= settled_at
            || allowed_again
            || another_instruction
            || differs && grace
            || another_model
            || now >= until
            || *context.shutdown.borrow()
        {
            context.link.told(&agent, &report.run_id, announcement);
            context.link.told_login(&agent, &report.run_id, login.clone());
            context
                .link
                .told_instruction(&agent, &report.run_id, last_instruction);
            return Ok(Json(PollResponse {
                // Nothing is handed out that no turn may be taken for.
                inbox: if over_budget { 0 } else { queued },
                config,
                paused,
                model,
                over_budget,
                login,
                instructions,
                conversation,
            }));
        }
        let again = match (differs, over_budget) {
            (true, _) => until.min(now + TELL_AGAIN),
            (false, true) => until.min(now + LOOK_AT_BUDGET),
            (false, false) => until,
        };
        let again = if wakes { again.min(settled_at) } else { again };
        tokio::select! {
            changed = told.changed() => grace = changed.is_ok(),
            changed = logins.changed() => grace = changed.is_ok(),
            _ = inbox.changed() => {}
            _ = context.shutdown.wait_for(|end| *end) => {}
            () = tokio::time::sleep_until(again) => grace = true,
        }
    }
}

/// How long the files of what was deployed just now may still be being written; nothing once they are announced.
async fn unsettled(
    context: &Context,
    agent: &AgentName,
    announced: Option<&Digest>,
) -> ApiResult<Option<Duration>> {
    let Some(announced) = announced else {
        return Ok(None);
    };
    let record = context.reconciler.ledger().record(agent).await?;
    let deployed = record.and_then(|record| record.deployed);
    let new = deployed.filter(|deployed| deployed.output.config_digest != *announced);
    let age = new.map(|deployed| context.reconciler.host().clock.now().duration_since(deployed.at));
    // One of the future was deployed before the clock was set: nothing is known of its age.
    let age = age.and_then(|age| Duration::try_from(age).ok());
    Ok(age.and_then(|age| LAID_DOWN_WITHIN.checked_sub(age)))
}

async fn recv(door: AgentContext, Json(request): Json<RecvRequest>) -> ApiResult<Json<RecvResponse>> {
    let AgentContext {
        mut context, agent, ..
    } = door;
    let RecvRequest {
        turn,
        max,
        wait_secs,
        received,
    } = request;
    let ask = Ask {
        turn,
        received,
        max,
        at: context.reconciler.host().clock.now(),
    };
    turns::may_receive(&context, &agent, turn).await?;
    let until = wait_until(wait_secs);
    let batch = if wait_secs == 0 {
        context.broker.recv(&agent, ask).await?
    } else {
        let (batch, mut wait) = context.broker.recv_or_wait(&agent, ask).await?;
        if batch.messages.is_empty() {
            tokio::select! {
                biased;
                batch = &mut wait => batch.unwrap_or_default(),
                _ = context.shutdown.wait_for(|end| *end) => Batch::default(),
                () = tokio::time::sleep_until(until) => {
                    // What came in this very moment is leased already.
                    wait.close();
                    wait.try_recv().unwrap_or_default()
                }
            }
        } else {
            batch
        }
    };
    Ok(Json(RecvResponse {
        batch: batch.number,
        messages: batch.messages,
    }))
}

async fn ack(door: AgentContext, Json(request): Json<AckRequest>) -> ApiResult<StatusCode> {
    let AgentContext { context, agent, .. } = &door;
    let AckRequest { turn, done, received } = request;
    if done {
        context.broker.ack(agent, turn, received).await?;
    } else {
        let (woken_by, messages) = context.broker.wakers_of(agent, turn).await?;
        if messages > 0 {
            *door.given_back() = Some((turn, woken_by, messages));
        }
        let now = context.reconciler.host().clock.now();
        context.broker.release(agent, turn, received, now).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn proposals(door: AgentContext) -> ApiResult<Json<Vec<ProposalInfo>>> {
    Ok(Json(door.context.reconciler.proposals(&door.agent).await?))
}

#[cfg(test)]
mod tests;
