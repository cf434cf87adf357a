//! Tries of steps: the intent is on disk before the effect, the outcome after it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::Connection;
use shared::event::Level;
use shared::gate::{Gate, GateState};
use shared::topic::Topic;
use shared::{AgentUid, Digest, GateId};

use super::error::{BeginError, LedgerError};
use super::sql::{At, Columns as _, bounded, execute, int, json, list, one, uid_or_hive};
use super::{Ledger, Tx, agents, changes, gates};
use crate::model::change::{Change, Notice};
use crate::model::records::Attempt;

/// The longest error of a step, in bytes.
const MAX_ERROR_BYTES: usize = 8192;

const ATTEMPTS: (&str, &[&str]) = ("attempts", &["uid", "step_id"]);

impl Ledger {
    /// Steps of the hive that did not work yet, by step id.
    pub async fn hive_attempts(&self) -> Result<BTreeMap<Digest, Attempt>, LedgerError> {
        self.read(|db| {
            let attempts = list(
                db,
                ATTEMPTS,
                "SELECT uid, step_id, doc FROM attempts WHERE uid = ''",
                [],
                |row| Ok((row.parsed("step_id")?, row.json("doc")?)),
            )?;
            Ok(attempts.complete()?.into_iter().collect())
        })
        .await
    }

    /// Notes that a step begins. With a gate, the approval is used up in the same transaction.
    pub async fn begin(
        &self,
        uid: Option<AgentUid>,
        step_id: Digest,
        gate: Option<GateId>,
        effect_digest: &Digest,
        at: Timestamp,
        next_at: Timestamp,
    ) -> Result<Attempt, BeginError> {
        let effect_digest = effect_digest.clone();
        self.write(move |tx| {
            if let Some(uid) = uid {
                agents::known(tx, uid)?;
            }
            if let Some(gate) = gate {
                consume(tx, uid, gate, &effect_digest, at)?;
            }
            let attempt = match get(tx, uid, &step_id)? {
                Some(before) => Attempt {
                    count: before.count.saturating_add(1),
                    last_at: at,
                    next_at,
                    in_flight: true,
                    terminal: false,
                    ..before
                },
                None => first(at, next_at, true),
            };
            put(tx, uid, &step_id, &attempt)?;
            Ok(attempt)
        })
        .await
    }

    /// Notes that a step was seen to have worked, and applies what follows from it.
    pub async fn complete(
        &self,
        uid: Option<AgentUid>,
        step_id: Digest,
        gate: Option<GateId>,
        changes: Vec<Change>,
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        self.write(move |tx| {
            delete(tx, uid, &step_id)?;
            if let Some(gate) = gate {
                finish_gate(tx, gate, None, at)?;
            }
            changes::apply_all(tx, changes)
        })
        .await
    }

    /// Notes that a step did not work. It may begin again at `next_at`, unless that is vain.
    pub async fn fail(
        &self,
        uid: Option<AgentUid>,
        step_id: Digest,
        error: String,
        next_at: Timestamp,
        terminal: bool,
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        self.write(move |tx| {
            if let Some(uid) = uid {
                agents::known(tx, uid)?;
            }
            // An operator's retry may have forgotten the row meanwhile; the error is worth a new one.
            let before = get(tx, uid, &step_id)?.unwrap_or_else(|| first(at, next_at, false));
            let attempt = Attempt {
                next_at,
                in_flight: false,
                terminal,
                error: bounded(&error, MAX_ERROR_BYTES),
                ..before
            };
            put(tx, uid, &step_id, &attempt)
        })
        .await
    }

    /// Gives a step up, because what it expects no longer holds. Its gate is spent or withdrawn, and both the
    /// operator and the agent are told.
    pub async fn abandon(
        &self,
        uid: Option<AgentUid>,
        step_id: Digest,
        gate: Option<GateId>,
        reason: String,
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        self.write(move |tx| {
            delete(tx, uid, &step_id)?;
            match gate {
                Some(gate) => withdraw(tx, gate, &bounded(&reason, MAX_ERROR_BYTES), at),
                None => Ok(()),
            }
        })
        .await
    }
}

