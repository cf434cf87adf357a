//! How values become columns and back.

use std::error::Error as StdError;
use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Params, Row};
use serde::Serialize;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use shared::AgentUid;

use super::error::{Fault, LedgerError, Listing, Undecodable};

/// A time as nanoseconds since 1970: exact, and in the order of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct At(pub(super) Timestamp);

impl ToSql for At {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        i64::try_from(self.0.as_nanosecond())
            .map(Into::into)
            .map_err(|source| rusqlite::Error::ToSqlConversionFailure(source.into()))
    }
}

impl FromSql for At {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Timestamp::from_nanosecond(i128::from(value.as_i64()?))
            .map(Self)
            .map_err(|source| FromSqlError::Other(source.into()))
    }
}

/// A number for a query. No row has a number beyond `i64`, so one that is too large just finds nothing.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A value as JSON.
pub(super) fn json<T: Serialize>(what: &'static str, value: &T) -> Result<String, LedgerError> {
    serde_json::to_string(value).map_err(|source| LedgerError::Unencodable { what, source })
}

/// A value from JSON. What does not fit is named by its path, which takes a second and slower look.
pub(super) fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) => {
            serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(text))?;
            // What comes after a whole value has no path.
            Err(error.into())
        }
    }
}

/// `text`, or its beginning with an ellipsis when it is longer than `max` bytes.
pub(crate) fn bounded(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// Typed columns.
pub(super) trait Columns {
    /// Something that is written as text.
    fn parsed<T: FromStr<Err: StdError + Send + Sync + 'static>>(&self, column: &str) -> Result<T, Fault>;
    /// The same where there may be nothing.
    fn maybe_parsed<T: FromStr<Err: StdError + Send + Sync + 'static>>(
        &self,
        column: &str,
    ) -> Result<Option<T>, Fault>;
    /// A unit variant by the name it has on the wire.
    fn word<T: DeserializeOwned>(&self, column: &str) -> Result<T, Fault>;
    /// A word where there may be none, also because the row is one of an older ledger that is being salvaged.
    fn maybe_word<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, Fault>;
    /// A JSON document.
    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, Fault>;
    /// A time.
    fn time(&self, column: &str) -> Result<Timestamp, Fault>;
    /// A time where there may be none.
    fn maybe_time(&self, column: &str) -> Result<Option<Timestamp>, Fault>;
    /// A number that is not negative.
    fn number(&self, column: &str) -> Result<u64, Fault>;
    /// Whatever is there, in words, for naming a row that cannot be read.
    fn shown(&self, column: &str) -> String;
}

impl Columns for Row<'_> {
    fn parsed<T: FromStr<Err: StdError + Send + Sync + 'static>>(&self, column: &str) -> Result<T, Fault> {
        Ok(self.get_ref(column)?.as_str()?.parse()?)
    }

    fn maybe_parsed<T: FromStr<Err: StdError + Send + Sync + 'static>>(
        &self,
        column: &str,
    ) -> Result<Option<T>, Fault> {
        match self.get_ref(column)? {
            ValueRef::Null => Ok(None),
            value => Ok(Some(value.as_str()?.parse()?)),
        }
    }

    fn word<T: DeserializeOwned>(&self, column: &str) -> Result<T, Fault> {
        let text = self.get_ref(column)?.as_str()?;
        let word: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
        Ok(T::deserialize(word)?)
    }

    fn maybe_word<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, Fault> {
        match self.get_ref(column) {
            Ok(ValueRef::Null) | Err(rusqlite::Error::InvalidColumnName(_)) => Ok(None),
            _ => self.word(column).map(Some),
        }
    }

    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, Fault> {
        decode(self.get_ref(column)?.as_str()?)
    }

    fn time(&self, column: &str) -> Result<Timestamp, Fault> {
        Ok(self.get::<_, At>(column)?.0)
    }

    fn maybe_time(&self, column: &str) -> Result<Option<Timestamp>, Fault> {
        Ok(self.get::<_, Option<At>>(column)?.map(|at| at.0))
    }

    fn number(&self, column: &str) -> Result<u64, Fault> {
        Ok(u64::try_from(self.get::<_, i64>(column)?)?)
    }

    fn shown(&self, column: &str) -> String {
        match self.get_ref(column) {
            Ok(ValueRef::Null) => "''".to_owned(),
            Ok(ValueRef::Integer(number)) => number.to_string(),
            Ok(ValueRef::Text(text)) => bounded(&String::from_utf8_lossy(text), 100),
            Ok(ValueRef::Real(_) | ValueRef::Blob(_)) | Err(_) => "?".to_owned(),
        }
    }
}

/// Names a row that cannot be read. `key` are the columns of its key.
pub(super) fn undecodable(table: &'static str, key: &[&str], row: &Row<'_>, source: Fault) -> Undecodable {
    Undecodable {
        table,
        key: key
            .iter()
            .map(|column| row.shown(column))
            .collect::<Vec<_>>()
            .join("/"),
        // Columns a table does not have are simply not known.
        uid: row.parsed("uid").ok(),
        agent: row.parsed("agent").or_else(|_| row.parsed("name")).ok(),
        source,
    }
}

/// All rows of a query, each decoded or named.
pub(super) fn list<T>(
    db: &Connection,
    (table, key): (&'static str, &[&str]),
    sql: &str,
    params: impl Params,
    mut decode: impl FnMut(&Row<'_>) -> Result<T, Fault>,
) -> Result<Listing<T>, LedgerError> {
    let mut listing = Listing::default();
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        listing.push(decode(row).map_err(|source| undecodable(table, key, row, source)));
    }
    Ok(listing)
}

/// The only row of a query, decoded; `None` when there is none.
pub(super) fn one<T>(
    db: &Connection,
    table: (&'static str, &[&str]),
    sql: &str,
    params: impl Params,
    decode: impl FnMut(&Row<'_>) -> Result<T, Fault>,
) -> Result<Option<T>, LedgerError> {
    Ok(list(db, table, sql, params, decode)?
        .complete()?
        .into_iter()
        .next())
}

/// Carries out a statement; returns how many rows it changed.
pub(super) fn execute(db: &Connection, sql: &str, params: impl Params) -> Result<usize, LedgerError> {
    Ok(db.prepare_cached(sql)?.execute(params)?)
}

/// The agent as the attempts table has it.
pub(super) fn uid_or_hive(uid: Option<AgentUid>) -> String {
    uid.as_ref().map_or_else(String::new, text)
}

/// Something as text.
pub(super) fn text(value: &impl Display) -> String {
    value.to_string()
}
