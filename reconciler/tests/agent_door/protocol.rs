//! What an honest harness does at its door.

use reconciler::control::Key;
use reconciler::host::{Announcement, HarnessLink as _};
use reqwest::StatusCode;
use serde_json::json;
use shared::agent_api::{MAX_WAIT_SECS, MessageKind, Report};
use shared::status::{McpHealth, McpServerState, TurnState};
use shared::wire_error::WireError;

use super::world::{AGO, Hive, PROMPT, announcement, idle, leasing, name, turn};

#[tokio::test]
async fn a_daemon_that_has_just_started_keeps_to_the_deployed_recipients() {
    let agents = json!({ "queen": { "role": "manager" }, "alice": { "recipients": ["bob"] }, "bob": {} });
    let hive = Hive::new(agents).await;
    let mut daemon = hive.daemon();
    let question = daemon.message("operator", MessageKind::Question).await;
    let door = daemon.door("alice");
    let (message, answer) = (MessageKind::Message, MessageKind::Answer);
    assert_eq!(door.send("operator", message, None).await, StatusCode::FORBIDDEN);
    assert_eq!(door.send("bob", message, None).await, StatusCode::OK);
    assert_eq!(
        door.send("queen", message, None).await,
        StatusCode::OK,
        "a manager can always be written to"
    );
    assert_eq!(
        door.send("operator", answer, Some(question)).await,
        StatusCode::OK,
        "whoever asks gets an answer"
    );
    let free = daemon.door("bob");
    assert_eq!(free.send("operator", message, None).await, StatusCode::OK);
}

#[tokio::test]
async fn a_server_that_cannot_be_probed_is_pointed_out() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let unprobed = McpServerState {
        error: Some("this harness does not speak https".to_owned()),
        ..McpServerState::of(McpHealth::Unprobed)
    };
    let report = Report {
        mcp: [("wiki".parse().unwrap(), unprobed)].into(),
        ..idle("one", 0)
    };
    door.poll(report, 0).await;
    for key in [Key::Hive, Key::Agent(name("alice"))] {
        daemon.reconciler.reconcile(&key).await.unwrap();
    }
    let notices = daemon.reconciler.views().agents[&name("alice")]
        .status
        .notices
        .clone();
    assert!(
        notices.contains(&"MCP server wiki is not probed: this harness does not speak https".to_owned()),
        "{notices:?}"
    );
}

#[tokio::test]
async fn a_turn_that_does_not_go_on_is_given_nothing_that_it_could_take_with_it() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let id = daemon.message("operator", MessageKind::Message).await;
    let refused = async |number| {
        let answer = door.try_recv(turn(number)).await;
        assert_eq!(answer.status(), StatusCode::CONFLICT);
        let error: WireError = answer.json().await.unwrap();
        assert!(error.message.contains("gets no messages"), "{error:?}");
    };
    // The harness dies, and the last request of its turn comes after the first of the next run.
    door.poll(leasing("one", 0, 1), 0).await;
    door.poll(idle("two", 0), 0).await;
    refused(1).await;
    // A tool that is still there when its turn is over asks once more, before the harness has reported anything new.
    door.poll(leasing("two", 1, 2), 0).await;
    assert_eq!(door.recv(turn(2)).await, [(id, false)]);
    door.ack(turn(2), false).await;
    refused(2).await;
    assert_eq!(
        door.poll(idle("two", 2), 0).await.inbox,
        1,
        "nothing is with nobody"
    );
    refused(3).await;

    // A daemon that has just started does not know better: the first report gives it back.
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    assert_eq!(door.recv(turn(2)).await, [(id, true)]);
    assert_eq!(door.poll(idle("two", 2), 0).await.inbox, 1);
}

#[tokio::test]
async fn leases_of_a_run_that_died_with_the_daemon_are_given_back_once() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    door.poll(leasing("one", 0, 1), 0).await;
    let id = daemon.message("operator", MessageKind::Message).await;
    assert_eq!(door.recv(turn(1)).await, [(id, false)]);
    drop(daemon);

    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    assert_eq!(door.poll(idle("two", 0), 0).await.inbox, 1);
    let busy = Report {
        lease: Some(turn(2)),
        ..idle("two", 1)
    };
    assert_eq!(door.poll(busy.clone(), 0).await.inbox, 1);
    assert_eq!(door.recv(turn(2)).await, [(id, true)]);
    let thinking = Report {
        seq: 2,
        turn: TurnState::Thinking,
        ..busy
    };
    assert_eq!(
        door.poll(thinking, 0).await.inbox,
        0,
        "the run is known: it keeps its leases"
    );
    door.ack(turn(2), true).await;
    assert_eq!(door.poll(leasing("two", 3, 3), 0).await.inbox, 0);
    assert!(door.recv(turn(3)).await.is_empty());
}

#[tokio::test]
async fn a_turn_that_outlives_the_daemon_keeps_its_leases() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    door.poll(idle("one", 0), 0).await;
    let id = daemon.message("operator", MessageKind::Message).await;
    let busy = Report {
        lease: Some(turn(1)),
        ..idle("one", 1)
    };
    door.poll(busy.clone(), 0).await;
    assert_eq!(door.recv(turn(1)).await, [(id, false)]);
    drop(daemon);

    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    assert_eq!(door.poll(busy, 0).await.inbox, 0);
    assert_eq!(
        door.poll(idle("one", 0), 0).await.inbox,
        0,
        "what was overtaken gives nothing back"
    );
    door.ack(turn(1), true).await;
    assert_eq!(door.poll(idle("one", 2), 0).await.inbox, 0);
}

