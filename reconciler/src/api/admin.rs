//! The admin door: everything an operator can ask and say. See [`shared::admin_api`] for the table of routes.

use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::middleware;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::admin_api::{
    Acknowledged, DecisionRequest, DiffEntry, Explanation, HistoryEntry, ModelRequest, OperatorMessage,
    OverrideRequest, RollbackRequest,
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
use super::{Context, endpoint, explain};
use crate::broker::Outgoing;
use crate::control::command::Because;
use crate::control::storage;
use crate::export::Export;
use crate::model::draft;
use crate::plan::support;

mod instructions;
mod login;
mod messages;
pub(super) mod routes;
mod series;
mod turns;
mod watch;

/// The largest request; a message of the largest size fits however it is escaped.
pub(super) const MAX_REQUEST: usize = MAX_BODY_BYTES * 6 + 4096;
/// The most lines of history in one answer.
const MAX_HISTORY: u32 = 1_000;

/// The router.
pub fn router(context: Context) -> Router {
    endpoint::router(routes::endpoints())
        .fallback(nothing)
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .layer(middleware::map_response(in_one_shape))
        .with_state(context)
}

async fn nothing() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "the admin API has no such route").hint("hive --help")
}

#[derive(Debug, Deserialize, JsonSchema)]
struct OfAgent {
    /// Only what concerns this agent
    agent: Option<AgentName>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct OfGates {
    /// Those that have ended, too
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct OfHistory {
    /// Only what concerns this agent
    agent: Option<AgentName>,
    /// At most this many entries, and never more than 1,000; 100 unless given
    limit: Option<u32>,
}

/// What an operator may order about an agent's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    Stop,
    Pause,
    Restart,
    Rebuild,
    Suspend,
    Resume,
    Retry,
}

/// Path parameters are refused in our own words.
pub(super) fn parsed<T: std::str::FromStr>(text: &str, what: &str) -> ApiResult<T> {
    text.parse()
        .map_err(|_| ApiError::new(ErrorCode::BadRequest, format!("{text:?} is not {what}")))
}

/// An agent that is not there, with the one that was probably meant.
pub(super) fn no_agent(context: &Context, name: &AgentName) -> ApiError {
    let views = context.reconciler.views();
    let likely = nearest(name.as_str(), views.agents.keys().map(AgentName::as_str));
    let message = match likely {
        Some(other) => format!("there is no agent {name}; did you mean {other}?"),
        None => format!("there is no agent {name}"),
    };
    ApiError::new(ErrorCode::NotFound, message).hint("hive status")
}

/// The one of `known` that somebody who typed `typed` most likely meant.
fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::damerau_levenshtein(typed, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

/// Refuses a name that no agent has, before anything is done about it.
async fn known(context: &Context, name: &AgentName) -> ApiResult<()> {
    match context.reconciler.ledger().agent(name).await? {
        Some(_) => Ok(()),
        None => Err(no_agent(context, name)),
    }
}

pub(super) async fn by(peer: Peer) -> ApiResult<String> {
    peer.identity().await.ok_or_else(nobody_known)
}

pub(super) fn nobody_known() -> ApiError {
    ApiError::new(
        ErrorCode::Forbidden,
        "the kernel does not say who you are on this socket",
    )
}

async fn status(State(context): State<Context>) -> ApiResult<Json<HiveStatus>> {
    let reconciler = &context.reconciler;
    let ledger = reconciler.ledger();
    // Read before the views: what happens in between is seen twice rather than never.
    let seq = ledger.last_seq().await?;
    let gates = ledger.gates(false).await?.items;
    let inboxes = context.broker.inboxes().await?;
    let allowance = context
        .broker
        .allowance(None, reconciler.host().clock.now())
        .await?;
    let accepted = reconciler.accepted();
    let population = draft::population(&ledger.agents().await?.items);
    let trouble = ledger.trouble();
    let space = reconciler.host().folders.space().await;
    let views = reconciler.views();
    let agents = views.agents.values().map(|view| AgentStatus {
        config: None,
        model: None,
        origins: std::collections::BTreeMap::new(),
        inbox: inboxes
            .get(view.status.name.as_str())
            .copied()
            .unwrap_or_default(),
        ..view.status.clone()
    });
    let spec = accepted.as_ref().map(|accepted| SpecStatus {
        path: accepted.path.to_string(),
        generation: accepted.generation,
        digest: accepted.in_force().map(|_| accepted.digest.clone()),
        faults: accepted.all_faults().map(ToString::to_string).collect(),
        stale: accepted.stale,
    });
    let open = gates
        .iter()
        .filter(|gate| gate.state == shared::gate::GateState::Open);
    let mut notices = storage::notices(trouble.as_ref(), space.as_ref());
    notices.extend(
        views
            .failures
            .iter()
            .map(|(key, error)| format!("the pass over {key} failed: {error}")),
    );
    let in_force = accepted.as_ref().and_then(|accepted| accepted.in_force());
    notices.extend(in_force.map(|spec| support::of_hive(spec)).unwrap_or_default());
    notices.extend(in_force.and_then(|spec| overfull(population, spec.max_agents)));
    notices.extend(allowance);
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

/// Fewer agents allowed than there are stops nobody, and is said.
fn overfull(population: usize, max: u32) -> Option<String> {
    let fits = usize::try_from(max).is_ok_and(|max| population <= max);
    let message = format!(
        "there are {population} agents, and maxAgents is {max}: nobody is removed, and nobody more is spawned"
    );
    (!fits).then_some(message)
}

async fn agent(State(context): State<Context>, Path(name): Path<String>) -> ApiResult<Json<AgentStatus>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    let status = context
        .reconciler
        .views()
        .agents
        .get(&name)
        .map(|view| view.status.clone());
    let mut status = status.ok_or_else(|| no_agent(&context, &name))?;
    status.inbox = context.broker.queued(&name).await?;
    if status
        .config
        .as_ref()
        .is_some_and(|config| config.egress.is_some())
    {
        status.egress = Some(context.reconciler.ledger().egress_of(&name).await?);
    }
    let now = context.reconciler.host().clock.now();
    status
        .notices
        .extend(context.broker.allowance(Some(&name), now).await?);
    Ok(Json(status))
}

async fn plan(State(context): State<Context>, Query(of): Query<OfAgent>) -> ApiResult<Json<Vec<PlanView>>> {
    if let Some(name) = &of.agent {
        let plan = context
            .reconciler
            .views()
            .agents
            .get(name)
            .map(|view| view.plan.clone());
        return plan
            .map(|plan| Json(vec![plan]))
            .ok_or_else(|| no_agent(&context, name));
    }
    let views = context.reconciler.views();
    let hive = views.hive_plan.iter().cloned();
    Ok(Json(
        hive.chain(views.agents.values().map(|view| view.plan.clone()))
            .collect(),
    ))
}

async fn diff(State(context): State<Context>, Query(of): Query<OfAgent>) -> ApiResult<Json<Vec<DiffEntry>>> {
    if let Some(name) = &of.agent {
        let diff = context
            .reconciler
            .views()
            .agents
            .get(name)
            .map(|view| view.diff.clone());
        return diff.map(Json).ok_or_else(|| no_agent(&context, name));
    }
    let views = context.reconciler.views();
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

async fn export(State(context): State<Context>) -> ApiResult<Json<Export>> {
    Ok(Json(context.reconciler.export().await?))
}

async fn gates(State(context): State<Context>, Query(of): Query<OfGates>) -> ApiResult<Json<Vec<Gate>>> {
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
    Query(of): Query<OfHistory>,
) -> ApiResult<Json<Vec<HistoryEntry>>> {
    let limit = of.limit.unwrap_or(100).min(MAX_HISTORY);
    let history = context
        .reconciler
        .ledger()
        .history(of.agent.clone(), limit)
        .await?;
    // An agent that is gone has a history; one that never was has none.
    match &of.agent {
        Some(name) if history.is_empty() => known(&context, name).await?,
        Some(_) | None => {}
    }
    Ok(Json(history))
}

async fn message(
    State(context): State<Context>,
    Path(name): Path<String>,
    Json(message): Json<OperatorMessage>,
) -> ApiResult<Json<SendResponse>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    known(&context, &name).await?;
    let now = context.reconciler.host().clock.now();
    let outgoing = Outgoing {
        from: Address::Operator,
        to: Address::Agent(name),
        kind: MessageKind::Message,
        topic: None,
        body: message.body,
        reply_to: None,
        dedupe: message.dedupe,
    };
    Ok(Json(context.broker.send(outgoing, now).await?))
}

async fn model(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    Json(request): Json<ModelRequest>,
) -> ApiResult<Json<Acknowledged>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    known(&context, &name).await?;
    let because = Because {
        by: by(peer).await?,
        reason: request.reason,
        until: request.until,
    };
    let what = request.model.as_ref().map_or_else(
        || "uses the model of its config".to_owned(),
        |model| format!("uses the model {model}"),
    );
    let changed = context
        .reconciler
        .set_model(&name, request.model, because)
        .await?;
    let when = if changed {
        "from its next turn on"
    } else {
        "already"
    };
    let message = format!("{name} {what} {when}");
    Ok(Json(Acknowledged { message, changed }))
}

async fn rollback(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    Json(request): Json<RollbackRequest>,
) -> ApiResult<Json<Acknowledged>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    known(&context, &name).await?;
    let because = Because {
        by: by(peer).await?,
        reason: request.reason,
        until: None,
    };
    let proposal = context.reconciler.rollback(&name, request.to, because).await?;
    let (number, title) = (proposal.number, proposal.title);
    let message =
        format!("proposal {number} of {name}: {title}; it is built and, as the policy says, asked about");
    Ok(Json(Acknowledged {
        message,
        changed: true,
    }))
}

