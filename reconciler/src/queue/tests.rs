use proptest::prelude::*;

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
fn a_clock_that_was_set_back_makes_nobody_wait_for_it() {
    let mut queue = Queue::default();
    for _ in 0..=HOT_RUNS {
        queue.add("hot", at(86_400));
        queue.pop(at(86_400));
        queue.done(&"hot", Some(at(86_400)));
    }
    queue.add("later", at(86_700));
    assert_eq!(queue.pop(at(0)), None);
    queue.forget_times();
    assert_eq!(key(queue.pop(at(0))), Some("hot"));
    assert_eq!(key(queue.pop(at(0))), Some("later"));
    assert_eq!(queue.pop(at(0)), None);
    queue.done(&"hot", Some(at(5)));
    assert_eq!(queue.next_at(), Some(at(5)));
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

proptest! {
    /// Whatever is requested is run at or after the last request: no wake-up is lost.
    #[test]
    fn no_wake_up_is_lost(ops in prop::collection::vec((0_u8..4, 0_u8..3), 1..200)) {
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
                    prop_assert!(!running[popped], "two runs of one key");
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
            prop_assert!(!pending[index] || ran[index], "key {} was lost", index);
        }
    }
}

/// What the queue is, told the plain way. It knows no heat.
#[derive(Debug, Default)]
struct Model {
    due: BTreeMap<u8, i64>,
    running: BTreeMap<u8, Option<i64>>,
}

impl Model {
    fn add(&mut self, key: u8, time: i64) {
        let earliest = |earlier: Option<i64>| Some(earlier.map_or(time, |earlier| earlier.min(time)));
        match self.running.get_mut(&key) {
            Some(meanwhile) => *meanwhile = earliest(*meanwhile),
            None => self
                .due
                .extend(earliest(self.due.get(&key).copied()).map(|time| (key, time))),
        }
    }

    fn pop(&mut self, now: i64) -> Option<u8> {
        let (time, key) = self.due.iter().map(|(key, time)| (*time, *key)).min()?;
        (time <= now).then(|| {
            self.due.remove(&key);
            self.running.insert(key, None);
            key
        })
    }

    fn done(&mut self, key: u8, again: Option<i64>) {
        let meanwhile = self.running.remove(&key).flatten();
        for time in meanwhile.into_iter().chain(again) {
            self.add(key, time);
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// A request for so many seconds from now.
    Add(u8, i64),
    Pop,
    Done(u8, Option<i64>),
    /// Time passes.
    Wait(i64),
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..4_u8;
    prop_oneof![
        3 => (key(), -5..20_i64).prop_map(|(key, after)| Op::Add(key, after)),
        3 => Just(Op::Pop),
        2 => (key(), prop::option::of(0..20_i64)).prop_map(|(key, again)| Op::Done(key, again)),
        2 => (0..10_i64).prop_map(Op::Wait),
    ]
}

fn play(ops: &[Op]) -> Result<(), TestCaseError> {
    // Fewer runs than heat a key.
    assert!(ops.len() <= HOT_RUNS);
    let (mut queue, mut model, mut now) = (Queue::default(), Model::default(), 100);
    for op in ops {
        match op {
            Op::Add(key, after) => {
                queue.add(*key, at(now + after));
                model.add(*key, now + after);
            }
            Op::Pop => {
                let popped = queue.pop(at(now));
                prop_assert!(popped.as_ref().is_none_or(|popped| !popped.hot));
                prop_assert_eq!(popped.map(|popped| popped.key), model.pop(now));
            }
            Op::Done(key, again) if model.running.contains_key(key) => {
                let again = again.map(|after| now + after);
                queue.done(key, again.map(at));
                model.done(*key, again);
            }
            Op::Done(..) => {}
            Op::Wait(secs) => now += secs,
        }
        prop_assert_eq!(queue.next_at(), model.due.values().min().map(|time| at(*time)));
        prop_assert_eq!(queue.waiting(), model.due.len());
        prop_assert_eq!(queue.is_idle(), model.due.is_empty() && model.running.is_empty());
    }
    Ok(())
}

/// What the random stories should come across, in one that always does.
#[test]
fn a_story_with_every_turn_behaves_like_the_model() {
    let story = [
        Op::Add(1, 5),
        Op::Add(1, 9),
        Op::Add(2, 9),
        Op::Add(2, 3),
        Op::Pop,
        Op::Wait(5),
        Op::Pop,
        Op::Add(2, 7),
        Op::Add(2, 2),
        Op::Pop,
        Op::Pop,
        Op::Done(2, Some(30)),
        Op::Done(1, Some(4)),
        Op::Wait(4),
        Op::Pop,
        Op::Pop,
    ];
    play(&story).expect("the queue does as the model");
}

proptest! {
    #[test]
    fn random_requests_and_runs_behave_like_the_model(ops in prop::collection::vec(op(), 1..60)) {
        play(&ops)?;
    }

    /// However often it is asked for, a key runs no more often than it may, and none of its requests is lost.
    #[test]
    fn a_hot_key_is_slowed_down_and_never_dropped(pauses in prop::collection::vec(0..3_i64, 100..250)) {
        let mut queue = Queue::default();
        let mut now = 0;
        let mut runs: Vec<i64> = Vec::new();
        for pause in pauses {
            now += pause;
            queue.add("a", at(now));
            let due = queue.next_at().expect("it waits");
            prop_assert!(due <= at(now + HOT_REST_SECS), "it rests, it is not given up");
            if queue.pop(at(now)).is_some() {
                runs.push(now);
                queue.done(&"a", None);
            }
            let of_late = runs.iter().filter(|run| now - **run < HOT_WINDOW_SECS).count();
            // Once it is hot, it runs once a rest.
            let most = HOT_RUNS + 1 + usize::try_from(HOT_WINDOW_SECS / HOT_REST_SECS).expect("a few");
            prop_assert!(of_late <= most, "{of_late} runs in a minute");
        }
    }
}
