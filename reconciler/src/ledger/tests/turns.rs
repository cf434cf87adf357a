use shared::TurnId;
use shared::turn::{Tokens, TurnFacts, TurnResult, TurnStats};

use super::*;

fn stats(number: u128) -> TurnStats {
    TurnStats {
        turn: TurnId(Uuid::from_u128(number)),
        started_at: now(),
        duration_ms: 10,
        result: TurnResult::Ok,
        error: None,
        model: None,
        session: None,
        tokens: Tokens {
            output: 5,
            ..Tokens::default()
        },
        context: None,
        cost_usd: None,
        tool_calls: [].into(),
        woken_by: Vec::new(),
        notes_bytes: None,
    }
}

async fn listed(desk: &Desk, agent: Option<&str>, before: Option<u64>, limit: u32) -> Vec<u64> {
    let agent = agent.map(name);
    let turns = desk
        .ledger
        .turns(agent.as_ref(), before, limit)
        .await
        .expect("a read");
    turns
        .complete()
        .expect("all can be read")
        .into_iter()
        .map(|turn| turn.id)
        .collect()
}

#[tokio::test]
async fn a_turn_told_twice_is_one_and_those_of_an_agent_are_found_newest_first() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![register("bob", 2)]).await;
    let tell = async |agent: &str, number| {
        let told = desk
            .ledger
            .note_turn(&name(agent), stats(number), TurnFacts::default(), now())
            .await;
        told.expect("a write")
    };
    assert!(tell("alice", 1).await);
    assert!(!tell("alice", 1).await, "it is known");
    assert!(tell("bob", 1).await, "another agent's");
    assert!(tell("alice", 2).await);
    assert!(!tell("nobody", 3).await, "there is no such agent");

    let of_alice = listed(&desk, Some("alice"), None, 10).await;
    assert_eq!(of_alice.len(), 2);
    assert!(of_alice[0] > of_alice[1]);
    assert_eq!(listed(&desk, None, None, 10).await.len(), 3);
    assert_eq!(listed(&desk, None, None, 1).await, [of_alice[0]]);
    assert_eq!(
        listed(&desk, Some("alice"), Some(of_alice[0]), 10).await,
        [of_alice[1]]
    );
}

#[tokio::test]
async fn what_was_used_is_added_up_from_a_moment_on_and_for_one_agent() {
    let desk = Desk::with_alice().await;
    desk.apply(vec![register("bob", 2)]).await;
    let later = now() + jiff::SignedDuration::from_hours(1);
    let told = [
        ("alice", 1, now(), Some(1.0)),
        ("alice", 2, later, Some(0.5)),
        ("alice", 3, later, None),
        ("bob", 4, later, Some(9.0)),
    ];
    for (agent, number, at, cost_usd) in told {
        let turn = TurnStats {
            cost_usd,
            ..stats(number)
        };
        desk.ledger
            .note_turn(&name(agent), turn, TurnFacts::default(), at)
            .await
            .expect("a write");
    }
    let spent = async |since| {
        let account = desk.ledger.account(&name("alice"), since).await.expect("a read");
        let [agent, hive] = [account.agent, account.hive].map(|spent| (spent.turns, spent.tokens, spent.usd));
        (agent, hive)
    };
    assert_eq!(spent(now()).await, ((3, 15, 1.5), (4, 20, 10.5)));
    assert_eq!(spent(later).await, ((2, 10, 0.5), (3, 15, 9.5)));
}

#[tokio::test]
async fn a_turn_that_cannot_be_read_is_shown_as_such() {
    let desk = Desk::with_alice().await;
    desk.ledger
        .note_turn(&name("alice"), stats(1), TurnFacts::default(), now())
        .await
        .expect("a write");
    desk.raw()
        .execute("UPDATE turns SET doc = '{}'", [])
        .expect("damage");
    let turns = desk.ledger.turns(None, None, 10).await.expect("a read");
    let turns = turns.complete().expect("it is shown");
    assert_eq!(turns[0].stats.result, TurnResult::Unknown);
    let error = turns[0].stats.error.as_deref().expect("why");
    assert!(
        error.contains("turns") && error.contains("missing field"),
        "{error}"
    );
}

#[tokio::test]
async fn turns_are_kept_for_ninety_days() {
    let desk = Desk::with_alice().await;
    desk.ledger
        .note_turn(&name("alice"), stats(1), TurnFacts::default(), now())
        .await
        .expect("a write");
    let later = |days: i64| now() + jiff::SignedDuration::from_hours(days * 24);
    assert_eq!(desk.ledger.prune(later(89)).await.expect("a write").turns, 0);
    assert_eq!(desk.ledger.prune(later(91)).await.expect("a write").turns, 1);
    assert_eq!(listed(&desk, None, None, 10).await, [0_u64; 0]);
}
