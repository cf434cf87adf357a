//! Every scenario with everything that can go wrong, each thing once at each place.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use super::driver::{End, Move, Player, Saved, Scenario};
use super::moves::{Oracle, Script};
use super::oracle;
use super::scenarios::all;
use super::script::{Ordering, why};
use super::survey::Places;

/// A scenario as it goes when nothing goes wrong.
pub(crate) struct Calm {
    pub(crate) scenario: Scenario,
    pub(crate) end: End,
    /// What was there before each move.
    saved: Vec<Saved>,
    /// How things stood after each move.
    standing: Vec<String>,
    /// Whether a gate waited for a person at some time during each move.
    asked: Vec<bool>,
}

async fn play(scenario: Scenario) -> Calm {
    let mut player = Player::new(&scenario.behaviours, &scenario.unbuildable).await;
    let (mut saved, mut standing, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    for step in &scenario.moves {
        saved.push(player.save().await);
        let (waited, opened) = player.asking().await;
        player.play(step).await;
        asked.push(waited > 0 || player.asking().await.1 > opened);
        standing.push(player.standing().await);
    }
    let end = player.end().await;
    Calm {
        scenario,
        end,
        saved,
        standing,
        asked,
    }
}

/// Every scenario, played once.
pub(crate) fn calm() -> &'static [Calm] {
    static CALM: OnceLock<Vec<Calm>> = OnceLock::new();
    CALM.get_or_init(|| {
        all()
            .into_iter()
            .map(|scenario| crate::block_on(play(scenario)))
            .collect()
    })
}

/// What came of a disturbance.
enum Came {
    /// There is no such place.
    Never,
    /// It was there, and nobody noticed.
    ToNothing,
    /// After the move everything stood as if nothing had gone wrong, and stayed so.
    ToTheSame,
    To(Box<End>),
}

/// Goes on from what was saved, with a disturbance during the first move; to the end, unless things stand afterwards as
/// they do without it.
async fn go_on(saved: &Saved, disturbance: &Move, moves: &[Move], calm: &str) -> Came {
    let mut player = Player::resume(saved).await;
    player.play(disturbance).await;
    let Some((first, rest)) = moves.split_first() else {
        return Came::Never;
    };
    player.play(first).await;
    if player.is_armed() {
        return Came::Never;
    }
    if disturbance.is_silent() && !player.mattered() {
        return Came::ToNothing;
    }
    if player.standing().await == calm && player.is_spotless() && player.noise().await.is_empty() {
        return Came::ToTheSame;
    }
    for step in rest {
        player.play(step).await;
    }
    Came::To(Box::new(player.end().await))
}

/// What was tried already: many stories begin the same, and what goes wrong there goes wrong the same.
#[derive(Default)]
struct Tried(BTreeSet<String>);

impl Tried {
    /// Whether this was not yet tried during a move that has the same moves before it in the same world.
    fn is_new(&mut self, scenario: &Scenario, during: usize, what: &str) -> bool {
        let Scenario {
            behaviours,
            unbuildable,
            moves,
            ..
        } = scenario;
        let story = format!("{behaviours:?} {unbuildable:?} {:?}", &moves[..=during]);
        self.0.insert(format!("{what} {story}"))
    }
}

/// Plays every scenario with each of `disturbances(n)` during each of its moves, for every `n` that there is. Returns the
/// number of points tried.
pub(crate) fn everywhere(disturbances: impl Fn(usize) -> Vec<Move>) -> usize {
    everywhere_and_last(disturbances, None::<fn(usize) -> Move>)
}

/// The same, and one more at the last `n` of each move.
pub(crate) fn everywhere_and_last(
    disturbances: impl Fn(usize) -> Vec<Move>,
    at_last: Option<impl Fn(usize) -> Move>,
) -> usize {
    let mut points = 0;
    let mut tried = Tried::default();
    for calm in calm() {
        for during in 0..calm.scenario.moves.len() {
            if tried.is_new(&calm.scenario, during, "") {
                let (last, tried) = during_one_move(calm, during, &disturbances);
                points += tried;
                if let (Some(at_last), Some(place)) = (&at_last, last) {
                    let once = |n| if n == 0 { vec![at_last(place)] } else { Vec::new() };
                    points += during_one_move(calm, during, &once).1;
                }
            }
        }
    }
    points
}

