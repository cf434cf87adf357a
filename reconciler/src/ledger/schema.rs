//! The versions of the ledger's tables. A migration only ever adds.

/// One step from a version of the tables to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    /// The version it leads to; they are numbered from 1 without a gap.
    pub(super) version: u32,
    /// What it does, carried out in one transaction.
    pub(super) sql: &'static str,
}

/// All migrations this build knows, in order.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        sql: include_str!("schema/v1.sql"),
    },
    Migration {
        version: 2,
        sql: include_str!("schema/v2.sql"),
    },
    Migration {
        version: 3,
        sql: include_str!("schema/v3.sql"),
    },
    Migration {
        version: 4,
        sql: include_str!("schema/v4.sql"),
    },
];

/// Marks a SQLite file as a ledger (`hive` in ASCII).
pub(super) const APPLICATION_ID: i32 = 0x6869_7665;
