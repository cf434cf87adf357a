//! The world simulation: the daemon's own loop, ledger and planner in a fake world, disturbed at every boundary.
//!
//! `cargo xtask sim` runs it. Each scenario is played once undisturbed; then again for every effect it has and every
//! fault there is. The oracles are in `sim/oracle.rs`; a failure prints the script that replays it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may end at the first surprise, and says so"
)]

mod sim_support {
    pub(crate) mod driver;
    pub(crate) mod oracle;
    pub(crate) mod scenarios;
    pub(crate) mod walk;
}

use std::collections::BTreeSet;

use reconciler::host::fake::Fault;
use sim_support::driver::{Disturbance, Scenario, play};
use sim_support::oracle;
use sim_support::scenarios::all;
use sim_support::walk::{self, Dice};

const SOURCES: [&str; 4] = ["runtime", "repos", "folders", "systems"];

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn every_scenario_ends_as_it_should_and_then_is_quiet() {
    for scenario in all() {
        let end = block_on(play(&scenario, &Disturbance::None));
        oracle::check_alone(&scenario, &end, "undisturbed");
        (scenario.expect)(&end);
    }
}

/// What was tried already: many stories begin the same, and what goes wrong there goes wrong the same.
#[derive(Default)]
struct Tried(BTreeSet<String>);

impl Tried {
    /// Whether this was not yet tried during a move that has the same moves before it in the same world.
    fn is_new(&mut self, scenario: &Scenario, at_move: Option<usize>, what: &str) -> bool {
        let until = at_move.map_or(scenario.moves.len(), |at| at + 1);
        let Scenario {
            behaviours,
            unbuildable,
            moves,
            ..
        } = scenario;
        let story = format!("{behaviours:?} {unbuildable:?} {:?}", &moves[..until]);
        self.0.insert(format!("{what} {story}"))
    }
}

/// Plays every scenario with this fault at each of its effects. One test a fault, so that they share the cores.
fn disturb_every_effect(fault: Fault) {
    let mut points = 0;
    let mut tried = Tried::default();
    for scenario in all() {
        let reference = block_on(play(&scenario, &Disturbance::None));
        for number in 0..reference.begun {
            let during = reference.begun_by.iter().position(|begun| number < *begun);
            if !tried.is_new(&scenario, during, &number.to_string()) {
                continue;
            }
            let end = block_on(play(&scenario, &Disturbance::Effect(number, fault)));
            let what = format!("{} with {fault:?} at effect {number}", scenario.name);
            oracle::check_alone(&scenario, &end, &what);
            oracle::check_same(&scenario, &reference, &end, &what);
            points += 1;
        }
    }
    println!("{fault:?}: {points} distinct points tried");
    assert!(
        points > 100,
        "only {points} points: the scenarios lost their effects"
    );
}

#[test]
fn a_crash_before_any_effect_changes_neither_the_end_nor_what_was_done() {
    disturb_every_effect(Fault::CrashBefore);
}

#[test]
fn a_crash_after_any_effect_changes_neither_the_end_nor_what_was_done() {
    disturb_every_effect(Fault::CrashAfter);
}

#[test]
fn an_effect_that_fails_changes_neither_the_end_nor_what_was_done() {
    disturb_every_effect(Fault::ErrorBefore);
}

#[test]
fn an_effect_whose_answer_is_lost_changes_neither_the_end_nor_what_was_done() {
    disturb_every_effect(Fault::ErrorAfter);
}

#[test]
fn a_source_that_cannot_be_observed_delays_and_never_destroys() {
    let mut points = 0;
    let mut tried = Tried::default();
    for scenario in all() {
        let reference = block_on(play(&scenario, &Disturbance::None));
        for at_move in 0..scenario.moves.len() {
            for source in SOURCES {
                if !tried.is_new(&scenario, Some(at_move), source) {
                    continue;
                }
                let end = block_on(play(&scenario, &Disturbance::Blind(at_move, source)));
                let what = format!("{} blind to {source} at move {at_move}", scenario.name);
                oracle::check_alone(&scenario, &end, &what);
                oracle::check_same(&scenario, &reference, &end, &what);
                points += 1;
            }
        }
    }
    println!("{points} distinct points tried");
}

#[test]
fn a_daemon_that_restarts_between_any_two_moves_ends_the_same() {
    let mut tried = Tried::default();
    for scenario in all() {
        let reference = block_on(play(&scenario, &Disturbance::None));
        for at_move in 0..scenario.moves.len() {
            if !tried.is_new(&scenario, Some(at_move), "") {
                continue;
            }
            let end = block_on(play(&scenario, &Disturbance::Restart(at_move)));
            let what = format!("{} restarted after move {at_move}", scenario.name);
            oracle::check_alone(&scenario, &end, &what);
            oracle::check_same(&scenario, &reference, &end, &what);
        }
    }
}

/// A number from the environment, as `cargo xtask sim` sets it.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no command line of its own: `cargo xtask sim` passes its arguments this way"
)]
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

/// Where the walks start and how many steps they take together.
fn seed_and_steps() -> (u64, u64) {
    (setting("HIVE_SIM_SEED", 1), setting("HIVE_SIM_STEPS", 100))
}

/// The walks of these settings: `(seed, steps)` each. One walk is short, so that a failure has a short script.
fn walks() -> Vec<(u64, usize)> {
    const LONGEST: u64 = 25;
    let (seed, steps) = seed_and_steps();
    let walk = |index| {
        let steps = LONGEST.min(steps - index * LONGEST);
        (seed.wrapping_add(index), usize::try_from(steps).unwrap())
    };
    (0..steps.div_ceil(LONGEST)).map(walk).collect()
}

#[test]
fn a_random_walk_ends_as_it_does_without_its_disturbances() {
    for (seed, steps) in walks() {
        println!("random walk: seed {seed}, {steps} steps");
        let moves = walk::any_walk(&mut Dice::new(seed), steps);
        let replay = format!("cargo xtask sim --seed {seed} --steps {steps}");
        walk::or_shortest(moves, &replay, walk::check_walk);
    }
}

#[test]
fn from_whatever_specs_the_last_good_one_is_reached() {
    for (seed, steps) in walks() {
        println!("walk from spec to spec: seed {seed}, {steps} steps");
        let moves = walk::spec_walk(&mut Dice::new(seed), steps.div_ceil(3));
        let replay = format!("cargo xtask sim --seed {seed} --steps {steps}");
        walk::or_shortest(moves, &replay, walk::check_specs);
    }
}
