//! What the operator orders about an agent's existence: destroy, purge, restore.
//!
//! Only agents that no spec declares can be ordered away here; the spec has the last word about the others. Nothing is
//! deleted by an order alone: archiving and purging each wait for their gate.

use serde_json::json;
use shared::admin_api::ArchivedAgent;
use shared::event::Level;
use shared::gate::GateState;
use shared::{AgentName, AgentUid};

use super::command::{Because, CommandError};
use super::drafts::Asking;
use super::reconciler::{Key, Reconciler};
use crate::ledger::LedgerError;
use crate::model::change::Change;
use crate::model::records::{AgentLife, AgentOrigin, AgentRecord, GateRecord, Order};
use crate::model::step::Action;

impl Reconciler {
    /// Orders that an agent which no spec declares be stopped and archived, and with `purge` that nothing be kept of it.
    /// With `uid`, or when only the archive has one of that name, the order is about an archived agent. Returns what
    /// happens next, and whether the order is new.
    ///
    /// # Errors
    /// When there is no such agent, the spec declares it, or several archives have its name.
    pub async fn destroy(
        &self,
        name: &AgentName,
        uid: Option<AgentUid>,
        purge: bool,
        because: Because,
    ) -> Result<(String, bool), CommandError> {
        let Some(record) = self.live(name, uid).await? else {
            let record = self.kept(name, uid).await?;
            return if purge {
                self.purge(&record, &because).await
            } else {
                Ok((format!("{name} lies in the archive already"), false))
            };
        };
        if matches!(record.life, AgentLife::Draft | AgentLife::GivenUp { .. }) {
            let changed = record.life == AgentLife::Draft;
            if changed {
                self.give_up(Asking::Operator(because.by), name).await?;
            }
            return Ok((
                format!("the draft of {name} is given up: nothing of it is kept"),
                changed,
            ));
        }
        if record.origin == AgentOrigin::Spec && !matches!(record.life, AgentLife::Removed { .. }) {
            return Err(CommandError::Unfit {
                agent: name.clone(),
                why: "is declared in the spec: take it out there, and it is stopped at once and archived when you agree",
            });
        }
        let now = self.host.clock.now();
        let uid = record.uid;
        let mut changes = Vec::new();
        if !matches!(record.life, AgentLife::Removed { .. }) {
            let life = AgentLife::Removed { since: now };
            changes.push(Change::Life { uid, life });
            changes.push(ordered(
                &record,
                "destroyed",
                "is to be stopped and archived",
                &because,
                now,
            ));
        }
        if purge && record.purge.is_none() {
            changes.push(order(&record, &because, now));
            changes.push(ordered(
                &record,
                "purgeOrdered",
                "is not to be kept",
                &because,
                now,
            ));
        }
        let changed = !changes.is_empty();
        self.record_order(changes, &[Key::Agent(name.clone())]).await?;
        let then = if record.purge.is_some() || purge {
            "; once you approved archiving it, a gate asks about deleting it for good"
        } else {
            "; archiving its state waits for a gate"
        };
        Ok((format!("{name} is stopped{then}"), changed))
    }

    async fn purge(&self, record: &AgentRecord, because: &Because) -> Result<(String, bool), CommandError> {
        let name = &record.name;
        let changed = record.purge.is_none();
        if changed {
            let now = self.host.clock.now();
            let changes = vec![
                order(record, because, now),
                ordered(record, "purgeOrdered", "is not to be kept", because, now),
            ];
            self.record_order(changes, &[Key::Hive]).await?;
        }
        Ok((
            format!("a gate asks before what is kept of {name} is deleted"),
            changed,
        ))
    }

    /// Orders that an agent be brought back with its state: one that is removed and not archived yet, or one from the
    /// archive. What the spec does not declare has the settings of spawned agents from then on.
    ///
    /// # Errors
    /// When its name is taken, nothing of that name is kept, or several archives are.
    pub async fn restore(
        &self,
        name: &AgentName,
        uid: Option<AgentUid>,
        because: Because,
    ) -> Result<(String, bool), CommandError> {
        let live = self.live(name, None).await?;
        let now = self.host.clock.now();
        let (record, life, what) = match live {
            Some(record) if uid.is_none_or(|uid| uid == record.uid) => match record.life {
                AgentLife::Removed { .. } if record.seed.is_some() => {
                    (record, AgentLife::Active, "is wanted again")
                }
                AgentLife::Removed { .. } => (record, AgentLife::Declared, "is wanted again"),
                AgentLife::Restoring { .. } => {
                    return Ok((format!("{name} is being restored already"), false));
                }
                _ => return Ok((format!("{name} is not archived"), false)),
            },
            Some(_) => {
                return Err(CommandError::Unfit {
                    agent: name.clone(),
                    why: "exists beside the one in the archive: remove it first, and approve its archiving",
                });
            }
            None => {
                let record = self.kept(name, uid).await?;
                if self.is_being_purged(&record).await? {
                    return Err(CommandError::Unfit {
                        agent: name.clone(),
                        why: "is being deleted: you approved that, and it has begun",
                    });
                }
                (
                    record,
                    AgentLife::Restoring { since: now },
                    "is to be moved back from the archive",
                )
            }
        };
        let uid = record.uid;
        let mut changes = vec![
            Change::Life { uid, life },
            Change::PurgeOrder { uid, order: None },
            ordered(&record, "restoreOrdered", what, &because, now),
        ];
        let declared = self.spec_in_force().await?.spec.agents.contains_key(name);
        if !declared {
            let origin = AgentOrigin::Spawn;
            changes.push(Change::Origin { uid, origin });
        }
        // A gate about purging it ends.
        self.record_order(changes, &[Key::Agent(name.clone()), Key::Hive])
            .await?;
        let settings = if declared {
            ""
        } else {
            "; the spec does not declare it, so it has the settings of spawnDefaults"
        };
        Ok((format!("{name} {what}{settings}"), true))
    }

