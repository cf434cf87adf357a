use shared::turn::{TurnFacts, TurnResult, TurnStats};

use super::*;

const HOUR: i64 = 3600;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + secs).unwrap()
}

fn turn(agent: &str, secs: i64, output: u64) -> TurnInfo {
    TurnInfo {
        id: 1,
        agent: agent.parse().unwrap(),
        at: at(secs),
        stats: TurnStats {
            turn: shared::TurnId(uuid::Uuid::from_u128(1)),
            started_at: at(secs),
            duration_ms: output * 10,
            result: TurnResult::Ok,
            error: None,
            model: None,
            session: None,
            tokens: Tokens {
                output,
                ..Tokens::default()
            },
            context: None,
            cost_usd: None,
            tool_calls: [("Read".to_owned(), 2)].into(),
            woken_by: vec!["agent".to_owned()],
            notes_bytes: None,
        },
        facts: TurnFacts::default(),
    }
}

fn window(step: Option<u32>) -> Window {
    Window {
        since: at(-100 * HOUR),
        now: at(HOUR),
        step,
    }
}

#[test]
fn each_agent_is_added_up_by_itself() {
    let mut dear = turn("alice", 20, 100);
    dear.stats.cost_usd = Some(0.5);
    dear.stats.result = TurnResult::Hung;
    dear.stats.notes_bytes = Some(70);
    dear.facts = TurnFacts {
        woken_by: vec!["operator".to_owned(), "reminder".to_owned()],
        sent: [("manager".to_owned(), 3)].into(),
        inbox_max: 9,
        ..TurnFacts::default()
    };
    let turns = vec![turn("alice", 30, 1), dear, turn("bob", 10, 7)];
    let series = add_up(turns, window(None));
    assert_eq!(series.len(), 2);
    let alice = &series[0];
    assert_eq!(
        (alice.turns, alice.tokens.output, alice.cost_unknown),
        (2, 101, 1)
    );
    assert!((alice.cost_usd - 0.5).abs() < 1e-9);
    assert_eq!(
        alice.results,
        [("hung".to_owned(), 1), ("ok".to_owned(), 1)].into()
    );
    let wakers = [("agent", 1), ("operator", 1), ("reminder", 1)];
    assert_eq!(
        alice.woken_by,
        wakers.map(|(kind, turns)| (kind.to_owned(), turns)).into()
    );
    assert_eq!(alice.sent, [("manager".to_owned(), 3)].into());
    assert_eq!((alice.inbox_max, alice.tool_calls["Read"]), (9, 4));
    assert_eq!((alice.last_turn_at, alice.notes_bytes), (Some(at(30)), Some(70)));
    assert_eq!(series[1].tokens_per_turn.unwrap().max, 7);
    assert_eq!(series[1].cost_per_turn, None, "no cost is known");
}

#[test]
fn percentiles_are_values_that_were_there() {
    let of = |values: &[u64]| spread(values.iter().copied());
    assert_eq!(of(&[]), None);
    let one = Spread {
        p50: 4,
        p95: 4,
        max: 4,
    };
    assert_eq!(of(&[4]), Some(one));
    let hundred: Vec<u64> = (1..=100).rev().collect();
    let spread = of(&hundred).unwrap();
    assert_eq!((spread.p50, spread.p95, spread.max), (50, 95, 100));
    let two = of(&[9, 1]).unwrap();
    assert_eq!((two.p50, two.p95), (1, 9));
}

#[test]
fn points_are_in_the_order_of_time_and_empty_ones_are_left_out() {
    let turns = [
        turn("alice", 5 * HOUR, 4),
        turn("alice", 10, 2),
        turn("alice", 0, 1),
    ];
    assert!(points(&turns, window(None)).is_empty());
    let late = Window {
        now: at(10 * HOUR),
        ..window(Some(1))
    };
    let points = points(&turns, late);
    let seen: Vec<_> = points.iter().map(|point| (point.turns, point.tokens)).collect();
    assert_eq!(seen, [(2, 3), (1, 4)]);
    assert!(points[0].from <= at(0) && at(0) < points[0].from + SignedDuration::from_hours(1));
}

#[test]
fn tools_beyond_a_number_are_not_told_apart() {
    let mut many = turn("alice", 0, 1);
    many.stats.tool_calls = (0..MAX_TOOLS as u64 + 5)
        .map(|n| (format!("t{n:04}"), 1))
        .collect();
    let series = add_up(vec![many], window(None));
    assert_eq!(series[0].tool_calls.len(), MAX_TOOLS + 1);
    assert_eq!(series[0].tool_calls["other"], 5);
}
