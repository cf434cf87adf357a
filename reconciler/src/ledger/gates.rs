//! Gates and decisions.
//!
//! ```text
//! open --decide--> approved --begin--> consumed --complete--> consumed, completed
//!   |        \--> denied       \                 \--abandon-> consumed, completed, ended because
//!   \--end--> superseded <-----/
//! ```

use jiff::Timestamp;
use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::agent_api::ProposalPhase;
use shared::event::Level;
use shared::gate::{Asker, Decision, Gate, GateClass, GateState, GateView};
use shared::topic::Topic;
use shared::{AgentName, CommitOid, Digest, GateId, ProposalNumber};

use super::error::{DecideError, Fault, LedgerError, Listing};
use super::events::{self, NewEvent};
use super::sql::{self, At, Columns as _, bounded, execute, int, list, one, text};
use super::{Ledger, Tx, agents, drafts, messages, orders};
use crate::counters::Counted;
use crate::model::change::Notice;
use crate::model::gates::{GateAction, NewGate};
use crate::model::records::{GateRecord, Mark};

/// The longest reason, in bytes.
const MAX_REASON_BYTES: usize = 4096;
/// The most gates one list shows.
const MAX_GATES: u32 = 1000;

pub(super) const GATES: (&str, &[&str]) = ("gates", &["id"]);

/// Gates with their decisions.
pub(super) const ALL: &str = "
    SELECT g.*, d.approve, d.by, d.at AS decided_at, d.reason, d.digest AS decided_digest
    FROM gates g LEFT JOIN decisions d ON d.gate = g.id";

/// Gates that can still matter to planning, ready for `AND`.
pub(super) const LIVE: &str = "
    SELECT g.*, d.approve, d.by, d.at AS decided_at, d.reason, d.digest AS decided_digest
    FROM gates g LEFT JOIN decisions d ON d.gate = g.id
    WHERE (g.state IN ('open', 'approved')
        OR (g.state = 'consumed' AND g.completed_at IS NULL)
        OR (g.state = 'denied' AND NOT EXISTS (
            SELECT 1 FROM gates later
            WHERE later.uid IS g.uid AND later.state = 'denied' AND later.digest = g.digest AND later.id > g.id)))";

/// What never changes about a gate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GateDoc {
    asked_by: Asker,
    #[serde(default)]
    proposal: Option<ProposalNumber>,
    #[serde(default)]
    commit: Option<CommitOid>,
    #[serde(default)]
    system: Option<String>,
    view: GateView,
}

impl Ledger {
    /// Opens and ends gates, all in one transaction; returns the gate of each action, in their order. An effect
    /// that is asked for already gets no second gate, and a gate that was decided meanwhile is not ended.
    pub async fn sync_gates(
        &self,
        actions: Vec<GateAction>,
        at: Timestamp,
    ) -> Result<Vec<GateId>, LedgerError> {
        if actions.is_empty() {
            return Ok(Vec::new());
        }
        self.write(move |tx| {
            let act = |action| match action {
                GateAction::Open(gate) => open(tx, &gate, at),
                GateAction::End { gate, reason } => end(tx, gate, &reason, at),
            };
            actions.into_iter().map(act).collect()
        })
        .await
    }

    /// Records a decision. Of two for the same gate exactly one is recorded.
    pub async fn decide(
        &self,
        id: GateId,
        approve: bool,
        by: String,
        reason: String,
        digest: Digest,
        at: Timestamp,
    ) -> Result<Gate, DecideError> {
        let decision = Decision {
            approve,
            by: bounded(&by, 256),
            at,
            reason: bounded(&reason, MAX_REASON_BYTES),
            digest,
        };
        self.write(move |tx| {
            let mut gate = get(tx, id)?.ok_or(DecideError::NotFound(id))?.gate;
            if gate.state != GateState::Open || gate.decision.is_some() {
                return Err(DecideError::NotOpen {
                    gate: id,
                    state: gate.state,
                    decision: gate.decision.map(Box::new),
                });
            }
            if gate.digest != decision.digest {
                return Err(DecideError::Moved {
                    gate: id,
                    current: gate.digest,
                });
            }
            record_decision(tx, &mut gate, decision)?;
            Ok(gate)
        })
        .await
    }

