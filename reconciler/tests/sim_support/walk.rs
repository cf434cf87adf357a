//! Random walks: moves drawn from a seed, and the shortest script of a walk that fails.

use reconciler::host::fake::{Behaviour, Fault, Lag, Source};
use serde_json::{Value, json};

use super::moves::{Decide, Move, Oracle, Script};

/// Numbers that depend on the seed alone, on every machine and with every version of every library.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides` (splitmix64).
    pub(crate) fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let sides = u64::try_from(sides).unwrap();
        usize::try_from((z ^ (z >> 31)) % sides).unwrap()
    }

    pub(crate) fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

const AGENTS: [&str; 2] = ["alice", "bob"];
const FAULTS: [Fault; 4] = [
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::ErrorBefore,
    Fault::ErrorAfter,
];
const OVERLAYS: [&str; 8] = [
    r#"{ "prompt": "tend the garden" }"#,
    r#"{ "network": "none" }"#,
    r#"{ "network": "host", "prompt": "travel" }"#,
    r#"{ "mcpServers": { "extra": { "command": "/bin/extra" } } }"#,
    r#"{ "mcpServers": { "broken": { "command": "/bin/broken" } } }"#,
    r#"{ "prompt": "explode" }"#,
    r#"{ "prompt": "mute" }"#,
    r#"{ "prompt": "poison" }"#,
];

/// What a walk may declare.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pool {
    /// What becomes healthy.
    Healthy,
    /// Whatever.
    All,
    /// Whatever runs. Whether a system that was deployed while its agent was stopped or paused gets the time to prove
    /// itself before the next one replaces it depends on how long a build takes, and with it how its trial ends.
    Running,
}

/// An agent's declaration.
fn declaration(dice: &mut Dice, pool: Pool) -> Value {
    let healthy = [
        json!({}),
        json!({ "prompt": "tend the wiki" }),
        json!({ "prompt": "tend the bees", "locked": ["prompt"] }),
        json!({ "network": "none" }),
        json!({ "mcpServers": { "wiki": { "command": "/bin/wiki" } } }),
        json!({ "prompt": "tend the wiki", "drain": "immediate", "maxTurnMinutes": 1 }),
    ];
    let others = [
        json!({ "prompt": "explode" }),
        json!({ "prompt": "mute" }),
        json!({ "prompt": 7 }),
        json!({ "mcpServers": { "broken": { "command": "/bin/broken" } } }),
        json!({ "run": "stopped" }),
        json!({ "run": "paused" }),
    ];
    let others = match pool {
        Pool::Healthy => &[],
        Pool::Running => &others[..4],
        Pool::All => &others[..],
    };
    let all: Vec<&Value> = healthy.iter().chain(others).collect();
    dice.of(&all).clone()
}

/// A spec with a manager, and each other agent or not.
fn spec(dice: &mut Dice, pool: Pool) -> Move {
    let mut agents = json!({ "queen": { "role": "manager" } });
    for (number, agent) in AGENTS.into_iter().enumerate() {
        if dice.below(4) > 0 {
            agents[agent] = declaration(dice, pool);
            // Declared alike, one that comes as the other goes would be taken for a renaming and refused.
            agents[agent]["budget"] = json!({ "tokensPerDay": 1_000_000 + number });
        }
    }
    document(&agents)
}

fn document(agents: &Value) -> Move {
    Move::Spec(json!({ "version": 1, "hive": { "name": "sim" }, "agents": agents }).to_string())
}

/// A spec that is refused whole, or one that would remove everybody.
fn hostile_spec(dice: &mut Dice) -> Move {
    match dice.below(4) {
        0 => Move::Spec("{ not json".to_owned()),
        1 => Move::Spec(r#"{ "version": 2, "hive": { "name": "sim" } }"#.to_owned()),
        2 => Move::SpecVanishes,
        _ => document(&json!({})),
    }
}

/// Something that goes wrong and changes nothing that is wanted.
fn disturbance(dice: &mut Dice) -> Move {
    match dice.below(8) {
        // A harness that does not report for so long has failed its probation.
        0 => Move::Blind(dice.of(&Source::ALL[..5])),
        1 => Move::BlindPass(dice.below(4), dice.of(&Source::ALL)),
        2 => {
            let lag = dice.of(&[Lag::Effect, Lag::Remembered]);
            Move::LagPass(dice.below(4), dice.of(&Source::ALL), lag)
        }
        3 => Move::Restart,
        4 => Move::Drop(dice.below(3)),
        5 => Move::Double(dice.below(3)),
        6 => Move::Interleave(u64::try_from(dice.below(1 << 20)).unwrap()),
        _ => Move::Fault(dice.below(16), dice.of(&FAULTS)),
    }
}

/// Anything that can happen.
fn any_move(dice: &mut Dice, pool: Pool) -> Move {
    let agent = dice.of(&AGENTS);
    match dice.below(24) {
        0 | 1 => spec(dice, pool),
        2 => hostile_spec(dice),
        3..=5 => Move::Propose(agent, dice.of(&OVERLAYS)),
        6 => Move::ProposeOnSeed(agent, dice.of(&OVERLAYS)),
        7..=9 => Move::Approve,
        10 => Move::Deny,
        11 => Move::Kill(agent),
        12 => Move::TamperMain(agent),
        13 => Move::Stop(agent),
        14 => Move::Start(agent),
        15 => Move::TurnBegins(agent),
        16 => Move::TurnEnds(agent),
        _ => disturbance(dice),
    }
}

/// So many moves, beginning with a spec.
pub(crate) fn any_walk(dice: &mut Dice, steps: usize) -> Script {
    let first = spec(dice, Pool::Healthy);
    let moves = (1..steps).map(|_| any_move(dice, Pool::Running));
    script(Oracle::SameEnd, std::iter::once(first).chain(moves).collect())
}

/// The same with agents that are declared stopped or paused, and with decisions at any boundary.
pub(crate) fn free_walk(dice: &mut Dice, steps: usize) -> Script {
    let first = spec(dice, Pool::All);
    let moves = (1..steps).map(|_| match dice.below(10) {
        0 => Move::Decide(Decide {
            away: dice.below(16),
            after: dice.below(2) == 0,
            approve: dice.below(3) > 0,
        }),
        _ => any_move(dice, Pool::All),
    });
    script(Oracle::Alone, std::iter::once(first).chain(moves).collect())
}

/// From spec to spec, broken ones and back, to one that can be had.
pub(crate) fn spec_walk(dice: &mut Dice, steps: usize) -> Script {
    let mut moves: Vec<Move> = (1..steps)
        .map(|_| match dice.below(7) {
            0 => hostile_spec(dice),
            1 => spec(dice, Pool::Healthy),
            2 | 3 => disturbance(dice),
            _ => spec(dice, Pool::All),
        })
        .collect();
    moves.push(spec(dice, Pool::Healthy));
    script(Oracle::Specs, moves)
}

fn script(oracle: Oracle, moves: Vec<Move>) -> Script {
    Script {
        oracle,
        behaviours: vec![("explode", Behaviour::Crashes), ("mute", Behaviour::Silent)],
        unbuildable: vec!["poison"],
        moves,
    }
}
