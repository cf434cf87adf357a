//! Drafts, at both doors: the same handlers serve a manager at its own door and the operator at the admin door. Who
//! asks is the door's to say.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use shared::AgentName;
use shared::draft::{DraftInfo, DraftRequest, MAX_FILE_BYTES, OfferRequest, SpawnRequest, StatePath};
use shared::wire_error::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Context;
use super::admin::{by, parsed};
use super::agent::{AgentContext, transfers as agent};
use super::endpoint::{Endpoint, delete, get, group, post, put};
use super::error::{ApiError, ApiResult};
use super::peer::Peer;
use crate::control::drafts::Asking;

/// How long sending a file may take.
const UPLOAD_WITHIN: Duration = Duration::from_secs(60);

/// Where somebody asks, and who.
pub(super) struct Door {
    context: Context,
    who: Asking,
    /// The right to one transfer; the operator needs none.
    transfers: Option<Arc<Semaphore>>,
}

impl FromRequestParts<()> for Door {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &()) -> Result<Self, ApiError> {
        let door = AgentContext::from_request_parts(parts, state).await?;
        Ok(Self {
            context: door.context.clone(),
            who: Asking::Agent(door.agent.clone()),
            transfers: Some(door.transfers()),
        })
    }
}

impl FromRequestParts<Context> for Door {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, ApiError> {
        let peer = ConnectInfo::<Peer>::from_request_parts(parts, context).await;
        let ConnectInfo(peer) =
            peer.map_err(|error| ApiError::new(ErrorCode::Forbidden, error.to_string()))?;
        Ok(Self {
            context: context.clone(),
            who: Asking::Operator(by(peer).await?),
            transfers: None,
        })
    }
}

impl Door {
    fn transfer(&self) -> ApiResult<Option<OwnedSemaphorePermit>> {
        self.transfers.as_ref().map(agent::transfer).transpose()
    }
}

/// The group of these endpoints.
pub(super) const TAG: (&str, &str) = ("drafts", "Prepare agents that no spec declares, and offer them");

/// How any of them may refuse.
const REFUSALS: [ErrorCode; 5] = [
    ErrorCode::Forbidden,
    ErrorCode::NotFound,
    ErrorCode::Conflict,
    ErrorCode::TooLarge,
    ErrorCode::Exhausted,
];

/// The endpoints, for either door.
pub(super) fn endpoints<S>() -> impl Iterator<Item = Endpoint<S>>
where
    S: Clone + Send + Sync + 'static,
    Door: FromRequestParts<S, Rejection = ApiError>,
{
    let all = [
        post(
            "/v1/spawn",
            spawn,
            "spawn",
            "Make a draft with config and files, and offer it at once",
        )
        .takes::<SpawnRequest>()
        .answers::<DraftInfo>(),
        get("/v1/drafts", list, "drafts", "The drafts, by name").answers::<Vec<DraftInfo>>(),
        post("/v1/drafts", make, "makeDraft", "Begin a draft")
            .takes::<DraftRequest>()
            .answers::<DraftInfo>(),
        get("/v1/drafts/{name}", one, "draft", "One draft").answers::<DraftInfo>(),
        delete(
            "/v1/drafts/{name}",
            give_up,
            "giveUpDraft",
            "Give a draft up; nothing of it is kept",
        ),
        post(
            "/v1/drafts/{name}/commit",
            offer,
            "offerDraft",
            "Offer a draft to the operator",
        )
        .takes::<OfferRequest>()
        .answers::<DraftInfo>(),
        get(
            "/v1/drafts/{name}/bundle",
            bundle,
            "draftBundle",
            "A git bundle of the draft's config repo",
        )
        .answers_with("application/octet-stream", "A git bundle"),
        post(
            "/v1/drafts/{name}/bundle",
            commit,
            "commitDraft",
            "Set the draft's config",
        )
        .takes_stream(
            "A git bundle with one ref, whose commit lies on top of the seed; at most 33554432 bytes.",
        )
        .answers::<DraftInfo>(),
        put(
            "/v1/drafts/{name}/files/{*path}",
            stage,
            "stageFile",
            "Stage a file that is laid down in `/state`",
        )
        .takes_stream("The file; at most 1048576 bytes.")
        .answers::<DraftInfo>(),
        get(
            "/v1/drafts/{name}/files/{*path}",
            staged,
            "stagedFile",
            "A staged file",
        )
        .answers_with("application/octet-stream", "The file"),
        delete(
            "/v1/drafts/{name}/files/{*path}",
            unstage,
            "unstageFile",
            "Take a staged file away",
        )
        .answers::<DraftInfo>(),
    ];
    group(TAG.0, all.map(|endpoint| endpoint.refuses(REFUSALS)))
}

