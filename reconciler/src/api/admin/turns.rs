//! Turns that have ended.

use axum::Json;
use axum::extract::{Query, State};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::AgentName;
use shared::turn::TurnInfo;

use crate::api::Context;
use crate::api::error::ApiResult;

/// How many turns are listed unless asked otherwise.
const LISTED: u32 = 100;
/// The most in one list.
const MAX_LISTED: u32 = 500;

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Wanted {
    /// Only this agent's
    agent: Option<AgentName>,
    /// Only turns with a lower number
    before: Option<u64>,
    /// At most this many, and never more than 500; 100 unless given
    limit: Option<u32>,
}

pub(super) async fn list(
    State(context): State<Context>,
    Query(wanted): Query<Wanted>,
) -> ApiResult<Json<Vec<TurnInfo>>> {
    let Wanted { agent, before, limit } = wanted;
    let limit = limit.unwrap_or(LISTED).min(MAX_LISTED);
    let ledger = context.reconciler.ledger();
    Ok(Json(
        ledger.turns(agent.as_ref(), before, limit).await?.complete()?,
    ))
}
