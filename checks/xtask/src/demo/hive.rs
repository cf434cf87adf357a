//! The hive of a story: its daemon, asked through the command line.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::cli::{Answer, Cli};
use super::daemon::Daemon;
use super::leftovers::{self, Process};
use crate::poll::{Look, eventually};

/// What a hive does by itself takes no longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon and its command line.
#[derive(Debug)]
pub(super) struct Hive {
    pub(super) daemon: Daemon,
    pub(super) cli: Cli,
}

impl Hive {
    pub(super) fn new(daemon: Daemon) -> Self {
        let cli = Cli::new(daemon.config());
        Self { daemon, cli }
    }

    /// Runs `hive ARGUMENTS`, which has to exit with this status.
    pub(super) fn expect(&self, arguments: &[&str], code: i32) -> Result<Answer> {
        let answer = self.cli.run(arguments)?;
        ensure!(answer.code == code, "expected exit status {code}, but {answer}");
        Ok(answer)
    }

    /// The document of `hive ARGUMENTS`, whatever its exit status says about the hive.
    pub(super) fn document(&self, arguments: &[&str]) -> Result<Value> {
        let answer = self.cli.run(arguments)?;
        ensure!(answer.documents.len() == 1, "expected one document, but {answer}");
        Ok(answer.json().clone())
    }

    /// One agent in full.
    pub(super) fn agent(&self, name: &str) -> Result<Value> {
        self.document(&["status", name])
    }

    /// All events after one.
    pub(super) fn events(&self, after: u64) -> Result<Vec<Value>> {
        let after = after.to_string();
        Ok(self.expect(&["events", "--after", &after], 0)?.documents)
    }

    /// The process of each agent.
    pub(super) fn processes(&self) -> BTreeMap<String, Process> {
        leftovers::noted(&self.daemon.config().state)
    }

    /// Waits until a document shows what is wanted; the document.
    pub(super) fn until(
        &self,
        what: &str,
        arguments: &[&str],
        shows: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        eventually(PATIENCE, what, || {
            let document = self.document(arguments)?;
            Ok(if shows(&document) {
                Look::Done(document)
            } else {
                Look::NotYet(document.to_string())
            })
        })
    }

    /// Waits until an agent has said this to the operator.
    pub(super) fn until_told(&self, agent: &str, text: &str) -> Result<()> {
        let message = format!("{agent} says: {text}");
        eventually(PATIENCE, &format!("an event says {message:?}"), || {
            let events = self.events(0)?;
            let told = events
                .iter()
                .any(|event| event["kind"] == "messageToOperator" && event["message"] == *message);
            Ok(if told {
                Look::Done(())
            } else {
                Look::NotYet(kinds(&events))
            })
        })
    }

    /// What somebody who looks into a failure wants to see first.
    pub(super) fn last_seen(&self) -> String {
        let status = match self.cli.run(&["status"]) {
            Ok(answer) => answer.to_string(),
            Err(error) => format!("{error:#}"),
        };
        format!(
            "last seen: {status}\nthe daemon's log ends with:\n{}",
            self.daemon.last_words()
        )
    }
}

/// The kinds of events, in order.
pub(super) fn kinds(events: &[Value]) -> String {
    let kinds = events
        .iter()
        .map(|event| event["kind"].as_str().unwrap_or("?").to_owned());
    kinds.collect::<Vec<_>>().join(", ")
}

/// A field that is a string.
pub(super) fn text<'a>(document: &'a Value, pointer: &str) -> Result<&'a str> {
    let value = document.pointer(pointer).and_then(Value::as_str);
    value.with_context(|| format!("no string at {pointer} in {document}"))
}

/// A field that is a whole number.
pub(super) fn number(document: &Value, pointer: &str) -> Result<u64> {
    let value = document.pointer(pointer).and_then(Value::as_u64);
    value.with_context(|| format!("no number at {pointer} in {document}"))
}

/// Whether all agents are there, work, and have nothing left to do.
pub(super) fn at_rest(status: &Value, names: &[&str]) -> bool {
    let Some(agents) = status["agents"].as_array() else {
        return false;
    };
    let seen: Vec<_> = agents.iter().filter_map(|agent| agent["name"].as_str()).collect();
    seen == names && agents.iter().all(|agent| is(agent, "inSync", "healthy", "idle"))
}

/// Whether an agent has these values on the three axes.
pub(super) fn is(agent: &Value, sync: &str, health: &str, activity: &str) -> bool {
    agent["sync"]["value"] == sync
        && agent["health"]["value"] == health
        && agent["activity"]["value"] == activity
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn agent(name: &str, activity: &str) -> Value {
        json!({
            "name": name,
            "sync": { "value": "inSync" },
            "health": { "value": "healthy" },
            "activity": { "value": activity },
        })
    }

    #[test]
    fn a_hive_is_at_rest_when_every_agent_is_there_and_idle() {
        let status = |agents: &[Value]| json!({ "agents": agents });
        let names = ["alice", "bob"];
        assert!(at_rest(
            &status(&[agent("alice", "idle"), agent("bob", "idle")]),
            &names
        ));
        assert!(!at_rest(&status(&[agent("alice", "idle")]), &names));
        assert!(!at_rest(
            &status(&[agent("alice", "idle"), agent("bob", "applying")]),
            &names
        ));
        assert!(!at_rest(&json!({}), &[]));
    }

    #[test]
    fn a_missing_field_is_named_with_the_document() {
        let error = text(&json!({ "a": 1 }), "/a").expect_err("not a string");
        assert_eq!(error.to_string(), r#"no string at /a in {"a":1}"#);
        assert_eq!(number(&json!({ "a": { "b": 7 } }), "/a/b").expect("there"), 7);
    }
}