    /// Has what the spec and its commit ask for built once more. Returns whether that was not ordered already.
    ///
    /// # Errors
    /// When there is no such agent, or the ledger fails.
    pub async fn rebuild(&self, name: &AgentName, because: Because) -> Result<bool, CommandError> {
        let ledger = self.command_on(name).await?;
        if ledger.record.rebuild {
            return Ok(false);
        }
        let uid = ledger.record.uid;
        let now = self.host.clock.now();
        let changes = vec![
            Change::Rebuild { uid, wanted: true },
            ordered(
                &ledger.record,
                "rebuildOrdered",
                "is to be built once more",
                &because,
                now,
            ),
        ];
        self.record_order(changes, &[Key::Agent(name.clone())]).await?;
        Ok(true)
    }

    /// What the archive keeps, by name, with the open gates about deleting it.
    ///
    /// # Errors
    /// When the ledger fails.
    pub async fn archive(&self) -> Result<Vec<ArchivedAgent>, LedgerError> {
        let gates = self.ledger.hive_gates().await?;
        let records = self.ledger.archived().await?.items;
        let shown = |record: AgentRecord| {
            let AgentLife::Archived { since } = record.life else {
                return None;
            };
            let open = |r: &&GateRecord| r.gate.state == GateState::Open && is_purge_of(r, record.uid);
            let gate = gates.iter().find(open).map(|r| r.gate.id);
            Some(ArchivedAgent {
                name: record.name,
                uid: record.uid,
                since,
                purge_ordered_by: record.purge.map(|order| order.by),
                gate,
            })
        };
        Ok(records.into_iter().filter_map(shown).collect())
    }

    async fn is_being_purged(&self, record: &AgentRecord) -> Result<bool, LedgerError> {
        let gates = self.ledger.hive_gates().await?;
        Ok(gates
            .iter()
            .any(|r| r.gate.state == GateState::Consumed && is_purge_of(r, record.uid)))
    }

    /// The agent that has the name now, if that is the one meant.
    async fn live(
        &self,
        name: &AgentName,
        uid: Option<AgentUid>,
    ) -> Result<Option<AgentRecord>, LedgerError> {
        let record = self.ledger.record(name).await?;
        Ok(record.filter(|record| uid.is_none_or(|uid| uid == record.uid)))
    }

    /// The archived agent that is meant.
    async fn kept(&self, name: &AgentName, uid: Option<AgentUid>) -> Result<AgentRecord, CommandError> {
        let archived = self.ledger.archived().await?.items;
        let mut found: Vec<AgentRecord> = archived
            .into_iter()
            .filter(|record| record.name == *name && uid.is_none_or(|uid| uid == record.uid))
            .filter(|record| matches!(record.life, AgentLife::Archived { .. }))
            .collect();
        match (found.pop(), found.as_slice()) {
            (Some(record), []) => Ok(record),
            (None, _) => Err(CommandError::NoAgent(name.clone())),
            (Some(last), others) => Err(CommandError::Ambiguous {
                agent: name.clone(),
                uids: others.iter().chain([&last]).map(|r| r.uid).collect(),
            }),
        }
    }

    /// Writes, and has looked at whom it concerns even when that fails: it may all be there although the answer is lost.
    async fn record_order(&self, changes: Vec<Change>, keys: &[Key]) -> Result<(), LedgerError> {
        let written = self.ledger.apply(changes).await;
        for key in keys {
            self.nudge(key.clone());
        }
        written?;
        // A manager that goes takes its offers along.
        for draft in self.drafts().await? {
            self.nudge(draft);
        }
        Ok(())
    }
}

fn is_purge_of(record: &GateRecord, of: AgentUid) -> bool {
    matches!(&record.step.action, Action::Purge { uid, .. } if *uid == of)
}

fn order(record: &AgentRecord, because: &Because, at: jiff::Timestamp) -> Change {
    let order = Order {
        by: because.by.clone(),
        reason: because.reason.clone(),
        at,
    };
    Change::PurgeOrder {
        uid: record.uid,
        order: Some(order),
    }
}

fn ordered(
    record: &AgentRecord,
    kind: &'static str,
    what: &str,
    because: &Because,
    at: jiff::Timestamp,
) -> Change {
    Change::Event {
        agent: Some(record.name.clone()),
        level: Level::Info,
        kind,
        message: because.said(format!("{} {what}", record.name)),
        data: json!({ "by": because.by, "reason": because.reason, "uid": record.uid }),
        at,
    }
}
