//! Drafts: each command decides on what the ledger says at that moment, and is applied in the same transaction.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::Connection;
use shared::AgentUid;
use shared::event::Level;
use shared::gate::{Decision, Gate};
use shared::topic::Topic;

use super::error::LedgerError;
use super::events::{self, NewEvent};
use super::sql::{Columns as _, list};
use super::{Ledger, Tx, TxError, agents, changes, gates, messages};
use crate::model::change::{Change, Notice};
use crate::model::draft::{Denial, Draft, Owner};
use crate::model::records::{AgentLife, AgentRecord};

/// What a command about drafts decides on.
#[derive(Debug)]
pub struct Register {
    /// The agents whose names are taken.
    pub records: Vec<AgentRecord>,
    /// Those of which an approved step has begun and not ended.
    pub begun: BTreeSet<AgentUid>,
}

impl Ledger {
    /// The register, to look at.
    pub async fn register(&self) -> Result<Register, LedgerError> {
        self.read(register).await
    }

    /// Lets `decide` look at the register and applies what it decides, in one transaction. Nothing changes in between,
    /// and nothing is applied when it refuses.
    pub(crate) async fn decide_on_register<T, E>(
        &self,
        decide: impl FnOnce(&Register) -> Result<(Vec<Change>, T), E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: TxError,
    {
        let decided: Result<_, LedgerError> = self
            .write(move |tx| {
                let register = register(tx)?;
                Ok(match decide(&register) {
                    Ok((changes, answer)) => {
                        changes::apply_all(tx, changes)?;
                        Ok(answer)
                    }
                    Err(refused) => Err(refused),
                })
            })
            .await;
        decided?
    }
}

fn register(db: &Connection) -> Result<Register, LedgerError> {
    let begun = list(
        db,
        gates::GATES,
        "SELECT id, uid FROM gates WHERE state = 'consumed' AND completed_at IS NULL
             AND class <> 'build' AND uid IS NOT NULL",
        [],
        |row| row.parsed("uid"),
    )?;
    Ok(Register {
        // A row that cannot be read still keeps its name from being taken.
        records: agents::records(db, "life <> 'archived'")?.items,
        begun: begun.items.into_iter().collect(),
    })
}

/// Ends an offer that comes to nothing, and tells its owner. Another offer stays.
pub(super) fn end_offer(
    tx: &mut Tx<'_>,
    uid: AgentUid,
    offered_at: Timestamp,
    reason: &str,
    at: Timestamp,
) -> Result<(), LedgerError> {
    let mut record = agents::get(tx, uid)?;
    let is_this = |draft: &&mut Box<Draft>| draft.offer.as_ref().is_some_and(|o| o.at == offered_at);
    let Some(draft) = record.draft.as_mut().filter(is_this) else {
        return Ok(());
    };
    draft.offer = None;
    draft.failed = Some(reason.to_owned());
    agents::put(tx, &record)?;
    let name = record.name.clone();
    let body = format!("the offer to spawn {name} came to nothing: {reason}; the draft is there for changes");
    let notice = Notice {
        topic: Topic::Draft,
        body: body.clone(),
        dedupe: format!("{uid}/offer/{offered_at}/ended"),
        at,
    };
    tell_owner(tx, &record, &notice)?;
    events::append(
        tx,
        NewEvent {
            at,
            agent: Some(&name),
            level: Level::Warning,
            kind: "offerEnded",
            message: &body,
            data: serde_json::Value::Null,
        },
    )
}

/// What a denial means for the draft behind the gate: it is not offered any more, and the same is not asked about again.
pub(super) fn note_denial(tx: &mut Tx<'_>, gate: &Gate, decision: &Decision) -> Result<(), LedgerError> {
    let Some(uid) = gate.uid.filter(|_| !decision.approve) else {
        return Ok(());
    };
    let mut record = agents::get(tx, uid)?;
    let Some(draft) = record.draft.as_mut().filter(|draft| draft.offer.is_some()) else {
        return Ok(());
    };
    draft.offer = None;
    draft.denied = Some(Denial {
        gate: gate.id,
        reason: decision.reason.clone(),
        content: draft.content()?,
    });
    agents::put(tx, &record)
}

/// Tells the manager that prepares a draft, while it is there.
pub(super) fn tell_owner(tx: &mut Tx<'_>, record: &AgentRecord, notice: &Notice) -> Result<(), LedgerError> {
    let owner = record.draft.as_ref().map(|draft| &draft.owner);
    let Some(Owner::Manager { name, uid }) = owner else {
        return Ok(());
    };
    if agents::uid_of(tx, name)? == Some(*uid) {
        messages::notify(tx, name, notice)?;
    }
    Ok(())
}

/// Whether an agent is a draft: it gets no mail.
pub(super) fn is_draft(record: &AgentRecord) -> bool {
    matches!(record.life, AgentLife::Draft | AgentLife::GivenUp { .. })
}
