//! Agents and what hangs on them: reading it all with a fixed number of statements, and writing single rows.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use rusqlite::{Connection, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::agent_api::ProposalPhase;
use shared::{Address, AgentName, AgentUid, ProposalNumber};

use super::error::{Fault, LedgerError, Listing, Undecodable};
use super::sql::{At, Columns as _, execute, int, json, list, one, text, undecodable};
use super::{Ledger, Tx, gates};
use crate::model::records::{AgentLedger, AgentLife, AgentRecord, Failures, Overrides, Proposal};
use crate::model::user_range::UserRange;

/// How many proposals are listed.
const PROPOSALS_LISTED: u32 = 200;

/// Ranks the builds of each agent, newest first, and says how many of them matter: 16, and two for each proposal
/// that is still under way, so that no outcome is forgotten while something waits on it.
pub(super) const RANKED_BUILDS: &str = "
    SELECT b.uid, b.key, b.doc,
        row_number() OVER (PARTITION BY b.uid ORDER BY b.at DESC, b.key) AS rank,
        16 + 2 * (SELECT count(*) FROM proposals p
                  WHERE p.uid = b.uid AND p.phase NOT IN ('deployed', 'failed', 'denied')) AS kept
    FROM builds b";

impl Ledger {
    /// The agents that are not archived, by name.
    pub async fn agents(&self) -> Result<Listing<AgentRecord>, LedgerError> {
        self.read(|db| records(db, "life <> 'archived'")).await
    }

    /// The agents that are archived or purged, by name.
    pub async fn archived(&self) -> Result<Listing<AgentRecord>, LedgerError> {
        self.read(|db| records(db, "life = 'archived'")).await
    }

    /// The names of drafts, and of agents about which a manager's order waits: what hangs on who is a manager.
    pub async fn drafts(&self) -> Result<Vec<AgentName>, LedgerError> {
        self.read(|db| {
            let sql = "SELECT uid, name FROM agents
                       WHERE life = 'draft' OR json_extract(doc, '$.order.state') = 'pending' ORDER BY name";
            Ok(list(db, AGENTS, sql, [], |row| row.parsed("name"))?.items)
        })
        .await
    }

    /// All there is to know of an agent that is not archived, from one snapshot.
    pub async fn agent(&self, name: &AgentName) -> Result<Option<AgentLedger>, LedgerError> {
        let name = name.clone();
        self.read(move |db| match uid_of(db, &name)? {
            Some(uid) => Ok(load(db, Some(uid))?.complete()?.into_iter().next()),
            None => Ok(None),
        })
        .await
    }

    /// The record of an agent that is not archived.
    pub async fn record(&self, name: &AgentName) -> Result<Option<AgentRecord>, LedgerError> {
        let name = name.clone();
        self.read(move |db| match uid_of(db, &name)? {
            Some(uid) => Ok(Some(get(db, uid)?)),
            None => Ok(None),
        })
        .await
    }

    /// All there is to know of all agents that are not archived, by name, from one snapshot. An agent of which
    /// any row cannot be read is an entry of `undecodable`.
    pub async fn agent_ledgers(&self) -> Result<Listing<AgentLedger>, LedgerError> {
        self.read(|db| load(db, None)).await
    }

    /// The newest proposals of an agent that is not archived, newest first.
    pub async fn proposals(&self, name: &AgentName) -> Result<Listing<Proposal>, LedgerError> {
        let name = name.clone();
        self.read(move |db| match uid_of(db, &name)? {
            Some(uid) => list(
                db,
                PROPOSALS,
                "SELECT uid, number, doc FROM proposals WHERE uid = ?1 ORDER BY number DESC LIMIT ?2",
                (text(&uid), PROPOSALS_LISTED),
                |row| row.json("doc"),
            ),
            None => Ok(Listing::default()),
        })
        .await
    }

