//! Opening: what is refused, what is upgraded, what is checked.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};
use sha2::{Digest as _, Sha256};
use shared::HiveId;
use tokio::sync::{mpsc, oneshot, watch};

use super::error::{Fault, LedgerError, OpenError, Undecodable};
use super::schema::{APPLICATION_ID, MIGRATIONS, Migration};
use super::writer::serve;
use super::{Door, JOBS, Ledger, Meta, Signals, Wakes, events, wal};
use crate::counters::Counters;

/// How long a statement waits for another process, such as `sqlite3` in an operator's hands.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How many copies from before upgrades are kept.
const COPIES_KEPT: usize = 3;
/// Every statement of the ledger is prepared once.
pub(super) const PREPARED_STATEMENTS: usize = 256;

impl Ledger {
    /// Opens the ledger at `path`, or makes one with `new_hive_id`. The folder must exist.
    ///
    /// # Errors
    /// When the file is newer than this build, damaged, or no ledger; it is then untouched.
    pub async fn open(path: &Utf8Path, now: Timestamp, new_hive_id: HiveId) -> Result<Self, OpenError> {
        Self::open_with(path, now, new_hive_id, MIGRATIONS).await
    }

    pub(super) async fn open_with(
        path: &Utf8Path,
        now: Timestamp,
        new_hive_id: HiveId,
        migrations: &'static [Migration],
    ) -> Result<Self, OpenError> {
        let opening = {
            let path = path.to_owned();
            move || open_file(&path, now, new_hive_id, migrations)
        };
        start(path, opening).await
    }
}

/// Runs `opening` on the writer's thread, so that no caller's runtime is blocked, and starts the reader.
async fn start(
    path: &Utf8Path,
    opening: impl FnOnce() -> Result<(Connection, Connection), OpenError> + Send + 'static,
) -> Result<Ledger, OpenError> {
    let (writer, jobs) = mpsc::channel(JOBS);
    let (reply, opened) = oneshot::channel();
    let path_of_error = path.to_owned();
    spawn(path, "ledger-writer", move || {
        let ready = opening().and_then(|(db, reader)| {
            let unusable = |source| OpenError::Ledger {
                path: path_of_error.clone(),
                source,
            };
            let meta = read_meta(&db).map_err(unusable)?;
            let last_seq = events::last_seq(&db).map_err(unusable)?;
            db.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
            Ok((db, reader, meta, last_seq))
        });
        match ready {
            Ok((db, reader, meta, last_seq)) => {
                if reply.send(Ok((reader, meta, last_seq))).is_ok() {
                    serve(db, jobs);
                }
            }
            // Nobody waits for an answer any more: nothing is open either.
            Err(error) => drop(reply.send(Err(error))),
        }
    })?;
    let (reader_db, meta, last_seq) = opened.await.map_err(|_| OpenError::Ledger {
        path: path.to_owned(),
        source: LedgerError::Closed,
    })??;
    reader_db.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
    let (reader, jobs) = mpsc::channel(JOBS);
    spawn(path, "ledger-reader", move || serve(reader_db, jobs))?;
    Ok(handle(Door::Thread(writer), Door::Thread(reader), meta, last_seq))
}

pub(super) fn handle(writer: Door, reader: Door, meta: Meta, last_seq: u64) -> Ledger {
    Ledger {
        writer,
        reader,
        signals: Arc::new(Signals {
            seq: watch::Sender::new(last_seq),
            wakes: Arc::new(Wakes::default()),
            receivers: Arc::default(),
            counters: Counters::default(),
            trouble: watch::Sender::new(None),
            writes: AtomicU64::new(0),
            deadlines: watch::Sender::new(0),
        }),
        meta: Arc::new(meta),
        boundary: None,
    }
}

fn spawn(path: &Utf8Path, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(io("start a thread for", path))
}

