//! What managers order about other agents, at their own doors. The operator's verbs are at the admin door.

use axum::Json;
use axum::extract::Path;
use shared::AgentName;
use shared::admin_api::Acknowledged;
use shared::order::OrderRequest;
use shared::wire_error::ErrorCode::{self, Conflict, Exhausted, Forbidden, NotFound};

use super::admin::parsed;
use super::agent::AgentContext;
use super::endpoint::{Endpoint, group, post};
use super::error::{ApiError, ApiResult};
use crate::model::order::Verb;

/// The group of these endpoints.
pub(super) const TAG: (&str, &str) = ("orders", "Say what is to become of an agent");

/// The longest dedupe id, in characters.
const MAX_DEDUPE: usize = 64;

/// The endpoints. For managers alone.
pub(super) fn endpoints() -> impl Iterator<Item = Endpoint<()>> {
    let all = [
        order(
            Verb::Start,
            "/v1/agents/{name}/start",
            "start",
            "Have an agent run",
        ),
        order(
            Verb::Stop,
            "/v1/agents/{name}/stop",
            "stop",
            "Have an agent stop after its turn, and stay stopped",
        ),
        order(
            Verb::Restart,
            "/v1/agents/{name}/restart",
            "restart",
            "Have an agent restart after its turn",
        ),
        order(
            Verb::Rebuild,
            "/v1/agents/{name}/rebuild",
            "rebuild",
            "Build what an agent is to be once more",
        ),
        order(
            Verb::Rebuild,
            "/v1/agents/{name}/update",
            "update",
            "Bring an agent to the current base: with the plain builder, a rebuild",
        ),
        order(
            Verb::Archive,
            "/v1/agents/{name}/archive",
            "archiveAgent",
            "Have an agent that no spec declares stopped and archived",
        ),
    ];
    group(TAG.0, all)
}

fn order(verb: Verb, path: &'static str, id: &'static str, summary: &'static str) -> Endpoint<()> {
    let handler = move |door: AgentContext, name: Path<String>, request: Json<OrderRequest>| {
        ordered(verb, door, name, request)
    };
    post(path, handler, id, summary)
        .about(
            "For managers alone. The policy says whether it is carried out at once, waits for the operator at a gate, or is \
             refused. An order of the operator stands against it.",
        )
        .takes::<OrderRequest>()
        .answers::<Acknowledged>()
        .refuses([Forbidden, NotFound, Conflict, Exhausted])
}

async fn ordered(
    verb: Verb,
    door: AgentContext,
    Path(name): Path<String>,
    Json(request): Json<OrderRequest>,
) -> ApiResult<Json<Acknowledged>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    if let Some(dedupe) = &request.dedupe
        && !(1..=MAX_DEDUPE).contains(&dedupe.chars().count())
    {
        let message = format!("a dedupe id has 1 to {MAX_DEDUPE} characters");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    // It is kept with the agent, with an event, and may open a gate.
    door.spend(request.reason.len(), 3, false)?;
    let AgentContext { context, agent, .. } = door;
    let (message, changed) = context.reconciler.order(&agent, &name, verb, request).await?;
    Ok(Json(Acknowledged { message, changed }))
}