#[tokio::test]
async fn what_a_lost_answer_leased_is_delivered_by_the_next_turn() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    let id = daemon.message("operator", MessageKind::Message).await;
    // The answer is lost: the harness gives back what it may have leased, as often as it must.
    door.recv(turn(1)).await;
    door.ack(turn(1), false).await;
    door.ack(turn(1), false).await;
    assert_eq!(door.recv(turn(2)).await, [(id, true)]);
    // So is the answer to its acknowledgement.
    door.ack(turn(2), true).await;
    door.ack(turn(2), true).await;
    assert!(door.recv(turn(3)).await.is_empty());
}

#[tokio::test]
async fn a_poll_that_nothing_can_be_done_about_waits() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    daemon.link.announce(&name("alice"), announcement(false));
    daemon.message("operator", MessageKind::Message).await;
    let cases = [
        (
            "in a turn",
            Report {
                turn: TurnState::Thinking,
                ..idle("one", 0)
            },
        ),
        (
            "leasing",
            Report {
                lease: Some(turn(1)),
                ..idle("one", 1)
            },
        ),
        (
            "without a config",
            Report {
                config: None,
                config_error: Some("not JSON".into()),
                ..idle("one", 2)
            },
        ),
    ];
    for (what, report) in cases {
        door.poll(report.clone(), 0).await;
        assert!(!door.is_answered(report).await, "{what}");
    }
    assert!(door.is_answered(idle("one", 3)).await, "there is a message");

    daemon.link.announce(&name("alice"), announcement(true));
    assert!(door.is_answered(idle("one", 3)).await, "it is to pause");
    let paused = Report {
        turn: TurnState::Paused,
        ..idle("one", 4)
    };
    door.poll(paused.clone(), 0).await;
    assert!(!door.is_answered(paused).await, "paused");
}

#[tokio::test]
async fn a_waiting_poll_is_answered_by_a_message_and_by_an_announcement() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    daemon.link.announce(&name("alice"), announcement(false));
    door.poll(idle("one", 0), 0).await;
    let wait = || {
        let door = door.clone();
        tokio::spawn(async move { door.poll(idle("one", 0), MAX_WAIT_SECS).await })
    };
    let answer = wait();
    daemon.link.announce(&name("alice"), announcement(true));
    let answer = tokio::time::timeout(PROMPT, answer).await.unwrap().unwrap();
    assert!(answer.paused);

    daemon.link.announce(&name("alice"), announcement(false));
    let answer = wait();
    daemon.message("operator", MessageKind::Message).await;
    let answer = tokio::time::timeout(PROMPT, answer).await.unwrap().unwrap();
    assert_eq!(answer.inbox, 1);
}

/// Else the turn that reads of a deployment would not have what it brings.
#[tokio::test]
async fn a_message_waits_until_what_was_deployed_just_now_is_announced() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    hive.world.advance(-AGO);
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    daemon.link.announce(&name("alice"), announcement(false));
    daemon.message("operator", MessageKind::Message).await;
    assert_eq!(door.poll(idle("one", 0), 0).await.inbox, 1, "it is no secret");
    assert!(
        !door.is_answered(idle("one", 0)).await,
        "the files are being written"
    );

    let record = hive.ledger.record(&name("alice")).await.unwrap().unwrap();
    let deployed = Some(record.deployed.unwrap().output.config_digest);
    let announced = Announcement {
        config: deployed.clone(),
        ..announcement(false)
    };
    daemon.link.announce(&name("alice"), announced);
    let loaded = Report {
        config: deployed,
        ..idle("one", 1)
    };
    assert!(door.is_answered(loaded).await);
    // What is never announced holds nothing up for long.
    daemon.link.announce(&name("alice"), announcement(false));
    hive.world.advance(AGO);
    assert!(door.is_answered(idle("one", 2)).await);
}

#[tokio::test]
async fn a_waiting_poll_is_answered_by_another_model_and_then_waits_again() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    daemon.link.announce(&name("alice"), announcement(false));
    door.poll(idle("one", 0), 0).await;
    let answer = tokio::spawn({
        let door = door.clone();
        async move { door.poll(idle("one", 0), MAX_WAIT_SECS).await }
    });
    let model = Some("opus".to_owned());
    let announcement = Announcement {
        model: model.clone(),
        ..announcement(false)
    };
    daemon.link.announce(&name("alice"), announcement);
    let answer = tokio::time::timeout(PROMPT, answer).await.unwrap().unwrap();
    assert_eq!(answer.model, model);
    assert!(!door.is_answered(idle("one", 0)).await, "it was told");
}

#[tokio::test]
async fn who_woke_a_turn_is_known_whether_it_kept_its_messages_or_gave_them_back() {
    let hive = Hive::new(json!({ "alice": {} })).await;
    let mut daemon = hive.daemon();
    let door = daemon.door("alice");
    daemon.message("operator", MessageKind::Message).await;
    for (number, done) in [(1, false), (2, true)] {
        assert_eq!(door.recv(turn(number)).await.len(), 1);
        door.ack(turn(number), done).await;
        let stats =
            json!({ "turn": turn(number), "startedAt": daemon.now, "durationMs": 5, "result": "hung" });
        assert_eq!(
            door.post("/v1/turns", &stats).await.status(),
            StatusCode::NO_CONTENT
        );
    }
    let turns = hive
        .ledger
        .turns(None, None, 10)
        .await
        .unwrap()
        .complete()
        .unwrap();
    assert_eq!(turns.len(), 2);
    for turn in turns {
        assert_eq!(
            (turn.facts.taken_up, turn.facts.woken_by),
            (1, vec!["operator".to_owned()])
        );
    }
}