fn open_file(
    path: &Utf8Path,
    now: Timestamp,
    new_hive_id: HiveId,
    migrations: &[Migration],
) -> Result<(Connection, Connection), OpenError> {
    let known = migrations.last().map_or(0, |last| last.version);
    make_file(path)?;
    let log = wal::damage(path).map_err(io("read the log of", path))?;
    if let Some(detail) = log {
        return Err(OpenError::Corrupt {
            path: path.to_owned(),
            detail,
        });
    }
    let found = version(path)?;
    if found > i64::from(known) {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }

    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(io("set the mode of", path))?;
    check(path)?;
    let mut db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(at(path))?;
    // WAL is what lets reads pass a write; where it is impossible, SQLite says so by another answer.
    let mode: String = db
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(at(path))?;
    if mode != "wal" {
        return Err(io("use a write-ahead log beside", path)(
            ErrorKind::Unsupported.into(),
        ));
    }
    db.pragma_update(None, "synchronous", "FULL").map_err(at(path))?;
    db.pragma_update(None, "foreign_keys", true).map_err(at(path))?;
    // After a burst the log is cut back to this size.
    db.pragma_update(None, "journal_size_limit", 16 << 20)
        .map_err(at(path))?;

    if found == 0 {
        create(&mut db, now, new_hive_id, migrations).map_err(at(path))?;
    } else {
        upgrade(path, &mut db, found, migrations)?;
    }
    let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(at(path))?;
    Ok((db, reader))
}

/// Makes an empty file that only its owner can read, whatever the umask; SQLite gives `-wal` and `-shm` its mode.
pub(super) fn make_file(path: &Utf8Path) -> Result<(), OpenError> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(file) => {
            file.set_permissions(Permissions::from_mode(0o600))
                .map_err(io("set the mode of", path))?;
            sync_folder(path)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io("create", path)(error)),
    }
}

/// The version of the ledger, read without changing a byte; 0 for an empty file.
pub(super) fn version(path: &Utf8Path) -> Result<i64, OpenError> {
    let db = connect_to_look(path).map_err(at(path))?;
    let number = |sql: &str| {
        db.query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(at(path))
    };
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let ours = application == i64::from(APPLICATION_ID) && version > 0;
    let empty = tables == 0 && application == 0 && version == 0;
    if ours || empty {
        Ok(version)
    } else {
        Err(OpenError::NotALedger {
            path: path.to_owned(),
        })
    }
}

/// A connection that leaves no trace.
pub(super) fn connect_to_look(path: &Utf8Path) -> rusqlite::Result<Connection> {
    // One that can write would move what is in the log into the file when it is closed.
    if Utf8Path::new(&format!("{path}-wal")).exists() {
        return connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    }
    // Without a log one would be made, unless the file is said not to change. Should it all the same, because a daemon
    // has just started, then what is seen is wrong and nothing is harmed.
    let encoded = path
        .as_str()
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    let uri = format!("file:{encoded}?immutable=1");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags)
}

pub(super) fn connect(path: &Utf8Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection stays on one thread, so SQLite need not lock. No URI: a path may hold any character.
    let db = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    keep_plans(&db)?;
    Ok(db)
}

/// A statement is planned once, not again for every value that is bound to it.
pub(super) fn keep_plans(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}

/// Looks at every page, and whether each index has what its table has: a message that an index lost would never be
/// delivered. By a connection that cannot write, for closing one that can would write to what is damaged.
fn check(path: &Utf8Path) -> Result<(), OpenError> {
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(at(path))?;
    let verdict: String = db
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(at(path))?;
    if verdict == "ok" {
        Ok(())
    } else {
        Err(OpenError::Corrupt {
            path: path.to_owned(),
            detail: verdict.replace('\n', " "),
        })
    }
}

/// Makes the tables and the ledger's identity in one transaction.
pub(super) fn create(
    db: &mut Connection,
    now: Timestamp,
    new_hive_id: HiveId,
    migrations: &[Migration],
) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    for migration in migrations {
        tx.execute_batch(migration.sql)?;
        tx.pragma_update(None, "user_version", migration.version)?;
    }
    let mut meta = tx.prepare("INSERT INTO meta (key, value) VALUES (?1, ?2)")?;
    meta.execute(["hive_id", &new_hive_id.to_string()])?;
    meta.execute(["epoch", &epoch(now, new_hive_id)])?;
    meta.execute(rusqlite::params!["created_at", now.to_string()])?;
    drop(meta);
    tx.commit()
}

