//! The admin door: everything an operator can ask and say. See [`shared::admin_api`] for the table of routes.

use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::middleware;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use shared::admin_api::{
    Acknowledged, DecisionRequest, DiffEntry, Explanation, HistoryEntry, OperatorMessage, OverrideRequest,
};
use shared::agent_api::{MAX_BODY_BYTES, MessageKind, SendResponse};
use shared::gate::Gate;
use shared::plan::PlanView;
use shared::spec::RunState;
use shared::status::{AgentStatus, HiveStatus, SpecStatus};
use shared::wire_error::ErrorCode;
use shared::{Address, AgentName, GateId};

use super::error::{ApiError, ApiResult, in_one_shape};
use super::peer::Peer;
use super::{Context, events, explain};
use crate::broker::Outgoing;
use crate::control::command::Because;

/// The largest request; a message of the largest size fits however it is escaped.
const MAX_REQUEST: usize = MAX_BODY_BYTES * 6 + 4096;
/// The most lines of history in one answer.
const MAX_HISTORY: u32 = 1_000;

/// The routes.
pub fn router(context: Context) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/agents/{name}", get(agent))
        .route("/v1/plan", get(plan))
        .route("/v1/diff", get(diff))
        .route("/v1/explain/{object}", get(explained))
        .route("/v1/gates", get(gates))
        .route("/v1/gates/{id}", get(gate))
        .route("/v1/gates/{id}/decision", post(decide))
        .route("/v1/history", get(history))
        .route("/v1/events", get(events::events))
        .route("/v1/agents/{name}/messages", post(message))
        .route("/v1/agents/{name}/{verb}", post(verb))
        .fallback(nothing)
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .layer(middleware::map_response(in_one_shape))
        .with_state(context)
}

async fn nothing() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "the admin API has no such route").hint("hive --help")
}

#[derive(Debug, Deserialize)]
struct OfAgent {
    agent: Option<AgentName>,
    limit: Option<u32>,
    #[serde(default)]
    all: bool,
}

/// Path parameters are refused in our own words.
fn parsed<T: std::str::FromStr>(text: &str, what: &str) -> ApiResult<T> {
    text.parse()
        .map_err(|_| ApiError::new(ErrorCode::BadRequest, format!("{text:?} is not {what}")))
}

fn no_agent(name: &AgentName) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no agent {name}")).hint("hive status")
}

async fn by(peer: Peer) -> ApiResult<String> {
    let unknown = || {
        ApiError::new(
            ErrorCode::Forbidden,
            "the kernel does not say who you are on this socket",
        )
    };
    peer.identity().await.ok_or_else(unknown)
}

async fn status(State(context): State<Context>) -> ApiResult<Json<HiveStatus>> {
    let reconciler = &context.reconciler;
    let ledger = reconciler.ledger();
    // Read before the views: what happens in between is seen twice rather than never.
    let seq = ledger.last_seq().await?;
    let gates = ledger.gates(false).await?.items;
    let accepted = reconciler.accepted();
    let views = reconciler.views();
    let agents = views.agents.values().map(|view| AgentStatus {
        config: None,
        origins: std::collections::BTreeMap::new(),
        ..view.status.clone()
    });
    let spec = accepted.as_ref().map(|accepted| SpecStatus {
        path: accepted.path.to_string(),
        generation: accepted.generation,
        digest: accepted.in_force().map(|_| accepted.digest.clone()),
        faults: accepted
            .faults
            .iter()
            .chain(accepted.agent_faults.values().flatten())
            .map(ToString::to_string)
            .collect(),
        stale: accepted.stale,
    });
    let open = gates
        .iter()
        .filter(|gate| gate.state == shared::gate::GateState::Open);
    let mut notices: Vec<String> = views
        .failures
        .iter()
        .map(|(key, error)| format!("the pass over {key} failed: {error}"))
        .collect();
    if let Some(why) = reconciler.host().runtime.unsandboxed() {
        notices.push(format!("agents run without a sandbox: {why}"));
    }
    Ok(Json(HiveStatus {
        hive: accepted
            .as_ref()
            .and_then(|accepted| accepted.in_force().map(|spec| spec.hive.name.clone()))
            .unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: ledger.meta().epoch.clone(),
        seq,
        now: reconciler.host().clock.now(),
        started_at: views.started_at,
        last_pass_at: views.last_pass_at,
        queue_depth: views.queue_depth,
        spec: spec.unwrap_or_default(),
        waiting: views.hive_waiting.clone(),
        gates: open.map(|gate| gate.id).collect(),
        notices,
        agents: agents.collect(),
    }))
}

async fn agent(State(context): State<Context>, Path(name): Path<String>) -> ApiResult<Json<AgentStatus>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    let status = context
        .reconciler
        .views()
        .agents
        .get(&name)
        .map(|view| view.status.clone());
    status.map(Json).ok_or_else(|| no_agent(&name))
}

