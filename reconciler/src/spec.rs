//! The spec as the operator wrote it: read, parsed, validated, watched; and what stays in force when it is faulty.
//!
//! ```text
//! file --read--> bytes --parse--> Parsed --accept--> Accepted (last good + faults)
//!   ^                               |
//!   +---- watch: only says "look again"
//! ```
//!
//! [`parse`] names every fault, never only the first. A fault below `agents.<name>` takes that agent out and no
//! other; any other fault refuses the document. [`accept()`] then decides what is in force: a refused document changes
//! nothing, a faulty agent keeps what it had. Nothing here touches an agent.

mod accept;
mod document;
mod fault;
mod overlay;
mod read;
mod report;
mod schema;
mod shape;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod validate;
mod watch;

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use shared::AgentName;
use shared::spec::{AgentSpec, Spec};

pub use accept::{Accepted, accept};
pub use document::MAX_BYTES;
pub use fault::Fault;
pub use overlay::overlay_faults;
pub use read::{ReadError, read};
pub use report::report;
pub use schema::{digest, schema};
pub use validate::validate;
pub(crate) use validate::words::is_model;
pub use watch::{SpecWatcher, WatchError, watch};

use fault::{At, Findings, push_index, push_key};

/// The version of the spec that this build reads.
pub const VERSION: u32 = 1;

/// What [`parse`] made of a document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// The spec without the agents in `bad_agents`; `None` when the document is refused.
    pub spec: Option<Spec>,
    /// The faults of the document. With a `spec` there can be some too: illegal names of agents, which stop nobody.
    pub faults: Vec<Fault>,
    /// The agents that were taken out, each with at least one fault.
    pub bad_agents: BTreeMap<AgentName, Vec<Fault>>,
}

impl Parsed {
    /// A file that could not be read at all.
    pub fn unreadable(message: String) -> Self {
        let fault = Fault {
            path: String::new(),
            message,
            line: None,
        };
        Self {
            spec: None,
            faults: vec![fault],
            bad_agents: BTreeMap::new(),
        }
    }

    /// All faults, those of the document first.
    pub fn all_faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter().chain(self.bad_agents.values().flatten())
    }

    fn refused(fault: Fault) -> Self {
        Self {
            faults: vec![fault],
            ..Self::default()
        }
    }
}

/// Parses and validates a document.
pub fn parse(text: &[u8]) -> Parsed {
    let mut parsed = match document::read(text) {
        Ok((Value::Object(entries), duplicates)) => parse_object(entries, duplicates),
        Ok(_) => Parsed::refused(Fault::new(
            "",
            "the document is not a JSON object: write one that begins with `{`",
        )),
        Err(fault) => Parsed::refused(fault),
    };
    if parsed.all_faults().next().is_some() {
        let Parsed {
            spec: _,
            faults,
            bad_agents,
        } = &mut parsed;
        document::locate(text, faults.iter_mut().chain(bad_agents.values_mut().flatten()));
    }
    parsed
}

fn parse_object(mut entries: Map<String, Value>, duplicates: Vec<document::Duplicate>) -> Parsed {
    if let Some(fault) = wrong_version(&entries) {
        // What the fields of another version mean is not ours to judge.
        return Parsed::refused(fault);
    }
    let mut document = Findings::default();
    let mut agents = take_agents(&mut entries);
    let mut agent_findings: BTreeMap<String, Findings> = BTreeMap::new();
    for duplicate in duplicates {
        let findings = match duplicate.agent {
            Some(name) => agent_findings.entry(name).or_default(),
            None => &mut document,
        };
        findings.add(duplicate.path, "is given more than once: keep one");
    }

    let mut rest = Value::Object(entries);
    shape::DOCUMENT.check(&mut rest, &At::Top, &mut document);
    let spec: Option<Spec> = adopt(rest, &At::Top, &mut document);
    if let Some(spec) = &spec {
        validate::document(spec, agents.len(), &mut document);
    }

    // A faulty agent is still one that others may write to.
    let known: BTreeSet<String> = agents.keys().cloned().collect();
    let refused = !document.is_empty();
    let mut parsed = Parsed {
        spec: spec.filter(|_| !refused),
        faults: document.into_faults(&At::Top),
        bad_agents: BTreeMap::new(),
    };
    while let Some((name, value)) = agents.pop_first() {
        let findings = agent_findings.remove(&name).unwrap_or_default();
        parse_agent(&name, value, findings, &known, &mut parsed);
    }
    parsed
}

fn wrong_version(entries: &Map<String, Value>) -> Option<Fault> {
    let message = match entries.get("version") {
        Some(version) if *version == VERSION => return None,
        Some(version) => {
            let version: String = version.to_string().chars().take(40).collect();
            format!("this build reads version {VERSION} only, and this document says {version}")
        }
        None => format!("is missing: write \"version\": {VERSION}"),
    };
    Some(Fault::new("version", message))
}

/// Takes the agents out of the document, so that each is judged alone. What is not an object stays, to be refused
/// like every other value of a wrong type.
fn take_agents(entries: &mut Map<String, Value>) -> BTreeMap<String, Value> {
    match entries.remove("agents") {
        Some(Value::Object(agents)) => agents.into_iter().collect(),
        Some(other) => {
            entries.insert("agents".to_owned(), other);
            BTreeMap::new()
        }
        None => BTreeMap::new(),
    }
}

fn parse_agent(
    name: &str,
    mut value: Value,
    mut findings: Findings,
    known: &BTreeSet<String>,
    parsed: &mut Parsed,
) {
    let agents = At::Top.key("agents");
    let at = agents.key(name);
    shape::AGENT.check(&mut value, &at, &mut findings);
    let agent: Option<AgentSpec> = adopt(value, &at, &mut findings);
    if let Some(agent) = &agent {
        validate::agent(&at, agent, Some(known), &mut findings);
    }
    match (name.parse::<AgentName>(), agent) {
        (Ok(name), Some(agent)) if findings.is_empty() => {
            if let Some(spec) = &mut parsed.spec {
                spec.agents.insert(name, agent);
            }
        }
        (Ok(name), _) => {
            parsed.bad_agents.insert(name, findings.into_faults(&at));
        }
        (Err(error), _) => {
            parsed.faults.push(Fault::new(at.to_string(), error.to_string()));
            parsed.faults.extend(findings.into_faults(&at));
        }
    }
}

/// Deserialises what has passed its shape. serde has the last word: what it refuses all the same is a fault too, and
/// is taken out for the next try.
fn adopt<T: DeserializeOwned>(mut value: Value, at: &At<'_>, out: &mut Findings) -> Option<T> {
    const MAX_TRIES: usize = 32;
    for _ in 0..MAX_TRIES {
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(adopted) => return Some(adopted),
            Err(error) => error,
        };
        let mut path = at.to_string();
        let mut field = None;
        for segment in error.path() {
            match segment {
                serde_path_to_error::Segment::Map { key } => {
                    field.get_or_insert_with(|| key.clone());
                    push_key(&mut path, key);
                }
                serde_path_to_error::Segment::Enum { variant } => push_key(&mut path, variant),
                serde_path_to_error::Segment::Seq { index } => push_index(&mut path, *index),
                serde_path_to_error::Segment::Unknown => {}
            }
        }
        out.add_patched(path, error.inner().to_string());
        value.as_object_mut()?.remove(&field?)?;
    }
    None
}
