//! An agent's door. See [`shared::agent_api`] for the table of routes. Everything that comes in here is untrusted;
//! who it comes from is the name this door was opened for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use camino::Utf8PathBuf;
use futures_util::StreamExt as _;
use shared::agent_api::{
    AckRequest, MAX_BODY_BYTES, MAX_BUNDLE_BYTES, MAX_WAIT_SECS, MessageKind, PollRequest, PollResponse,
    ProposalInfo, RecvRequest, RecvResponse, SendRequest, SendResponse,
};
use shared::gate::Asker;
use shared::spec::Role;
use shared::status::TurnState;
use shared::version::{AGENT_API, AGENT_API_HEADER, agent_api_accepts};
use shared::wire_error::ErrorCode;
use shared::{Address, AgentName};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Context;
use super::error::{ApiError, ApiResult, in_one_shape};
use crate::broker::Outgoing;
use crate::control::Key;
use crate::host::HostError;
use crate::host::harness_link::{Announcement, Heard};

/// The largest request besides a bundle; a message of the largest size fits however it is escaped.
const MAX_REQUEST: usize = MAX_BODY_BYTES * 6 + 4096;
/// A harness that does not take up what it was told is told again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// How many bundles one agent may send or fetch at once.
pub const MAX_TRANSFERS: usize = 2;
/// How long sending a bundle may take.
const UPLOAD_WITHIN: Duration = Duration::from_secs(60);

/// What an agent's handlers work with.
#[derive(Clone)]
pub struct AgentContext {
    /// What all handlers work with.
    pub context: Context,
    /// Whose door this is.
    pub agent: AgentName,
    /// The right to one transfer of a bundle: each costs memory, disk and a git program.
    pub transfers: Arc<Semaphore>,
}