fn named(name: &str) -> ApiResult<AgentName> {
    parsed(name, "an agent's name")
}

/// The rule that a path breaks is worth more than that it breaks one.
fn path_of(text: &str) -> ApiResult<StatePath> {
    text.parse()
        .map_err(|error: shared::draft::InvalidPath| ApiError::new(ErrorCode::BadRequest, error.to_string()))
}

async fn spawn(door: Door, Json(request): Json<SpawnRequest>) -> ApiResult<Json<DraftInfo>> {
    let _transfer = door.transfer()?;
    Ok(Json(door.context.reconciler.spawn(door.who, request).await?))
}

async fn make(door: Door, Json(request): Json<DraftRequest>) -> ApiResult<Json<DraftInfo>> {
    Ok(Json(
        door.context
            .reconciler
            .make_draft(door.who, &request.name)
            .await?,
    ))
}

async fn list(door: Door) -> ApiResult<Json<Vec<DraftInfo>>> {
    Ok(Json(door.context.reconciler.list_drafts(door.who).await?))
}

async fn one(door: Door, Path(name): Path<String>) -> ApiResult<Json<DraftInfo>> {
    let name = named(&name)?;
    Ok(Json(door.context.reconciler.draft(door.who, &name).await?))
}

async fn give_up(door: Door, Path(name): Path<String>) -> ApiResult<StatusCode> {
    let name = named(&name)?;
    door.context.reconciler.give_up(door.who, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn offer(
    door: Door,
    Path(name): Path<String>,
    Json(request): Json<OfferRequest>,
) -> ApiResult<Json<DraftInfo>> {
    let name = named(&name)?;
    Ok(Json(
        door.context
            .reconciler
            .offer(door.who, &name, &request.reason)
            .await?,
    ))
}

async fn stage(
    door: Door,
    Path((name, path)): Path<(String, String)>,
    body: Body,
) -> ApiResult<Json<DraftInfo>> {
    let _transfer = door.transfer()?;
    let (name, path) = (named(&name)?, path_of(&path)?);
    // Asked first: what is refused anyway is not worth a megabyte of memory.
    door.context.reconciler.draft(door.who.clone(), &name).await?;
    let received = tokio::time::timeout(UPLOAD_WITHIN, to_bytes(body, MAX_FILE_BYTES + 1)).await;
    let received = received.map_err(|_| {
        let message = format!("the file did not arrive within {} s", UPLOAD_WITHIN.as_secs());
        ApiError::new(ErrorCode::BadRequest, message)
    })?;
    let bytes = received.map_err(|error| {
        let message = format!("the file has more than {MAX_FILE_BYTES} bytes, or broke off: {error}");
        ApiError::new(ErrorCode::TooLarge, message)
    })?;
    let reconciler = &door.context.reconciler;
    Ok(Json(
        reconciler.stage(door.who, &name, path, bytes.to_vec()).await?,
    ))
}

async fn staged(door: Door, Path((name, path)): Path<(String, String)>) -> ApiResult<Response> {
    let _transfer = door.transfer()?;
    let (name, path) = (named(&name)?, path_of(&path)?);
    let bytes = door.context.reconciler.staged(door.who, &name, &path).await?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

async fn unstage(door: Door, Path((name, path)): Path<(String, String)>) -> ApiResult<Json<DraftInfo>> {
    let (name, path) = (named(&name)?, path_of(&path)?);
    Ok(Json(
        door.context.reconciler.unstage(door.who, &name, path).await?,
    ))
}

async fn bundle(door: Door, Path(name): Path<String>) -> ApiResult<Response> {
    let permit = door.transfer()?;
    let name = named(&name)?;
    door.context.reconciler.draft_seed(door.who, &name).await?;
    agent::exported(&door.context, &name, permit).await
}

async fn commit(door: Door, Path(name): Path<String>, body: Body) -> ApiResult<Json<DraftInfo>> {
    let _transfer = door.transfer()?;
    let name = named(&name)?;
    let reconciler = &door.context.reconciler;
    let seed = reconciler.draft_seed(door.who.clone(), &name).await?;
    let imported = agent::imported(&door.context, &name, &seed, body).await?;
    Ok(Json(
        reconciler
            .set_draft_commit(door.who, &name, imported.commit)
            .await?,
    ))
}
