//! The world simulation: the daemon's own loop, ledger and planner in a fake world, disturbed at every boundary.
//!
//! `cargo xtask sim` runs it. Each scenario is played once undisturbed; then again with everything that can go wrong,
//! each thing once at each place. The oracles are in `sim_support/oracle.rs` and `sim_support/audit.rs`; a failure
//! prints the shortest script that still fails, and how to play it again.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may end at the first surprise, and says so"
)]

mod sim_support {
    pub(crate) mod audit;
    pub(crate) mod command;
    pub(crate) mod disturb;
    pub(crate) mod driver;
    pub(crate) mod end;
    pub(crate) mod moves;
    pub(crate) mod oracle;
    pub(crate) mod scenarios;
    pub(crate) mod script;
    pub(crate) mod survey;
    pub(crate) mod walk;
}

use reconciler::host::fake::{Fault, Lag, Source};
use sim_support::disturb::{calm, decide_everywhere, everywhere, everywhere_and_last};
use sim_support::moves::{Decide, Move, Script};
use sim_support::oracle;
use sim_support::walk::{self, Dice};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// Says how many points were tried, and fails when scenarios were lost on the way.
fn report(what: &str, points: usize, at_least: usize) {
    println!("{what}: {points} distinct points tried");
    assert!(
        points >= at_least,
        "only {points} points of {what}, once there were {at_least}: scenarios or boundaries were lost"
    );
}

#[test]
fn every_scenario_ends_as_it_should_and_then_is_quiet() {
    for calm in calm() {
        oracle::check_alone(&calm.end);
        (calm.scenario.expect)(&calm.end);
    }
    report("scenarios", calm().len(), 89);
}

fn fault_everywhere(fault: Fault) -> usize {
    everywhere(|away| vec![Move::Fault(away, fault)])
}

/// A crash after one boundary leaves what a crash before the next one leaves. It is another thing after the last one,
/// and when somebody waits for an answer: commands come first and write once or twice.
#[test]
fn a_crash_at_any_effect_or_transaction_changes_neither_the_end_nor_what_was_done() {
    let crash = |away| {
        let before = Move::Fault(away, Fault::CrashBefore);
        let after = Move::Fault(away, Fault::CrashAfter);
        if away < 3 {
            vec![before, after]
        } else {
            vec![before]
        }
    };
    let after_last = |last| Move::Fault(last, Fault::CrashAfter);
    report("crashes", everywhere_and_last(crash, Some(after_last)), 2300);
}

#[test]
fn an_effect_or_transaction_that_fails_changes_neither_the_end_nor_what_was_done() {
    report("error before", fault_everywhere(Fault::ErrorBefore), 1850);
}

#[test]
fn an_effect_or_transaction_whose_answer_is_lost_changes_neither_the_end_nor_what_was_done() {
    report("error after", fault_everywhere(Fault::ErrorAfter), 1850);
}

#[test]
fn a_source_that_cannot_be_observed_delays_and_never_destroys() {
    let of_one_pass = |away| Source::ALL.map(|source| Move::BlindPass(away, source)).to_vec();
    report("blind in one pass", everywhere(of_one_pass), 780);
    let of_one_move = |away| match away {
        // A harness that does not report for so long has failed its probation.
        0 => Source::ALL[..5].iter().copied().map(Move::Blind).collect(),
        _ => Vec::new(),
    };
    report("blind for one move", everywhere(of_one_move), 660);
}

#[test]
fn a_source_that_shows_what_was_before_the_latest_effect_destroys_nothing() {
    let lags = |away| {
        Source::ALL
            .map(|source| Move::LagPass(away, source, Lag::Effect))
            .to_vec()
    };
    report("one effect late", everywhere(lags), 360);
}

#[test]
fn a_source_that_shows_what_was_before_the_latest_move_destroys_nothing() {
    let lags = |away| {
        Source::ALL
            .map(|source| Move::LagPass(away, source, Lag::Remembered))
            .to_vec()
    };
    report("one move late", everywhere(lags), 32);
}

#[test]
fn an_event_that_is_lost_or_comes_twice_changes_neither_the_end_nor_what_was_done() {
    report("lost events", everywhere(|away| vec![Move::Drop(away)]), 120);
    report("doubled events", everywhere(|away| vec![Move::Double(away)]), 120);
}

#[test]
fn a_daemon_that_restarts_between_any_two_moves_ends_the_same() {
    let once = |away| {
        if away == 0 {
            vec![Move::Restart]
        } else {
            Vec::new()
        }
    };
    report("restarts", everywhere(once), 130);
}

/// After one boundary is before the next, so that one side of each is enough.
fn decisions(approve: bool) -> impl Fn(usize) -> Vec<Move> {
    move |away| {
        let after = true;
        vec![Move::Decide(Decide { away, after, approve })]
    }
}

#[test]
fn an_approval_at_any_boundary_counts_or_is_withdrawn_and_nothing_happens_without_one() {
    report("approvals", decide_everywhere(decisions(true), true), 160);
}

#[test]
fn a_denial_at_any_boundary_counts_or_is_withdrawn() {
    report("denials", decide_everywhere(decisions(false), false), 140);
}

/// A text from the environment, as `cargo xtask sim` sets it.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no command line of its own: `cargo xtask sim` passes its arguments this way"
)]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str, default: u64) -> u64 {
    setting(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

/// Plays each of the walks that `cargo xtask sim` was asked for. One is short, so that a failure has a short script.
fn walk(what: &str, make: fn(&mut Dice, usize) -> Script) {
    const LONGEST: u64 = 25;
    let (seed, all) = (number("HIVE_SIM_SEED", 1), number("HIVE_SIM_STEPS", 100));
    for index in 0..all.div_ceil(LONGEST) {
        let (seed, steps) = (seed.wrapping_add(index), LONGEST.min(all - index * LONGEST));
        println!("{what}: seed {seed}, {steps} steps");
        let script = make(&mut Dice::new(seed), usize::try_from(steps).unwrap());
        script.or_shortest(&format!("cargo xtask sim --seed {seed} --steps {steps}"));
    }
}

#[test]
fn a_random_walk_ends_as_it_does_without_its_disturbances() {
    walk("random walk", walk::any_walk);
}

#[test]
fn whatever_happens_the_promises_are_kept() {
    walk("walk with stopped and paused agents", walk::free_walk);
}

#[test]
fn from_whatever_specs_the_last_good_one_is_reached() {
    walk("walk from spec to spec", walk::spec_walk);
}

#[test]
fn a_script_that_is_written_down_can_be_played_again() {
    let text = setting("HIVE_SIM_SCRIPT").unwrap_or_else(|| {
        let script = walk::any_walk(&mut Dice::new(7), 12);
        serde_json::to_string(&script).unwrap()
    });
    let script: Script = serde_json::from_str(&text).unwrap();
    let again = serde_json::to_string(&script).unwrap();
    let same: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&again).unwrap(), same);
    script.judge();
}
