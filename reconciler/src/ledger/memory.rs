//! A ledger that lies in memory alone, for simulations.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use camino::Utf8Path;
use jiff::Timestamp;
use rusqlite::Connection;
use shared::HiveId;

use super::error::{LedgerError, OpenError};
use super::open::{PREPARED_STATEMENTS, at, create, handle, keep_plans, read_meta};
use super::schema::MIGRATIONS;
use super::{Door, Ledger, events};

/// Stands before and after each write, so that a simulation can have something happen there.
#[async_trait]
pub trait Boundary: Debug + Send + Sync {
    /// Before a transaction begins: its number. An error keeps it from beginning.
    async fn before(&self) -> Result<usize, LedgerError>;
    /// After the transaction of this number is committed. An error is what the caller gets; the transaction stays.
    async fn after(&self, number: usize) -> Result<(), LedgerError>;
}

impl Ledger {
    /// A new ledger in memory. Reads and writes share one connection, and are carried out by whoever asks.
    ///
    /// # Errors
    /// When SQLite refuses.
    #[expect(clippy::unused_async, reason = "opened like one on disk")]
    pub async fn open_in_memory(now: Timestamp, new_hive_id: HiveId) -> Result<Self, OpenError> {
        let mut db = connect()?;
        create(&mut db, now, new_hive_id, MIGRATIONS).map_err(at(memory()))?;
        here(db)
    }

    /// A ledger in memory that begins with what [`Ledger::image`] gave.
    ///
    /// # Errors
    /// When that is no image of a ledger.
    pub fn from_image(image: &[u8]) -> Result<Self, OpenError> {
        let mut db = connect()?;
        db.deserialize_read_exact("main", image, image.len(), false)
            .map_err(at(memory()))?;
        here(db)
    }

    /// The bytes of the file as it would be if the daemon died now.
    ///
    /// # Errors
    /// When SQLite refuses.
    #[expect(clippy::unused_async, reason = "asked like everything else of a ledger")]
    pub async fn image(&self) -> Result<Vec<u8>, LedgerError> {
        let Door::Here(db) = &self.writer else {
            return Err(LedgerError::Closed);
        };
        let mut db = db.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(db.serialize("main")?.to_vec())
    }

    /// The same ledger, with `boundary` around its writes.
    #[must_use]
    pub fn bounded_by(self, boundary: Arc<dyn Boundary>) -> Self {
        Self {
            boundary: Some(boundary),
            ..self
        }
    }
}

fn memory() -> &'static Utf8Path {
    Utf8Path::new(":memory:")
}

fn connect() -> Result<Connection, OpenError> {
    let db = Connection::open_in_memory().map_err(at(memory()))?;
    db.pragma_update(None, "foreign_keys", true)
        .map_err(at(memory()))?;
    keep_plans(&db).map_err(at(memory()))?;
    db.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
    Ok(db)
}

fn here(db: Connection) -> Result<Ledger, OpenError> {
    let unusable = |source| OpenError::Ledger {
        path: memory().to_owned(),
        source,
    };
    let meta = read_meta(&db).map_err(unusable)?;
    let last_seq = events::last_seq(&db).map_err(unusable)?;
    let door = Door::Here(Arc::new(Mutex::new(db)));
    Ok(handle(door.clone(), door, meta, last_seq))
}
