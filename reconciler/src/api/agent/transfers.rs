//! Bundles on their way in and out.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use camino::Utf8PathBuf;
use futures_util::{StreamExt as _, stream};
use shared::agent_api::{MAX_BUNDLE_BYTES, ProposalInfo};
use shared::gate::Asker;
use shared::wire_error::ErrorCode;
use shared::{AgentName, CommitOid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{AgentContext, stated_length};
use crate::api::Context;
use crate::api::error::{ApiError, ApiResult};
use crate::api::look;
use crate::host::{HostError, Imported};

/// How many bundles one agent may send or fetch at once.
pub const MAX_TRANSFERS: usize = 2;
/// How long sending a bundle may take.
const UPLOAD_WITHIN: Duration = Duration::from_secs(60);
/// How much of a bundle is in memory on its way out.
const CHUNK: usize = 64 * 1024;

/// `GET /v1/repo/bundle`. Whoever reads slowly holds its right to a transfer, and no memory.
pub(super) async fn bundle(door: AgentContext) -> ApiResult<Response> {
    let permit = transfer(&door.transfers)?;
    exported(&door.context, &door.agent, permit).await
}

/// `GET /v1/agents/{name}/repo/bundle`.
pub(super) async fn bundle_of(door: AgentContext, Path(name): Path<String>) -> ApiResult<Response> {
    let permit = transfer(&door.transfers)?;
    let name = look::reachable(&door, &name, "it has its own config repo alone").await?;
    exported(&door.context, &name, permit).await
}

/// A bundle of an agent's config repo. `permit` is held until all of it is sent.
pub(in crate::api) async fn exported(
    context: &Context,
    agent: &AgentName,
    permit: impl Send + 'static,
) -> ApiResult<Response> {
    let held = incoming(context, agent, "out").await?;
    context.reconciler.host().repos.export(agent, &held.0).await?;
    let io = |error| ApiError::from(HostError::io("read", held.0.as_str())(error));
    let file = tokio::fs::File::open(&held.0).await.map_err(io)?;
    let length = file.metadata().await.map_err(io)?.len();
    // Until the last chunk is sent, or nobody wants it any more, the file and the right to a transfer are held.
    let chunks = stream::try_unfold((file, held, permit), |(mut file, held, permit)| async move {
        let mut chunk = vec![0; CHUNK];
        let count = file.read(&mut chunk).await?;
        chunk.truncate(count);
        std::io::Result::Ok((count > 0).then_some((chunk, (file, held, permit))))
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// `POST /v1/proposals`.
pub(super) async fn propose(
    door: AgentContext,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<ProposalInfo>> {
    let agent = door.agent.clone();
    offer(&door, agent, &headers, body).await
}

/// `POST /v1/agents/{name}/proposals`.
pub(super) async fn propose_for(
    door: AgentContext,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<ProposalInfo>> {
    let agent = look::reachable(&door, &name, "it proposes changes of itself alone").await?;
    offer(&door, agent, &headers, body).await
}

/// Offers a commit for an agent's config repo, in the name of the agent whose door it is.
async fn offer(
    door: &AgentContext,
    agent: AgentName,
    headers: &HeaderMap,
    body: Body,
) -> ApiResult<Json<ProposalInfo>> {
    let _transfer = transfer(&door.transfers)?;
    let context = &door.context;
    if stated_length(headers).is_some_and(|length| length > MAX_BUNDLE_BYTES) {
        return Err(too_large());
    }
    let ledger = context.reconciler.ledger().agent(&agent).await?;
    let main = ledger.as_ref().and_then(|ledger| ledger.record.main().cloned());
    let Some(main) = main else {
        let message = format!("{agent} has no config repo yet");
        return Err(ApiError::new(ErrorCode::Unavailable, message).hint("try again in a moment"));
    };
    let file = received(context, &agent, body).await?;
    let reconciler = &context.reconciler;
    let repos = &reconciler.host().repos;
    let offered = repos.offered(&agent, &file.0).await?;
    // Asked before it is taken in: one that is deployed is main by now, and would be refused.
    if let Some(known) = reconciler.proposed_before(&agent, &offered).await? {
        return Ok(Json(known));
    }
    let imported = repos.import(&agent, &file.0, &main).await?;
    let proposed = if agent == door.agent {
        reconciler.propose(&agent, imported, Asker::Agent).await?
    } else {
        reconciler.propose_for(&door.agent, &agent, imported).await?
    };
    Ok(Json(proposed))
}

/// Takes in the one commit of a bundle, which must descend from `main`.
pub(in crate::api) async fn imported(
    context: &Context,
    agent: &AgentName,
    main: &CommitOid,
    body: Body,
) -> ApiResult<Imported> {
    let file = received(context, agent, body).await?;
    let repos = &context.reconciler.host().repos;
    Ok(repos.import(agent, &file.0, main).await?)
}

/// The file that a body was written to.
async fn received(context: &Context, agent: &AgentName, body: Body) -> ApiResult<Transfer> {
    let file = incoming(context, agent, "in").await?;
    let received = tokio::time::timeout(UPLOAD_WITHIN, receive(&file.0, body)).await;
    received.map_err(|_| {
        let message = format!("the bundle did not arrive within {} s", UPLOAD_WITHIN.as_secs());
        ApiError::new(ErrorCode::BadRequest, message)
    })??;
    Ok(file)
}

/// The right to a transfer, or a refusal: an agent that sends many at once waits for its own.
pub(in crate::api) fn transfer(transfers: &Arc<Semaphore>) -> ApiResult<OwnedSemaphorePermit> {
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
mod tests {
    use super::*;

    #[test]
    fn an_agent_has_few_bundles_under_way_and_is_told_so() {
        let transfers = Arc::new(Semaphore::new(MAX_TRANSFERS));
        let held: Vec<_> = (0..MAX_TRANSFERS)
            .map(|_| transfer(&transfers).unwrap())
            .collect();
        assert_eq!(transfer(&transfers).unwrap_err().0.code, ErrorCode::Unavailable);
        drop(held);
        assert!(transfer(&transfers).is_ok(), "one that is over makes room");
    }
}