    /// The number that the agent's next proposal takes.
    pub async fn next_proposal(&self, uid: AgentUid) -> Result<ProposalNumber, LedgerError> {
        self.read(move |db| {
            let last: i64 = db
                .prepare_cached("SELECT coalesce(max(number), 0) FROM proposals WHERE uid = ?1")?
                .query_row([text(&uid)], |row| row.get(0))?;
            Ok(ProposalNumber(last.unsigned_abs() + 1))
        })
        .await
    }
}

const AGENTS: (&str, &[&str]) = ("agents", &["uid"]);
const PROPOSALS: (&str, &[&str]) = ("proposals", &["uid", "number"]);

pub(super) fn records(db: &Connection, which: &str) -> Result<Listing<AgentRecord>, LedgerError> {
    let sql = format!("SELECT uid, name, doc FROM agents WHERE {which} ORDER BY name, uid");
    list(db, AGENTS, &sql, [], |row| row.json("doc"))
}

/// The uid of the agent that has this name now.
pub(super) fn uid_of(db: &Connection, name: &AgentName) -> Result<Option<AgentUid>, LedgerError> {
    one(
        db,
        AGENTS,
        "SELECT uid, name FROM agents WHERE name = ?1 AND life <> 'archived'",
        [name.as_str()],
        |row| row.parsed("uid"),
    )
}

/// Whether there is an agent of this name that can get mail: neither archived nor a draft.
pub(super) fn gets_mail(db: &Connection, name: &AgentName) -> Result<bool, LedgerError> {
    let found: bool = db
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM agents
             WHERE name = ?1 AND life NOT IN ('archived', 'draft', 'givenUp'))",
        )?
        .query_row([name.as_str()], |row| row.get(0))?;
    Ok(found)
}

/// What an agent's deployment says of whom it writes to.
pub(crate) struct Correspondence {
    /// The allow-list; `None`: everybody.
    pub(crate) recipients: Option<BTreeSet<Address>>,
    /// Whether it is a manager.
    pub(crate) manager: bool,
}

/// What is deployed of an agent that is not archived; `None` when nothing is.
pub(crate) fn correspondence(
    db: &Connection,
    name: &AgentName,
) -> Result<Option<Correspondence>, LedgerError> {
    one(
        db,
        AGENTS,
        "SELECT uid, name, coalesce(doc -> '$.deployed.output.config.recipients', 'null') AS recipients,
             coalesce(doc ->> '$.deployed.output.config.role', '') = 'manager' AS manager
         FROM agents
         WHERE name = ?1 AND life <> 'archived' AND doc ->> '$.deployed' IS NOT NULL",
        [name.as_str()],
        |row| {
            Ok(Correspondence {
                recipients: row.json("recipients")?,
                manager: row.get("manager")?,
            })
        },
    )
}

/// An agent's overrides; none when it has no row.
pub(super) fn overrides(db: &Connection, uid: AgentUid) -> Result<Overrides, LedgerError> {
    let sql = "SELECT uid, doc FROM overrides WHERE uid = ?1";
    let found = one(db, ("overrides", &["uid"]), sql, [text(&uid)], |row| {
        row.json("doc")
    })?;
    Ok(found.unwrap_or_default())
}

/// The names of the active agents.
pub(crate) fn active(db: &Connection) -> Result<Vec<AgentName>, LedgerError> {
    let sql = "SELECT uid, name FROM agents WHERE life = 'active' ORDER BY name";
    Ok(list(db, AGENTS, sql, [], |row| row.parsed("name"))?.items)
}

/// The active agents whose deployed role is manager.
pub(crate) fn managers(db: &Connection) -> Result<Vec<AgentName>, LedgerError> {
    let found = list(
        db,
        AGENTS,
        "SELECT uid, name FROM agents
         WHERE life = 'active' AND json_extract(doc, '$.deployed.output.config.role') = 'manager'
         ORDER BY name",
        [],
        |row| row.parsed("name"),
    )?;
    // A row that cannot be read is reported by whoever loads the agent; it keeps no other manager from being told.
    Ok(found.items)
}