async fn openapi() -> Json<&'static serde_json::Value> {
    Json(super::openapi::admin())
}

async fn change(
    verb: Verb,
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    Json(request): Json<OverrideRequest>,
) -> ApiResult<Json<Acknowledged>> {
    let name: AgentName = parsed(&name, "an agent's name")?;
    known(&context, &name).await?;
    let until = request.until.map_or_else(
        || "until it is started".to_owned(),
        |at| format!("until {}", at.strftime("%Y-%m-%d %H:%M:%SZ")),
    );
    let because = Because {
        by: by(peer).await?,
        reason: request.reason,
        until: request.until,
    };
    let reconciler = &context.reconciler;
    let (changed, done, already) = match verb {
        Verb::Start => {
            let changed = reconciler.set_run(&name, RunState::Running, because).await?;
            (changed, "is to run".to_owned(), "is to run already")
        }
        Verb::Stop => {
            let changed = reconciler.set_run(&name, RunState::Stopped, because).await?;
            (
                changed,
                format!("is to stop, and to stay stopped {until}"),
                "is to stay stopped already",
            )
        }
        Verb::Pause => {
            let changed = reconciler.set_run(&name, RunState::Paused, because).await?;
            (
                changed,
                format!("is to run and to take no turns {until}"),
                "is to take no turns already",
            )
        }
        Verb::Restart => (
            reconciler.restart(&name, because).await?,
            "is to restart at its next turn boundary".to_owned(),
            "",
        ),
        Verb::Rebuild => (
            reconciler.rebuild(&name, because).await?,
            "is built once more, and what comes of it is deployed if it is another".to_owned(),
            "is to be built once more already",
        ),
        Verb::Suspend => (
            reconciler.suspend(&name, because).await?,
            request.until.map_or_else(
                || "is suspended: nothing is changed about it".to_owned(),
                |_| format!("is suspended {until}: nothing is changed about it"),
            ),
            "",
        ),
        Verb::Resume => (
            reconciler.resume(&name, because).await?,
            "is resumed".to_owned(),
            "was not suspended",
        ),
        Verb::Retry => (
            reconciler.retry(&name, because).await?,
            "is tried again, whatever failed before".to_owned(),
            "",
        ),
    };
    let message = format!("{name} {}", if changed { done.as_str() } else { already });
    Ok(Json(Acknowledged { message, changed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_agents_than_allowed_is_said_and_as_many_is_not() {
        assert_eq!(overfull(2, 2), None);
        assert!(overfull(3, 2).is_some_and(|said| said.contains("nobody is removed")));
    }

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["alice", "bob", "queen"];
        let meant = |typed: &str| nearest(typed, known.into_iter());
        assert_eq!(meant("alcie"), Some("alice"));
        assert_eq!(meant("bb"), Some("bob"));
        assert_eq!(meant("quen"), Some("queen"));
        assert_eq!(meant("gardener"), None);
    }
}
