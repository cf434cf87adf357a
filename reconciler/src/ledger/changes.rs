//! Applies lists of changes: all of a list, or none of it.

use shared::AgentUid;
use shared::agent_api::ProposalPhase;
use shared::event::Level;

use super::error::LedgerError;
use super::events::{self, NewEvent};
use super::orders::Allowed;
use super::sql::{At, execute, json, text, uid_or_hive};
use super::{Ledger, Tx, agents, drafts, messages, orders, questions, reminders};
use crate::model::change::Change;
use crate::model::order::Verb;
use crate::model::records::{AgentLife, AgentRecord, Failures, Overrides};

impl Ledger {
    /// Applies all changes, or none. An empty list writes nothing.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<(), LedgerError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(move |tx| apply_all(tx, changes)).await
    }
}

pub(super) fn apply_all(tx: &mut Tx<'_>, changes: Vec<Change>) -> Result<(), LedgerError> {
    changes.into_iter().try_for_each(|change| apply(tx, change))
}

fn apply(tx: &mut Tx<'_>, change: Change) -> Result<(), LedgerError> {
    match change {
        Change::Register {
            name,
            uid,
            origin,
            at,
        } => {
            match agents::known(tx, uid) {
                Err(LedgerError::UnknownAgent(_)) => {}
                Ok(()) => return Err(LedgerError::UidInUse(uid)),
                Err(error) => return Err(error),
            }
            agents::put(
                tx,
                &AgentRecord {
                    uid,
                    name,
                    life: AgentLife::Declared,
                    origin,
                    declared_at: at,
                    seed: None,
                    deployed: None,
                    last_good: None,
                    restart_before: None,
                    order: None,
                    rebuild: false,
                    purge: None,
                    draft: None,
                    recovered: None,
                    out_of_memory: None,
                },
            )
        }
        Change::Life { uid, life } => set_life(tx, uid, life),
        Change::Origin { uid, origin } => update(tx, uid, |agent| agent.origin = origin),
        Change::PurgeOrder { uid, order } => update(tx, uid, |agent| agent.purge = order),
        Change::Draft { uid, draft } => update(tx, uid, |agent| agent.draft = draft),
        Change::DraftCommit { uid, commit } => update(tx, uid, |agent| {
            if let Some(draft) = &mut agent.draft {
                draft.commit = Some(commit);
                draft.overlay = None;
            }
        }),
        Change::OfferEnded {
            uid,
            offered_at,
            reason,
            at,
        } => drafts::end_offer(tx, uid, offered_at, &reason, at),
        Change::Seeded { uid, commit } => update(tx, uid, |agent| agent.seed = Some(commit)),
        Change::Deployed { uid, deployed } => update(tx, uid, |agent| {
            agent.deployed = deployed.map(|d| *d);
            if let Some(found) = &mut agent.recovered {
                found.adopts = false;
            }
        }),
        Change::LastGood { uid, deployed } => update(tx, uid, |agent| agent.last_good = Some(*deployed)),
        Change::RestartBefore { uid, at } => update(tx, uid, |agent| agent.restart_before = Some(at)),
        Change::Order { uid, order } => update(tx, uid, |agent| agent.order = Some(order)),
        Change::Obey {
            uid,
            number,
            declared,
            gate,
            at,
        } => orders::obey(tx, uid, number, Allowed { declared, gate, at }),
        Change::OutOfMemory { uid, told } => update(tx, uid, |agent| agent.out_of_memory = Some(told)),
        Change::Rebuild { uid, wanted } => update(tx, uid, |agent| agent.rebuild = wanted),
        Change::OrderEnded {
            uid,
            number,
            reason,
            at,
        } => orders::end(tx, uid, number, &reason, at),
        Change::Propose { uid, proposal } => {
            agents::known(tx, uid)?;
            let number = proposal.number;
            if agents::proposal(tx, uid, number)?.is_some() {
                return Err(LedgerError::ProposalExists { uid, number });
            }
            agents::put_proposal(tx, uid, &proposal)
        }
        Change::Phase {
            uid,
            number,
            phase,
            mark,
        } => {
            agents::known(tx, uid)?;
            let mut proposal =
                agents::proposal(tx, uid, number)?.ok_or(LedgerError::UnknownProposal { uid, number })?;
            // Whoever says so looked before the proposal was decided: what is over stays over. What was deployed may
            // still fail its probation.
            let failed = (proposal.phase, phase) == (ProposalPhase::Deployed, ProposalPhase::Failed);
            if proposal.phase.is_final() && !failed {
                return Ok(());
            }
            proposal.phase = phase;
            if phase == ProposalPhase::Proposed {
                // Back from being built: it was offered when it was offered, and its tag says so.
                proposal.marks.entry(phase).or_insert(mark);
            } else {
                proposal.marks.insert(phase, mark);
            }
            agents::put_proposal(tx, uid, &proposal)
        }
        Change::InPhase { uid, number, phase } => {
            let proposal =
                agents::proposal(tx, uid, number)?.ok_or(LedgerError::UnknownProposal { uid, number })?;
            if proposal.phase == phase {
                Ok(())
            } else {
                Err(LedgerError::Overtaken { uid, number })
            }
        }
        Change::Built { uid, key, state, at } => {
            agents::known(tx, uid)?;
            let failed = state.is_failed();
            execute(
                tx,
                "INSERT INTO builds (uid, key, failed, at, doc) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (uid, key)
                     DO UPDATE SET failed = excluded.failed, at = excluded.at, doc = excluded.doc",
                (
                    text(&uid),
                    key.as_str(),
                    failed,
                    At(at),
                    json("a build's outcome", &state)?,
                ),
            )
            .map(drop)
        }
        Change::Probation { uid, probation } => agents::put_doc(tx, "probations", uid, probation.as_ref()),
        Change::Quarantine {
            uid,
            system,
            quarantine,
        } => {
            agents::known(tx, uid)?;
            execute(
                tx,
                "INSERT INTO quarantine (uid, system, doc) VALUES (?1, ?2, ?3)
                 ON CONFLICT (uid, system) DO UPDATE SET doc = excluded.doc",
                (text(&uid), system, json("a quarantine", &quarantine)?),
            )
            .map(drop)
        }
        Change::Forget { uid } => forget(tx, uid),
        Change::RunOverride { uid, run } => {
            let before = agents::overrides(tx, uid)?;
            put_overrides(tx, uid, &Overrides { run, ..before })
        }
        Change::ModelOverride { uid, model } => {
            let before = agents::overrides(tx, uid)?;
            put_overrides(tx, uid, &Overrides { model, ..before })
        }
        Change::Suspension { uid, suspended } => {
            let before = agents::overrides(tx, uid)?;
            put_overrides(tx, uid, &Overrides { suspended, ..before })
        }
        Change::Failures { uid, failures } => {
            let doc = (failures != Failures::default()).then_some(&failures);
            agents::put_doc(tx, "failures", uid, doc)
        }
        Change::Event {
            agent,
            level,
            kind,
            message,
            data,
            at,
        } => events::append(
            tx,
            NewEvent {
                at,
                agent: agent.as_ref(),
                level,
                kind,
                message: &message,
                data,
            },
        ),
        Change::NotifyManagers { about, notice } => messages::notify_managers(tx, &about, &notice),
        Change::Notify { agent, notice } => messages::notify(tx, &agent, &notice),
    }
}