/// A new epoch. It is derived, not drawn, so that a simulation repeats exactly; `new_hive_id` is drawn for each file.
fn epoch(now: Timestamp, new_hive_id: HiveId) -> String {
    let hash = Sha256::digest(format!("epoch\n{new_hive_id}\n{now}"));
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(hash) {
        *to = from;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// Carries out the migrations that are missing, each after a copy of what was there before.
fn upgrade(
    path: &Utf8Path,
    db: &mut Connection,
    found: i64,
    migrations: &[Migration],
) -> Result<(), OpenError> {
    let missing = migrations
        .iter()
        .filter(|migration| i64::from(migration.version) > found);
    for migration in missing {
        copy(path, db, migration.version)?;
        let migrate = |db: &mut Connection| {
            let tx = db.transaction()?;
            tx.execute_batch(migration.sql)?;
            tx.pragma_update(None, "user_version", migration.version)?;
            tx.commit()
        };
        migrate(db).map_err(|source| OpenError::Upgrade {
            path: path.to_owned(),
            version: migration.version,
            source,
        })?;
        drop_old_copies(path)?;
    }
    Ok(())
}

/// Copies the ledger to `<path>.before-v<version>`. A copy under that name is always whole.
fn copy(path: &Utf8Path, db: &Connection, version: u32) -> Result<(), OpenError> {
    let copy = Utf8PathBuf::from(format!("{path}.before-v{version}"));
    let partial = Utf8PathBuf::from(format!("{copy}.partial"));
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove", &partial)(error)),
        Ok(()) | Err(_) => {}
    }
    // SQLite copies into an empty file, and leaves its mode alone.
    make_file(&partial)?;
    db.execute("VACUUM INTO ?1", [partial.as_str()])
        .map_err(at(path))?;
    File::open(&partial)
        .and_then(|file| file.sync_all())
        .map_err(io("sync", &partial))?;
    fs::rename(&partial, &copy).map_err(io("rename", &partial))?;
    sync_folder(&copy)
}

fn drop_old_copies(path: &Utf8Path) -> Result<(), OpenError> {
    let (folder, prefix) = (
        folder(path),
        format!("{}.before-v", path.file_name().unwrap_or_default()),
    );
    let mut versions = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let entry = entry.map_err(io("list", folder))?;
        let version = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix)?.parse::<u32>().ok());
        versions.extend(version);
    }
    versions.sort_unstable_by(|a, b| b.cmp(a));
    for version in versions.into_iter().skip(COPIES_KEPT) {
        let old = Utf8PathBuf::from(format!("{path}.before-v{version}"));
        fs::remove_file(&old).map_err(io("remove", &old))?;
    }
    Ok(())
}

pub(super) fn read_meta(db: &Connection) -> Result<Meta, LedgerError> {
    let value = |key: &'static str| {
        db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
            row.get::<_, String>(0)
        })
        .optional()?
        .ok_or_else(|| unreadable_meta(key, "there is no such row".into()))
    };
    let hive_id = value("hive_id")?
        .parse()
        .map_err(|source: shared::id::InvalidId| unreadable_meta("hive_id", source.into()))?;
    Ok(Meta {
        hive_id,
        epoch: value("epoch")?,
    })
}

fn unreadable_meta(key: &str, source: Fault) -> LedgerError {
    LedgerError::Undecodable(Box::new(Undecodable {
        table: "meta",
        key: key.to_owned(),
        uid: None,
        agent: None,
        source,
    }))
}

pub(super) fn folder(path: &Utf8Path) -> &Utf8Path {
    match path.parent() {
        Some(parent) if !parent.as_str().is_empty() => parent,
        _ => Utf8Path::new("."),
    }
}

pub(super) fn sync_folder(path: &Utf8Path) -> Result<(), OpenError> {
    let folder = folder(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io("sync", folder))
}

pub(super) fn io(op: &'static str, path: &Utf8Path) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { op, path, source }
}

/// Tells damage from other failures of SQLite.
pub(super) fn at(path: &Utf8Path) -> impl FnOnce(rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Corrupt {
            path,
            detail: source.to_string(),
        },
        _ => OpenError::Sqlite { path, source },
    }
}