    /// Gates about the hive that can still matter.
    pub async fn hive_gates(&self) -> Result<Vec<GateRecord>, LedgerError> {
        self.read(|db| {
            let sql = format!("{LIVE} AND g.uid IS NULL ORDER BY g.id");
            list(db, GATES, &sql, [], record)?.complete()
        })
        .await
    }

    /// Gates that are open or approved, or the newest 1,000 of all, oldest first.
    pub async fn gates(&self, all: bool) -> Result<Listing<Gate>, LedgerError> {
        self.read(move |db| {
            let which = if all {
                ""
            } else {
                "WHERE g.state IN ('open', 'approved')"
            };
            let sql = format!("{ALL} {which} ORDER BY g.id DESC LIMIT {MAX_GATES}");
            let mut gates = list(db, GATES, &sql, [], |row| gate(row).map(|(gate, _)| gate))?;
            gates.items.reverse();
            Ok(gates)
        })
        .await
    }

    /// One gate.
    pub async fn gate(&self, id: GateId) -> Result<Option<GateRecord>, LedgerError> {
        self.read(move |db| get(db, id)).await
    }
}

/// Open gates about one agent, or all of them, oldest first.
pub(crate) fn open_gates(db: &Connection, agent: Option<&AgentName>) -> Result<Listing<Gate>, LedgerError> {
    let sql = format!(
        "{ALL} WHERE g.state = 'open' AND (?1 IS NULL OR g.agent = ?1) ORDER BY g.id LIMIT {MAX_GATES}"
    );
    list(db, GATES, &sql, [agent.map(AgentName::as_str)], |row| {
        gate(row).map(|(gate, _)| gate)
    })
}

/// One gate.
pub(super) fn get(db: &Connection, id: GateId) -> Result<Option<GateRecord>, LedgerError> {
    one(db, GATES, &format!("{ALL} WHERE g.id = ?1"), [int(id.0)], record)
}

/// A gate and its step.
pub(super) fn record(row: &Row<'_>) -> Result<GateRecord, Fault> {
    let (gate, step) = gate(row)?;
    Ok(GateRecord {
        gate,
        step: sql::decode(step)?,
    })
}

/// A gate and the text of its step, which lists need not decode.
pub(super) fn gate<'r>(row: &'r Row<'_>) -> Result<(Gate, &'r str), Fault> {
    let GateDoc {
        asked_by,
        proposal,
        commit,
        system,
        view,
    } = row.json("doc")?;
    let decision = match row.get::<_, Option<bool>>("approve")? {
        None => None,
        Some(approve) => Some(Decision {
            approve,
            by: row.get("by")?,
            at: row.time("decided_at")?,
            reason: row.get("reason")?,
            digest: row.parsed("decided_digest")?,
        }),
    };
    let gate = Gate {
        id: GateId(row.number("id")?),
        agent: row.maybe_parsed("agent")?,
        uid: row.maybe_parsed("uid")?,
        class: row.word("class")?,
        asked_by,
        state: row.word("state")?,
        digest: row.parsed("digest")?,
        proposal,
        commit,
        system,
        opened_at: row.time("opened_at")?,
        decision,
        consumed_at: row.maybe_time("consumed_at")?,
        completed_at: row.maybe_time("completed_at")?,
        ended_because: row.get("ended_because")?,
        view,
    };
    Ok((gate, row.get_ref("step")?.as_str()?))
}

fn open(tx: &mut Tx<'_>, new: &NewGate, at: Timestamp) -> Result<GateId, LedgerError> {
    if new.auto.is_some() && new.class.always_asks() {
        return Err(LedgerError::NeverAuto(new.class));
    }
    if let Some(uid) = new.uid {
        agents::known(tx, uid)?;
    }
    let (mut gate, is_new) = match pending(tx, new)? {
        Some(gate) => (gate, false),
        None => (insert(tx, new, at)?, true),
    };
    let id = gate.id;
    match &new.auto {
        Some(rule) if gate.state == GateState::Open => {
            let decision = Decision {
                approve: true,
                by: format!("policy:{rule}"),
                at,
                reason: String::new(),
                digest: gate.digest.clone(),
            };
            record_decision(tx, &mut gate, decision)?;
        }
        None if is_new => note(tx, &gate, Level::Alert, "gateOpened", "waits for a decision", at)?,
        Some(_) | None => {}
    }
    Ok(id)
}

