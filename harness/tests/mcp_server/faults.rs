use std::time::{Duration, Instant};

use harness::control::Said;
use serde_json::json;
use shared::wire_error::ErrorCode;

use crate::nest::{Nest, TURN};

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again_and_shown_once() {
    let mut nest = Nest::agent();
    nest.daemon.message(json!({ "body": "precious" }));
    nest.daemon.change(|world| world.lose_answers = 1);
    let client = nest.client().await;
    let text = client.does("recv", json!({})).await;
    assert_eq!(text.matches("precious").count(), 1, "{text}");
    assert!(client.does("recv", json!({})).await.starts_with("No messages."));
    let turn = TURN.parse().unwrap();
    let received = Said::Received {
        turn,
        batch: 1,
        messages: 1,
    };
    assert_eq!(nest.told().await, received, "told once, after it came in");
    assert!(nest.said.try_recv().is_err());
    let named: Vec<_> = nest
        .daemon
        .world()
        .recvs
        .iter()
        .map(|recv| recv.received)
        .collect();
    assert_eq!(named, [Some(0), Some(0), Some(1)]);
}

#[tokio::test]
async fn a_server_that_is_started_again_is_given_what_the_turn_had() {
    let nest = Nest::agent();
    nest.daemon.message(json!({ "body": "precious" }));
    let first = nest.client().await;
    assert!(first.does("recv", json!({})).await.contains("precious"));
    drop(first);
    let second = nest.client().await;
    assert!(second.does("recv", json!({})).await.contains("precious"));
    assert!(second.does("recv", json!({})).await.starts_with("No messages."));
}

#[tokio::test]
async fn two_calls_at_once_are_one_wait_at_a_time_and_each_message_comes_once() {
    let mut nest = Nest::agent();
    let client = nest.client().await;
    let wait = json!({ "waitSecs": 30, "max": 1 });
    let both = async {
        tokio::join!(
            client.call("recv", wait.clone()),
            client.call("recv", wait.clone())
        )
    };
    let write = async {
        nest.daemon.until("a wait", |world| world.recvs.len() == 1).await;
        nest.daemon.message(json!({ "body": "one" }));
        nest.daemon
            .until("another wait", |world| world.recvs.len() == 2)
            .await;
        nest.daemon.message(json!({ "body": "two" }));
    };
    let ((one, two), ()) = tokio::join!(both, write);
    let mut texts = [one.unwrap(), two.unwrap()];
    texts.sort();
    assert!(
        texts[0].contains("\none\n") != texts[1].contains("\none\n"),
        "{texts:?}"
    );
    assert!(
        texts[0].contains("\ntwo\n") != texts[1].contains("\ntwo\n"),
        "{texts:?}"
    );
    let (most_waiting, named) = {
        let world = nest.daemon.world();
        let named: Vec<_> = world.recvs.iter().map(|recv| recv.received).collect();
        (world.most_waiting, named)
    };
    assert_eq!((most_waiting, named), (1, vec![Some(0), Some(1)]));
    // Around each wait the loop is told; and of each batch once.
    let turn = TURN.parse().unwrap();
    for batch in [1, 2] {
        assert_eq!(nest.told().await, Said::Waiting { turn, waits: true });
        assert_eq!(nest.told().await, Said::Waiting { turn, waits: false });
        assert_eq!(
            nest.told().await,
            Said::Received {
                turn,
                batch,
                messages: 1
            }
        );
    }
}

#[tokio::test]
async fn a_call_that_would_wait_behind_a_long_wait_is_told_so() {
    let nest = Nest::agent();
    let client = nest.client().await;
    let waiting = client.call("recv", json!({ "waitSecs": 60 }));
    let impatient = async {
        nest.daemon.until("a wait", |world| world.recvs.len() == 1).await;
        let refused = client.refuses("recv", json!({})).await;
        nest.daemon.message(json!({ "body": "one" }));
        refused
    };
    let (text, refused) = tokio::join!(waiting, impatient);
    assert!(
        refused.contains("another call of this tool waits already"),
        "{refused}"
    );
    assert!(text.unwrap().contains("\none\n"));
}

#[tokio::test]
async fn the_loop_hears_of_the_end_of_a_wait_that_was_given_up() {
    let mut nest = Nest::agent();
    let client = nest.client().await;
    let turn = TURN.parse().unwrap();
    let waiting = client.call("recv", json!({ "waitSecs": 60 }));
    let heard = async {
        let begun = nest.told().await;
        assert_eq!(begun, Said::Waiting { turn, waits: true });
    };
    tokio::select! {
        _ = waiting => panic!("nobody wrote"),
        () = heard => {}
    }
    // Dropping the call cancels it at the server.
    assert_eq!(nest.told().await, Said::Waiting { turn, waits: false });
}

