//! Turns that have ended, as their harness tells of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};
use shared::AgentName;
use shared::budget::TurnUsage;
use shared::turn::{Tokens, TurnFacts, TurnInfo, TurnResult, TurnStats};

use super::Ledger;
use super::agents;
use super::error::{Fault, LedgerError, Listing};
use super::spending;
use super::sql::{At, Columns as _, execute, int, json, list, text, undecodable};
use crate::plan::budget::Account;

pub(super) const TURNS: (&str, &[&str]) = ("turns", &["id"]);

impl Ledger {
    /// Keeps what an agent's harness tells of a turn, and what is known of it besides. The same turn told again is one row. Returns whether it is new;
    /// of an agent that is gone nothing is kept.
    pub async fn note_turn(
        &self,
        agent: &AgentName,
        stats: TurnStats,
        facts: TurnFacts,
        at: Timestamp,
    ) -> Result<bool, LedgerError> {
        let agent = agent.clone();
        self.write(move |tx| {
            let Some(uid) = agents::uid_of(tx, &agent)? else {
                return Ok(false);
            };
            let rows = execute(
                tx,
                "INSERT INTO turns (uid, agent, turn, at, tokens, cost_usd, doc, facts)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (uid, turn) DO NOTHING",
                (
                    text(&uid),
                    agent.as_str(),
                    text(&stats.turn),
                    At(at),
                    int(stats.tokens.total()),
                    stats.cost_usd,
                    json("turn", &stats)?,
                    json("turn", &facts)?,
                ),
            )?;
            let usage = TurnUsage {
                turn: stats.turn,
                tokens: stats.tokens.total(),
                cost_usd: stats.cost_usd,
            };
            spending::note(tx, uid, &usage, true, at)?;
            Ok(rows > 0)
        })
        .await
    }

    /// What turns have used since then, and what they may.
    pub async fn account(&self, agent: &AgentName, since: Timestamp) -> Result<Account, LedgerError> {
        let agent = agent.clone();
        self.read(move |db| match agents::uid_of(db, &agent)? {
            Some(uid) => spending::account(db, uid, since),
            None => Ok(Account::default()),
        })
        .await
    }

    /// Turns that were told of since then, of one agent or of all, newest first.
    pub async fn turns_since(
        &self,
        agent: Option<&AgentName>,
        since: Timestamp,
        limit: u32,
    ) -> Result<Listing<TurnInfo>, LedgerError> {
        let agent = agent.map(ToString::to_string);
        self.read(move |db| {
            let sql =
                "SELECT * FROM turns WHERE at >= ?1 AND (?2 IS NULL OR agent = ?2) ORDER BY id DESC LIMIT ?3";
            list(db, TURNS, sql, (At(since), agent, limit), |row| {
                decode(row).or_else(|source| unreadable(row, source))
            })
        })
        .await
    }

    /// Turns of one agent or of all, newest first.
    pub async fn turns(
        &self,
        agent: Option<&AgentName>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Listing<TurnInfo>, LedgerError> {
        let agent = agent.cloned();
        self.read(move |db| {
            let mut params = vec![Value::from(int(before.unwrap_or(u64::MAX))), Value::from(limit)];
            let whose = match agent {
                Some(agent) => {
                    params.push(agent.to_string().into());
                    "AND agent = ?3"
                }
                None => "",
            };
            let sql = format!("SELECT * FROM turns WHERE id < ?1 {whose} ORDER BY id DESC LIMIT ?2");
            list(db, TURNS, &sql, params_from_iter(params), |row| {
                decode(row).or_else(|source| unreadable(row, source))
            })
        })
        .await
    }
}

/// A turn of which no more can be read than that it was.
fn unreadable(row: &Row<'_>, source: Fault) -> Result<TurnInfo, Fault> {
    Ok(TurnInfo {
        id: row.number("id")?,
        agent: row.parsed("agent")?,
        at: row.time("at")?,
        stats: TurnStats {
            turn: row.parsed("turn")?,
            started_at: row.time("at")?,
            duration_ms: 0,
            result: TurnResult::Unknown,
            error: Some(crate::error_chain(&undecodable(TURNS.0, TURNS.1, row, source))),
            model: None,
            session: None,
            tokens: Tokens::default(),
            context: None,
            cost_usd: None,
            tool_calls: BTreeMap::new(),
            woken_by: Vec::new(),
            notes_bytes: None,
        },
        facts: TurnFacts::default(),
    })
}

pub(super) fn decode(row: &Row<'_>) -> Result<TurnInfo, Fault> {
    Ok(TurnInfo {
        id: row.number("id")?,
        agent: row.parsed("agent")?,
        at: row.time("at")?,
        stats: row.json("doc")?,
        facts: row.json("facts")?,
    })
}