/// The gate that asks for this very effect already, or whose effect is under way.
fn pending(tx: &Tx<'_>, new: &NewGate) -> Result<Option<Gate>, LedgerError> {
    one(
        tx,
        GATES,
        &format!(
            "{ALL} WHERE g.uid IS ?1 AND g.digest = ?2
               AND (g.state IN ('open', 'approved') OR (g.state = 'consumed' AND g.completed_at IS NULL))
             ORDER BY g.id DESC LIMIT 1"
        ),
        (new.uid.as_ref().map(text), new.digest.as_str()),
        |row| gate(row).map(|(gate, _)| gate),
    )
}

fn insert(tx: &Tx<'_>, new: &NewGate, at: Timestamp) -> Result<Gate, LedgerError> {
    let doc = GateDoc {
        asked_by: new.asked_by,
        proposal: new.proposal,
        commit: new.commit.clone(),
        system: new.system.clone(),
        view: new.view.clone(),
    };
    execute(
        tx,
        "INSERT INTO gates (uid, agent, class, state, digest, opened_at, doc, step)
         VALUES (?1, ?2, ?3, 'open', ?4, ?5, ?6, ?7)",
        (
            new.uid.as_ref().map(text),
            new.agent.as_ref().map(text),
            new.class.as_str(),
            new.digest.as_str(),
            At(at),
            sql::json("a gate", &doc)?,
            sql::json("a gated step", &new.step)?,
        ),
    )?;
    Ok(Gate {
        id: GateId(tx.last_insert_rowid().unsigned_abs()),
        agent: new.agent.clone(),
        uid: new.uid,
        class: new.class,
        asked_by: new.asked_by,
        state: GateState::Open,
        digest: new.digest.clone(),
        proposal: new.proposal,
        commit: doc.commit,
        system: doc.system,
        opened_at: at,
        decision: None,
        consumed_at: None,
        completed_at: None,
        ended_because: None,
        view: doc.view,
    })
}

/// Writes a gate of an earlier ledger under its number, with its decision. It must be over.
pub(super) fn restore(tx: &Tx<'_>, record: &GateRecord) -> Result<(), LedgerError> {
    let GateRecord { gate, step } = record;
    let doc = GateDoc {
        asked_by: gate.asked_by,
        proposal: gate.proposal,
        commit: gate.commit.clone(),
        system: gate.system.clone(),
        view: gate.view.clone(),
    };
    execute(
        tx,
        "INSERT INTO gates (id, uid, agent, class, state, digest, opened_at, consumed_at, completed_at, ended_because,
             doc, step)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        (
            int(gate.id.0),
            gate.uid.as_ref().map(text),
            gate.agent.as_ref().map(text),
            gate.class.as_str(),
            gate.state.as_str(),
            gate.digest.as_str(),
            At(gate.opened_at),
            gate.consumed_at.map(At),
            gate.completed_at.map(At),
            &gate.ended_because,
            sql::json("a gate", &doc)?,
            sql::json("a gated step", step)?,
        ),
    )?;
    match &gate.decision {
        Some(decision) => insert_decision(tx, gate.id, decision),
        None => Ok(()),
    }
}

fn insert_decision(tx: &Tx<'_>, gate: GateId, decision: &Decision) -> Result<(), LedgerError> {
    // The primary key makes it write-once, whatever came before this line.
    execute(
        tx,
        "INSERT INTO decisions (gate, approve, by, at, reason, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (
            int(gate.0),
            decision.approve,
            &decision.by,
            At(decision.at),
            &decision.reason,
            decision.digest.as_str(),
        ),
    )
    .map(drop)
}

fn end(tx: &mut Tx<'_>, id: GateId, reason: &str, at: Timestamp) -> Result<GateId, LedgerError> {
    let gate = get(tx, id)?.ok_or(LedgerError::UnknownGate(id))?.gate;
    if matches!(gate.state, GateState::Open | GateState::Approved) {
        supersede(tx, &gate, reason, at)?;
    }
    Ok(id)
}

/// Ends a gate that was not used. It must be open or approved.
pub(super) fn supersede(
    tx: &mut Tx<'_>,
    gate: &Gate,
    reason: &str,
    at: Timestamp,
) -> Result<(), LedgerError> {
    let reason = bounded(reason, MAX_REASON_BYTES);
    execute(
        tx,
        "UPDATE gates SET state = 'superseded', ended_because = ?2
         WHERE id = ?1 AND state IN ('open', 'approved')",
        (int(gate.id.0), &reason),
    )?;
    let what = format!("ended unused: {reason}");
    note(tx, gate, Level::Info, "gateSuperseded", &what, at)
}

