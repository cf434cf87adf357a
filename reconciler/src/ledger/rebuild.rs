//! Writing a ledger anew, and putting it in the place of one that is lost.
//!
//! ```text
//! hive.db.recovering     being written; an interrupted one counts for nothing
//!   | rename: from here on the recovery is finished, whoever dies
//! hive.db.recovered-T    whole
//!   | hive.db, -wal and -shm become hive.db.damaged-T, -wal, -shm; nothing is deleted
//! hive.db
//! ```
//!
//! While there is a `hive.db.recovered-T` no daemon starts, so the new file never meets the old one's log.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, chown};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{OpenFlags, params_from_iter};
use shared::{GateId, HiveId};

use super::error::{LedgerError, OpenError};
use super::open::{at, connect, create, folder, io, make_file, sync_folder};
use super::plans::StoredSpec;
use super::salvage::{RAW_TABLES, RawRow, USER_SLOTS};
use super::schema::MIGRATIONS;
use super::sql::{At, execute, int, json};
use super::{Tx, agents, gates};
use crate::model::records::{AgentRecord, Failures, GateRecord, Overrides, Probation, Proposal, Quarantine};

/// All that a ledger made anew holds.
#[derive(Debug)]
pub struct Rebuilt {
    /// The hive.
    pub hive_id: HiveId,
    /// When.
    pub at: Timestamp,
    /// The last good spec.
    pub spec: Option<StoredSpec>,
    /// Agents.
    pub agents: Vec<RebuiltAgent>,
    /// Gates, all of them over.
    pub gates: Vec<GateRecord>,
    /// No gate gets a number up to this one.
    pub last_gate: Option<GateId>,
    /// Rows that are carried over as they are, by table.
    pub(crate) raw: BTreeMap<&'static str, Vec<RawRow>>,
}

/// An agent, and what hangs on it.
#[derive(Debug, Clone, PartialEq)]
pub struct RebuiltAgent {
    /// The agent.
    pub record: AgentRecord,
    /// Its proposals, by number.
    pub proposals: Vec<Proposal>,
    /// Its overrides.
    pub overrides: Overrides,
    /// Its deployment on trial.
    pub probation: Option<Probation>,
    /// Systems that failed their trial.
    pub quarantine: Vec<(String, Quarantine)>,
    /// Runs that ended unasked.
    pub failures: Failures,
}

/// A recovery that was finished but for putting its ledger in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupted {
    stamp: String,
}

/// Whether an earlier recovery was interrupted after its ledger was whole.
///
/// # Errors
/// When the folder cannot be listed.
pub fn interrupted(path: &Utf8Path) -> Result<Option<Interrupted>, OpenError> {
    let (folder, prefix) = (
        folder(path),
        format!("{}.recovered-", path.file_name().unwrap_or_default()),
    );
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(io("list", folder))?,
    };
    let mut stamps = Vec::new();
    for entry in entries {
        let name = entry.map_err(io("list", folder))?.file_name();
        let stamp = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        stamps.extend(stamp.filter(|stamp| !stamp.contains('-')).map(str::to_owned));
    }
    stamps.sort();
    Ok(stamps.pop().map(|stamp| Interrupted { stamp }))
}

/// Writes a ledger beside `path`. Afterwards it is whole, and waits for [`swap_in`]. Blocks.
///
/// # Errors
/// When it cannot be written; then nothing waits.
pub fn rebuild(path: &Utf8Path, rebuilt: &Rebuilt) -> Result<Interrupted, OpenError> {
    let partial = Utf8PathBuf::from(format!("{path}.recovering"));
    for ending in ["", "-journal", "-wal", "-shm"] {
        remove(&Utf8PathBuf::from(format!("{partial}{ending}")))?;
    }
    make_file(&partial)?;
    let mut db = connect(&partial, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(at(&partial))?;
    // One file: only the daemon turns on the write-ahead log.
    db.pragma_update(None, "synchronous", "FULL")
        .map_err(at(&partial))?;
    db.pragma_update(None, "foreign_keys", true)
        .map_err(at(&partial))?;
    create(&mut db, rebuilt.at, rebuilt.hive_id, MIGRATIONS).map_err(at(&partial))?;
    fill(&mut db, rebuilt).map_err(|source| OpenError::Ledger {
        path: partial.clone(),
        source,
    })?;
    db.close().map_err(|(_, source)| at(&partial)(source))?;
    File::open(&partial)
        .and_then(|file| file.sync_all())
        .map_err(io("sync", &partial))?;
    give_to_owner(&partial)?;
    let stamp = rebuilt.at.strftime("%Y%m%dT%H%M%SZ").to_string();
    let whole = Utf8PathBuf::from(format!("{path}.recovered-{stamp}"));
    fs::rename(&partial, &whole).map_err(io("rename", &partial))?;
    sync_folder(&whole)?;
    Ok(Interrupted { stamp })
}

/// Keeps what lies at `path` aside and puts the ledger that waits in its place. Returns the name under which the old
/// one is kept, if there was one. Blocks. Interrupted, it is carried out again.
///
/// # Errors
/// When a file cannot be renamed.
pub fn swap_in(path: &Utf8Path, waiting: &Interrupted) -> Result<Option<Utf8PathBuf>, OpenError> {
    let aside = Utf8PathBuf::from(format!("{path}.damaged-{}", waiting.stamp));
    for ending in ["-wal", "-shm", ""] {
        let (old, kept) = (format!("{path}{ending}"), format!("{aside}{ending}"));
        let (old, kept) = (Utf8Path::new(&old), Utf8Path::new(&kept));
        match fs::rename(old, kept) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed.map_err(io("rename", old))?,
        }
    }
    sync_folder(path)?;
    let whole = Utf8PathBuf::from(format!("{path}.recovered-{}", waiting.stamp));
    fs::rename(&whole, path).map_err(io("rename", &whole))?;
    sync_folder(path)?;
    Ok(aside.exists().then_some(aside))
}

