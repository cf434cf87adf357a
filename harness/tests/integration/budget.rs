//! What a turn uses is told whatever happens, and a turn that may use no more ends.

use serde_json::json;
use shared::agent_api::MessageKind;

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
