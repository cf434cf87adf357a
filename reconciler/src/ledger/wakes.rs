//! Tells a waiting poll that its agent has something to fetch.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::AgentName;
use tokio::sync::watch;

/// One counter per agent that somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    counters: Mutex<BTreeMap<AgentName, watch::Sender<u64>>>,
}

impl Wakes {
    /// Rises whenever there may be something new. Subscribe first, look second, wait third: then nothing is missed.
    pub(crate) fn subscribe(&self, agent: &AgentName) -> watch::Receiver<u64> {
        self.counters()
            .entry(agent.clone())
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    /// Wakes whoever waits for this agent.
    pub(crate) fn wake(&self, agent: &AgentName) {
        let mut counters = self.counters();
        // Counters that nobody waits on any more go, so that the map stays as large as the hive.
        counters.retain(|_, counter| counter.receiver_count() > 0);
        if let Some(counter) = counters.get(agent) {
            counter.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn counters(&self) -> MutexGuard<'_, BTreeMap<AgentName, watch::Sender<u64>>> {
        // No panic can leave the map half changed.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
