//! The log of events: a SQLite file in the state folder, bounded by age and by size.
//!
//! The agent can write that folder, so nothing in the file is believed: it must be a file, and its schema must be ours
//! to the letter, so that nobody's trigger runs here. A row that cannot be read is shown as one. A file that is
//! something else, or damaged, is set aside, and a new one begun.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};
use shared::TurnId;
use shared::agent_event::{AgentEvent, AgentEventKind};

/// Where the log is, below the state folder.
pub const FILE: &str = "log/events.sqlite";
/// How long an event is kept.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The only object in the file.
const TABLE: &str = "CREATE TABLE events (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    at   INTEGER NOT NULL,
    turn TEXT,
    doc  TEXT NOT NULL
) STRICT";
/// The version of the schema.
const VERSION: i32 = 1;
const PAGE: i64 = 4096;
/// How large the file may become: 64 MiB.
const MOST_PAGES: i64 = 64 * 1024 * 1024 / PAGE;
/// How long somebody else may hold the file.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest row that is read, in bytes: a text whose every byte is escaped, and the rest.
const MAX_ROW: usize = 128 * 1024;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Its folder cannot be made, or the file not looked at.
    #[error("cannot use the log of events {path}: look at what is there, and at the disk")]
    Io {
        /// The file.
        path: Utf8PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// Something else is at its path.
    #[error("the log of events {path} is no file: remove what is there")]
    NoFile {
        /// The path.
        path: Utf8PathBuf,
    },
    /// The file is something else, or damaged.
    #[error("the log of events {path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: Utf8PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It cannot be written or read for now.
    #[error("the log of events {path} cannot be used: is the disk full, or does somebody hold the file?")]
    Failed {
        /// The file.
        path: Utf8PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
}

/// The log, open. Everything here blocks.
#[derive(Debug)]
pub struct Log {
    db: Connection,
    path: Utf8PathBuf,
    /// How large the file may become.
    most_pages: i64,
}

/// What is to be read.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this turn alone.
    pub turn: Option<TurnId>,
    /// The newest so many.
    pub last: u32,
}

impl Log {
    /// Opens the log and makes it if it is not there. One that is damaged is set aside under the name `….damaged`, in
    /// place of the one that lies there, and the text says so.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(path: &Utf8Path) -> Result<(Self, Option<String>), LogError> {
        Self::open_within(path, MOST_PAGES)
    }

    fn open_within(path: &Utf8Path, most_pages: i64) -> Result<(Self, Option<String>), LogError> {
        let io = |source| LogError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        match Self::open_as_it_is(path, most_pages) {
            Err(error @ LogError::Damaged { .. }) => {
                let (log, said) = Self::begin_anew(path, most_pages, &error)?;
                Ok((log, Some(said)))
            }
            opened => Ok((opened?, None)),
        }
    }

    /// Sets this log aside for a damage that showed only when it was used; gives the new one, and says so.
    ///
    /// # Errors
    /// When no new one can be begun.
    pub fn replace(self, damage: &LogError) -> Result<(Self, String), LogError> {
        let Self { db, path, most_pages } = self;
        drop(db);
        Self::begin_anew(&path, most_pages, damage)
    }

    fn begin_anew(path: &Utf8Path, most_pages: i64, damage: &LogError) -> Result<(Self, String), LogError> {
        set_aside(path).map_err(|source| LogError::Io {
            path: path.to_owned(),
            source,
        })?;
        let log = Self::open_as_it_is(path, most_pages)?;
        Ok((log, format!("{damage}; a new one begins")))
    }

    /// Opens the log if it is there.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open_existing(path: &Utf8Path) -> Result<Option<Self>, LogError> {
        match is_there(path)? {
            true => Self::open_as_it_is(path, MOST_PAGES).map(Some),
            false => Ok(None),
        }
    }

    fn open_as_it_is(path: &Utf8Path, most_pages: i64) -> Result<Self, LogError> {
        let new = !is_there(path)?;
        let failed = |source| failed(path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let db = Connection::open_with_flags(path.as_std_path(), flags).map_err(failed)?;
        prepare(&db, most_pages).map_err(failed)?;
        let log = Self {
            db,
            path: path.to_owned(),
            most_pages,
        };
        if new || log.is_empty().map_err(failed)? {
            log.db
                .execute_batch(&format!(
                    "BEGIN IMMEDIATE; {TABLE}; PRAGMA user_version = {VERSION}; COMMIT"
                ))
                .map_err(failed)?;
        }
        log.check()?;
        Ok(log)
    }

    /// Whether nothing was ever put into the file, as when whoever made it did not live to do more.
    fn is_empty(&self) -> rusqlite::Result<bool> {
        let objects = "SELECT count(*) = 0 FROM sqlite_schema";
        self.db.query_row(objects, [], |row| row.get(0))
    }

    /// Refuses a file whose schema is not ours.
    fn check(&self) -> Result<(), LogError> {
        let failed = |source| failed(&self.path, source);
        let version: i32 = self
            .db
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(failed)?;
        let ours = "SELECT count(*) = 2 AND sum(sql = ?1) = 1 FROM sqlite_schema
             WHERE name <> 'sqlite_sequence' OR sql = 'CREATE TABLE sqlite_sequence(name,seq)'";
        let ours: bool = self
            .db
            .query_row(ours, [TABLE], |row| row.get(0))
            .map_err(failed)?;
        let all: i64 = self
            .db
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(failed)?;
        if version == VERSION && ours && all == 2 {
            return Ok(());
        }
        Err(LogError::Damaged {
            path: self.path.clone(),
            why: "it does not have the tables of a log of events".to_owned(),
        })
    }

    /// Adds events, all or none, and drops what is too old, or too much.
    ///
    /// # Errors
    /// When nothing was added.
    pub fn append(&mut self, events: &[AgentEvent], now: Timestamp) -> Result<(), LogError> {
        let added = add(&mut self.db, self.most_pages, events, now);
        added.map_err(|source| failed(&self.path, source))
    }

    /// The newest events that are wanted, the oldest first. What cannot be read is an event that says so.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, wanted: &Wanted, now: Timestamp) -> Result<Vec<AgentEvent>, LogError> {
        let read = || {
            let mut query = self.db.prepare(
                "SELECT id, at, CASE WHEN length(CAST(doc AS BLOB)) <= ?4 THEN doc END AS doc FROM events
                 WHERE at >= ?1 AND (?2 IS NULL OR turn = ?2) ORDER BY id DESC LIMIT ?3",
            )?;
            let turn = wanted.turn.map(|turn| turn.to_string());
            let params = (
                oldest(now),
                turn,
                wanted.last,
                i64::try_from(MAX_ROW).unwrap_or(i64::MAX),
            );
            let rows = query.query_map(params, decode)?;
            let mut events = rows.collect::<Result<Vec<_>, _>>()?;
            events.reverse();
            Ok(events)
        };
        read().map_err(|source| failed(&self.path, source))
    }
}