/// The routes.
pub fn router(context: AgentContext) -> Router {
    Router::new()
        .route("/v1/poll", post(poll))
        .route("/v1/recv", post(recv))
        .route("/v1/ack", post(ack))
        .route("/v1/send", post(send))
        .route("/v1/repo/bundle", get(bundle))
        .route("/v1/proposals", get(proposals))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        // The bundle is read as a stream and counted there.
        .route("/v1/proposals", post(propose).layer(DefaultBodyLimit::disable()))
        .fallback(nothing)
        .layer(middleware::map_response(in_one_shape))
        .layer(middleware::from_fn(versions))
        .with_state(context)
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

fn wait_until(secs: u32) -> Instant {
    Instant::now() + Duration::from_secs(u64::from(secs.min(MAX_WAIT_SECS)))
}

async fn poll(
    State(door): State<AgentContext>,
    Json(request): Json<PollRequest>,
) -> ApiResult<Json<PollResponse>> {
    let AgentContext {
        mut context, agent, ..
    } = door;
    let report = request.report;
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
    let mut inbox = context.broker.subscribe(&agent);
    let until = wait_until(request.wait_secs);
    // Told at once the first time, then only every few seconds: a harness that cannot follow must not spin.
    let mut grace = context.link.is_news(&agent, &report.run_id);
    loop {
        let announcement = told.borrow_and_update().clone();
        inbox.borrow_and_update();
        let queued = context.broker.queued(&agent).await?;
        let Announcement { config, paused } = announcement.clone();
        let can_work = report.turn == TurnState::Idle
            && report.lease.is_none()
            && report.config_error.is_none()
            && !paused;
        let differs =
            config.is_some() && config != report.config || paused != (report.turn == TurnState::Paused);
        let now = Instant::now();
        if queued > 0 && can_work || differs && grace || now >= until || *context.shutdown.borrow() {
            context.link.told(&agent, &report.run_id, announcement);
            return Ok(Json(PollResponse {
                inbox: queued,
                config,
                paused,
            }));
        }
        let again = if differs {
            until.min(now + TELL_AGAIN)
        } else {
            until
        };
        tokio::select! {
            changed = told.changed() => grace = changed.is_ok(),
            _ = inbox.changed() => {}
            _ = context.shutdown.wait_for(|end| *end) => {}
            () = tokio::time::sleep_until(again) => grace = true,
        }
    }
}

async fn recv(
    State(door): State<AgentContext>,
    Json(request): Json<RecvRequest>,
) -> ApiResult<Json<RecvResponse>> {
    let AgentContext {
        mut context, agent, ..
    } = door;
    let mut inbox = context.broker.subscribe(&agent);
    let until = wait_until(request.wait_secs);
    loop {
        inbox.borrow_and_update();
        let now = context.reconciler.host().clock.now();
        let messages = context
            .broker
            .recv(&agent, request.turn, request.max, now)
            .await?;
        if !messages.is_empty() || Instant::now() >= until || *context.shutdown.borrow() {
            return Ok(Json(RecvResponse { messages }));
        }
        tokio::select! {
            _ = inbox.changed() => {}
            _ = context.shutdown.wait_for(|end| *end) => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

async fn ack(State(door): State<AgentContext>, Json(request): Json<AckRequest>) -> ApiResult<StatusCode> {
    let AgentContext { context, agent, .. } = door;
    if request.done {
        context.broker.ack(&agent, request.turn).await?;
    } else {
        let now = context.reconciler.host().clock.now();
        context.broker.release(&agent, request.turn, now).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn send(
    State(door): State<AgentContext>,
    Json(request): Json<SendRequest>,
) -> ApiResult<Json<SendResponse>> {
    let AgentContext { context, agent, .. } = door;
    let SendRequest {
        to,
        kind,
        body,
        reply_to,
        dedupe,
    } = request;
    if !matches!(
        kind,
        MessageKind::Message | MessageKind::Question | MessageKind::Answer
    ) {
        let message = "send messages of kind message, question or answer";
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    if !may_write(&context, &agent, &to, reply_to).await? {
        let message = format!("{agent} may not write to {to}");
        return Err(
            ApiError::new(ErrorCode::Forbidden, message).hint("its `recipients` name whom it may write to")
        );
    }
    let now = context.reconciler.host().clock.now();
    let from = Address::Agent(agent.clone());
    let sent = context
        .broker
        .send(
            Outgoing {
                from,
                to,
                kind,
                body,
                reply_to,
                dedupe,
            },
            now,
        )
        .await?;
    Ok(Json(sent))
}

/// The allow-list, a manager, or whoever asked: those an agent may write to. What is deployed decides, as the ledger
/// has it: what the last pass saw may be older, and a daemon that has just started has seen nothing.
async fn may_write(
    context: &Context,
    agent: &AgentName,
    to: &Address,
    reply_to: Option<u64>,
) -> ApiResult<bool> {
    let ledger = context.reconciler.ledger();
    let deployed = ledger.record(agent).await?.and_then(|record| record.deployed);
    // Without a deployment nobody has allowed anything yet.
    let listed = deployed.map_or_else(|| Some(BTreeSet::new()), |d| d.output.config.recipients);
    let Some(listed) = listed else { return Ok(true) };
    if listed.contains(to) || is_manager(context, to).await? {
        return Ok(true);
    }
    match reply_to {
        Some(id) => Ok(context.broker.asked_by(agent, id).await?.as_ref() == Some(to)),
        None => Ok(false),
    }
}

async fn is_manager(context: &Context, to: &Address) -> ApiResult<bool> {
    let Address::Agent(name) = to else {
        return Ok(false);
    };
    let record = context.reconciler.ledger().record(name).await?;
    let role = record
        .and_then(|record| record.deployed)
        .map(|d| d.output.config.role);
    Ok(role == Some(Role::Manager))
}

async fn bundle(State(door): State<AgentContext>) -> ApiResult<Response> {
    let _transfer = transfer(&door.transfers)?;
    let AgentContext { context, agent, .. } = door;
    let repos = &context.reconciler.host().repos;
    let file = incoming(&context, &agent, "out").await?;
    let exported = repos.export(&agent, &file.0).await;
    let read = match exported {
        Ok(()) => tokio::task::spawn_blocking({
            let path = file.0.clone();
            move || std::fs::read(&path).map_err(HostError::io("read", path.as_str()))
        })
        .await
        .unwrap_or_else(|error| Err(HostError::failed(agent.as_str(), error.to_string()))),
        Err(error) => Err(error),
    };
    Ok(([(CONTENT_TYPE, "application/octet-stream")], read?).into_response())
}

async fn proposals(State(door): State<AgentContext>) -> ApiResult<Json<Vec<ProposalInfo>>> {
    Ok(Json(door.context.reconciler.proposals(&door.agent).await?))
}

async fn propose(
    State(door): State<AgentContext>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<ProposalInfo>> {
    let _transfer = transfer(&door.transfers)?;
    let AgentContext { context, agent, .. } = door;
    let length: Option<u64> = headers
        .get("content-length")
        .and_then(|v| v.to_str().ok()?.parse().ok());
    if length.is_some_and(|length| length > MAX_BUNDLE_BYTES) {
        return Err(too_large());
    }
    let ledger = context.reconciler.ledger().agent(&agent).await?;
    let main = ledger.as_ref().and_then(|ledger| ledger.record.main().cloned());
    let Some(main) = main else {
        let message = format!("{agent} has no config repo yet");
        return Err(ApiError::new(ErrorCode::Unavailable, message).hint("try again in a moment"));
    };
    let file = incoming(&context, &agent, "in").await?;
    let received = tokio::time::timeout(UPLOAD_WITHIN, receive(&file.0, body)).await;
    received.map_err(|_| {
        let message = format!("the bundle did not arrive within {} s", UPLOAD_WITHIN.as_secs());
        ApiError::new(ErrorCode::BadRequest, message)
    })??;
    let imported = context
        .reconciler
        .host()
        .repos
        .import(&agent, &file.0, &main)
        .await?;
    Ok(Json(
        context.reconciler.propose(&agent, imported, Asker::Agent).await?,
    ))
}

/// The right to a transfer, or a refusal: an agent that sends many at once waits for its own.
fn transfer(transfers: &Arc<Semaphore>) -> ApiResult<OwnedSemaphorePermit> {
    Arc::clone(transfers).try_acquire_owned().map_err(|_| {
        let message = format!("{MAX_TRANSFERS} bundles of this agent are under way already");
        ApiError::new(ErrorCode::Unavailable, message).hint("try again when one of them is done")
    })
}

fn too_large() -> ApiError {
    let message = format!("the bundle is larger than {MAX_BUNDLE_BYTES} bytes");
    ApiError::new(ErrorCode::TooLarge, message).hint("a config repo holds text: keep data in /state")
}

/// A file of a transfer, removed when the transfer is over.
struct Transfer(Utf8PathBuf);

impl Drop for Transfer {
    fn drop(&mut self) {
        // Not there when the transfer never began.
        let _gone = std::fs::remove_file(&self.0);
    }
}

async fn incoming(context: &Context, agent: &AgentName, kind: &str) -> ApiResult<Transfer> {
    let folder = context.layout.incoming();
    let name = format!("{agent}.{}.{kind}", context.reconciler.host().ids.agent_uid());
    let path = folder.join(name);
    let made = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&folder).map_err(HostError::io("make", folder.as_str()))
    });
    made.await
        .unwrap_or_else(|error| Err(HostError::failed("incoming", error.to_string())))?;
    Ok(Transfer(path))
}

/// Writes a body to a file, and gives up as soon as it is too large.
async fn receive(path: &Utf8PathBuf, body: Body) -> ApiResult<()> {
    let io = |error| ApiError::from(HostError::io("write", path.as_str())(error));
    let mut file = tokio::fs::File::create_new(path).await.map_err(io)?;
    let mut stream = body.into_data_stream();
    let mut total = 0_u64;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, format!("the bundle broke off: {error}"))
        })?;
        total += chunk.len() as u64;
        if total > MAX_BUNDLE_BYTES {
            return Err(too_large());
        }
        file.write_all(&chunk).await.map_err(io)?;
    }
    file.flush().await.map_err(io)
}

#[cfg(test)]
mod tests;
