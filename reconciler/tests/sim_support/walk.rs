//! Random walks: moves drawn from a seed, and the shortest script of a walk that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use reconciler::host::fake::{Behaviour, Fault};
use serde_json::{Value, json};
use shared::plan::Waiting;
use shared::spec::{RunState, Spec};
use shared::status::Sync;

use super::driver::{Disturbance, End, Move, Scenario, play};
use super::oracle;

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

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

const AGENTS: [&str; 2] = ["alice", "bob"];
const SOURCES: [&str; 4] = ["runtime", "repos", "folders", "systems"];
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
    for agent in AGENTS {
        if dice.below(4) > 0 {
            agents[agent] = declaration(dice, pool);
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

/// Anything that can happen.
fn any_move(dice: &mut Dice) -> Move {
    let agent = dice.of(&AGENTS);
    match dice.below(20) {
        0 | 1 => spec(dice, Pool::Running),
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
        17 => Move::Blind(dice.of(&SOURCES)),
        18 => Move::Restart,
        _ => Move::Fault(dice.below(4), dice.of(&FAULTS)),
    }
}

/// So many moves, beginning with a spec.
pub(crate) fn any_walk(dice: &mut Dice, steps: usize) -> Vec<Move> {
    let first = spec(dice, Pool::Healthy);
    std::iter::once(first)
        .chain((1..steps).map(|_| any_move(dice)))
        .collect()
}

/// From spec to spec, broken ones and back, to one that can be had.
pub(crate) fn spec_walk(dice: &mut Dice, steps: usize) -> Vec<Move> {
    let mut moves: Vec<Move> = (1..steps)
        .map(|_| match dice.below(5) {
            0 => hostile_spec(dice),
            1 => spec(dice, Pool::Healthy),
            _ => spec(dice, Pool::All),
        })
        .collect();
    moves.push(spec(dice, Pool::Healthy));
    moves
}

pub(crate) fn walk(moves: Vec<Move>) -> Scenario {
    Scenario {
        name: "a random walk",
        behaviours: vec![("explode", Behaviour::Crashes), ("mute", Behaviour::Silent)],
        unbuildable: vec!["poison"],
        moves,
        expect: |_| {},
    }
}

fn played(moves: Vec<Move>) -> (Scenario, End) {
    let scenario = walk(moves);
    let end = crate::block_on(play(&scenario, &Disturbance::None));
    (scenario, end)
}

/// Plays the walk as it is and without its disturbances: both converge, both keep the promises, both end the same.
pub(crate) fn check_walk(moves: &[Move]) {
    let wanted: Vec<Move> = moves.iter().filter(|m| !m.is_disturbance()).cloned().collect();
    let (calm, reference) = played(wanted);
    oracle::check_alone(&calm, &reference, "a walk without its disturbances");
    let (scenario, end) = played(moves.to_vec());
    oracle::check_alone(&scenario, &end, "a walk");
    oracle::check_same_end(
        &scenario,
        &reference,
        &end,
        "a walk beside itself without disturbances",
    );
}

/// Plays specs alone: whoever the last one declares is in sync with it, whatever came before.
pub(crate) fn check_specs(moves: &[Move]) {
    let (scenario, end) = played(moves.to_vec());
    oracle::check_alone(&scenario, &end, "a walk from spec to spec");
    let Some(Move::Spec(last)) = moves.last() else {
        return;
    };
    // A shorter script may end with a spec that cannot be had.
    let Ok(spec) = serde_json::from_str::<Spec>(last) else {
        return;
    };
    for (name, declared) in &spec.agents {
        let status = end.status(name.as_str());
        let config = status.config.as_ref();
        if declared.run == RunState::Running {
            assert_eq!(status.sync.value, Sync::InSync, "{name}: {:#?}", status.waiting);
        } else {
            // Its trial is put off until it runs again.
            let on_trial = |waiting: &Waiting| waiting.what.starts_with("probation");
            assert!(
                status.waiting.iter().all(on_trial),
                "{name}: {:#?}",
                status.waiting
            );
        }
        assert_eq!(
            config.map(|config| config.prompt.as_str()),
            Some(declared.prompt.as_str()),
            "{name}"
        );
        assert_eq!(
            config.map(|config| &config.mcp_servers),
            Some(&declared.mcp_servers),
            "{name}"
        );
        assert_eq!(status.generations.desired, status.generations.deployed, "{name}");
    }
}

/// Runs `check`; when it fails, takes away moves as long as it still fails, and panics with what is left.
pub(crate) fn or_shortest(moves: Vec<Move>, replay: &str, check: fn(&[Move])) {
    let fails = |moves: &[Move]| {
        let panicked = catch_unwind(AssertUnwindSafe(|| check(moves))).err()?;
        let text = panicked
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panicked.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Some(text.unwrap_or_default())
    };
    let Some(mut why) = fails(&moves) else { return };
    let mut left = moves;
    let mut index = 0;
    while index < left.len() {
        let mut fewer = left.clone();
        fewer.remove(index);
        match fails(&fewer) {
            Some(still) => (left, why) = (fewer, still),
            None => index += 1,
        }
    }
    panic!("{why}\n\nminimal script: {left:#?}\nreplay: {replay}");
}
