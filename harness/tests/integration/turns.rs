use std::time::Duration;

use serde_json::json;
use shared::agent_api::MessageKind;
use shared::status::TurnState;

use crate::world::Nest;

#[tokio::test]
async fn a_message_is_answered_and_acknowledged() {
    let nest = Nest::new(json!([{ "on": "hello", "do": [{ "reply": "hi" }] }]));
    let _harness = nest.start();
    nest.until_idle(&nest.announced()).await;
    let id = nest.daemon.message(MessageKind::Message, "operator", "say hello");
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;

    let world = nest.daemon.world();
    assert_eq!(world.dones(), [true]);
    let [sent] = world.sent.as_slice() else {
        panic!("{:?}", world.sent);
    };
    assert_eq!(sent.kind, MessageKind::Message);
    assert_eq!(sent.to.to_string(), "operator");
    assert_eq!((sent.body.as_str(), sent.reply_to), ("hi", Some(id)));
}

#[tokio::test]
async fn a_question_gets_an_answer_and_the_first_fitting_rule_wins() {
    let nest = Nest::new(json!([
        { "on": "colour", "do": [{ "reply": "blue" }, { "ask": "Is blue right?" }] },
        { "on": "", "do": [{ "send": { "to": "bob", "body": "help" } }] },
    ]));
    let _harness = nest.start();
    let id = nest.daemon.message(MessageKind::Question, "bob", "which colour?");
    nest.daemon.message(MessageKind::Message, "bob", "anything else");
    nest.daemon
        .until("three sent", |world| world.sent.len() == 3)
        .await;
    let world = nest.daemon.world();
    let sent: Vec<_> = world
        .sent
        .iter()
        .map(|sent| (sent.to.to_string(), sent.kind, sent.body.as_str(), sent.reply_to))
        .collect();
    let expected = [
        ("bob".to_owned(), MessageKind::Answer, "blue", Some(id)),
        (
            "operator".to_owned(),
            MessageKind::Question,
            "Is blue right?",
            None,
        ),
        ("bob".to_owned(), MessageKind::Message, "help", None),
    ];
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn a_message_that_fits_no_rule_is_acknowledged_and_nobody_answers_the_system() {
    let nest = Nest::new(json!([{ "on": "deployed", "do": [{ "reply": "thanks" }] }]));
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "bob", "nothing known");
    nest.daemon.message(MessageKind::System, "system", "deployed");
    nest.daemon
        .until("both acknowledged", |world| {
            world.inbox.is_empty() && world.leased.is_empty() && !world.acks.is_empty()
        })
        .await;
    let world = nest.daemon.world();
    assert!(world.sent.is_empty(), "{:?}", world.sent);
    assert!(!world.dones().contains(&false));
}

#[tokio::test]
async fn a_refused_message_is_told_to_the_one_who_caused_it() {
    let nest = Nest::new(json!([
        { "on": "go", "do": [{ "send": { "to": "carol", "body": "psst" } }, { "reply": "done" }] },
    ]));
    nest.daemon
        .change(|world| world.forbidden.insert("carol".parse().expect("address")));
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "bob", "go");
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    let world = nest.daemon.world();
    let expected =
        "I could not write to carol: the daemon refused (403): not on your list (ask the operator)";
    assert_eq!(world.bodies(), [expected, "done"]);
    assert_eq!(world.dones(), [true]);
}

#[tokio::test]
async fn a_turn_cut_short_by_sigkill_is_done_again_without_sending_twice() {
    let nest = Nest::new(json!([{ "on": "work", "do": [{ "reply": "on it" }, { "hang": true }] }]));
    let harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "work");
    nest.daemon
        .until("the first reply", |world| world.sent.len() == 1)
        .await;
    harness.killed().await;
    assert!(nest.daemon.world().acks.is_empty());

    nest.deploy(json!([{ "on": "work", "do": [{ "reply": "on it" }, { "reply": "finished" }] }]));
    let _harness = nest.start();
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    let world = nest.daemon.world();
    assert_eq!(world.dones(), [true]);
    assert_eq!(world.bodies(), ["on it", "finished"]);
    assert_eq!(world.duplicates, 1);
    assert!(world.inbox.is_empty() && world.leased.is_empty());
}

#[tokio::test]
async fn an_acknowledgement_is_repeated_until_the_daemon_takes_it() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    nest.daemon.change(|world| world.lose_acks = 3);
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    let world = nest.daemon.world();
    assert_eq!((world.dones(), world.bodies()), (vec![true], vec!["hi"]));
}

