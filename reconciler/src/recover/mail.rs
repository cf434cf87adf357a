//! Mail, questions and reminders of names that no agent has: whoever is given such a name later must not find them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::types::Value;

use crate::ledger::{self, RebuiltAgent, Salvage};

fn text(value: &Value) -> &str {
    match value {
        Value::Text(text) => text,
        Value::Null | Value::Integer(_) | Value::Real(_) | Value::Blob(_) => "",
    }
}

fn at(now: Timestamp) -> Value {
    i64::try_from(now.as_nanosecond()).map_or(Value::Null, Value::Integer)
}

/// Ends what belongs to nobody.
pub(super) fn close(salvage: &mut Salvage, agents: &[RebuiltAgent], now: Timestamp) {
    let live: BTreeSet<&str> = agents
        .iter()
        .filter(|agent| !agent.record.life.is_over())
        .map(|agent| agent.record.name.as_str())
        .collect();
    let nobody = |value: &Value| {
        let name = text(value);
        name != "operator" && name != "system" && !live.contains(name)
    };
    messages(salvage, &nobody);
    questions(salvage, &nobody, now);
    reminders(salvage, &nobody, now);
}

fn messages(salvage: &mut Salvage, nobody: &dyn Fn(&Value) -> bool) {
    let Some([id, from, to, state, dedupe]) =
        ledger::places("messages", ["id", "from_addr", "to_addr", "state", "dedupe"])
    else {
        return;
    };
    let mut last = 0;
    let mut names = BTreeSet::new();
    for row in salvage.raw.get_mut("messages").into_iter().flatten() {
        if matches!(text(&row[state]), "queued" | "leased") && nobody(&row[to]) {
            row[state] = Value::Text("dead".to_owned());
        }
        if nobody(&row[from]) {
            row[dedupe] = Value::Null;
        }
        if let Value::Integer(number) = row[id] {
            last = last.max(number);
        }
        let strangers = [from, to].into_iter().filter(|place| nobody(&row[*place]));
        names.extend(strangers.map(|place| text(&row[place]).to_owned()));
    }
    let Some([name, message]) = ledger::places("earlier_mail", ["name", "message"]) else {
        return;
    };
    let sealed = salvage.raw.entry("earlier_mail").or_default();
    sealed.retain(|row| !names.contains(text(&row[name])));
    for stranger in names {
        let mut row = vec![Value::Null; 2];
        row[name] = Value::Text(stranger);
        row[message] = Value::Integer(last);
        sealed.push(row);
    }
}

fn questions(salvage: &mut Salvage, nobody: &dyn Fn(&Value) -> bool, now: Timestamp) {
    let Some([from, to, state, by, ended, answer, expires]) = ledger::places(
        "questions",
        [
            "from_addr",
            "to_addr",
            "state",
            "ended_by",
            "ended_at",
            "answer",
            "expires_at",
        ],
    ) else {
        return;
    };
    let rows = salvage.raw.get_mut("questions").into_iter().flatten();
    for row in rows.filter(|row| text(&row[state]) == "open") {
        if nobody(&row[to]) {
            // The daemon ends it as it starts, and tells its asker.
            row[expires] = at(now);
        }
        if nobody(&row[from]) {
            row[state] = Value::Text("cancelled".to_owned());
            row[by] = Value::Text("system".to_owned());
            row[ended] = at(now);
            row[answer] = Value::Text("[cancelled by system]".to_owned());
        }
    }
}

fn reminders(salvage: &mut Salvage, nobody: &dyn Fn(&Value) -> bool, now: Timestamp) {
    let Some([owner, due, try_at, ended]) =
        ledger::places("reminders", ["owner", "due", "try_at", "ended_at"])
    else {
        return;
    };
    for row in salvage.raw.get_mut("reminders").into_iter().flatten() {
        if nobody(&row[owner]) && row[ended] == Value::Null {
            (row[due], row[try_at], row[ended]) = (Value::Null, Value::Null, at(now));
        }
    }
}
