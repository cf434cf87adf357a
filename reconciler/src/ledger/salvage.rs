//! Reading what is left of a damaged ledger. Each row is decoded and checked; the file is not changed.

use std::collections::BTreeMap;

use camino::Utf8Path;
use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, Row};
use serde::de::IgnoredAny;
use shared::{AgentUid, GateId, HiveId};

use super::error::{Fault, LedgerError, OpenError};
use super::gates;
use super::open::{at, connect_to_look, io, version};
use super::plans::StoredSpec;
use super::schema::MIGRATIONS;
use super::sql::Columns as _;
use crate::model::records::{AgentRecord, Failures, GateRecord, Overrides, Probation, Proposal, Quarantine};

/// How a ledger is.
#[derive(Debug)]
pub enum Condition {
    /// There is no file, or an empty one.
    Missing,
    /// Every page and every row can be read.
    Whole,
    /// Not so.
    Damaged {
        /// What is wrong.
        detail: String,
    },
}

/// How many rows of a table could be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows that were read and make sense.
    pub read: usize,
    /// Rows that were read and make none.
    pub unreadable: usize,
    /// The table breaks off: there were more rows, nobody knows how many.
    pub cut_short: bool,
}

/// A row that is carried over as it is.
pub(crate) type RawRow = Vec<Value>;

/// What could be read.
#[derive(Debug, Default)]
pub struct Salvage {
    /// The hive.
    pub hive_id: Option<HiveId>,
    /// The last good spec.
    pub spec: Option<StoredSpec>,
    /// Agents, archived ones too.
    pub agents: Vec<AgentRecord>,
    /// Proposals.
    pub proposals: Vec<(AgentUid, Proposal)>,
    /// Gates with their decisions.
    pub gates: Vec<GateRecord>,
    /// Overrides.
    pub overrides: Vec<(AgentUid, Overrides)>,
    /// Deployments on trial.
    pub probations: Vec<(AgentUid, Probation)>,
    /// Systems that failed their trial.
    pub quarantine: Vec<(AgentUid, (String, Quarantine))>,
    /// Runs that ended unasked.
    pub failures: Vec<(AgentUid, Failures)>,
    /// Rows that are carried over as they are, by table.
    pub(crate) raw: BTreeMap<&'static str, Vec<RawRow>>,
    /// The highest number that a gate ever had.
    pub last_gate: Option<GateId>,
    /// What was read of each table.
    pub tallies: BTreeMap<&'static str, Tally>,
}

impl Salvage {
    /// When the newest event happened.
    pub fn newest_event(&self) -> Option<Timestamp> {
        let times = self
            .raw
            .get("events")
            .into_iter()
            .flatten()
            .filter_map(|row| match row.get(1) {
                Some(Value::Integer(nanoseconds)) => {
                    Timestamp::from_nanosecond(i128::from(*nanoseconds)).ok()
                }
                _ => None,
            });
        times.max()
    }
}

/// A table that is carried over as it is: its name and its columns.
pub(crate) struct RawTable {
    pub(crate) name: &'static str,
    /// The version of the ledger that it came with.
    since: u32,
    pub(crate) columns: &'static [&'static str],
    check: fn(&Row<'_>) -> Result<(), Fault>,
}

/// The table of the agents' ranges of user ids.
pub(crate) const USER_SLOTS: &str = "user_slots";