#[tokio::test]
async fn messages_leased_by_a_lost_answer_are_given_back_and_taken_again() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    nest.daemon.change(|world| world.lose_leases = 1);
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon
        .until("the message acknowledged", |world| world.dones() == [false, true])
        .await;
    assert_eq!(nest.daemon.world().bodies(), ["hi"]);
    let received: Vec<_> = nest.daemon.world().acks.iter().map(|ack| ack.received).collect();
    assert_eq!(
        received,
        [Some(0), Some(1)],
        "nobody saw the messages of the first"
    );
}

#[tokio::test]
async fn nothing_is_leased_before_the_daemon_has_heard_of_the_turn() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    let _harness = nest.start();
    nest.until_idle(&nest.announced()).await;
    // The poll that waits is answered; the one with the new report is not.
    nest.daemon.change(|world| world.deaf = true);
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    let leased = |world: &crate::daemon::World| world.recvs > 0;
    assert!(nest.daemon.never(Duration::from_millis(500), leased).await);
    nest.daemon.change(|world| world.deaf = false);
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
}

#[tokio::test]
async fn a_turn_is_reported_from_before_its_first_lease_until_after_its_last() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    nest.daemon.change(|world| {
        world.lose_leases = 1;
        world.lose_acks = 1;
    });
    let _harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon
        .until("the message acknowledged", |world| world.dones() == [false, true])
        .await;
    nest.daemon
        .until("no lease reported any more", |world| {
            world.reported(|report| report.lease.is_none())
        })
        .await;
    let world = nest.daemon.world();
    assert_eq!(world.unreported, 0, "{:?}", world.reports);
    let seqs: Vec<u64> = world.reports.iter().map(|report| report.seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
}

#[tokio::test]
async fn a_config_that_cannot_be_loaded_is_not_asked_about_in_a_loop() {
    let nest = Nest::new(json!([]));
    nest.write_config("{ not json");
    let _harness = nest.start();
    nest.daemon.until_config_error("is not valid JSON").await;
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    let polls = nest.daemon.world().polls;
    let time = Duration::from_millis(1500);
    let loops = |world: &crate::daemon::World| world.recvs > 0 || world.polls > polls + 8;
    assert!(
        nest.daemon.never(time, loops).await,
        "{} polls",
        nest.daemon.world().polls - polls
    );
}

#[tokio::test]
async fn a_paused_agent_takes_no_turn_and_does_not_ask_in_a_loop() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    nest.daemon.change(|world| world.paused = true);
    let _harness = nest.start();
    nest.daemon
        .until("paused", |world| {
            world.reported(|report| report.turn == TurnState::Paused)
        })
        .await;
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    let polls = nest.daemon.world().polls;
    let time = Duration::from_millis(1500);
    let quiet = |world: &crate::daemon::World| world.recvs > 0 || world.polls > polls + 8;
    assert!(
        nest.daemon.never(time, quiet).await,
        "{} polls",
        nest.daemon.world().polls - polls
    );
    nest.daemon.change(|world| world.paused = false);
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
}

#[tokio::test]
async fn an_idle_harness_is_one_pending_poll() {
    let nest = Nest::new(json!([]));
    let _harness = nest.start();
    nest.until_idle(&nest.announced()).await;
    let polls = nest.daemon.world().polls;
    // The one that waits may not have come yet.
    let more = |world: &crate::daemon::World| world.polls > polls + 1;
    assert!(nest.daemon.never(Duration::from_secs(1), more).await);
}

#[tokio::test]
async fn a_daemon_that_goes_and_comes_back_costs_two_lines_of_log_and_no_message() {
    let mut nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    let harness = nest.start();
    nest.until_idle(&nest.announced()).await;
    // In the middle of a turn, so that its messages must wait.
    nest.daemon.change(|world| world.no_sends = true);
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon.until("a turn", |world| world.leased.len() == 1).await;
    nest.daemon.go_away();
    nest.daemon.change(|world| world.no_sends = false);
    nest.daemon.come_back();
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    assert_eq!(nest.daemon.world().bodies(), ["hi"]);
    let (status, log) = harness.terminated().await;
    assert!(status.success(), "{log}");
    assert!(log.matches("daemon not reachable").count() <= 1, "{log}");
}

#[tokio::test]
async fn a_harness_that_starts_before_its_daemon_waits_for_it() {
    let mut nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    nest.daemon.go_away();
    let harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon.come_back();
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    let (status, log) = harness.terminated().await;
    assert!(status.success(), "{log}");
    assert_eq!(
        log.matches("daemon not reachable").count(),
        log.matches("daemon reachable again").count(),
        "{log}"
    );
}
