//! What is to be seen of one agent, at both doors: an ordinary agent sees itself, a manager anybody, the operator all.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::Json;
use axum::extract::{FromRequestParts, Path, Query};
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use shared::config::{AgentConfig, OVERLAY_FILE};
use shared::event::Event;
use shared::look::{AgentLog, ConfigInfo, LogLine, MAX_LOG_EVENTS, MAX_LOG_LINES};
use shared::status::AgentStatus;
use shared::wire_error::ErrorCode;
use shared::{AgentName, CommitOid};
use tokio::sync::watch;

use super::Context;
use super::admin::{no_agent, parsed};
use super::agent::AgentContext;
use super::caller::Caller;
use super::endpoint::{Endpoint, get, group};
use super::error::{ApiError, ApiResult};
use super::live;
use crate::control::command::CommandError;
use crate::host::{HostError, Lines};
use crate::model::draft;
use crate::model::records::AgentLedger;
use crate::untrusted;

mod log;

/// How many lines of a log are shown unless asked otherwise.
const LINES: u32 = 100;
/// How many events are shown beside them unless asked otherwise.
const EVENTS: u32 = 20;
/// The largest overlay that is shown, in bytes.
const MAX_OVERLAY: u64 = 256 * 1024;
/// How many proposals are shown with a config.
const PROPOSALS: usize = 20;
/// What stands for the value of an environment variable.
const LEFT_OUT: &str = "(left out)";

/// The group of these endpoints.
pub(super) const TAG: (&str, &str) = ("look", "See how things are, and why");

/// Who is there to be looked at by this name.
async fn of(caller: &Caller, name: &str) -> ApiResult<AgentLedger> {
    let name: AgentName = parsed(name, "an agent's name")?;
    if let Some(who) = caller.agent().filter(|who| **who != name) {
        must_manage(&caller.context, who, "it sees itself alone").await?;
    }
    let ledger = caller.reconciler().ledger().agent(&name).await?;
    ledger.ok_or_else(|| match caller.agent() {
        None => no_agent(&caller.context, &name),
        Some(_) => ApiError::new(ErrorCode::NotFound, format!("there is no agent {name}"))
            .hint("the tool list_agents names those there are"),
    })
}

/// The agent of this name, when whoever asks at this door may reach it.
pub(super) async fn reachable(door: &AgentContext, name: &str, else_: &str) -> ApiResult<AgentName> {
    let name: AgentName = parsed(name, "an agent's name")?;
    if name != door.agent {
        must_manage(&door.context, &door.agent, else_).await?;
        if door.context.reconciler.ledger().record(&name).await?.is_none() {
            let message = format!("there is no agent {name}");
            return Err(ApiError::new(ErrorCode::NotFound, message));
        }
    }
    Ok(name)
}

/// Refuses whoever is no manager by what is deployed of it.
pub(super) async fn must_manage(context: &Context, who: &AgentName, else_: &str) -> ApiResult<()> {
    let record = context.reconciler.ledger().record(who).await?;
    if record.as_ref().is_some_and(draft::is_manager) {
        return Ok(());
    }
    let message = format!("{who} is no manager of this hive: {else_}");
    Err(ApiError::new(ErrorCode::Forbidden, message).hint("ask a manager, or the operator"))
}

/// The endpoints that both doors have.
pub(super) fn endpoints<S>() -> impl Iterator<Item = Endpoint<S>>
where
    S: Clone + Send + Sync + 'static,
    Caller: FromRequestParts<S, Rejection = ApiError>,
{
    let all = [
        get(
            "/v1/agents/{name}/config",
            config,
            "config",
            "An agent's config, where it comes from, and what is proposed",
        )
        .about("Values of `env` are left out.")
        .answers::<ConfigInfo>(),
        get(
            "/v1/agents/{name}/logs",
            logs,
            "logs",
            "The end of what an agent printed, and the last events about it",
        )
        .about(
            "At most 128 KiB from the end are looked at. What looks like a key is masked. For the operator, with \
             `follow=true`, the answer is a stream of server-sent events: the last lines and then each new one, as a \
             `LogLine` in `data`.",
        )
        .query::<Wanted>()
        .answers::<AgentLog>()
        .answers_with("text/event-stream", "Server-sent events, when `follow` is asked for"),
    ];
    group(
        TAG.0,
        all.map(|endpoint| endpoint.refuses([ErrorCode::Forbidden, ErrorCode::NotFound])),
    )
}

/// The endpoints that an agent's door has besides; the operator's status says more.
pub(super) fn of_agents() -> impl Iterator<Item = Endpoint<()>> {
    let all = [
        get("/v1/agents", list, "agents", "How all agents are, by name")
            .about("For managers alone.")
            .answers::<Vec<AgentStatus>>(),
        get("/v1/agents/{name}", status, "agent", "How an agent is")
            .about("Without its config: that has a request of its own.")
            .answers::<AgentStatus>()
            .refuses([ErrorCode::NotFound]),
    ];
    group(
        TAG.0,
        all.map(|endpoint| endpoint.refuses([ErrorCode::Forbidden])),
    )
}

async fn list(door: AgentContext) -> ApiResult<Json<Vec<AgentStatus>>> {
    let AgentContext { context, agent, .. } = door;
    must_manage(&context, &agent, "it sees itself alone").await?;
    let inboxes = context.broker.inboxes().await?;
    let views = context.reconciler.views();
    let shown = views.agents.values().map(|view| AgentStatus {
        inbox: inboxes
            .get(view.status.name.as_str())
            .copied()
            .unwrap_or_default(),
        ..plain(view.status.clone())
    });
    Ok(Json(shown.collect()))
}