async fn plan(State(context): State<Context>, Query(of): Query<OfAgent>) -> ApiResult<Json<Vec<PlanView>>> {
    let views = context.reconciler.views();
    if let Some(name) = &of.agent {
        let view = views.agents.get(name).ok_or_else(|| no_agent(name))?;
        return Ok(Json(vec![view.plan.clone()]));
    }
    let hive = views.hive_plan.iter().cloned();
    Ok(Json(
        hive.chain(views.agents.values().map(|view| view.plan.clone()))
            .collect(),
    ))
}

async fn diff(State(context): State<Context>, Query(of): Query<OfAgent>) -> ApiResult<Json<Vec<DiffEntry>>> {
    let views = context.reconciler.views();
    if let Some(name) = &of.agent {
        let view = views.agents.get(name).ok_or_else(|| no_agent(name))?;
        return Ok(Json(view.diff.clone()));
    }
    Ok(Json(
        views.agents.values().flat_map(|view| view.diff.clone()).collect(),
    ))
}

async fn explained(
    State(context): State<Context>,
    Path(object): Path<String>,
) -> ApiResult<Json<Explanation>> {
    explain::explain(&context, &object).await.map(Json)
}

async fn gates(State(context): State<Context>, Query(of): Query<OfAgent>) -> ApiResult<Json<Vec<Gate>>> {
    let listing = context.reconciler.ledger().gates(of.all).await?;
    Ok(Json(listing.complete()?))
}

async fn gate(State(context): State<Context>, Path(id): Path<String>) -> ApiResult<Json<Gate>> {
    let id: GateId = parsed(&id, "a gate's number")?;
    let record = context.reconciler.ledger().gate(id).await?;
    let missing =
        || ApiError::new(ErrorCode::NotFound, format!("there is no gate {id}")).hint("hive gate list");
    record.map(|record| Json(record.gate)).ok_or_else(missing)
}

async fn decide(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
    Json(request): Json<DecisionRequest>,
) -> ApiResult<Json<Gate>> {
    let id: GateId = parsed(&id, "a gate's number")?;
    let by = by(peer).await?;
    let DecisionRequest {
        approve,
        digest,
        reason,
    } = request;
    Ok(Json(
        context.reconciler.decide(id, approve, digest, by, reason).await?,
    ))
}

async fn history(
    State(context): State<Context>,
    Query(of): Query<OfAgent>,
) -> ApiResult<Json<Vec<HistoryEntry>>> {
    let limit = of.limit.unwrap_or(100).min(MAX_HISTORY);
    Ok(Json(context.reconciler.ledger().history(of.agent, limit).await?))
}

async fn message(
    State(context): State<Context>,
    Path(name): Path<String>,
    Json(message): Json<OperatorMessage>,
) -> ApiResult<Json<SendResponse>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    let now = context.reconciler.host().clock.now();
    let outgoing = Outgoing {
        from: Address::Operator,
        to: Address::Agent(name),
        kind: MessageKind::Message,
        body: message.body,
        reply_to: None,
        dedupe: message.dedupe,
    };
    Ok(Json(context.broker.send(outgoing, now).await?))
}

async fn verb(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((name, verb)): Path<(String, String)>,
    Json(request): Json<OverrideRequest>,
) -> ApiResult<Json<Acknowledged>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    let because = Because {
        by: by(peer).await?,
        reason: request.reason,
        until: request.until,
    };
    let reconciler = &context.reconciler;
    let (changed, done, already) = match verb.as_str() {
        "start" => {
            let changed = reconciler.set_run(&name, RunState::Running, because).await?;
            (changed, "is to run", "is to run already")
        }
        "stop" => {
            let changed = reconciler.set_run(&name, RunState::Stopped, because).await?;
            (
                changed,
                "is to stop, and to stay stopped until it is started",
                "is stopped already",
            )
        }
        "restart" => (
            reconciler.restart(&name, because).await?,
            "is to restart at its next turn boundary",
            "",
        ),
        "suspend" => (
            reconciler.suspend(&name, because).await?,
            "is suspended: nothing is changed about it",
            "",
        ),
        "resume" => (
            reconciler.resume(&name, because).await?,
            "is resumed",
            "was not suspended",
        ),
        "retry" => (
            reconciler.retry(&name, because).await?,
            "is tried again, whatever failed before",
            "",
        ),
        other => {
            let message = format!("{other:?} is not something that can be done to an agent");
            return Err(ApiError::new(ErrorCode::NotFound, message).hint("hive --help"));
        }
    };
    let message = format!("{name} {}", if changed { done } else { already });
    Ok(Json(Acknowledged { message, changed }))
}