/// Writes a decision about an open gate, and what follows from it.
fn record_decision(tx: &mut Tx<'_>, gate: &mut Gate, decision: Decision) -> Result<(), LedgerError> {
    insert_decision(tx, gate.id, &decision)?;
    gate.state = if decision.approve {
        GateState::Approved
    } else {
        GateState::Denied
    };
    execute(
        tx,
        "UPDATE gates SET state = ?2 WHERE id = ?1 AND state = 'open'",
        (int(gate.id.0), gate.state.as_str()),
    )?;
    let by_policy = decision.by.starts_with("policy:");
    tx.count(Counted::Decision {
        class: gate.class.as_str(),
        verdict: gate.state.as_str(),
        by: if by_policy { "policy" } else { "operator" },
    });
    mark_proposal(tx, gate, &decision)?;
    drafts::note_denial(tx, gate, &decision)?;
    orders::note_denial(tx, gate, &decision)?;

    let Decision {
        approve,
        by,
        at,
        reason,
        digest: _,
    } = &decision;
    let because = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    let kind = match (approve, by_policy) {
        (true, true) => "gateAutoApproved",
        (true, false) => "gateApproved",
        (false, _) => "gateDenied",
    };
    let verb = gate.state.as_str();
    note(
        tx,
        gate,
        Level::Info,
        kind,
        &format!("{verb} by {by}{because}"),
        *at,
    )?;
    if !approve {
        let what = format!(
            "{by} denied gate {}, which asked for {}{because}",
            gate.id, gate.view.summary
        );
        let notice = Notice {
            topic: Topic::Denied,
            body: what,
            dedupe: format!("gate/{}/denied", gate.id),
            at: *at,
        };
        tell_agent(tx, gate, &notice)?;
        if let Some(name) = &gate.agent {
            messages::notify_managers(tx, name, &notice)?;
        }
    }
    gate.decision = Some(decision);
    Ok(())
}

/// Moves the proposal behind a gate. To approve its build is not yet to approve the proposal.
fn mark_proposal(tx: &Tx<'_>, gate: &Gate, decision: &Decision) -> Result<(), LedgerError> {
    let (Some(uid), Some(number)) = (gate.uid, gate.proposal) else {
        return Ok(());
    };
    if decision.approve && gate.class == GateClass::Build {
        return Ok(());
    }
    let Some(mut proposal) = agents::proposal(tx, uid, number)? else {
        return Ok(());
    };
    if proposal.phase.is_final() {
        return Ok(());
    }
    proposal.phase = if decision.approve {
        ProposalPhase::Approved
    } else {
        ProposalPhase::Denied
    };
    proposal.marks.insert(
        proposal.phase,
        Mark {
            at: decision.at,
            gate: Some(gate.id),
            digest: Some(decision.digest.clone()),
            by: Some(decision.by.clone()),
            reason: decision.reason.clone(),
        },
    );
    agents::put_proposal(tx, uid, &proposal)
}

/// Appends an event about a gate.
pub(super) fn note(
    tx: &mut Tx<'_>,
    gate: &Gate,
    level: Level,
    kind: &'static str,
    what: &str,
    at: Timestamp,
) -> Result<(), LedgerError> {
    events::append(
        tx,
        NewEvent {
            at,
            agent: gate.agent.as_ref(),
            level,
            kind,
            message: &format!("gate {} ({}) {what}", gate.id, gate.view.summary),
            data: json!({
                "gate": gate.id,
                "class": gate.class,
                "digest": gate.digest,
                "proposal": gate.proposal,
            }),
        },
    )
}

/// Tells the agent concerned how its gate ended, or whoever prepares it; an agent that is gone needs no telling.
pub(super) fn tell_agent(tx: &mut Tx<'_>, gate: &Gate, notice: &Notice) -> Result<(), LedgerError> {
    let (Some(name), Some(uid)) = (&gate.agent, gate.uid) else {
        return Ok(());
    };
    if agents::uid_of(tx, name)? != Some(uid) {
        return Ok(());
    }
    let record = agents::get(tx, uid)?;
    if drafts::is_draft(&record) {
        drafts::tell_owner(tx, &record, notice)
    } else {
        messages::notify(tx, name, notice)
    }
}
