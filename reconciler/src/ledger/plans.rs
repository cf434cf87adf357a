//! The last good spec, plans that were made, and the history that is told from them.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde_json::Value;
use shared::admin_api::HistoryEntry;
use shared::{AgentName, AgentUid, Digest, GateId};

use super::error::{Fault, LedgerError};
use super::sql::{At, Columns as _, bounded, execute, int, json, list, one, text, undecodable};
use super::{Ledger, gates};
use crate::model::records::Proposal;

/// The most entries of history one call returns.
const MAX_HISTORY: u32 = 1000;
/// The longest line of a plan, in bytes.
const MAX_SUMMARY_BYTES: usize = 2000;

/// The last good spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSpec {
    /// The document as it was read.
    pub text: String,
    /// Its digest.
    pub digest: Digest,
    /// Its generation.
    pub generation: u64,
    /// When it came into force.
    pub at: Timestamp,
}

impl Ledger {
    /// The last good spec; `None` before the first.
    pub async fn spec(&self) -> Result<Option<StoredSpec>, LedgerError> {
        self.read(|db| {
            one(db, ("spec", &["one"]), "SELECT * FROM spec", [], |row| {
                Ok(StoredSpec {
                    text: row.get("text")?,
                    digest: row.parsed("digest")?,
                    generation: row.number("generation")?,
                    at: row.time("at")?,
                })
            })
        })
        .await
    }

    /// Stores the last good spec. The same digest and generation again write nothing.
    pub async fn store_spec(
        &self,
        text: String,
        digest: Digest,
        generation: u64,
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        self.write(move |tx| {
            execute(
                tx,
                "INSERT INTO spec (one, text, digest, generation, at) VALUES (1, ?1, ?2, ?3, ?4)
                 ON CONFLICT (one) DO UPDATE SET text = excluded.text, digest = excluded.digest,
                     generation = excluded.generation, at = excluded.at
                 WHERE digest <> excluded.digest OR generation <> excluded.generation",
                (text, digest.as_str(), int(generation), At(at)),
            )
            .map(drop)
        })
        .await
    }

