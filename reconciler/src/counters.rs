//! Counts what has happened since the daemon started, for whoever asks.
//!
//! What is counted is a word of this program, never a text that an agent or operator wrote, so there are few kinds.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Something that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// A pass ended.
    Pass {
        /// `hive` or `agent`.
        of: &'static str,
        /// `finished` or `failed`.
        outcome: &'static str,
    },
    /// A step was carried out, or tried.
    Step {
        /// The step's kind.
        kind: &'static str,
        /// `done`, `failed` or `abandoned`.
        outcome: &'static str,
    },
    /// An event was recorded.
    Event {
        /// The event's kind.
        kind: &'static str,
        /// Its level.
        level: &'static str,
    },
    /// A message was accepted.
    Message {
        /// The message's kind.
        kind: &'static str,
    },
    /// A gate was decided.
    Decision {
        /// The gate's class.
        class: &'static str,
        /// `approved` or `denied`.
        verdict: &'static str,
        /// `policy` or `operator`.
        by: &'static str,
    },
}

/// The counts.
#[derive(Debug, Default)]
pub struct Counters(Mutex<BTreeMap<Counted, u64>>);

impl Counters {
    /// Counts one.
    pub fn add(&self, counted: Counted) {
        // Nothing can go wrong while the lock is held.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(counted).or_default() += 1;
    }

    /// All counts, in order.
    pub fn counts(&self) -> BTreeMap<Counted, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
