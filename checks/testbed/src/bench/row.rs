//! What is measured, as `cargo xtask bench` reads it.

use std::fs::File;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::FOLDER;

/// One measured value.
#[derive(Debug)]
pub(super) struct Row(Value);

impl Row {
    pub(super) fn new(what: &str, value: f64, unit: &str) -> Self {
        Self(
            json!({ "what": what, "value": value, "unit": unit, "agents": null, "anchor": null, "budget": null, "note": "" }),
        )
    }

    /// Beside the raw cost of what cannot be avoided, in the same unit.
    pub(super) fn beside(self, what: &str, value: f64) -> Self {
        self.with("anchor", json!({ "what": what, "value": value }))
    }

    pub(super) fn at_most(self, limit: f64) -> Self {
        self.with("budget", json!({ "atMost": limit }))
    }

    /// The value divided by its anchor.
    pub(super) fn ratio_at_most(self, limit: f64) -> Self {
        self.with("budget", json!({ "ratioAtMost": limit }))
    }

    pub(super) fn of(self, agents: usize) -> Self {
        self.with("agents", json!(agents))
    }

    pub(super) fn note(self, note: &str) -> Self {
        self.with("note", json!(note))
    }

    fn with(mut self, field: &str, value: Value) -> Self {
        self.0[field] = value;
        self
    }

    /// Hands it to whoever asked.
    pub(super) fn print(&self) -> Result<()> {
        let path = format!("{FOLDER}/rows");
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {path}"))?;
        writeln!(file, "{}", self.0).with_context(|| format!("writing {path}"))
    }
}