/// Everything about one agent, or about all that are not archived.
pub(super) fn load(db: &Connection, uid: Option<AgentUid>) -> Result<Listing<AgentLedger>, LedgerError> {
    let mut loading = Loading::agents(db, uid)?;
    loading.add(
        PROPOSALS,
        "SELECT uid, number, doc FROM (
             SELECT *, row_number() OVER (PARTITION BY uid ORDER BY number DESC) AS rank
             FROM proposals WHERE {which})
         WHERE rank <= 20 OR phase NOT IN ('deployed', 'failed', 'denied')
         ORDER BY uid, number",
        |row, agent| {
            agent.proposals.push(row.json("doc")?);
            Ok(())
        },
    )?;
    loading.add(
        gates::GATES,
        &format!("{} AND {{which}} ORDER BY g.id", gates::LIVE),
        |row, agent| {
            agent.gates.push(gates::record(row)?);
            Ok(())
        },
    )?;
    loading.add(
        ("builds", &["uid", "key"]),
        &format!("SELECT uid, key, doc FROM ({RANKED_BUILDS} WHERE {{which}}) WHERE rank <= kept"),
        |row, agent| insert(&mut agent.builds, row, "key"),
    )?;
    loading.add(
        ("attempts", &["uid", "step_id"]),
        "SELECT uid, step_id, doc FROM attempts WHERE {which}",
        |row, agent| insert(&mut agent.attempts, row, "step_id"),
    )?;
    loading.add(
        ("probations", &["uid"]),
        "SELECT uid, doc FROM probations WHERE {which}",
        |row, agent| set(&mut agent.probation, row),
    )?;
    loading.add(
        ("quarantine", &["uid", "system"]),
        "SELECT uid, system, doc FROM quarantine WHERE {which}",
        |row, agent| insert(&mut agent.quarantine, row, "system"),
    )?;
    loading.add(
        ("overrides", &["uid"]),
        "SELECT uid, doc FROM overrides WHERE {which}",
        |row, agent| set(&mut agent.overrides, row),
    )?;
    loading.add(
        ("failures", &["uid"]),
        "SELECT uid, doc FROM failures WHERE {which}",
        |row, agent| set(&mut agent.failures, row),
    )?;
    loading.add(
        ("user_slots", &["uid"]),
        "SELECT uid, slot FROM user_slots WHERE {which}",
        |row, agent| {
            agent.user_range = UserRange::of_slot(row.number("slot")?);
            Ok(())
        },
    )?;
    loading.add(
        ("messages", &["uid"]),
        "SELECT a.uid, (SELECT count(*) FROM messages m WHERE m.to_addr = a.name AND m.state = 'queued') AS inbox
         FROM agents a WHERE {which}",
        |row, agent| {
            agent.inbox = row.number("inbox")?;
            Ok(())
        },
    )?;
    Ok(loading.finish())
}

fn set<T: DeserializeOwned>(slot: &mut T, row: &Row<'_>) -> Result<(), Fault> {
    *slot = row.json("doc")?;
    Ok(())
}

fn insert<K, V>(map: &mut BTreeMap<K, V>, row: &Row<'_>, key: &str) -> Result<(), Fault>
where
    K: Ord + FromStr<Err: std::error::Error + Send + Sync + 'static>,
    V: DeserializeOwned,
{
    map.insert(row.parsed(key)?, row.json("doc")?);
    Ok(())
}

/// Agents being put together from several tables.
struct Loading<'c> {
    db: &'c Connection,
    uid: Option<String>,
    /// By uid as text, which is how the tables refer to each other.
    agents: BTreeMap<String, AgentLedger>,
    undecodable: Vec<Undecodable>,
}