/// Tables whose rows speak for themselves.
pub(crate) const RAW_TABLES: [RawTable; 14] = [
    RawTable {
        name: "egress_traffic",
        since: 4,
        columns: &["uid", "sent", "received", "refused"],
        check: |row| {
            row.parsed::<AgentUid>("uid")?;
            row.number("sent")?;
            row.number("received")?;
            row.number("refused")?;
            Ok(())
        },
    },
    RawTable {
        name: "egress_refusals",
        since: 4,
        columns: &[
            "uid", "host", "port", "reason", "count", "first_at", "last_at", "told_at",
        ],
        check: |row| super::egress::check(row),
    },
    RawTable {
        name: "egress_reports",
        since: 4,
        columns: &["run", "seq", "at"],
        check: |row| {
            row.get_ref("run")?.as_str()?;
            row.number("seq")?;
            row.time("at")?;
            Ok(())
        },
    },
    RawTable {
        name: "messages",
        since: 1,
        columns: &[
            "id",
            "from_addr",
            "to_addr",
            "kind",
            "reply_to",
            "body",
            "at",
            "dedupe",
            "state",
            "turn",
            "deliveries",
            "leased_at",
            "batch",
            "dismissed_at",
            "topic",
        ],
        check: |row| {
            row.parsed::<shared::Address>("from_addr")?;
            row.parsed::<shared::Address>("to_addr")?;
            row.get_ref("body")?.as_str()?;
            row.time("at")?;
            row.number("id")?;
            Ok(())
        },
    },
    RawTable {
        name: "events",
        since: 1,
        columns: &["seq", "at", "agent", "level", "kind", "message", "data"],
        check: |row| {
            row.time("at")?;
            row.word::<shared::event::Level>("level")?;
            row.get_ref("message")?.as_str()?;
            row.json::<IgnoredAny>("data")?;
            Ok(())
        },
    },
    RawTable {
        name: "plans",
        since: 1,
        columns: &[
            "id", "uid", "agent", "digest", "summary", "at", "last_at", "count", "doc",
        ],
        check: |row| {
            row.parsed::<shared::Digest>("digest")?;
            row.time("last_at")?;
            row.json::<IgnoredAny>("doc")?;
            Ok(())
        },
    },
    RawTable {
        name: "questions",
        since: 2,
        columns: &[
            "id",
            "from_addr",
            "to_addr",
            "body",
            "asked_at",
            "expires_at",
            "fallback",
            "state",
            "ended_by",
            "ended_at",
            "answer",
        ],
        check: |row| super::questions::decode(row).map(drop),
    },
    RawTable {
        name: "reminders",
        since: 2,
        columns: &[
            "id", "owner", "body", "schedule", "missed", "dedupe", "set_at", "due", "try_at", "message",
            "error", "ended_at", "set_by",
        ],
        check: |row| super::reminders::decode(row).map(drop),
    },
    RawTable {
        name: "turns",
        since: 2,
        columns: &[
            "id", "uid", "agent", "turn", "at", "tokens", "cost_usd", "doc", "facts",
        ],
        check: |row| super::turns::decode(row).map(drop),
    },
    RawTable {
        name: "spending",
        since: 2,
        columns: &["uid", "turn", "at", "tokens", "cost_usd", "ended"],
        check: |row| {
            row.parsed::<AgentUid>("uid")?;
            row.parsed::<shared::TurnId>("turn")?;
            row.time("at")?;
            row.number("tokens")?;
            Ok(())
        },
    },
    RawTable {
        name: "overspending",
        since: 2,
        columns: &["uid", "day", "question", "times", "by", "at", "asked_times"],
        check: |row| {
            row.time("day")?;
            row.number("question")?;
            Ok(())
        },
    },
    RawTable {
        name: "instructions",
        since: 2,
        columns: &[
            "id", "uid", "kind", "turn", "until", "wakes", "ends_at", "by", "at", "taken_at",
        ],
        check: |row| {
            row.parsed::<AgentUid>("uid")?;
            row.time("at")?;
            super::instructions::decode(row).map(drop)
        },
    },
    RawTable {
        name: "earlier_mail",
        since: 2,
        columns: &["name", "message"],
        check: |row| {
            row.parsed::<shared::AgentName>("name")?;
            row.number("message")?;
            Ok(())
        },
    },
    RawTable {
        name: USER_SLOTS,
        since: 4,
        columns: &["slot", "uid"],
        check: |row| {
            row.parsed::<AgentUid>("uid")?;
            row.number("slot")?;
            Ok(())
        },
    },
];

