//! Reads JSON into a tree without losing what a map would swallow: a key that is given twice.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::ops::Bound;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::fault::{At, Fault};

/// The largest spec that is read, in bytes.
pub const MAX_BYTES: u64 = 16 << 20;

/// Each costs a path in memory; nobody writes so many by accident.
const MAX_DUPLICATES: usize = 1000;

/// A key that is given twice.
pub(super) struct Duplicate {
    pub(super) path: String,
    /// The agent below which it is.
    pub(super) agent: Option<String>,
}

/// The tree behind `text`, and its duplicate keys (the last value of each is kept).
pub(super) fn read(text: &[u8]) -> Result<(Value, Vec<Duplicate>), Fault> {
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(Fault::new(
            "",
            format!("the document has {} bytes; at most 16 MiB are read", text.len()),
        ));
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(Fault::new(
            "",
            "the document is empty: the least that is accepted is {\"version\":1,\"hive\":{\"name\":\"home\"}}",
        ));
    }
    let mut duplicates = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(text);
    let tree = Tree {
        at: At::Top,
        duplicates: &mut duplicates,
    };
    let value = tree
        .deserialize(&mut json)
        .and_then(|value| json.end().map(|()| value))
        .map_err(|error| broken(&error))?;
    Ok((value, duplicates))
}

fn broken(error: &serde_json::Error) -> Fault {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let what = text
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&text);
    let what = match what {
        "recursion limit exceeded" => "it is nested deeper than 127 levels",
        what => what,
    };
    Fault {
        path: String::new(),
        message: format!("not valid JSON: {what} (line {line}, column {column})"),
        line: Some(line),
    }
}

/// Reads one value.
struct Tree<'a> {
    at: At<'a>,
    duplicates: &'a mut Vec<Duplicate>,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Tree {
            at: self.at.item(items.len()),
            duplicates: &mut *self.duplicates,
        })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let at = self.at.key(&key);
            if map.contains_key(&key) {
                if self.duplicates.len() == MAX_DUPLICATES {
                    return Err(A::Error::custom("too many keys are given more than once"));
                }
                self.duplicates.push(Duplicate {
                    path: at.to_string(),
                    agent: at.agent().map(str::to_owned),
                });
            }
            let value = entries.next_value_seed(Tree {
                at,
                duplicates: &mut *self.duplicates,
            })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Fills in the lines of faults. Only a faulty document pays for this second reading.
pub(super) fn locate<'f>(text: &[u8], faults: impl Iterator<Item = &'f mut Fault>) {
    let mut faults: Vec<_> = faults.filter(|fault| fault.line.is_none()).collect();
    let wanted: BTreeSet<String> = faults.iter().map(|fault| fault.path.clone()).collect();
    let line = Cell::new(1);
    let mut found = BTreeMap::new();
    let finder = Finder {
        at: At::Top,
        wanted: &wanted,
        line: &line,
        found: &mut found,
    };
    let mut json = serde_json::Deserializer::from_reader(Counted {
        rest: text,
        line: &line,
    });
    if finder.deserialize(&mut json).is_err() {
        return;
    }
    for fault in &mut faults {
        // What is missing has no line of its own: then that of the value around it.
        let mut path = fault.path.as_str();
        while !path.is_empty() && fault.line.is_none() {
            fault.line = found.get(path).copied();
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

/// Counts lines as they are read. `serde_json` takes single bytes from a reader, at most one ahead.
struct Counted<'a> {
    rest: &'a [u8],
    line: &'a Cell<usize>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.rest.read(buffer)?;
        let lines = buffer[..count].iter().filter(|byte| **byte == b'\n').count();
        self.line.set(self.line.get() + lines);
        Ok(count)
    }
}

/// Walks towards the wanted paths and notes the line of everything on the way.
struct Finder<'a> {
    at: At<'a>,
    wanted: &'a BTreeSet<String>,
    line: &'a Cell<usize>,
    found: &'a mut BTreeMap<String, usize>,
}

impl Finder<'_> {
    /// Whether a wanted path leads through `path`.
    fn leads_on(&self, path: &str) -> bool {
        self.wanted
            .range::<str, _>((Bound::Included(path), Bound::Unbounded))
            .next()
            .is_some_and(|next| next.starts_with(path))
    }
}

impl<'de> DeserializeSeed<'de> for Finder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let path = self.at.to_string();
        if !self.leads_on(&path) {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        self.found.insert(path, self.line.get());
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Finder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        while seq
            .next_element_seed(Finder {
                at: self.at.item(index),
                wanted: self.wanted,
                line: self.line,
                found: &mut *self.found,
            })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value_seed(Finder {
                at: self.at.key(&key),
                wanted: self.wanted,
                line: self.line,
                found: &mut *self.found,
            })?;
        }
        Ok(())
    }
}