fn update(tx: &Tx<'_>, uid: AgentUid, change: impl FnOnce(&mut AgentRecord)) -> Result<(), LedgerError> {
    let mut record = agents::get(tx, uid)?;
    change(&mut record);
    agents::put(tx, &record)
}

fn set_life(tx: &mut Tx<'_>, uid: AgentUid, life: AgentLife) -> Result<(), LedgerError> {
    let mut record = agents::get(tx, uid)?;
    let archived_at = match (&record.life, &life) {
        (AgentLife::Archived { .. }, _) => None,
        (_, AgentLife::Archived { since }) => Some(*since),
        _ => None,
    };
    record.life = life;
    // What a manager ordered about its end was about this end alone.
    record.order.take_if(|order| order.verb == Verb::Archive);
    agents::put(tx, &record)?;
    // Its name may be given to another agent, which must not find the mail of this one.
    let Some(at) = archived_at else { return Ok(()) };
    let undelivered = messages::close_inbox(tx, &record.name)?;
    questions::close_of(tx, &record.name, at)?;
    reminders::close_of(tx, &record.name, at)?;
    messages::seal(tx, &record.name)?;
    if undelivered == 0 {
        return Ok(());
    }
    events::append(
        tx,
        NewEvent {
            at,
            agent: Some(&record.name),
            level: Level::Warning,
            kind: "messageDead",
            message: &format!(
                "{} was archived with {undelivered} undelivered messages",
                record.name
            ),
            data: serde_json::json!({ "undelivered": undelivered }),
        },
    )
}

/// What says nothing is no row.
pub(super) fn put_overrides(tx: &Tx<'_>, uid: AgentUid, overrides: &Overrides) -> Result<(), LedgerError> {
    let doc = (*overrides != Overrides::default()).then_some(overrides);
    agents::put_doc(tx, "overrides", uid, doc)
}

fn forget(tx: &Tx<'_>, uid: AgentUid) -> Result<(), LedgerError> {
    agents::known(tx, uid)?;
    for sql in [
        "DELETE FROM attempts WHERE uid = ?1",
        "DELETE FROM failures WHERE uid = ?1",
        "DELETE FROM quarantine WHERE uid = ?1",
        "DELETE FROM builds WHERE uid = ?1 AND failed",
        // What a proposal was denied for stays denied; what the spec asks for is asked about again.
        "UPDATE gates SET state = 'superseded', ended_because = 'the operator wants to be asked again'
         WHERE uid = ?1 AND state = 'denied' AND json_extract(doc, '$.proposal') IS NULL",
    ] {
        execute(tx, sql, [uid_or_hive(Some(uid))])?;
    }
    update(tx, uid, |agent| {
        if let Some(draft) = &mut agent.draft {
            draft.denied = None;
        }
    })
}
