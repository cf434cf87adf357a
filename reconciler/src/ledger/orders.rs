//! Orders of managers: what becomes of one is written in one transaction, on what holds at that moment.

use jiff::Timestamp;
use serde_json::json;
use shared::event::Level;
use shared::gate::{Asker, Decision, Gate};
use shared::spec::RunState;
use shared::topic::Topic;
use shared::{AgentUid, GateId};

use super::error::LedgerError;
use super::events::{self, NewEvent};
use super::{Tx, agents, changes, messages};
use crate::model::change::Notice;
use crate::model::order::{ManagerOrder, OrderState, Verb};
use crate::model::records::{AgentLife, AgentOrigin, AgentRecord, Overrides};

/// What was known when an order was allowed.
pub(super) struct Allowed {
    /// What the spec says about the run state.
    pub(super) declared: RunState,
    /// The gate.
    pub(super) gate: Option<GateId>,
    /// When.
    pub(super) at: Timestamp,
}

/// Puts an order that is allowed in force, unless another has taken its place, or the operator's stands against it.
pub(super) fn obey(tx: &mut Tx<'_>, uid: AgentUid, number: u64, allowed: Allowed) -> Result<(), LedgerError> {
    let Allowed { declared, gate, at } = allowed;
    let Some((mut record, order)) = pending(tx, uid, number)? else {
        return Ok(());
    };
    let overrides = agents::overrides(tx, uid)?;
    match order.run_override(&overrides, declared, at) {
        Err(reason) => return end(tx, uid, number, &reason, at),
        Ok(None) => {}
        Ok(Some(run)) => changes::put_overrides(tx, uid, &Overrides { run, ..overrides })?,
    }
    match order.verb {
        Verb::Start | Verb::Stop => {}
        // Not in the future, whatever was done to the clock since: what is started then would end again.
        Verb::Restart => record.restart_before = Some(order.at.min(at)),
        Verb::Rebuild => record.rebuild = true,
        Verb::Archive if record.origin == AgentOrigin::Spec => {
            let reason = "the spec declares it";
            return end(tx, uid, number, reason, at);
        }
        Verb::Archive => record.life = AgentLife::Removed { since: at },
    }
    let line = order.line(&record.name);
    let order = ManagerOrder { gate, ..order };
    set(tx, record, order, OrderState::Done)?;
    note(tx, uid, Level::Info, "orderCarriedOut", &line, at)
}

/// Ends an order that comes to nothing, and tells who gave it.
pub(super) fn end(
    tx: &mut Tx<'_>,
    uid: AgentUid,
    number: u64,
    reason: &str,
    at: Timestamp,
) -> Result<(), LedgerError> {
    let Some((record, order)) = pending(tx, uid, number)? else {
        return Ok(());
    };
    let (by, by_uid, name) = (order.by.clone(), order.by_uid, record.name.clone());
    let body = format!(
        "the order to {} {name} came to nothing: {reason}",
        order.verb.as_str()
    );
    let reason = reason.to_owned();
    set(tx, record, order, OrderState::Ended { reason })?;
    if agents::uid_of(tx, &by)? == Some(by_uid) {
        let notice = Notice {
            topic: Topic::Order,
            body: body.clone(),
            dedupe: format!("{uid}/order/{number}/ended"),
            at,
        };
        messages::notify(tx, &by, &notice)?;
    }
    note(tx, uid, Level::Warning, "orderEnded", &body, at)
}

/// What a denial means for the order behind the gate. Managers and the agent are told of the denial itself.
pub(super) fn note_denial(tx: &mut Tx<'_>, gate: &Gate, decision: &Decision) -> Result<(), LedgerError> {
    let Some(uid) = gate
        .uid
        .filter(|_| !decision.approve && gate.asked_by == Asker::Manager)
    else {
        return Ok(());
    };
    let record = agents::get(tx, uid)?;
    let is_this = |order: &&ManagerOrder| order.is_pending() && order.verb.class() == gate.class;
    let Some(order) = record.order.as_deref().filter(is_this).cloned() else {
        return Ok(());
    };
    let reason = format!("{} denied gate {}", decision.by, gate.id);
    set(tx, record, order, OrderState::Ended { reason })
}

fn pending(
    tx: &Tx<'_>,
    uid: AgentUid,
    number: u64,
) -> Result<Option<(AgentRecord, ManagerOrder)>, LedgerError> {
    let record = agents::get(tx, uid)?;
    let order = record.order.as_deref().cloned();
    let order = order.filter(|order| order.number == number && order.is_pending());
    Ok(order.map(|order| (record, order)))
}

fn set(tx: &Tx<'_>, record: AgentRecord, order: ManagerOrder, state: OrderState) -> Result<(), LedgerError> {
    let order = Some(Box::new(ManagerOrder { state, ..order }));
    agents::put(tx, &AgentRecord { order, ..record })
}

fn note(
    tx: &mut Tx<'_>,
    uid: AgentUid,
    level: Level,
    kind: &'static str,
    message: &str,
    at: Timestamp,
) -> Result<(), LedgerError> {
    let name = agents::get(tx, uid)?.name;
    events::append(
        tx,
        NewEvent {
            at,
            agent: Some(&name),
            level,
            kind,
            message,
            data: json!({}),
        },
    )
}
