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
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(secs).unwrap()
    }

    fn key(popped: Option<Popped<&'static str>>) -> Option<&'static str> {
        popped.map(|p| p.key)
    }

    #[test]
    fn the_earliest_request_wins_whichever_comes_first() {
        for times in [[5, 9], [9, 5]] {
            let mut queue = Queue::default();
            for time in times {
                queue.add("a", at(time));
            }
            assert_eq!(queue.next_at(), Some(at(5)));
            assert_eq!(key(queue.pop(at(5))), Some("a"));
            queue.done(&"a", None);
            assert!(queue.is_idle(), "two requests before a run are one run");
        }
    }

    #[test]
    fn nothing_runs_before_it_is_due() {
        let mut queue = Queue::default();
        queue.add("a", at(5));
        assert_eq!(queue.pop(at(4)), None);
    }

    #[test]
    fn a_key_requested_while_it_runs_runs_once_more_and_never_twice_at_once() {
        let mut queue = Queue::default();
        queue.add("a", at(0));
        assert_eq!(key(queue.pop(at(0))), Some("a"));
        queue.add("a", at(0));
        queue.add("a", at(0));
        assert_eq!(queue.pop(at(0)), None, "it is running");
        queue.done(&"a", None);
        assert_eq!(key(queue.pop(at(0))), Some("a"));
        queue.done(&"a", None);
        assert!(queue.is_idle());
    }

    #[test]
    fn a_request_that_came_meanwhile_is_not_put_off_by_a_late_requeue() {
        let mut queue = Queue::default();
        queue.add("a", at(0));
        queue.pop(at(0));
        queue.add("a", at(1));
        queue.done(&"a", Some(at(300)));
        assert_eq!(queue.next_at(), Some(at(1)));
    }

    #[test]
    fn a_hot_key_is_named_once_rests_and_does_not_hold_up_others() {
        let mut queue = Queue::default();
        let mut alarms = 0;
        for _ in 0..=HOT_RUNS {
            queue.add("a", at(0));
            alarms += usize::from(queue.pop(at(0)).unwrap().hot);
            queue.done(&"a", None);
        }
        assert_eq!(alarms, 1);
        queue.add("a", at(0));
        queue.add("b", at(0));
        assert_eq!(key(queue.pop(at(0))), Some("b"));
        assert_eq!(queue.next_at(), Some(at(HOT_REST_SECS)));
        assert_eq!(
            key(queue.pop(at(HOT_REST_SECS))),
            Some("a"),
            "it rests, it is not lost"
        );
    }

    proptest::proptest! {
        /// Whatever is requested is run at or after the last request: no wake-up is lost.
        #[test]
        fn no_wake_up_is_lost(ops in proptest::collection::vec((0_u8..4, 0_u8..3), 1..200)) {
            let mut queue = Queue::default();
            let mut pending = [false; 3];
            let mut running = [false; 3];
            let mut now = 0;
            for (op, key) in ops {
                let index = usize::from(key);
                match op {
                    0 | 1 => { queue.add(key, at(now)); pending[index] = true; }
                    2 => if let Some(popped) = queue.pop(at(now)) {
                        let popped = usize::from(popped.key);
                        proptest::prop_assert!(!running[popped], "two runs of one key");
                        running[popped] = true;
                        pending[popped] = false;
                    },
                    _ => if running[index] { queue.done(&key, None); running[index] = false; },
                }
                now += 1;
            }
            for key in 0..3_u8 {
                if running[usize::from(key)] { queue.done(&key, None); }
            }
            let later = at(now + HOT_REST_SECS + HOT_WINDOW_SECS);
            let mut ran = [false; 3];
            while let Some(popped) = queue.pop(later) {
                ran[usize::from(popped.key)] = true;
                queue.done(&popped.key, None);
            }
            for index in 0..3 {
                proptest::prop_assert!(!pending[index] || ran[index], "key {} was lost", index);
            }
        }
    }
}
