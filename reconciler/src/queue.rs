//! The keyed queue: what to look at next. Pure; the caller brings the time.
//!
//! Laws: the earliest request of a key wins; a key that is requested while it runs runs once more afterwards; one run
//! per key at a time; a key that runs too often is slowed down and named ([`Popped::hot`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

/// More runs than this within [`HOT_WINDOW_SECS`] make a key hot.
const HOT_RUNS: usize = 60;
/// The window of the hot-object alarm.
const HOT_WINDOW_SECS: i64 = 60;
/// How long a hot key rests.
const HOT_REST_SECS: i64 = 10;

/// A key to run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Popped<K> {
    /// The key.
    pub key: K,
    /// Whether it has just become hot: say so once.
    pub hot: bool,
}

#[derive(Debug, Default)]
struct Heat {
    runs: VecDeque<Timestamp>,
    rests_until: Option<Timestamp>,
}

/// The queue.
#[derive(Debug)]
pub struct Queue<K> {
    due: BTreeMap<K, Timestamp>,
    by_time: BTreeSet<(Timestamp, K)>,
    /// Running keys, with the earliest request that came meanwhile.
    running: BTreeMap<K, Option<Timestamp>>,
    heat: BTreeMap<K, Heat>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            due: BTreeMap::new(),
            by_time: BTreeSet::new(),
            running: BTreeMap::new(),
            heat: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Queue<K> {
    /// Asks for a run of `key` at `at`, or earlier if that was asked for already.
    pub fn add(&mut self, key: K, at: Timestamp) {
        if let Some(meanwhile) = self.running.get_mut(&key) {
            *meanwhile = Some(meanwhile.map_or(at, |earlier| earlier.min(at)));
            return;
        }
        let at = match self.heat.get(&key).and_then(|heat| heat.rests_until) {
            Some(rests_until) => at.max(rests_until),
            None => at,
        };
        match self.due.get(&key) {
            Some(earlier) if *earlier <= at => {}
            Some(later) => {
                self.by_time.remove(&(*later, key.clone()));
                self.put(key, at);
            }
            None => self.put(key, at),
        }
    }

    fn put(&mut self, key: K, at: Timestamp) {
        self.by_time.insert((at, key.clone()));
        self.due.insert(key, at);
    }

    /// Takes the next key that is due.
    pub fn pop(&mut self, now: Timestamp) -> Option<Popped<K>> {
        let (at, _) = self.by_time.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.due.remove(&key);
        self.running.insert(key.clone(), None);
        let hot = self.warm(&key, now);
        Some(Popped { key, hot })
    }

    /// Counts a run. Returns whether the key has just become hot.
    fn warm(&mut self, key: &K, now: Timestamp) -> bool {
        let heat = self.heat.entry(key.clone()).or_default();
        let window = SignedDuration::from_secs(HOT_WINDOW_SECS);
        while heat
            .runs
            .front()
            .is_some_and(|first| now.duration_since(*first) > window)
        {
            heat.runs.pop_front();
        }
        heat.runs.push_back(now);
        let was_hot = heat.rests_until.is_some();
        if heat.runs.len() > HOT_RUNS {
            heat.rests_until = now.checked_add(SignedDuration::from_secs(HOT_REST_SECS)).ok();
        } else {
            heat.rests_until = None;
        }
        heat.rests_until.is_some() && !was_hot
    }

    /// Ends the run of `key`, which wants to run again at `again`.
    pub fn done(&mut self, key: &K, again: Option<Timestamp>) {
        let meanwhile = self.running.remove(key).flatten();
        let at = match (meanwhile, again) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(at) = at {
            self.add(key.clone(), at);
        }
    }

    /// Forgets a key that is no longer there.
    pub fn forget(&mut self, key: &K) {
        if let Some(at) = self.due.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
        self.heat.remove(key);
    }

    /// The clock was set: what waits is due now, and nothing rests.
    pub fn forget_times(&mut self) {
        self.heat.clear();
        self.by_time = self.due.keys().map(|key| (Timestamp::MIN, key.clone())).collect();
        for at in self.due.values_mut() {
            *at = Timestamp::MIN;
        }
    }

    /// When the next key is due.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Keys that wait.
    pub fn waiting(&self) -> usize {
        self.due.len()
    }

    /// Whether nothing waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.due.is_empty() && self.running.is_empty()
    }
}

#[cfg(test)]
mod tests;
