//! The daemon is killed a hundred times, and now and then a harness, while fifty agents work.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::load::{self, AGENTS, Front, Over, agent};
use super::numbers::Numbers;
use super::processes::census;
use super::world::{World, signal, within};

const KILLS: usize = 100;
/// After every so many kills of the daemon a harness is killed too.
const HARNESS_EVERY: usize = 10;

/// A number that a run is given by a variable.
#[expect(
    clippy::disallowed_methods,
    reason = "a failed run is repeated, or made longer, by variables"
)]
pub(crate) fn given(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok();
    text.map(|text| text.parse().unwrap())
}

/// The seed of an earlier run, to repeat it; a new one otherwise.
pub(crate) fn seed() -> u64 {
    given("HIVE_FAULTS_SEED").unwrap_or_else(|| u64::from(std::process::id()))
}

fn healthy() -> World {
    let world = World::serving(&load::declared(0));
    for index in 0..AGENTS {
        world.until_healthy(&agent(index));
    }
    world
}

/// Lets the daemon come so far: until it has written to its ledger so often, or for a moment when it does not write.
fn advance(world: &World, writes: u64, moment: Duration) {
    let log = format!("{}-wal", world.layout.ledger());
    let state = || {
        fs::metadata(&log)
            .map(|data| (data.len(), data.mtime(), data.mtime_nsec()))
            .ok()
    };
    let mut last = state();
    let mut seen = 0;
    let _reached = within(moment, || {
        let now = state();
        seen += u64::from(now != last);
        last = now;
        (seen >= writes).then_some(())
    });
}

#[test]
fn a_hundred_kills_under_load_lose_nothing_and_lead_to_the_same_end() {
    let seed = seed();
    println!("HIVE_FAULTS_SEED={seed}");
    let reference = {
        let world = healthy();
        let (front, over) = (Front::of(&world), AtomicBool::new(false));
        thread::scope(|scope| {
            let _over = Over(&over);
            scope.spawn(|| front.decide(&over));
            load::operate(&front, |_| {});
            load::settle(&world);
        });
        load::check_decisions(&world);
        load::end_state(&world)
    };

    let mut numbers = Numbers::from_seed(seed);
    let mut world = healthy();
    let pids: Vec<Option<i32>> = (0..AGENTS)
        .map(|index| world.harness_pid(&agent(index)))
        .collect();
    let (killed, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut struck = BTreeSet::new();
    let front = Front::of(&world);
    thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| front.decide(&over));
        let operator = scope.spawn(|| {
            load::operate(&front, |hundredths| {
                while killed.load(Ordering::Relaxed) * 100 < hundredths * KILLS
                    && !over.load(Ordering::Relaxed)
                {
                    let _pause = within(Duration::from_millis(10), || None::<()>);
                }
            });
        });
        for kill in 1..=KILLS {
            // Mostly in the middle of its work, sometimes before it answers.
            if numbers.below(4) > 0 {
                world.up();
            }
            advance(
                &world,
                numbers.below(40),
                Duration::from_millis(numbers.below(500)),
            );
            world.kill();
            if kill % HARNESS_EVERY == 0 {
                let index = usize::try_from(numbers.below(AGENTS as u64)).unwrap();
                if let Some(pid) = world.harness_pid(&agent(index))
                    && struck.insert(index)
                {
                    signal(pid, Signal::KILL);
                }
            }
            let command = world.serve();
            world.launch(command);
            killed.store(kill, Ordering::Relaxed);
        }
        world.up();
        operator.join().unwrap();
        load::settle(&world);
    });
    load::check_decisions(&world);
    let end = load::end_state(&world);
    let differ = load::differences(&reference, &end);
    assert!(
        differ.is_empty(),
        "it ends otherwise than without kills; seed {seed}\n{}",
        differ.join("\n")
    );
    for (index, before) in pids.iter().enumerate() {
        let now = world.harness_pid(&agent(index));
        if !struck.contains(&index) {
            assert_eq!(
                now,
                *before,
                "{} was restarted by a kill of the daemon; seed {seed}",
                agent(index)
            );
        }
    }
    let census = census(&world);
    let counts: Vec<(&str, usize)> = census
        .iter()
        .map(|(name, pids)| (name.as_str(), pids.len()))
        .collect();
    let agents = AGENTS + 1;
    let expected = [("bwrap", agents), ("hive", 1), ("hive-harness", agents)];
    assert_eq!(
        counts, expected,
        "something was left behind: {census:?}; seed {seed}"
    );
}
