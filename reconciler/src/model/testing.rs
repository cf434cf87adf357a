//! Changes every field of a value in turn, found in its JSON: no list of fields that somebody could forget to extend.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::Digest;

/// So many other values of one field tell whether it counts.
const ENOUGH: u32 = 3;

/// Expects another digest after each change of a field, unless `is_same` says that it is no change. Returns the fields
/// whose change was noticed, as JSON pointers. Fails when it knows no other value for a scalar.
pub(crate) fn notices_every_field<T>(
    what: &T,
    digest_of: impl Fn(&T) -> Digest,
    is_same: impl Fn(&T, &T) -> bool,
) -> Vec<String>
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    let before = digest_of(what);
    let whole = serde_json::to_value(what).expect("it is JSON");
    let mut all = Vec::new();
    places(&whole, String::new(), &mut all);
    let mut noticed = Vec::new();
    for place in all {
        let value = whole.pointer(&place).expect("it was found there");
        let scalar = !value.is_object() && !value.is_array();
        let mut tried = 0;
        let mut different = 0;
        for other in others(value) {
            let mut changed = whole.clone();
            *changed.pointer_mut(&place).expect("it was found there") = other;
            let Ok(changed) = serde_json::from_value::<T>(changed) else {
                continue;
            };
            if changed == *what {
                continue;
            }
            if tried == ENOUGH {
                break;
            }
            tried += 1;
            if is_same(&changed, what) {
                continue;
            }
            different += 1;
            assert_ne!(digest_of(&changed), before, "{place} is not part of the digest");
        }
        assert!(
            !scalar || tried > 0,
            "no other value was found for {place}: {value}"
        );
        if different > 0 {
            noticed.push(place);
        }
    }
    noticed
}

/// Every value inside, itself included, as JSON pointers.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, format!("{at}/{index}"), found);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(item, format!("{at}/{key}"), found);
            }
        }
        _ => {}
    }
    found.push(at);
}

/// Texts that some field takes in place of another.
const WORDS: [&str; 27] = [
    "none",
    "reload",
    "restart",
    "claude",
    "scripted",
    "worker",
    "manager",
    "host",
    "model",
    "running",
    "stopped",
    "turnBoundary",
    "immediate",
    "prompt",
    "driver",
    "spec",
    "agent",
    "spawn",
    "asked",
    "plain",
    "nix",
    "process",
    "nspawn",
    "git",
    "forgejo",
    "auto",
    "never",
];

/// Other values that a field of any type may take.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Bool(flag) => vec![json!(!flag)],
        Value::Number(number) => vec![json!(number.as_u64().unwrap_or(0) + 1), json!(0.5)],
        Value::String(text) => {
            let mut chars: Vec<char> = text.chars().collect();
            let mut changed = Vec::new();
            for last in ['0', '1'] {
                if let Some(end) = chars.last_mut() {
                    *end = last;
                }
                changed.push(json!(chars.iter().collect::<String>()));
            }
            changed.extend(WORDS.map(|word| json!(word)));
            changed.push(json!({ "granted": {} }));
            changed
        }
        Value::Null => vec![
            json!("x"),
            json!(1),
            json!(["queen"]),
            json!({ "kind": "git", "url": "/x" }),
        ],
        Value::Array(items) => vec![json!(items.get(1..).unwrap_or_default())],
        // One of its entries goes; where that may not be, the type says so.
        Value::Object(map) => {
            let without = |gone: &String| {
                let mut less = map.clone();
                less.remove(gone);
                Value::Object(less)
            };
            map.keys().map(without).chain([json!("asked")]).collect()
        }
    }
}