#[tokio::test]
async fn a_daemon_that_is_away_is_named_soon_and_the_server_stays() {
    let mut nest = Nest::manager();
    nest.daemon.go_away();
    let client = nest.client().await;
    let begin = Instant::now();
    let calls = [
        ("recv", json!({ "waitSecs": 120 })),
        ("send", json!({ "to": "bob", "body": "hi" })),
        ("sent", json!({})),
        ("ask", json!({ "to": "bob", "question": "?" })),
        ("answer", json!({ "question": 1, "body": "x" })),
        ("remind", json!({ "body": "x", "afterSecs": 1 })),
        ("loose_ends", json!({})),
        ("cancel_loose_end", json!({ "id": "question/1" })),
        ("whoami", json!({})),
        (
            "propose_config",
            json!({ "files": { "agent.json": "{}" }, "title": "x" }),
        ),
        ("config_status", json!({})),
        ("list_agents", json!({})),
        ("broadcast", json!({ "body": "x" })),
        ("spawn", json!({ "name": "carol" })),
        ("spawn_draft", json!({ "name": "carol" })),
        ("spawn_commit", json!({ "name": "carol" })),
    ];
    let waits = calls.map(|(tool, arguments)| {
        let client = &client;
        async move { (tool, client.refuses(tool, arguments).await) }
    });
    for (tool, refused) in futures_util::future::join_all(waits).await {
        assert!(refused.contains("cannot reach the daemon"), "{tool}: {refused}");
        assert!(
            refused.contains("Nothing was done. It is restarting or stopped: try again in a minute"),
            "{tool}: {refused}"
        );
    }
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    nest.daemon.come_back();
    client.does("whoami", json!({})).await;
}

#[tokio::test]
async fn a_short_absence_of_the_daemon_is_not_noticed() {
    let mut nest = Nest::agent();
    let client = nest.client().await;
    nest.daemon.go_away();
    let call = client.call("send", json!({ "to": "bob", "body": "hi" }));
    let back = async {
        // The server has looked for the daemon and not found it by the time another client has.
        client.service.list_all_tools().await.unwrap();
        nest.daemon.come_back();
    };
    let (text, ()) = tokio::join!(call, back);
    assert_eq!(text.unwrap(), "Stored as message 1 to bob.");
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again_unless_that_is_harmless() {
    let nest = Nest::manager();
    let client = nest.client().await;
    for what in ["POST /v1/spawn", "POST /v1/questions/1/answer", "POST /v1/send"] {
        nest.daemon.refuses(what, 500, ErrorCode::Internal, "oh no");
    }
    let (spawn, answer, send) = tokio::join!(
        client.refuses("spawn", json!({ "name": "carol" })),
        client.refuses("answer", json!({ "question": 1, "body": "x" })),
        client.refuses("send", json!({ "to": "bob", "body": "hi" })),
    );
    for refused in [spawn, answer, send] {
        assert!(
            refused.contains("oh no (ask the operator). It may have been done all the same"),
            "{refused}"
        );
    }
    let world = nest.daemon.world();
    assert_eq!(world.bodies("POST /v1/spawn").len(), 1);
    assert_eq!(world.bodies("POST /v1/questions/1/answer").len(), 1);
    let sends = world.bodies("POST /v1/send");
    assert!(
        sends.len() > 1 && sends.iter().all(|send| send["dedupe"] == sends[0]["dedupe"]),
        "{sends:?}"
    );
}

#[tokio::test]
async fn a_refusal_of_the_daemon_is_the_tools_error_with_its_words() {
    let nest = Nest::agent();
    nest.daemon.refuses(
        "POST /v1/send",
        403,
        ErrorCode::Forbidden,
        "alice may not write to bob",
    );
    let client = nest.client().await;
    let refused = client.refuses("send", json!({ "to": "bob", "body": "hi" })).await;
    assert_eq!(
        refused,
        "the daemon refused (403): alice may not write to bob (ask the operator)"
    );
    assert_eq!(
        nest.daemon.world().bodies("POST /v1/send").len(),
        1,
        "it is final"
    );
}

#[tokio::test]
async fn without_the_loop_messages_still_come_and_say_that_they_may_come_again() {
    let mut nest = Nest::agent();
    nest.said.close();
    nest.daemon.message(json!({ "body": "one" }));
    let client = nest.client().await;
    let text = client.does("recv", json!({})).await;
    assert!(
        text.contains("\none\n") && text.contains("they may come again in the next turn"),
        "{text}"
    );
    let refused = client.refuses("nap", json!({ "secs": 60 })).await;
    assert!(refused.contains("Nothing was done"), "{refused}");
}

#[tokio::test]
async fn a_wait_goes_on_after_the_daemon_was_started_again() {
    let mut nest = Nest::agent();
    let client = nest.client().await;
    let waiting = client.call("recv", json!({ "waitSecs": 60 }));
    let restart = async {
        nest.daemon.until("a wait", |world| world.recvs.len() == 1).await;
        nest.daemon.go_away();
        nest.daemon.come_back();
        nest.daemon
            .until("another wait", |world| world.recvs.len() == 2)
            .await;
        nest.daemon.message(json!({ "body": "one" }));
    };
    let (text, ()) = tokio::join!(waiting, restart);
    assert!(text.unwrap().contains("\none\n"));
}

#[tokio::test]
async fn a_daemon_that_takes_a_request_and_never_answers_holds_up_one_call_and_not_for_ever() {
    let nest = Nest::agent();
    nest.daemon.change(|world| world.deaf = true);
    let client = nest.client().await;
    let (lost, looked) = tokio::join!(
        client.refuses("answer", json!({ "question": 1, "body": "x" })),
        client.refuses("whoami", json!({})),
    );
    assert!(lost.contains("It may have been done all the same"), "{lost}");
    assert!(looked.contains("cannot reach the daemon"), "{looked}");
    assert_eq!(nest.daemon.world().bodies("POST /v1/questions/1/answer").len(), 1);
    nest.daemon.change(|world| world.deaf = false);
    client.does("whoami", json!({})).await;
}
