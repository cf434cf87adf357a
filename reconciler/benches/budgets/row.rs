//! What is printed: a value, its anchor, its budget.

use std::time::Duration;

use serde::Serialize;

/// One line of the table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// In a hive of so many agents.
    pub(crate) agents: Option<usize>,
    /// The value.
    pub(crate) value: f64,
    /// Its unit, as in `ms`.
    pub(crate) unit: &'static str,
    /// What it stands beside.
    pub(crate) anchor: Option<Anchor>,
    /// What it must keep.
    pub(crate) budget: Option<Budget>,
    /// How it came about.
    pub(crate) note: String,
}

/// The raw cost, in the unit of the value.
#[derive(Debug, Serialize)]
pub(crate) struct Anchor {
    pub(crate) what: &'static str,
    pub(crate) value: f64,
}

/// A limit.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Budget {
    /// Of the value.
    AtMost(f64),
    /// Of the value divided by its anchor.
    RatioAtMost(f64),
    /// Of the value divided by its anchor.
    RatioAtLeast(f64),
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            agents: None,
            value,
            unit,
            anchor: None,
            budget: None,
            note: String::new(),
        }
    }

    pub(crate) fn of(mut self, agents: usize) -> Self {
        self.agents = Some(agents);
        self
    }

    pub(crate) fn beside(mut self, what: &'static str, value: f64) -> Self {
        self.anchor = Some(Anchor { what, value });
        self
    }

    pub(crate) fn within(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    pub(crate) fn print(&self) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value in the middle, and the one that a tenth is above.
pub(crate) fn spread(times: &[Duration]) -> (Duration, Duration) {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    (at(times.len() / 2), at(times.len() * 9 / 10))
}

/// The value in the middle.
pub(crate) fn median(times: &[Duration]) -> Duration {
    spread(times).0
}

/// A whole number as a measured value. None comes near 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes stay far below 2^52")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}
