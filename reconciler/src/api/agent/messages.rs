//! What an agent sends, what became of it, who it is, and its reminders.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use shared::agent_api::{
    BroadcastRequest, BroadcastResponse, MessageKind, SendRequest, SendResponse, SentMessage, WhoAmI,
};
use shared::reminder::{ReminderInfo, ReminderRequest};
use shared::spec::Role;
use shared::wire_error::ErrorCode;
use shared::{Address, AgentName};

use super::AgentContext;
use crate::api::admin::parsed;
use crate::api::error::{ApiError, ApiResult};
use crate::broker::{Broadcast, Outgoing};
use crate::model::records::{AgentLife, AgentRecord};

/// How many messages are listed unless asked otherwise.
const LISTED: u32 = 100;

pub(super) async fn send(
    door: AgentContext,
    Json(request): Json<SendRequest>,
) -> ApiResult<Json<SendResponse>> {
    let SendRequest {
        to,
        kind,
        body,
        reply_to,
        dedupe,
    } = request;
    if !matches!(
        kind,
        MessageKind::Message | MessageKind::Question | MessageKind::Answer
    ) {
        let message = "send messages of kind message, question or answer";
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    door.spend(body.len(), copies(kind), to == Address::Operator)?;
    let AgentContext { context, agent, .. } = door;
    let now = context.reconciler.host().clock.now();
    let message = Outgoing {
        from: Address::Agent(agent),
        to,
        kind,
        topic: None,
        body,
        reply_to,
        dedupe,
    };
    Ok(Json(context.broker.send(message, now).await?))
}

/// How often a text is kept: questions and answers have a row besides their message.
fn copies(kind: MessageKind) -> usize {
    match kind {
        MessageKind::Question | MessageKind::Answer => 2,
        MessageKind::Message | MessageKind::System | MessageKind::Unknown => 1,
    }
}

pub(super) async fn broadcast(
    door: AgentContext,
    Json(request): Json<BroadcastRequest>,
) -> ApiResult<Json<BroadcastResponse>> {
    let recipients = door.context.reconciler.ledger().agents().await?.items.len();
    door.spend(request.body.len(), recipients, false)?;
    let AgentContext { context, agent, .. } = door;
    let now = context.reconciler.host().clock.now();
    let broadcast = Broadcast { from: agent, request };
    Ok(Json(context.broker.broadcast(broadcast, now).await?))
}

/// The allow-list that is deployed; `None`: everybody. Without a deployment nobody has allowed anything yet. Only shown
/// here: what holds is looked up when something is sent.
fn listed(record: Option<&AgentRecord>) -> Option<BTreeSet<Address>> {
    let deployed = record.and_then(|record| record.deployed.as_ref());
    deployed.map_or_else(|| Some(BTreeSet::new()), |d| d.output.config.recipients.clone())
}

fn role(record: &AgentRecord) -> Role {
    let deployed = record.deployed.as_ref();
    deployed.map_or_else(Role::default, |d| d.output.config.role)
}

pub(super) async fn whoami(door: AgentContext) -> ApiResult<Json<WhoAmI>> {
    let AgentContext { context, agent, .. } = door;
    let reconciler = &context.reconciler;
    let records = reconciler.ledger().agents().await?.items;
    let own = records.iter().find(|record| record.name == agent);
    let listed = listed(own);
    let others = records
        .iter()
        .filter(|record| record.name != agent && gets_mail(&record.life));
    let managers: Vec<AgentName> = others
        .clone()
        .filter(|record| role(record) == Role::Manager)
        .map(|record| record.name.clone())
        .collect();
    let may = |to: &Address| {
        let managed = matches!(to, Address::Agent(name) if managers.contains(name));
        managed || listed.as_ref().is_none_or(|listed| listed.contains(to))
    };
    let recipients = std::iter::once(Address::Operator)
        .chain(others.map(|record| Address::Agent(record.name.clone())))
        .filter(may)
        .collect();
    let accepted = reconciler.accepted();
    let spec = accepted.as_ref().and_then(|accepted| accepted.in_force());
    let config = own
        .and_then(|record| record.deployed.as_ref())
        .map(|d| &d.output.config);
    let me = own.map_or_else(Role::default, role);
    let mut all_managers = managers;
    if me == Role::Manager {
        all_managers.push(agent.clone());
        all_managers.sort();
    }
    Ok(Json(WhoAmI {
        hive: config
            .map(|config| config.hive.clone())
            .or_else(|| spec.map(|spec| spec.hive.name.clone()))
            .unwrap_or_default(),
        operator: config
            .map(|config| config.operator.clone())
            .or_else(|| spec.map(|spec| spec.operator.clone()))
            .unwrap_or_default(),
        role: me,
        recipients,
        managers: all_managers,
        commit: config.map(|config| config.commit.clone()),
        now: reconciler.host().clock.now(),
        name: agent,
    }))
}

fn gets_mail(life: &AgentLife) -> bool {
    match life {
        AgentLife::Declared | AgentLife::Active | AgentLife::Removed { .. } | AgentLife::Restoring { .. } => {
            true
        }
        AgentLife::Draft
        | AgentLife::GivenUp { .. }
        | AgentLife::Archived { .. }
        | AgentLife::Purged { .. } => false,
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Sent {
    /// Only messages with a lower number
    before: Option<u64>,
    /// At most this many, and never more than 500; 100 unless given
    limit: Option<u32>,
}

pub(super) async fn sent(door: AgentContext, Query(query): Query<Sent>) -> ApiResult<Json<Vec<SentMessage>>> {
    let AgentContext { context, agent, .. } = door;
    let Sent { before, limit } = query;
    let limit = limit.unwrap_or(LISTED);
    Ok(Json(context.broker.sent(&agent, before, limit).await?))
}

pub(super) async fn reminders(door: AgentContext) -> ApiResult<Json<Vec<ReminderInfo>>> {
    Ok(Json(door.context.broker.reminders(&door.agent).await?))
}

pub(super) async fn remind(
    door: AgentContext,
    Json(request): Json<ReminderRequest>,
) -> ApiResult<Json<ReminderInfo>> {
    door.spend(request.body.len(), 1, false)?;
    let AgentContext { context, agent, .. } = door;
    let now = context.reconciler.host().clock.now();
    Ok(Json(context.broker.remind(&agent, request, now).await?))
}

pub(super) async fn forget_reminder(door: AgentContext, Path(id): Path<String>) -> ApiResult<StatusCode> {
    let AgentContext { context, agent, .. } = door;
    let id: u64 = parsed(&id, "a reminder's number")?;
    let now = context.reconciler.host().clock.now();
    context
        .broker
        .forget_reminder(id, Address::Agent(agent), now)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
