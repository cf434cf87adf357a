//! What the egress service tells: refusals, of which somebody hears once a day, and bytes.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde_json::json;
use shared::egress::{EgressReport, EgressStatus, Refusal, RefusalReason};
use shared::event::Level;
use shared::topic::Topic;
use shared::{AgentName, AgentUid};

use super::error::{Fault, LedgerError};
use super::events::{self, NewEvent};
use super::sql::{At, Columns as _, execute, int, list, text};
use super::{Ledger, Tx, agents, messages};
use crate::egress::rule::Target;
use crate::model::change::Notice;

const REFUSALS: (&str, &[&str]) = ("egress_refusals", &["uid", "host", "port"]);
/// The same host of the same agent is told of once in this time.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// The most that is told of one agent in that time.
const MAX_TOLD: u64 = 20;
/// The most hosts that are kept of one agent.
const MAX_KEPT: u64 = 256;
/// The most that are shown of one agent.
const MAX_SHOWN: u32 = 20;

impl Ledger {
    /// Takes in a report. The same report again changes nothing.
    pub async fn note_egress(&self, report: EgressReport, now: Timestamp) -> Result<(), LedgerError> {
        self.write(move |tx| note(tx, &report, now)).await
    }

    /// What is known of an agent's way out.
    pub async fn egress_of(&self, agent: &AgentName) -> Result<EgressStatus, LedgerError> {
        let agent = agent.clone();
        self.read(move |db| match agents::uid_of(db, &agent)? {
            Some(uid) => status(db, &agent, uid),
            None => Ok(EgressStatus::default()),
        })
        .await
    }
}

fn note(tx: &mut Tx<'_>, report: &EgressReport, now: Timestamp) -> Result<(), LedgerError> {
    let seen: Option<i64> = tx
        .prepare_cached("SELECT seq FROM egress_reports WHERE run = ?1")?
        .query_row([&report.run], |row| row.get(0))
        .optional()?;
    if seen.is_some_and(|seen| seen.unsigned_abs() >= report.seq) {
        return Ok(());
    }
    execute(
        tx,
        "INSERT INTO egress_reports (run, seq, at) VALUES (?1, ?2, ?3)
         ON CONFLICT (run) DO UPDATE SET seq = excluded.seq, at = excluded.at",
        (&report.run, int(report.seq), At(now)),
    )?;
    for (agent, bytes) in &report.traffic {
        if let Some(uid) = agents::uid_of(tx, agent)? {
            count(tx, uid, bytes.sent, bytes.received, 0)?;
        }
    }
    for refusal in &report.refusals {
        let target = Target::parse(&format!("{}:{}", refusal.host, refusal.port));
        if let (Some(uid), Some(target)) = (agents::uid_of(tx, &refusal.agent)?, target) {
            count(tx, uid, 0, 0, refusal.count)?;
            refused(tx, uid, refusal, &target, now)?;
        }
    }
    Ok(())
}

fn count(tx: &Tx<'_>, uid: AgentUid, sent: u64, received: u64, refused: u64) -> Result<(), LedgerError> {
    // No agent moves more than that, and a sum of such numbers is still one.
    let [sent, received, refused] = [sent, received, refused].map(|number| int(number.min(1 << 50)));
    execute(
        tx,
        "INSERT INTO egress_traffic (uid, sent, received, refused) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (uid) DO UPDATE SET sent = min(sent + excluded.sent, 1 << 60),
             received = min(received + excluded.received, 1 << 60),
             refused = min(refused + excluded.refused, 1 << 60)",
        (text(&uid), sent, received, refused),
    )
    .map(drop)
}