/// Uses up an approval. A gate that is consumed but not complete authorises the same step again, after a crash.
fn consume(
    tx: &Tx<'_>,
    uid: Option<AgentUid>,
    id: GateId,
    effect_digest: &Digest,
    at: Timestamp,
) -> Result<(), BeginError> {
    let refuse = |why| Err(BeginError::NotAuthorised { gate: id, why });
    let Some(gate) = gates::get(tx, id)?.map(|record| record.gate) else {
        return refuse("there is no such gate");
    };
    if gate.uid != uid {
        return refuse("it belongs to another agent");
    }
    if gate.digest != *effect_digest {
        return refuse("it is about another effect");
    }
    match &gate.decision {
        Some(decision) if !decision.approve => return refuse("it was denied"),
        Some(decision) if decision.digest != gate.digest => return refuse("another effect was approved"),
        Some(_) => {}
        None => return refuse("it was not approved"),
    }
    match gate.state {
        GateState::Approved => {
            execute(
                tx,
                "UPDATE gates SET state = 'consumed', consumed_at = ?2 WHERE id = ?1 AND state = 'approved'",
                (int(id.0), At(at)),
            )?;
            Ok(())
        }
        GateState::Consumed if gate.completed_at.is_none() => Ok(()),
        GateState::Consumed => refuse("its effect was carried out already"),
        GateState::Open | GateState::Denied | GateState::Superseded | GateState::Expired => {
            refuse("it is not approved any more")
        }
    }
}

/// Completes a gate that is consumed; any other is left as it is. Returns whether it was.
fn finish_gate(tx: &Tx<'_>, id: GateId, because: Option<&str>, at: Timestamp) -> Result<bool, LedgerError> {
    let finished = execute(
        tx,
        "UPDATE gates SET completed_at = ?2, ended_because = ?3
         WHERE id = ?1 AND state = 'consumed' AND completed_at IS NULL",
        (int(id.0), At(at), because),
    )?;
    Ok(finished > 0)
}

fn withdraw(tx: &mut Tx<'_>, id: GateId, reason: &str, at: Timestamp) -> Result<(), LedgerError> {
    let gate: Gate = gates::get(tx, id)?.ok_or(LedgerError::UnknownGate(id))?.gate;
    if matches!(gate.state, GateState::Open | GateState::Approved) {
        gates::supersede(tx, &gate, reason, at)?;
    } else if finish_gate(tx, id, Some(reason), at)? {
        let what = format!("was withdrawn while it was carried out: {reason}");
        gates::note(tx, &gate, Level::Warning, "gateWithdrawn", &what, at)?;
    } else {
        return Ok(());
    }
    let notice = Notice {
        topic: Topic::Withdrawn,
        body: format!("gate {id} ({}) was withdrawn: {reason}", gate.view.summary),
        dedupe: format!("gate/{id}/withdrawn"),
        at,
    };
    gates::tell_agent(tx, &gate, &notice)
}

fn first(at: Timestamp, next_at: Timestamp, in_flight: bool) -> Attempt {
    Attempt {
        count: 1,
        first_at: at,
        last_at: at,
        next_at,
        in_flight,
        terminal: false,
        error: String::new(),
    }
}

fn get(db: &Connection, uid: Option<AgentUid>, step_id: &Digest) -> Result<Option<Attempt>, LedgerError> {
    one(
        db,
        ATTEMPTS,
        "SELECT uid, step_id, doc FROM attempts WHERE uid = ?1 AND step_id = ?2",
        (uid_or_hive(uid), step_id.as_str()),
        |row| row.json("doc"),
    )
}

fn put(tx: &Tx<'_>, uid: Option<AgentUid>, step_id: &Digest, attempt: &Attempt) -> Result<(), LedgerError> {
    execute(
        tx,
        "INSERT INTO attempts (uid, step_id, doc) VALUES (?1, ?2, ?3)
         ON CONFLICT (uid, step_id) DO UPDATE SET doc = excluded.doc",
        (uid_or_hive(uid), step_id.as_str(), json("an attempt", attempt)?),
    )?;
    Ok(())
}

fn delete(tx: &Tx<'_>, uid: Option<AgentUid>, step_id: &Digest) -> Result<(), LedgerError> {
    execute(
        tx,
        "DELETE FROM attempts WHERE uid = ?1 AND step_id = ?2",
        (uid_or_hive(uid), step_id.as_str()),
    )?;
    Ok(())
}
