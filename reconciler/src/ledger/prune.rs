//! Retention. What people decided is kept for good; what the daemon did by itself is kept for a while.

use jiff::{SignedDuration, Timestamp};

use super::agents::RANKED_BUILDS;
use super::error::LedgerError;
use super::sql::{At, execute};
use super::{Ledger, Tx};

const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
const MONTH: SignedDuration = SignedDuration::from_hours(30 * 24);
const QUARTER: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How many rows were removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Gates that were superseded, or approved by a policy and completed.
    pub gates: usize,
    /// Events.
    pub events: usize,
    /// Messages that were acknowledged or are dead.
    pub messages: usize,
    /// Plans.
    pub plans: usize,
    /// Outcomes of builds.
    pub builds: usize,
    /// Questions that have ended.
    pub questions: usize,
    /// Reminders that are over.
    pub reminders: usize,
    /// Instructions.
    pub instructions: usize,
    /// Turns.
    pub turns: usize,
    /// Hosts that agents were refused, and reports of services that are gone.
    pub egress: usize,
    /// What turns counted for in budgets of past days.
    pub spending: usize,
}

/// Gates that go with their own rows in `decisions`: nobody decided about them, and nothing that is deployed or on
/// trial was allowed by them. An agent that cannot be read keeps all of its gates.
const GATES_TO_DROP: &str = "
    SELECT g.id FROM (
        SELECT *, row_number() OVER (PARTITION BY uid, state ORDER BY id DESC) AS rank FROM gates
    ) g
    WHERE ((g.state = 'superseded' AND g.rank > 2) OR (g.state = 'consumed' AND g.completed_at < ?1))
      AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.gate = g.id AND d.by NOT LIKE 'policy:%')
      AND NOT EXISTS (
          SELECT 1 FROM agents a WHERE a.uid = g.uid AND CASE WHEN json_valid(a.doc) THEN
              g.id IN (a.doc ->> '$.deployed.gate', a.doc ->> '$.lastGood.gate') ELSE 1 END)
      AND NOT EXISTS (
          SELECT 1 FROM probations p WHERE p.uid = g.uid AND CASE WHEN json_valid(p.doc) THEN
              p.doc ->> '$.gate' = g.id ELSE 1 END)";

impl Ledger {
    /// Removes what is past its time; writes nothing when nothing is.
    pub async fn prune(&self, now: Timestamp) -> Result<Pruned, LedgerError> {
        self.write(move |tx| prune(tx, now)).await
    }
}

fn prune(tx: &Tx<'_>, now: Timestamp) -> Result<Pruned, LedgerError> {
    let before = |age: SignedDuration| At(now.checked_sub(age).unwrap_or(Timestamp::MIN));
    execute(
        tx,
        &format!("DELETE FROM decisions WHERE gate IN ({GATES_TO_DROP})"),
        [before(WEEK)],
    )?;
    Ok(Pruned {
        // Without its decision a gate is still one to drop, so the same question gives the same answer.
        gates: execute(
            tx,
            &format!("DELETE FROM gates WHERE id IN ({GATES_TO_DROP})"),
            [before(WEEK)],
        )?,
        // The newest thousand stay however old they are, so that a quiet hive still has a past.
        events: execute(
            tx,
            "DELETE FROM events WHERE at < ?1
             AND seq <= (SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET 1000)",
            [before(MONTH)],
        )?,
        messages: execute(
            tx,
            "DELETE FROM messages WHERE (state = 'acked' AND coalesce(leased_at, at) < ?1)
                 OR (state = 'dead' AND coalesce(leased_at, at) < ?2)",
            (before(WEEK), before(MONTH)),
        )?,
        plans: execute(
            tx,
            "DELETE FROM plans WHERE id IN (
                 SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY uid ORDER BY id DESC) AS rank FROM plans)
                 WHERE rank > 200)",
            [],
        )?,
        builds: execute(
            tx,
            &format!(
                "DELETE FROM builds WHERE (uid, key) IN (SELECT uid, key FROM ({RANKED_BUILDS}) WHERE rank > kept)"
            ),
            [],
        )?,
        questions: execute(tx, "DELETE FROM questions WHERE ended_at < ?1", [before(MONTH)])?,
        reminders: execute(tx, "DELETE FROM reminders WHERE ended_at < ?1", [before(MONTH)])?,
        // The last new conversation is the one that goes on.
        instructions: execute(
            tx,
            "DELETE FROM instructions WHERE at < ?1 AND (until IS NULL OR until < ?2) AND id NOT IN (
                 SELECT max(id) FROM instructions WHERE kind = 'newConversation' GROUP BY uid)",
            (before(MONTH), At(now)),
        )?,
        spending: execute(tx, "DELETE FROM spending WHERE at < ?1", [before(WEEK)])?
            + execute(tx, "DELETE FROM overspending WHERE day < ?1", [before(MONTH)])?,
        egress: execute(tx, "DELETE FROM egress_refusals WHERE last_at < ?1", [before(MONTH)])?
            + execute(tx, "DELETE FROM egress_reports WHERE at < ?1", [before(WEEK)])?,
        turns: execute(tx, "DELETE FROM turns WHERE at < ?1", [before(QUARTER)])?,
    })
}