/// Returns the last `n` that there is, and the number of points tried.
fn during_one_move(
    calm: &Calm,
    during: usize,
    disturbances: &impl Fn(usize) -> Vec<Move>,
) -> (Option<usize>, usize) {
    let (mut last, mut points) = (None, 0);
    let places = Places::of(&calm.saved[during], &calm.scenario.moves[during]);
    for place in 0.. {
        let mut is_place = false;
        for disturbance in disturbances(place) {
            match places.notices(&disturbance) {
                Some(true) => {}
                unnoticed => {
                    is_place |= unnoticed.is_some();
                    continue;
                }
            }
            let mut came = Came::Never;
            let moves = &calm.scenario.moves[during..];
            let failed = why(|| {
                came = crate::block_on(go_on(
                    &calm.saved[during],
                    &disturbance,
                    moves,
                    &calm.standing[during],
                ));
                if let Came::To(end) = &came {
                    oracle::check_alone(end);
                    match &disturbance {
                        Move::LagPass(..) => oracle::check_late(&calm.end, end),
                        _ => oracle::check_same(&calm.end, end),
                    }
                }
            });
            if let Some(failed) = failed {
                let at = format!("{}: {disturbance:?} during move {during}", calm.scenario.name);
                let mut moves = calm.scenario.moves.clone();
                moves.insert(during, disturbance);
                let oracle = match &moves[during] {
                    Move::LagPass(..) => Oracle::Late,
                    _ => Oracle::Same,
                };
                fail(calm, oracle, moves, &at, failed);
            }
            match came {
                Came::Never => {}
                Came::ToNothing => is_place = true,
                Came::ToTheSame | Came::To(_) => {
                    is_place = true;
                    points += 1;
                }
            }
        }
        if !is_place {
            break;
        }
        last = Some(place);
    }
    (last, points)
}

/// Panics with the shortest script that still fails.
fn fail(calm: &Calm, oracle: Oracle, moves: Vec<Move>, at: &str, failed: String) -> ! {
    let script = Script::of(&calm.scenario, oracle, moves);
    // From the very beginning it may fail otherwise, or not at all: then it is shown as it is.
    let failed = script.fails().unwrap_or(failed);
    script.shortest(format!("{at}\n{failed}"), "this test alone")
}

/// Plays every scenario with the operator's decisions at each place on the way: early, during each move before they are
/// made at rest; and late, during the move after.
pub(crate) fn decide_everywhere(decisions: impl Fn(usize) -> Vec<Move>, approves: bool) -> usize {
    let mut points = 0;
    let mut tried = Tried::default();
    for calm in calm() {
        let moves = &calm.scenario.moves;
        for during in 0..moves.len() {
            if !tried.is_new(&calm.scenario, during, "") {
                continue;
            }
            let rest = &moves[during..];
            let made = |step: &Move| matches!((step, approves), (Move::Approve, true) | (Move::Deny, false));
            if made(&moves[during]) && during + 1 < moves.len() {
                points += decide_at(calm, during, &decisions, &rest[1..]);
            }
            if calm.asked[during] {
                points += decide_at(calm, during, &decisions, rest);
            }
        }
    }
    points
}

/// Decides at each place of the first of `moves`, which go on from before the move `from` of the scenario.
///
/// From then on the same is decided about whatever is open: which gates were open at the boundary does not matter.
fn decide_at(calm: &Calm, from: usize, decisions: &impl Fn(usize) -> Vec<Move>, moves: &[Move]) -> usize {
    let last = match decisions(0).first() {
        Some(Move::Decide(decide)) if decide.approve => Move::Approve,
        _ => Move::Deny,
    };
    let decide_alike = |(index, step): (usize, &Move)| match step {
        Move::Approve | Move::Deny if index > 0 => last.clone(),
        other => other.clone(),
    };
    let moves: Vec<Move> = moves.iter().enumerate().map(decide_alike).collect();
    let moves = &[moves, vec![last.clone(), last]].concat()[..];
    let before = &calm.scenario.moves[..from];
    let saved = &calm.saved[from];
    let mut points = 0;
    let mut calm_ends: Option<Vec<End>> = None;
    let places = Places::of(saved, &moves[0]);
    for place in 0.. {
        let mut is_place = false;
        for decision in decisions(place) {
            match places.notices(&decision) {
                Some(true) => {}
                unnoticed => {
                    is_place |= unnoticed.is_some();
                    continue;
                }
            }
            let mut came = Came::Never;
            let failed = why(|| {
                came = crate::block_on(go_on(saved, &decision, moves, ""));
                if let Came::To(end) = &came {
                    oracle::check_alone(end);
                    let others = calm_ends.get_or_insert_with(|| {
                        let scripts = Ordering::ALL
                            .map(|when| when.at_rest(&[std::slice::from_ref(&decision), moves].concat()));
                        scripts.iter().map(|moves| at_rest_from(saved, moves)).collect()
                    });
                    oracle::check_decided(others, end);
                }
            });
            if let Some(failed) = failed {
                let at = format!(
                    "{}: {decision:?} during the move after {from}",
                    calm.scenario.name
                );
                let script = before.iter().chain([&decision]).chain(moves).cloned();
                fail(calm, Oracle::Decided, script.collect(), &at, failed);
            }
            match came {
                Came::Never => {}
                Came::ToNothing => is_place = true,
                Came::ToTheSame | Came::To(_) => {
                    is_place = true;
                    points += 1;
                }
            }
        }
        if !is_place {
            return points;
        }
    }
    points
}

fn at_rest_from(saved: &Saved, moves: &[Move]) -> End {
    crate::block_on(async {
        let mut player = Player::resume(saved).await;
        for step in moves {
            player.play(step).await;
        }
        player.end().await
    })
}
