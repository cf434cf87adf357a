//! One line of the agent's output as a value, and lines for its input (pure).
//!
//! The protocol is JSON-RPC 2.0, one message a line. A message is looked at field by field, like the output of any
//! agent's program: what is missing or of another type is as if it were not there.

use serde_json::{Value, json};

/// The longest text for a person that is kept.
const MAX_TEXT: usize = 1000;
/// The longest name that is kept: of a method, a tool, a model.
const MAX_NAME: usize = 128;

/// What an agent's program says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// The answer to a request of ours.
    Answer {
        /// Which; absent when it is not one of our numbers.
        id: Option<u64>,
        /// The result, or why there is none.
        result: Result<Value, Fault>,
    },
    /// A request that wants an answer.
    Asked {
        /// Its number or text, to be given back.
        id: Value,
        /// What is asked.
        method: String,
        /// About what.
        params: Value,
    },
    /// Something that wants no answer.
    Told {
        /// What kind.
        method: String,
        /// What.
        params: Value,
    },
    /// No message of the protocol.
    Garbage(String),
}

/// An error that the agent's program answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fault {
    /// Its number.
    pub(super) code: i64,
    /// In words.
    pub(super) message: String,
    /// What kind, where the program says so.
    pub(super) kind: String,
}

/// Reads one line.
pub(super) fn parse(line: &[u8]) -> Heard {
    let garbage = || {
        let head = line.get(..1000).unwrap_or(line);
        Heard::Garbage(crate::tame(&String::from_utf8_lossy(head), 200))
    };
    let Ok(Value::Object(mut message)) = serde_json::from_slice(line) else {
        return garbage();
    };
    let mut take = |field: &str| message.remove(field);
    let (id, params) = (take("id"), take("params").unwrap_or_default());
    if let Some(method) = take("method") {
        let method = name(method.as_str().unwrap_or_default());
        return match id {
            Some(id @ (Value::Number(_) | Value::String(_))) => Heard::Asked { id, method, params },
            _ => Heard::Told { method, params },
        };
    }
    let id = match id {
        Some(id) => id.as_u64(),
        None => return garbage(),
    };
    let result = match (take("result"), take("error")) {
        (_, Some(error)) => Err(fault(&error)),
        (Some(result), None) => Ok(result),
        (None, None) => return garbage(),
    };
    Heard::Answer { id, result }
}

fn fault(error: &Value) -> Fault {
    Fault {
        code: error["code"].as_i64().unwrap_or_default(),
        message: crate::tame(text(error, "message"), MAX_TEXT),
        kind: name(text(&error["data"], "errorKind")),
    }
}

/// A request with this number.
pub(super) fn request(id: u64, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

/// A message that wants no answer.
pub(super) fn notification(method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}

/// The answer to a request of the agent's program.
pub(super) fn answer(id: &Value, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

/// The answer to what we do not do.
pub(super) fn refusal(id: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": "this client does not do that" } })
}

/// A field that is a text; the empty one when it is not.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// A name, shortened and without control characters.
pub(super) fn name(text: &str) -> String {
    crate::tame(text, MAX_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(message: &Value) -> Heard {
        parse(message.to_string().as_bytes())
    }

    #[test]
    fn messages_are_told_apart() {
        let params = json!({ "a": 1 });
        assert_eq!(
            heard(&json!({ "id": 3, "result": { "a": 1 } })),
            Heard::Answer {
                id: Some(3),
                result: Ok(params.clone())
            }
        );
        let error = json!({ "code": -32603, "message": "no\u{1b}", "data": { "errorKind": "rate_limit" } });
        assert_eq!(
            heard(&json!({ "id": "three", "error": error })),
            Heard::Answer {
                id: None,
                result: Err(Fault {
                    code: -32603,
                    message: "no ".to_owned(),
                    kind: "rate_limit".to_owned()
                })
            }
        );
        let method = || "session/update".to_owned();
        assert_eq!(
            heard(&json!({ "method": "session/update", "params": { "a": 1 } })),
            Heard::Told {
                method: method(),
                params: params.clone()
            }
        );
        assert_eq!(
            heard(&json!({ "id": "x", "method": "session/update", "params": { "a": 1 } })),
            Heard::Asked {
                id: json!("x"),
                method: method(),
                params
            }
        );
    }

    #[test]
    fn what_is_no_message_is_garbage_and_shortened() {
        let long = "x".repeat(5000);
        for line in [
            "",
            "[]",
            "7",
            "{}",
            "{\"id\":1}",
            "{\"result\":1}",
            "\u{1}",
            long.as_str(),
        ] {
            let Heard::Garbage(text) = parse(line.as_bytes()) else {
                panic!("{line}");
            };
            assert!(text.chars().count() <= 201);
        }
        // Of other types than they should be, but messages all the same.
        assert!(matches!(
            heard(&json!({ "id": [1], "error": 7 })),
            Heard::Answer { id: None, .. }
        ));
        assert!(matches!(
            heard(&json!({ "id": {}, "method": 7 })),
            Heard::Told { .. }
        ));
    }
}
