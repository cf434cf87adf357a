//! Drafts, at both doors: the same handlers serve a manager at its own door and the operator at the admin door.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use shared::AgentName;
use shared::draft::{DraftInfo, DraftRequest, MAX_FILE_BYTES, OfferRequest, SpawnRequest, StatePath};
use shared::wire_error::ErrorCode;

use super::admin::parsed;
use super::agent::transfers as agent;
use super::caller::Caller;
use super::endpoint::{Endpoint, delete, get, group, post, put};
use super::error::{ApiError, ApiResult};

/// How long sending a file may take.
const UPLOAD_WITHIN: Duration = Duration::from_secs(60);

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
    Caller: FromRequestParts<S, Rejection = ApiError>,
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

async fn spawn(caller: Caller, Json(request): Json<SpawnRequest>) -> ApiResult<Json<DraftInfo>> {
    let _transfer = caller.transfer()?;
    Ok(Json(
        caller.reconciler().spawn(caller.asking().await?, request).await?,
    ))
}

async fn make(caller: Caller, Json(request): Json<DraftRequest>) -> ApiResult<Json<DraftInfo>> {
    Ok(Json(
        caller
            .reconciler()
            .make_draft(caller.asking().await?, &request.name)
            .await?,
    ))
}

async fn list(caller: Caller) -> ApiResult<Json<Vec<DraftInfo>>> {
    Ok(Json(
        caller.reconciler().list_drafts(caller.asking().await?).await?,
    ))
}

async fn one(caller: Caller, Path(name): Path<String>) -> ApiResult<Json<DraftInfo>> {
    let name = named(&name)?;
    Ok(Json(
        caller.reconciler().draft(caller.asking().await?, &name).await?,
    ))
}

async fn give_up(caller: Caller, Path(name): Path<String>) -> ApiResult<StatusCode> {
    let name = named(&name)?;
    caller.reconciler().give_up(caller.asking().await?, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn offer(
    caller: Caller,
    Path(name): Path<String>,
    Json(request): Json<OfferRequest>,
) -> ApiResult<Json<DraftInfo>> {
    let name = named(&name)?;
    Ok(Json(
        caller
            .reconciler()
            .offer(caller.asking().await?, &name, &request.reason)
            .await?,
    ))
}

async fn stage(
    caller: Caller,
    Path((name, path)): Path<(String, String)>,
    body: Body,
) -> ApiResult<Json<DraftInfo>> {
    let _transfer = caller.transfer()?;
    let (name, path) = (named(&name)?, path_of(&path)?);
    // Asked first: what is refused anyway is not worth a megabyte of memory.
    let who = caller.asking().await?;
    caller.reconciler().draft(who.clone(), &name).await?;
    let received = tokio::time::timeout(UPLOAD_WITHIN, to_bytes(body, MAX_FILE_BYTES + 1)).await;
    let received = received.map_err(|_| {
        let message = format!("the file did not arrive within {} s", UPLOAD_WITHIN.as_secs());
        ApiError::new(ErrorCode::BadRequest, message)
    })?;
    let bytes = received.map_err(|error| {
        let message = format!("the file has more than {MAX_FILE_BYTES} bytes, or broke off: {error}");
        ApiError::new(ErrorCode::TooLarge, message)
    })?;
    let reconciler = caller.reconciler();
    Ok(Json(reconciler.stage(who, &name, path, bytes.to_vec()).await?))
}

async fn staged(caller: Caller, Path((name, path)): Path<(String, String)>) -> ApiResult<Response> {
    let _transfer = caller.transfer()?;
    let (name, path) = (named(&name)?, path_of(&path)?);
    let bytes = caller
        .reconciler()
        .staged(caller.asking().await?, &name, &path)
        .await?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

async fn unstage(caller: Caller, Path((name, path)): Path<(String, String)>) -> ApiResult<Json<DraftInfo>> {
    let (name, path) = (named(&name)?, path_of(&path)?);
    Ok(Json(
        caller
            .reconciler()
            .unstage(caller.asking().await?, &name, path)
            .await?,
    ))
}

async fn bundle(caller: Caller, Path(name): Path<String>) -> ApiResult<Response> {
    let permit = caller.transfer()?;
    let name = named(&name)?;
    caller
        .reconciler()
        .draft_seed(caller.asking().await?, &name)
        .await?;
    agent::exported(&caller.context, &name, permit).await
}

async fn commit(caller: Caller, Path(name): Path<String>, body: Body) -> ApiResult<Json<DraftInfo>> {
    let _transfer = caller.transfer()?;
    let name = named(&name)?;
    let reconciler = caller.reconciler();
    let who = caller.asking().await?;
    let seed = reconciler.draft_seed(who.clone(), &name).await?;
    let imported = agent::imported(&caller.context, &name, &seed, body).await?;
    Ok(Json(
        reconciler.set_draft_commit(who, &name, imported.commit).await?,
    ))
}