    /// Notes a plan. The same plan as the last one of that agent only counts.
    pub async fn record_plan(
        &self,
        uid: Option<AgentUid>,
        agent: Option<AgentName>,
        digest: Digest,
        summary: String,
        doc: Value,
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        self.write(move |tx| {
            let uid = uid.as_ref().map(text);
            let last: Option<(i64, String)> = tx
                .prepare_cached("SELECT id, digest FROM plans WHERE uid IS ?1 ORDER BY id DESC LIMIT 1")?
                .query_row([&uid], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            match last {
                Some((id, last)) if last == digest.as_str() => execute(
                    tx,
                    "UPDATE plans SET last_at = ?2, count = count + 1 WHERE id = ?1",
                    (id, At(at)),
                )?,
                _ => execute(
                    tx,
                    "INSERT INTO plans (uid, agent, digest, summary, at, last_at, count, doc)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?5, 1, ?6)",
                    (
                        uid,
                        agent.as_ref().map(text),
                        digest.as_str(),
                        bounded(&summary, MAX_SUMMARY_BYTES),
                        At(at),
                        json("a plan", &doc)?,
                    ),
                )?,
            };
            Ok(())
        })
        .await
    }

    /// What happened, newest first, at most `limit` entries and never more than 1,000; of one agent, or of all.
    pub async fn history(
        &self,
        agent: Option<AgentName>,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>, LedgerError> {
        let limit = limit.min(MAX_HISTORY);
        self.read(move |db| {
            let mut entries = Vec::new();
            for source in SOURCES {
                // The spec belongs to the hive.
                if source.kind != "spec" || agent.is_none() {
                    entries.extend(source.read(db, agent.as_ref(), limit)?);
                }
            }
            entries.sort_by_key(|entry: &HistoryEntry| std::cmp::Reverse(entry.at));
            entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            Ok(entries)
        })
        .await
    }
}

/// A table from which history is told.
struct Source {
    kind: &'static str,
    table: (&'static str, &'static [&'static str]),
    sql: &'static str,
    decode: fn(&Row<'_>) -> Result<HistoryEntry, Fault>,
}

const SOURCES: [Source; 4] = [
    Source {
        kind: "plan",
        table: ("plans", &["id"]),
        sql: "SELECT * FROM plans WHERE ?1 IS NULL OR agent = ?1 ORDER BY id DESC LIMIT ?2",
        decode: plan_entry,
    },
    Source {
        kind: "decision",
        table: gates::GATES,
        sql: "SELECT g.*, d.approve, d.by, d.at AS decided_at, d.reason, d.digest AS decided_digest, d.at
              FROM decisions d JOIN gates g ON g.id = d.gate
              WHERE ?1 IS NULL OR g.agent = ?1 ORDER BY d.at DESC, d.gate DESC LIMIT ?2",
        decode: decision_entry,
    },
    Source {
        kind: "proposal",
        table: ("proposals", &["uid", "number"]),
        sql: "SELECT p.*, a.name AS agent FROM proposals p JOIN agents a ON a.uid = p.uid
              WHERE ?1 IS NULL OR a.name = ?1 ORDER BY p.at DESC, p.number DESC LIMIT ?2",
        decode: proposal_entry,
    },
    Source {
        kind: "spec",
        table: ("spec", &["one"]),
        sql: "SELECT * FROM spec WHERE ?1 IS NULL LIMIT ?2",
        decode: spec_entry,
    },
];

impl Source {
    fn read(
        &self,
        db: &Connection,
        agent: Option<&AgentName>,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>, LedgerError> {
        let entries = list(
            db,
            ("", &[]),
            self.sql,
            (agent.map(AgentName::as_str), limit),
            |row| Ok((self.decode)(row).unwrap_or_else(|source| self.unreadable(row, source))),
        )?;
        entries.complete()
    }

    /// A row that cannot be read keeps its place in history.
    fn unreadable(&self, row: &Row<'_>, source: Fault) -> HistoryEntry {
        let (table, key) = self.table;
        let row_error = undecodable(table, key, row, source);
        HistoryEntry {
            at: row.time("at").unwrap_or(Timestamp::UNIX_EPOCH),
            summary: crate::error_chain(&row_error),
            agent: row_error.agent,
            kind: self.kind.to_owned(),
            digest: None,
            gate: None,
        }
    }
}

fn plan_entry(row: &Row<'_>) -> Result<HistoryEntry, Fault> {
    let summary: String = row.get("summary")?;
    let count = row.number("count")?;
    Ok(HistoryEntry {
        at: row.time("last_at")?,
        agent: row.maybe_parsed("agent")?,
        kind: "plan".to_owned(),
        summary: if count > 1 {
            format!("{summary} (planned {count} times)")
        } else {
            summary
        },
        digest: Some(row.parsed("digest")?),
        gate: None,
    })
}

fn decision_entry(row: &Row<'_>) -> Result<HistoryEntry, Fault> {
    let gate = gates::gate(row)?.0;
    let decision = gate.decision.ok_or("it has no decision")?;
    let verb = if decision.approve { "approved" } else { "denied" };
    let because = if decision.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", decision.reason)
    };
    Ok(HistoryEntry {
        at: decision.at,
        agent: gate.agent,
        kind: "decision".to_owned(),
        summary: format!("{} {verb} {}{because}", decision.by, gate.view.summary),
        digest: Some(decision.digest),
        gate: Some(gate.id),
    })
}

fn proposal_entry(row: &Row<'_>) -> Result<HistoryEntry, Fault> {
    let proposal: Proposal = row.json("doc")?;
    let agent: AgentName = row.parsed("agent")?;
    // As on its tag, but the folder of the first phase reads badly in a sentence.
    let phase = match proposal.phase.as_str() {
        "proposal" => "proposed",
        phase => phase,
    };
    let gate: Option<GateId> = proposal.marks.get(&proposal.phase).and_then(|mark| mark.gate);
    Ok(HistoryEntry {
        at: row.time("at")?,
        summary: format!(
            "proposal {} of {agent} ({}, {phase}): {}",
            proposal.number,
            proposal.commit.short(),
            bounded(&proposal.title, 200)
        ),
        agent: Some(agent),
        kind: "proposal".to_owned(),
        digest: None,
        gate,
    })
}

fn spec_entry(row: &Row<'_>) -> Result<HistoryEntry, Fault> {
    Ok(HistoryEntry {
        at: row.time("at")?,
        agent: None,
        kind: "spec".to_owned(),
        summary: format!("spec generation {} came into force", row.number("generation")?),
        digest: Some(row.parsed("digest")?),
        gate: None,
    })
}