impl<'c> Loading<'c> {
    fn agents(db: &'c Connection, uid: Option<AgentUid>) -> Result<Self, LedgerError> {
        let mut loading = Self {
            db,
            uid: uid.as_ref().map(text),
            agents: BTreeMap::new(),
            undecodable: Vec::new(),
        };
        let sql = loading.sql("SELECT uid, name, doc FROM agents WHERE {which}");
        let found = list(db, AGENTS, &sql, [&loading.uid], |row| {
            Ok((row.get::<_, String>("uid")?, row.json::<AgentRecord>("doc")?))
        })?;
        loading.undecodable = found.undecodable;
        loading.agents = found
            .items
            .into_iter()
            .map(|(uid, record)| (uid, blank(record)))
            .collect();
        Ok(loading)
    }

    /// Two texts for each statement, so that one agent is found by its key and all are found in one scan.
    fn sql(&self, template: &str) -> String {
        let which = match self.uid {
            Some(_) => "uid = ?1",
            None => "?1 IS NULL AND uid IN (SELECT uid FROM agents WHERE life <> 'archived')",
        };
        template.replace("{which}", which)
    }

    fn add(
        &mut self,
        (table, key): (&'static str, &[&str]),
        template: &str,
        decode: impl Fn(&Row<'_>, &mut AgentLedger) -> Result<(), Fault>,
    ) -> Result<(), LedgerError> {
        let sql = self.sql(template);
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut rows = statement.query([&self.uid])?;
        while let Some(row) = rows.next()? {
            // Without its agent the row is of no use to planning, and the agent itself is named already.
            let Some(agent) = row
                .get_ref("uid")?
                .as_str()
                .ok()
                .and_then(|uid| self.agents.get_mut(uid))
            else {
                continue;
            };
            if let Err(source) = decode(row, agent) {
                let mut bad = undecodable(table, key, row, source);
                bad.uid = Some(agent.record.uid);
                bad.agent = Some(agent.record.name.clone());
                self.undecodable.push(bad);
            }
        }
        Ok(())
    }

    fn finish(self) -> Listing<AgentLedger> {
        let broken = |uid| self.undecodable.iter().any(|row| row.uid == Some(uid));
        let mut items: Vec<_> = self
            .agents
            .into_values()
            .filter(|agent| !broken(agent.record.uid))
            .collect();
        items.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        Listing {
            items,
            undecodable: self.undecodable,
        }
    }
}

fn blank(record: AgentRecord) -> AgentLedger {
    AgentLedger {
        record,
        proposals: Vec::new(),
        gates: Vec::new(),
        builds: BTreeMap::new(),
        attempts: BTreeMap::new(),
        probation: None,
        quarantine: BTreeMap::new(),
        overrides: Overrides::default(),
        failures: Failures::default(),
        user_range: None,
        inbox: 0,
    }
}

/// One agent.
pub(super) fn get(db: &Connection, uid: AgentUid) -> Result<AgentRecord, LedgerError> {
    one(
        db,
        AGENTS,
        "SELECT uid, name, doc FROM agents WHERE uid = ?1",
        [text(&uid)],
        |row| row.json("doc"),
    )?
    .ok_or(LedgerError::UnknownAgent(uid))
}

/// That there is such an agent, archived or not.
pub(super) fn known(db: &Connection, uid: AgentUid) -> Result<(), LedgerError> {
    let known: bool = db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM agents WHERE uid = ?1)")?
        .query_row([text(&uid)], |row| row.get(0))?;
    if known {
        Ok(())
    } else {
        Err(LedgerError::UnknownAgent(uid))
    }
}

/// Writes an agent, new or not.
pub(super) fn put(tx: &Tx<'_>, record: &AgentRecord) -> Result<(), LedgerError> {
    let life = match record.life {
        AgentLife::Draft => "draft",
        AgentLife::GivenUp { .. } => "givenUp",
        AgentLife::Declared => "declared",
        AgentLife::Active => "active",
        AgentLife::Removed { .. } => "removed",
        AgentLife::Restoring { .. } => "restoring",
        // One word for all whose name is free; the document says which it is.
        AgentLife::Archived { .. } | AgentLife::Purged { .. } => "archived",
    };
    if life != "archived"
        && let Some(uid) = uid_of(tx, &record.name)?
        && uid != record.uid
    {
        return Err(LedgerError::NameInUse {
            name: record.name.clone(),
            uid,
        });
    }
    execute(
        tx,
        "INSERT INTO agents (uid, name, life, doc) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (uid) DO UPDATE SET name = excluded.name, life = excluded.life, doc = excluded.doc",
        (
            text(&record.uid),
            record.name.as_str(),
            life,
            json("an agent", record)?,
        ),
    )?;
    see_to_range(tx, record)
}

/// Gives an agent the lowest range of user ids that is free, unless it has one; takes it back once nothing is kept of the
/// agent. When none is free it has none, and its plan says so.
fn see_to_range(tx: &Tx<'_>, record: &AgentRecord) -> Result<(), LedgerError> {
    let uid = text(&record.uid);
    if matches!(record.life, AgentLife::Purged { .. }) {
        execute(tx, "DELETE FROM user_slots WHERE uid = ?1", [uid])?;
        return Ok(());
    }
    execute(
        tx,
        "INSERT INTO user_slots (slot, uid)
         SELECT free, ?1 FROM (
             SELECT min(slot) AS free FROM (
                 SELECT 0 AS slot UNION ALL SELECT slot + 1 FROM user_slots)
             WHERE slot NOT IN (SELECT slot FROM user_slots))
         WHERE free < ?2 AND NOT EXISTS (SELECT 1 FROM user_slots WHERE uid = ?1)",
        (uid, UserRange::COUNT),
    )?;
    Ok(())
}

/// One proposal.
pub(super) fn proposal(
    db: &Connection,
    uid: AgentUid,
    number: ProposalNumber,
) -> Result<Option<Proposal>, LedgerError> {
    one(
        db,
        PROPOSALS,
        "SELECT uid, number, doc FROM proposals WHERE uid = ?1 AND number = ?2",
        (text(&uid), int(number.0)),
        |row| row.json("doc"),
    )
}

/// Writes a proposal, new or not.
pub(super) fn put_proposal(tx: &Tx<'_>, uid: AgentUid, proposal: &Proposal) -> Result<(), LedgerError> {
    let at = proposal
        .marks
        .get(&ProposalPhase::Proposed)
        .or_else(|| proposal.marks.values().next())
        .map_or(jiff::Timestamp::UNIX_EPOCH, |mark| mark.at);
    execute(
        tx,
        "INSERT INTO proposals (uid, number, commit_oid, phase, at, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (uid, number) DO UPDATE SET phase = excluded.phase, doc = excluded.doc",
        (
            text(&uid),
            int(proposal.number.0),
            proposal.commit.as_str(),
            proposal.phase.as_str(),
            At(at),
            json("a proposal", proposal)?,
        ),
    )?;
    Ok(())
}

/// Replaces the one document an agent has in `table`, or removes it.
pub(super) fn put_doc<T: Serialize>(
    tx: &Tx<'_>,
    table: &'static str,
    uid: AgentUid,
    doc: Option<&T>,
) -> Result<(), LedgerError> {
    known(tx, uid)?;
    match doc {
        Some(doc) => execute(
            tx,
            &format!(
                "INSERT INTO {table} (uid, doc) VALUES (?1, ?2) ON CONFLICT (uid) DO UPDATE SET doc = excluded.doc"
            ),
            (text(&uid), json(table, doc)?),
        )?,
        None => execute(tx, &format!("DELETE FROM {table} WHERE uid = ?1"), [text(&uid)])?,
    };
    Ok(())
}