/// Whether there is no ledger at `path`, or one that was never filled. One that is damaged is there.
///
/// # Errors
/// When that cannot be said.
pub fn is_missing(path: &Utf8Path) -> Result<bool, OpenError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(io("look at", path)(error)),
        Ok(_) => match version(path) {
            Ok(version) => Ok(version == 0),
            Err(OpenError::Corrupt { .. } | OpenError::NotALedger { .. }) => Ok(false),
            Err(error) => Err(error),
        },
    }
}

/// Looks at the ledger at `path` without changing it. Blocks.
///
/// # Errors
/// When it cannot be looked at, is another program's, or a newer hyperhive's.
pub fn condition(path: &Utf8Path) -> Result<Condition, OpenError> {
    if is_missing(path)? {
        return Ok(Condition::Missing);
    }
    let known = MIGRATIONS.last().map_or(0, |last| last.version);
    let looked = version(path).and_then(|found| {
        if found > i64::from(known) {
            let path = path.to_owned();
            return Err(OpenError::Newer { path, found, known });
        }
        integrity(path)
    });
    match looked {
        Err(OpenError::Corrupt { detail, .. }) => Ok(Condition::Damaged { detail }),
        looked => looked,
    }
}

fn integrity(path: &Utf8Path) -> Result<Condition, OpenError> {
    let db = connect_to_look(path).map_err(at(path))?;
    let verdict: String = db
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(at(path))?;
    if verdict != "ok" {
        let detail = verdict.replace('\n', " ");
        return Ok(Condition::Damaged { detail });
    }
    drop(db);
    let salvage = salvage(path)?;
    let broken: Vec<String> = salvage
        .tallies
        .iter()
        .filter(|(_, tally)| tally.unreadable > 0 || tally.cut_short)
        .map(|(table, tally)| format!("{} rows of table {table} cannot be read", tally.unreadable))
        .collect();
    Ok(match broken.first() {
        None if salvage.hive_id.is_some() => Condition::Whole,
        None => Condition::Damaged {
            detail: "its identity cannot be read".to_owned(),
        },
        Some(_) => Condition::Damaged {
            detail: broken.join("; "),
        },
    })
}

/// Reads what can be read of the ledger at `path`. Blocks.
///
/// # Errors
/// When not even a connection can be made. A file without a readable table is no error; it just holds nothing.
pub fn salvage(path: &Utf8Path) -> Result<Salvage, OpenError> {
    let db = connect_to_look(path).map_err(at(path))?;
    let mut diver = Diver {
        db: &db,
        tallies: BTreeMap::new(),
    };
    let mut found = Salvage {
        hive_id: meta(&db),
        ..Salvage::default()
    };
    let specs = diver.table("spec", |row| {
        Ok(StoredSpec {
            text: row.get("text")?,
            digest: row.parsed("digest")?,
            generation: row.number("generation")?,
            at: row.time("at")?,
        })
    });
    found.spec = specs.into_iter().next();
    found.agents = diver.table("agents", |row| {
        let record: AgentRecord = row.json("doc")?;
        let same = row.parsed::<AgentUid>("uid")? == record.uid;
        same.then_some(record)
            .ok_or_else(|| "its key is another agent's".into())
    });
    found.proposals = diver.table("proposals", |row| {
        let proposal: Proposal = row.json("doc")?;
        let same = row.number("number")? == proposal.number.0;
        let uid = row.parsed("uid")?;
        same.then_some((uid, proposal))
            .ok_or_else(|| "its key is another proposal's".into())
    });
    found.gates = diver.rows(
        "gates",
        &format!("SELECT id AS position, * FROM ({})", gates::ALL),
        gates::record,
    );
    found.overrides = diver.docs("overrides");
    found.probations = diver.docs("probations");
    found.failures = diver.docs("failures");
    found.quarantine = diver.table("quarantine", |row| {
        Ok((row.parsed("uid")?, (row.get("system")?, row.json("doc")?)))
    });
    // A ledger that was not upgraded yet has less, and is whole all the same.
    let version = version(path).unwrap_or(i64::MAX);
    for table in RAW_TABLES {
        if i64::from(table.since) > version {
            continue;
        }
        let rows = diver.table(table.name, |row| {
            (table.check)(row)?;
            let values = table
                .columns
                .iter()
                .map(|column| match row.get::<_, Value>(*column) {
                    Err(rusqlite::Error::InvalidColumnName(_)) => Ok(before_it_was_there(column)),
                    value => value,
                });
            Ok(values.collect::<Result<RawRow, _>>()?)
        });
        found.raw.insert(table.name, rows);
    }
    found.last_gate = last_gate(&db, &found.gates);
    found.tallies = diver.tallies;
    Ok(found)
}