/// Keeps a refusal, and tells of it unless that was done of late.
fn refused(
    tx: &mut Tx<'_>,
    uid: AgentUid,
    refusal: &Refusal,
    target: &Target,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let key = (text(&uid), target.host().to_owned(), target.port());
    let told_at: Option<Option<i64>> = tx
        .prepare_cached("SELECT told_at FROM egress_refusals WHERE uid = ?1 AND host = ?2 AND port = ?3")?
        .query_row((&key.0, &key.1, key.2), |row| row.get(0))
        .optional()?;
    if told_at.is_none()
        && number(tx, "SELECT count(*) FROM egress_refusals WHERE uid = ?1", &key.0)? >= MAX_KEPT
    {
        return Ok(());
    }
    let before = now.checked_sub(AGAIN_AFTER).unwrap_or(Timestamp::MIN);
    let recently = |told: i64| i128::from(told) > before.as_nanosecond();
    let told_of_agent: i64 = tx
        .prepare_cached("SELECT count(*) FROM egress_refusals WHERE uid = ?1 AND told_at > ?2")?
        .query_row((&key.0, At(before)), |row| row.get(0))?;
    let tells = !told_at.flatten().is_some_and(recently) && told_of_agent.unsigned_abs() < MAX_TOLD;
    execute(
        tx,
        "INSERT INTO egress_refusals (uid, host, port, reason, count, first_at, last_at, told_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)
         ON CONFLICT (uid, host, port) DO UPDATE SET reason = excluded.reason, last_at = excluded.last_at,
             count = min(count + excluded.count, 1 << 60), told_at = coalesce(excluded.told_at, told_at)",
        (
            &key.0,
            &key.1,
            key.2,
            refusal.reason.as_str(),
            int(refusal.count.min(1 << 50)),
            At(now),
            tells.then_some(At(now)),
        ),
    )?;
    if tells {
        tell(tx, refusal, target, now)?;
    }
    Ok(())
}

fn number(db: &Connection, sql: &str, uid: &str) -> Result<u64, LedgerError> {
    let number: i64 = db.prepare_cached(sql)?.query_row([uid], |row| row.get(0))?;
    Ok(number.unsigned_abs())
}

fn tell(tx: &mut Tx<'_>, refusal: &Refusal, target: &Target, now: Timestamp) -> Result<(), LedgerError> {
    let agent = &refusal.agent;
    let why = match refusal.reason {
        RefusalReason::NotListed => "is not in its list of hosts",
        RefusalReason::PrivateAddress => {
            "leads to an address that is not of the public Internet, and such are never connected to"
        }
        RefusalReason::Unknown => "is not allowed",
    };
    let rule = target
        .as_rule()
        .filter(|_| refusal.reason == RefusalReason::NotListed);
    let remedy = rule.map_or_else(String::new, |rule| {
        format!("; to allow it: hive egress allow {agent} {rule}")
    });
    let body = format!("{agent} was refused a connection to {target}, which {why}{remedy}");
    events::append(
        tx,
        NewEvent {
            at: now,
            agent: Some(agent),
            level: Level::Warning,
            kind: "egressRefused",
            message: &body,
            data: json!({ "host": target.host(), "port": target.port(), "reason": refusal.reason, "count": refusal.count }),
        },
    )?;
    let notice = Notice {
        topic: Topic::EgressRefused,
        body,
        dedupe: format!("egress/{target}/{}", now.as_second()),
        at: now,
    };
    messages::notify(tx, agent, &notice)?;
    messages::notify_managers(tx, agent, &notice)
}

fn status(db: &Connection, agent: &AgentName, uid: AgentUid) -> Result<EgressStatus, LedgerError> {
    let totals = db
        .prepare_cached("SELECT sent, received, refused FROM egress_traffic WHERE uid = ?1")?
        .query_row([text(&uid)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let (sent, received, refused): (i64, i64, i64) = totals.unwrap_or_default();
    let sql = "SELECT * FROM egress_refusals WHERE uid = ?1 ORDER BY last_at DESC, host LIMIT ?2";
    let refusals = list(db, REFUSALS, sql, (text(&uid), MAX_SHOWN), |row| {
        decode(row, agent)
    })?;
    Ok(EgressStatus {
        sent: sent.unsigned_abs(),
        received: received.unsigned_abs(),
        refused: refused.unsigned_abs(),
        refusals: refusals.items,
    })
}

/// Whether a row makes sense, whoever's it is.
pub(super) fn check(row: &Row<'_>) -> Result<(), Fault> {
    row.parsed::<AgentUid>("uid")?;
    row.get_ref("host")?.as_str()?;
    row.word::<RefusalReason>("reason")?;
    row.number("count")?;
    row.time("last_at")?;
    Ok(())
}

fn decode(row: &Row<'_>, agent: &AgentName) -> Result<Refusal, Fault> {
    Ok(Refusal {
        agent: agent.clone(),
        host: row.get("host")?,
        port: row.get("port")?,
        reason: row.word("reason")?,
        count: row.number("count")?,
        first_at: row.time("first_at")?,
        last_at: row.time("last_at")?,
    })
}
