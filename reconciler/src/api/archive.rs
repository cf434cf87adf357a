//! The admin door's archive: what is kept of removed agents, and the orders to destroy and to restore.

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use shared::AgentName;
use shared::admin_api::{Acknowledged, ArchivedAgent, DestroyRequest, RestoreRequest};

use super::Context;
use super::admin::{by, no_agent, parsed};
use super::error::{ApiError, ApiResult};
use super::peer::Peer;
use crate::control::command::{Because, CommandError};

pub(super) async fn list(State(context): State<Context>) -> ApiResult<Json<Vec<ArchivedAgent>>> {
    Ok(Json(context.reconciler.archive().await?))
}

pub(super) async fn destroy(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    Json(request): Json<DestroyRequest>,
) -> ApiResult<Json<Acknowledged>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    let because = because(by(peer).await?, request.reason);
    let ordered = context
        .reconciler
        .destroy(&name, request.uid, request.purge, because)
        .await;
    acknowledged(&context, ordered)
}

pub(super) async fn restore(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    Json(request): Json<RestoreRequest>,
) -> ApiResult<Json<Acknowledged>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    let because = because(by(peer).await?, request.reason);
    let ordered = context.reconciler.restore(&name, request.uid, because).await;
    acknowledged(&context, ordered)
}

fn because(by: String, reason: String) -> Because {
    Because {
        by,
        reason,
        until: None,
    }
}

fn acknowledged(
    context: &Context,
    ordered: Result<(String, bool), CommandError>,
) -> ApiResult<Json<Acknowledged>> {
    match ordered {
        Ok((message, changed)) => Ok(Json(Acknowledged { message, changed })),
        Err(CommandError::NoAgent(name)) => Err(no_agent(context, &name).hint("hive archive")),
        Err(error) => Err(ApiError::from(error)),
    }
}