/// What a row of an older version would have in a column that it does not have.
fn before_it_was_there(column: &str) -> Value {
    match column {
        "batch" => Value::Integer(0),
        "asked_times" => Value::Integer(1),
        _ => Value::Null,
    }
}

fn meta(db: &Connection) -> Option<HiveId> {
    let text = db.query_row("SELECT value FROM meta WHERE key = 'hive_id'", [], |row| {
        row.get::<_, String>(0)
    });
    text.ok()?.parse().ok()
}

fn last_gate(db: &Connection, gates: &[GateRecord]) -> Option<GateId> {
    let counted = db.query_row(
        "SELECT seq FROM sqlite_sequence WHERE name = 'gates'",
        [],
        |row| row.get::<_, i64>(0),
    );
    let counted = counted.ok().and_then(|seq| u64::try_from(seq).ok()).map(GateId);
    gates.iter().map(|record| record.gate.id).chain(counted).max()
}

struct Diver<'c> {
    db: &'c Connection,
    tallies: BTreeMap<&'static str, Tally>,
}

impl Diver<'_> {
    /// A table with one document for each agent.
    fn docs<T: serde::de::DeserializeOwned>(&mut self, table: &'static str) -> Vec<(AgentUid, T)> {
        self.table(table, |row| Ok((row.parsed("uid")?, row.json("doc")?)))
    }

    /// The rows of a table.
    fn table<T>(&mut self, table: &'static str, decode: impl Fn(&Row<'_>) -> Result<T, Fault>) -> Vec<T> {
        let source = format!("SELECT rowid AS position, * FROM {table}");
        self.rows(table, &source, decode)
    }

    /// The rows of a query, from its start up to where it cannot be read, then from its end back to there.
    fn rows<T>(
        &mut self,
        table: &'static str,
        source: &str,
        decode: impl Fn(&Row<'_>) -> Result<T, Fault>,
    ) -> Vec<T> {
        let mut tally = Tally::default();
        let mut items = BTreeMap::new();
        for order in ["ASC", "DESC"] {
            let sql = format!("{source} ORDER BY position {order}");
            match read_rows(self.db, &sql, &decode, &mut items, &mut tally) {
                Ok(()) => break,
                Err(_) => tally.cut_short = true,
            }
        }
        tally.read = items.len();
        self.tallies.insert(table, tally);
        items.into_values().collect()
    }
}

fn read_rows<T>(
    db: &Connection,
    sql: &str,
    decode: &impl Fn(&Row<'_>) -> Result<T, Fault>,
    items: &mut BTreeMap<i64, T>,
    tally: &mut Tally,
) -> Result<(), LedgerError> {
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let position: i64 = row.get("position")?;
        match decode(row) {
            Ok(item) => {
                items.insert(position, item);
            }
            Err(_) => tally.unreadable += 1,
        }
    }
    Ok(())
}

/// Where these columns stand in the rows of a table that is carried over as it is.
pub(crate) fn places<const N: usize>(table: &str, columns: [&str; N]) -> Option<[usize; N]> {
    let known = RAW_TABLES.iter().find(|known| known.name == table)?.columns;
    let mut places = [0; N];
    for (place, column) in places.iter_mut().zip(columns) {
        *place = known.iter().position(|name| *name == column)?;
    }
    Some(places)
}