/// Gives a file to whom its folder belongs: root may recover what the daemon's own user is to open.
///
/// # Errors
/// When it is somebody else's and cannot be given.
pub fn give_to_owner(path: &Utf8Path) -> Result<(), OpenError> {
    let owner = fs::metadata(folder(path)).map_err(io("look at", folder(path)))?;
    let file = fs::metadata(path).map_err(io("look at", path))?;
    if file.uid() == owner.uid() {
        return Ok(());
    }
    chown(path, Some(owner.uid()), Some(owner.gid())).map_err(io("give its owner", path))
}

fn remove(path: &Utf8Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(io("remove", path)),
    }
}

fn fill(db: &mut rusqlite::Connection, rebuilt: &Rebuilt) -> Result<(), LedgerError> {
    let transaction = db.transaction()?;
    let mut tx = Tx::new(&transaction);
    if let Some(spec) = &rebuilt.spec {
        execute(
            &tx,
            "INSERT INTO spec (one, text, digest, generation, at) VALUES (1, ?1, ?2, ?3, ?4)",
            (
                &spec.text,
                spec.digest.as_str(),
                int(spec.generation),
                At(spec.at),
            ),
        )?;
    }
    // Before the agents come back: whoever had a range keeps it, and only who had none is given one.
    let (slots, others): (Vec<_>, Vec<_>) = RAW_TABLES.iter().partition(|table| table.name == USER_SLOTS);
    for row in rebuilt.raw.get(USER_SLOTS).into_iter().flatten() {
        for table in &slots {
            insert_raw(&tx, table.name, table.columns, row)?;
        }
    }
    for agent in &rebuilt.agents {
        fill_agent(&tx, agent)?;
    }
    for record in &rebuilt.gates {
        gates::restore(&tx, record)?;
    }
    for table in others {
        for row in rebuilt.raw.get(table.name).into_iter().flatten() {
            insert_raw(&tx, table.name, table.columns, row)?;
        }
    }
    if let Some(last) = rebuilt.last_gate {
        // A row that is there and goes again leaves its number behind.
        execute(&tx, "DELETE FROM sqlite_sequence WHERE name = 'gates'", [])?;
        execute(
            &tx,
            "INSERT INTO sqlite_sequence (name, seq) VALUES ('gates', ?1)",
            [int(last.0)],
        )?;
    }
    let note = super::events::NewEvent {
        at: rebuilt.at,
        agent: None,
        level: shared::event::Level::Alert,
        kind: "ledgerRecovered",
        message: "the ledger was lost and was made anew by hive recover; no approval was carried over",
        data: serde_json::json!({}),
    };
    super::events::append(&mut tx, note)?;
    transaction.commit()?;
    Ok(())
}

fn fill_agent(tx: &Tx<'_>, agent: &RebuiltAgent) -> Result<(), LedgerError> {
    let RebuiltAgent {
        record,
        proposals,
        overrides,
        probation,
        quarantine,
        failures,
    } = agent;
    let uid = record.uid;
    agents::put(tx, record)?;
    for proposal in proposals {
        agents::put_proposal(tx, uid, proposal)?;
    }
    let overrides = (*overrides != Overrides::default()).then_some(overrides);
    agents::put_doc(tx, "overrides", uid, overrides)?;
    agents::put_doc(tx, "probations", uid, probation.as_ref())?;
    let failures = (*failures != Failures::default()).then_some(failures);
    agents::put_doc(tx, "failures", uid, failures)?;
    for (system, quarantine) in quarantine {
        execute(
            tx,
            "INSERT OR IGNORE INTO quarantine (uid, system, doc) VALUES (?1, ?2, ?3)",
            (uid.to_string(), system, json("a quarantine", quarantine)?),
        )?;
    }
    Ok(())
}

fn insert_raw(tx: &Tx<'_>, table: &'static str, columns: &[&str], row: &[Value]) -> Result<(), LedgerError> {
    // A row that breaks a rule of its table, as two with one key do, must not keep the others from coming back.
    let places: Vec<String> = (1..=columns.len()).map(|place| format!("?{place}")).collect();
    execute(
        tx,
        &format!(
            "INSERT OR IGNORE INTO {table} ({}) VALUES ({})",
            columns.join(", "),
            places.join(", ")
        ),
        params_from_iter(row),
    )
    .map(drop)
}
