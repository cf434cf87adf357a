//! Agents that talk with each other and with the operator.

use model_server::Rule;
use shared::turn::TurnResult;

use crate::hive::{Hive, recv, send};

#[test]
fn a_message_wakes_an_agent_that_asks_another_and_each_has_its_own_login_and_conversation() {
    let hive = Hive::of(
        &["alice", "bob"],
        vec![
            recv(),
            send("greet bob for me", "bob", "good morning, bob"),
            send("good morning, bob", "alice", "good morning to you"),
            send("good morning to you", "operator", "bob greets back"),
            Rule::text("", "done"),
        ],
    );
    hive.say("alice", "greet bob for me");
    hive.until_said(&["alice says: bob greets back"]);

    let (alice, bob) = (hive.turns("alice", 2), hive.turns("bob", 1));
    for turn in alice.iter().chain(&bob) {
        assert_eq!((turn.result, turn.error.as_deref()), (TurnResult::Ok, None));
        assert_eq!(turn.tool_calls["mcp__hive__recv"], 1, "{turn:?}");
        assert_eq!(turn.model.as_deref(), Some("made-up"));
    }
    assert_eq!(alice[0].session, alice[1].session);
    assert_ne!(alice[0].session, bob[0].session);
    for agent in ["alice", "bob"] {
        let status = hive.world.until_healthy(agent);
        assert_eq!(status.inbox, 0);
        let mine = |asked: &&model_server::Asked| asked.system.contains(&format!("You are {agent},"));
        let log = hive.model.log();
        let keys: Vec<_> = log
            .iter()
            .filter(mine)
            .map(|asked| asked.key.as_deref())
            .collect();
        let login = format!("Bearer made-up-token-of-{agent}");
        assert!(
            !keys.is_empty() && keys.iter().all(|key| *key == Some(&login)),
            "{keys:?}"
        );
    }
}
