//! What a turn uses is told whatever happens, and a turn that may use no more ends.

use std::time::Duration;

use serde_json::json;
use shared::agent_api::MessageKind;
use shared::budget::TurnLimits;
use shared::turn::TurnResult;

use crate::world::Nest;

#[tokio::test]
async fn what_a_turn_was_is_told_again_when_the_daemon_takes_no_more_for_a_while() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    nest.daemon.change(|world| world.full_turns = 3);
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon
        .until("a turn is told", |world| world.turns.len() == 1)
        .await;
    assert_eq!(nest.daemon.world().full_turns, 0);
}

#[tokio::test]
async fn a_turn_is_told_before_it_begins_and_as_it_goes_on() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "use": 30 }, { "use": 12 }, { "hang": true }] }]));
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    let last = |world: &crate::daemon::World| world.used.last().is_some_and(|usage| usage.tokens == 42);
    nest.daemon.until("all of it is told", last).await;
    let world = nest.daemon.world();
    assert_eq!(world.used[0].tokens, 0, "before anything is used");
    assert!(world.used.iter().all(|usage| usage.turn == world.used[0].turn));
    assert!(world.turns.is_empty(), "it goes on");
}

#[tokio::test]
async fn a_turn_that_has_used_what_it_may_is_cut_short_and_its_messages_are_given_back() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "use": 99 }, { "use": 1 }, { "hang": true }] }]));
    nest.daemon.change(|world| world.limits.tokens = Some(100));
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon
        .until("a turn is told", |world| !world.turns.is_empty())
        .await;
    let world = nest.daemon.world();
    assert_eq!(world.turns[0].result, TurnResult::LimitReached);
    assert_eq!(world.turns[0].tokens.total(), 100);
    let error = world.turns[0].error.as_deref().unwrap();
    assert!(error.contains("its budget allows 100"), "{error}");
    assert!(!world.dones()[0]);
}

#[tokio::test]
async fn limits_that_become_tighter_while_a_turn_runs_hold() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "use": 50 }, { "hang": true }] }]));
    // What others use meanwhile: at the beginning nothing is limited.
    nest.daemon.change(|world| world.later_limit = Some(50));
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon
        .until("a turn is told", |world| !world.turns.is_empty())
        .await;
    assert_eq!(nest.daemon.world().turns[0].result, TurnResult::LimitReached);
}

#[tokio::test]
async fn over_budget_no_turn_begins_and_nothing_counts_as_seen() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    nest.daemon.change(|world| {
        world.limits = TurnLimits {
            over_budget: true,
            ..TurnLimits::default()
        };
    });
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon
        .until("it is given back", |world| !world.acks.is_empty())
        .await;
    {
        let world = nest.daemon.world();
        assert_eq!((world.acks[0].done, world.acks[0].received), (false, Some(0)));
    }
    let begun = |world: &crate::daemon::World| !world.sent.is_empty() || !world.turns.is_empty();
    assert!(nest.daemon.never(Duration::from_millis(500), begun).await);
    nest.daemon.change(|world| world.limits = TurnLimits::default());
    nest.daemon
        .until("an answer", |world| world.sent.len() == 1)
        .await;
}

#[tokio::test]
async fn a_daemon_that_knows_nothing_of_budgets_limits_nothing() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "use": 7 }, { "reply": "hi" }] }]));
    nest.daemon.change(|world| world.no_turns = true);
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon
        .until("an answer", |world| world.sent.len() == 1)
        .await;
}