async fn status(caller: Caller, Path(name): Path<String>) -> ApiResult<Json<AgentStatus>> {
    let name = of(&caller, &name).await?.record.name;
    let view = caller.reconciler().views().agents.get(&name).cloned();
    let Some(view) = view else {
        let message = format!("{name} was not looked at yet");
        return Err(ApiError::new(ErrorCode::Unavailable, message).hint("try again in a moment"));
    };
    let inbox = caller.context.broker.queued(&name).await?;
    Ok(Json(AgentStatus {
        inbox,
        ..plain(view.status)
    }))
}

/// Without the config.
fn plain(status: AgentStatus) -> AgentStatus {
    AgentStatus {
        config: None,
        origins: BTreeMap::new(),
        ..status
    }
}

async fn config(caller: Caller, Path(name): Path<String>) -> ApiResult<Json<ConfigInfo>> {
    let record = of(&caller, &name).await?.record;
    let reconciler = caller.reconciler();
    let commit = record.main().cloned();
    let overlay = match &commit {
        Some(commit) => overlay(&caller.context, &record.name, commit).await?,
        None => None,
    };
    let mut proposals = match reconciler.proposals(&record.name).await {
        Ok(proposals) => proposals,
        // A draft, or one that is not part of the hive any more, offers nothing.
        Err(CommandError::Unfit { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    proposals.truncate(PROPOSALS);
    let deployed = record.deployed;
    let origins = deployed.iter().flat_map(|deployed| &deployed.output.origins);
    Ok(Json(ConfigInfo {
        agent: record.name,
        commit,
        proposal: deployed.as_ref().map(|deployed| deployed.proposal),
        origins: origins
            .map(|(field, origin)| (field.as_str().to_owned(), *origin))
            .collect(),
        config: deployed
            .as_ref()
            .map(|deployed| without_values(deployed.output.config.clone())),
        overlay,
        proposals,
    }))
}

/// The overlay of a commit as text, unless there is none or it is too large to be one.
async fn overlay(context: &Context, agent: &AgentName, commit: &CommitOid) -> ApiResult<Option<String>> {
    let repos = &context.reconciler.host().repos;
    match repos.read_file(agent, commit, OVERLAY_FILE, MAX_OVERLAY).await {
        Ok(bytes) => Ok(bytes.map(|bytes| untrusted::clean(&String::from_utf8_lossy(&bytes)))),
        Err(HostError::Refused { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What an environment variable is set to may be meant for that agent alone.
fn without_values(mut config: AgentConfig) -> AgentConfig {
    for server in config.mcp_servers.values_mut() {
        for value in server.env.values_mut() {
            LEFT_OUT.clone_into(value);
        }
    }
    config
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Wanted {
    /// At most this many lines, and never more than 1,000; 100 unless given
    lines: Option<u32>,
    /// At most this many events, and never more than 100; 20 unless given
    events: Option<u32>,
    /// Go on with each new line; for the operator
    #[serde(default)]
    follow: bool,
    /// Instead of what the agent printed: what its newest build said
    #[serde(default)]
    build: bool,
}

async fn logs(caller: Caller, Path(name): Path<String>, Query(wanted): Query<Wanted>) -> ApiResult<Response> {
    let record = of(&caller, &name).await?.record;
    let agent = record.name;
    let lines = wanted.lines.unwrap_or(LINES).min(MAX_LOG_LINES);
    let events = wanted.events.unwrap_or(EVENTS).min(MAX_LOG_EVENTS);
    let reconciler = caller.reconciler();
    let host = reconciler.host();
    if wanted.follow {
        if caller.agent().is_some() {
            let message = "only the operator follows what an agent prints";
            return Err(ApiError::new(ErrorCode::Forbidden, message).hint("ask without follow, now and then"));
        }
        let printed = host.runtime.follow(&agent, lines).await?;
        return Ok(live::stream(follow(printed, caller.context.shutdown.clone())));
    }
    let output = if wanted.build {
        let said = host.builder.log(record.uid, log::MAX_BYTES).await?;
        said.ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, "builds of the plain builder have no log")
                .hint("builder.kind \"nix\" keeps one for each build")
        })?
    } else {
        host.runtime.output(&agent, log::MAX_BYTES).await?
    };
    let (lines, cut) = log::tail(&output, usize::try_from(lines).unwrap_or(usize::MAX));
    let events = reconciler.ledger().events_about(&agent, events).await?;
    let bare = |event: Event| Event {
        data: Value::Null,
        ..event
    };
    let log = AgentLog {
        agent,
        lines,
        cut,
        events: events.into_iter().rev().map(bare).collect(),
    };
    Ok(Json(log).into_response())
}

/// Each line as it is printed, until the daemon ends.
fn follow(
    printed: Lines,
    shutdown: watch::Receiver<bool>,
) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    stream::unfold((printed, shutdown), |(mut printed, mut shutdown)| async move {
        let line = tokio::select! {
            line = printed.next() => line?,
            _ = shutdown.wait_for(|ended| *ended) => return None,
        };
        let line = LogLine {
            line: log::line(&line),
        };
        let data = serde_json::to_string(&line).unwrap_or_default();
        Some((Ok(SseEvent::default().data(data)), (printed, shutdown)))
    })
}
