//! Configs for tests.

use serde_json::{Value, json};
use shared::config::AgentConfig;

/// A config as JSON, with these fields in the place of its own.
pub(crate) fn document(fields: &Value) -> Value {
    let mut config = json!({
        "agent": "alice",
        "uid": "6f0c2d5e-3b1a-4a55-9d3c-0a1b2c3d4e5f",
        "hive": "home",
        "driver": { "kind": "scripted" },
        "maxTurnMinutes": 60,
        "commit": "0123456789abcdef0123456789abcdef01234567",
    });
    for (name, value) in fields.as_object().expect("an object") {
        config[name] = value.clone();
    }
    config
}

/// The same, read.
pub(crate) fn config(fields: &Value) -> AgentConfig {
    serde_json::from_value(document(fields)).expect("a config")
}
