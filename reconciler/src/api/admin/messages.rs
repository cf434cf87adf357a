//! Messages of the whole hive, as the operator looks for them, and those that are to come.

use axum::Json;
use axum::extract::{ConnectInfo, Path, Query, State};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::agent_api::{DeliveryState, SentMessage};
use shared::reminder::{ReminderInfo, ReminderRequest};
use shared::wire_error::ErrorCode;
use shared::{Address, AgentName};

use super::{by, known, parsed};
use crate::api::Context;
use crate::api::error::{ApiError, ApiResult};
use crate::api::peer::Peer;
use crate::broker::Search;

/// How many messages are listed unless asked otherwise.
const LISTED: u32 = 100;
/// The longest text that is looked for, in bytes.
const MAX_TEXT: usize = 1000;

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Wanted {
    /// Only what this agent sent or was sent
    agent: Option<AgentName>,
    /// Only what comes from here
    from: Option<Address>,
    /// Only what goes here
    to: Option<Address>,
    /// Only messages in this state
    state: Option<DeliveryState>,
    /// Only messages whose text has this in it, in any case of letters
    text: Option<String>,
    /// Only messages with a lower number
    before: Option<u64>,
    /// At most this many, and never more than 500; 100 unless given
    limit: Option<u32>,
}

pub(super) async fn search(
    State(context): State<Context>,
    Query(wanted): Query<Wanted>,
) -> ApiResult<Json<Vec<SentMessage>>> {
    let Wanted {
        agent,
        from,
        to,
        state,
        text,
        before,
        limit,
    } = wanted;
    if text.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
        let message = format!("the text to look for has more than {MAX_TEXT} bytes");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let search = Search {
        agent,
        from,
        to,
        state,
        text,
        before,
        limit: limit.unwrap_or(LISTED),
    };
    Ok(Json(context.broker.search(search).await?))
}

pub(super) async fn requeue(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
) -> ApiResult<Json<SentMessage>> {
    let id: u64 = parsed(&id, "a message's number")?;
    let by = by(peer).await?;
    let now = context.reconciler.host().clock.now();
    Ok(Json(context.broker.requeue(id, by, now).await?))
}

pub(super) async fn remind(
    State(context): State<Context>,
    Path(name): Path<String>,
    Json(request): Json<ReminderRequest>,
) -> ApiResult<Json<ReminderInfo>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    known(&context, &name).await?;
    let now = context.reconciler.host().clock.now();
    Ok(Json(
        context.broker.remind_for_operator(&name, request, now).await?,
    ))
}