/// Whether the log is there.
///
/// # Errors
/// When something else is.
fn is_there(path: &Utf8Path) -> Result<bool, LogError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(true),
        Ok(_) => Err(LogError::NoFile {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(LogError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

fn prepare(db: &Connection, most_pages: i64) -> rusqlite::Result<()> {
    db.busy_timeout(PATIENCE)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    // Readers hold up no writer, and nothing is synced until the log is closed.
    db.execute_batch(&format!(
        "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA cache_size = -512;
         PRAGMA page_size = {PAGE}; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
         PRAGMA journal_size_limit = 1048576; PRAGMA max_page_count = {most_pages};"
    ))
}

fn add(db: &mut Connection, most_pages: i64, events: &[AgentEvent], now: Timestamp) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // First of all, so that a full log makes room for what is new.
    tx.execute("DELETE FROM events WHERE at < ?1", [oldest(now)])?;
    let used: i64 = tx.query_row(
        "SELECT (SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM pragma_freelist_count)",
        [],
        |row| row.get(0),
    )?;
    if used > most_pages / 4 * 3 {
        tx.execute(
            "DELETE FROM events WHERE id <= (SELECT min(id) + (max(id) - min(id)) / 4 FROM events)",
            [],
        )?;
    }
    {
        let mut insert = tx.prepare_cached("INSERT INTO events (at, turn, doc) VALUES (?1, ?2, ?3)")?;
        for event in events {
            let doc = serde_json::to_string(event)
                .map_err(|source| rusqlite::Error::ToSqlConversionFailure(source.into()))?;
            let turn = event.turn.map(|turn| turn.to_string());
            insert.execute((event.at.as_millisecond(), turn, doc))?;
        }
    }
    tx.commit()
}

/// Events before this are too old, in milliseconds since 1970.
fn oldest(now: Timestamp) -> i64 {
    let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    now.as_millisecond().saturating_sub(kept)
}

/// The event of a row, whatever is in it.
fn decode(row: &Row<'_>) -> rusqlite::Result<AgentEvent> {
    let id: i64 = row.get("id")?;
    let at: i64 = row.get("at")?;
    let read = match row.get::<_, Option<String>>("doc") {
        Ok(Some(doc)) => serde_json::from_str(&doc).map_err(|error| error.to_string()),
        Ok(None) => Err(format!("it is longer than {MAX_ROW} bytes")),
        Err(error) => Err(error.to_string()),
    };
    Ok(read.unwrap_or_else(|why| AgentEvent {
        seq: 0,
        at: Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH),
        turn: None,
        kind: AgentEventKind::Unreadable,
        text: crate::tame(&format!("row {id} of the log cannot be read: {why}"), 500),
        tool: None,
        ok: None,
        used: None,
    }))
}

fn failed(path: &Utf8Path, source: rusqlite::Error) -> LogError {
    let damaged = matches!(
        source.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    );
    let path = path.to_owned();
    if damaged {
        LogError::Damaged {
            path,
            why: source.to_string(),
        }
    } else {
        LogError::Failed { path, source }
    }
}

/// Moves a file out of the way, with what belongs to it.
fn set_aside(path: &Utf8Path) -> std::io::Result<()> {
    for part in ["-wal", "-shm"] {
        match std::fs::remove_file(format!("{path}{part}")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, format!("{path}.damaged"))
}

#[cfg(test)]
mod tests;
