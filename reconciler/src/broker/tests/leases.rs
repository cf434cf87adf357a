//! Which turn has which messages: batches whose answer is lost, and receivers that wait.

use super::*;

#[tokio::test]
async fn answers_that_are_lost_on_their_way_do_not_kill_a_message() {
    let broker = broker().await;
    let alice = name("alice");
    let sent = broker.send(message("hello"), now()).await.expect("a message");
    for n in 0..u128::from(MAX_DELIVERIES) * 2 {
        assert_eq!(
            after(&broker, n, Some(0), 32).await,
            fresh(&["hello"]),
            "no turn has seen it"
        );
        let returned = || broker.release(&alice, turn(n), Some(0), now());
        assert_eq!(returned().await.expect("returned"), 1);
        assert_eq!(returned().await.expect("returned"), 0);
    }
    // What turns fail over counts as ever.
    for n in 100..100 + u128::from(MAX_DELIVERIES) {
        let leased = broker.recv(&alice, ask(n, Some(0), 32)).await.expect("a lease");
        assert_eq!((leased.number, leased.messages[0].id), (1, sent.id));
        broker
            .release(&alice, turn(n), Some(1), now())
            .await
            .expect("a release");
    }
    assert_eq!(after(&broker, 200, Some(0), 32).await, []);
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_given_again_and_never_acknowledged_unseen() {
    let broker = broker().await;
    let alice = name("alice");
    for body in ["1", "2", "3"] {
        send(&broker, body).await;
    }
    assert_eq!(after(&broker, 1, Some(0), 2).await, fresh(&["1", "2"]));
    assert_eq!(
        after(&broker, 1, Some(0), 1).await,
        fresh(&["1", "2"]),
        "the whole batch"
    );
    assert_eq!(after(&broker, 1, Some(1), 9).await, fresh(&["3"]));
    assert_eq!(after(&broker, 1, Some(2), 9).await, []);
    assert_eq!(
        after(&broker, 1, Some(0), 9).await,
        fresh(&["1", "2"]),
        "one who forgot begins again"
    );

    send(&broker, "4").await;
    assert_eq!(after(&broker, 1, Some(2), 9).await, fresh(&["4"]));
    let acked = broker.ack(&alice, turn(1), Some(1)).await.expect("an ack");
    assert_eq!(acked, 2, "the turn ended well and had seen two");
    assert_eq!(after(&broker, 2, Some(0), 9).await, fresh(&["3", "4"]));
}

#[tokio::test]
async fn of_a_turn_that_failed_only_what_it_saw_is_marked_as_redelivered() {
    let broker = broker().await;
    send(&broker, "seen").await;
    assert_eq!(after(&broker, 1, Some(0), 9).await, fresh(&["seen"]));
    send(&broker, "lost").await;
    assert_eq!(after(&broker, 1, Some(1), 9).await, fresh(&["lost"]));
    let released = broker.release(&name("alice"), turn(1), Some(1), now()).await;
    assert_eq!(released.expect("a release"), 2);
    let both = [again(&["seen"]), fresh(&["lost"])].concat();
    assert_eq!(after(&broker, 2, Some(0), 9).await, both);
}

async fn waits(broker: &Broker, number: u128, received: u64) -> oneshot::Receiver<Batch> {
    let (batch, wait) = broker
        .recv_or_wait(&name("alice"), ask(number, Some(received), 9))
        .await
        .expect("a lease");
    assert_eq!(batch.messages, []);
    wait
}

#[tokio::test]
async fn whoever_waits_has_what_is_sent_as_soon_as_the_sender_is_answered() {
    let broker = broker().await;
    let mut wait = waits(&broker, 1, 4).await;
    wait.try_recv().expect_err("nothing yet");
    send(&broker, "for alice").await;
    let batch = wait.try_recv().expect("leased in the sender's transaction");
    assert_eq!((batch.number, shown(batch)), (5, fresh(&["for alice"])));
    assert_eq!(broker.queued(&name("alice")).await.expect("a count"), 0);

    send(&broker, "next").await;
    assert_eq!(
        after(&broker, 1, Some(5), 9).await,
        fresh(&["next"]),
        "only who waits is served"
    );
}

#[tokio::test]
async fn what_was_given_to_one_that_had_gone_is_given_again() {
    let broker = broker().await;
    let gone = waits(&broker, 1, 0).await;
    drop(gone);
    send(&broker, "1").await;
    assert_eq!(
        broker.queued(&name("alice")).await.expect("a count"),
        1,
        "nobody waits"
    );
    assert_eq!(after(&broker, 1, Some(0), 9).await, fresh(&["1"]));

    let goes = waits(&broker, 1, 1).await;
    send(&broker, "2").await;
    drop(goes);
    assert_eq!(
        broker.queued(&name("alice")).await.expect("a count"),
        0,
        "it was leased"
    );
    assert_eq!(after(&broker, 1, Some(1), 9).await, fresh(&["2"]));
}

#[tokio::test]
async fn of_two_that_wait_the_later_one_is_served_and_the_earlier_ends() {
    let broker = broker().await;
    let earlier = waits(&broker, 1, 0).await;
    let later = waits(&broker, 2, 0).await;
    earlier.await.expect_err("overtaken");
    send(&broker, "1").await;
    assert_eq!(shown(later.await.expect("a batch")), fresh(&["1"]));
}

#[tokio::test]
async fn a_write_that_is_refused_ends_no_wait() {
    let broker = broker().await;
    let mut wait = waits(&broker, 1, 0).await;
    let too_long = message(&"x".repeat(MAX_BODY_BYTES + 1));
    broker.send(too_long, now()).await.expect_err("too long");
    let nobody = Outgoing {
        to: address("nobody"),
        ..message("hello")
    };
    broker.send(nobody, now()).await.expect_err("no such agent");
    wait.try_recv().expect_err("nothing came");
    send(&broker, "1").await;
    assert_eq!(shown(wait.await.expect("a batch")), fresh(&["1"]));
}

#[tokio::test]
async fn a_wait_ends_with_its_turn_and_takes_nothing_more() {
    let alice = name("alice");
    // A turn that was cut short may leave its request at the door: nobody would settle what it took.
    for end in ["acknowledged", "given back", "of a run that ended"] {
        let broker = broker().await;
        send(&broker, "unseen").await;
        assert_eq!(after(&broker, 1, Some(0), 9).await, fresh(&["unseen"]));
        let wait = waits(&broker, 1, 1).await;
        let ended = match end {
            "acknowledged" => broker.ack(&alice, turn(1), Some(0)).await,
            "given back" => broker.release(&alice, turn(1), Some(0), now()).await,
            _ => broker.release_all_but(&alice, Some(turn(2)), now()).await,
        };
        ended.expect("a write");
        wait.await.expect_err("it ended without a batch");
        send(&broker, "later").await;
        let bodies: Vec<String> = recv(&broker, 2, 9)
            .await
            .into_iter()
            .map(|(body, _)| body)
            .collect();
        assert_eq!(bodies, ["unseen", "later"], "{end}");
    }
}

#[tokio::test]
async fn a_wait_outlives_the_end_of_another_turn() {
    let broker = broker().await;
    let wait = waits(&broker, 2, 0).await;
    broker
        .ack(&name("alice"), turn(1), Some(0))
        .await
        .expect("a write");
    let given_back = broker.release_all_but(&name("alice"), Some(turn(2)), now()).await;
    given_back.expect("a write");
    send(&broker, "1").await;
    assert_eq!(shown(wait.await.expect("a batch")), fresh(&["1"]));
}

/// Knows that all turns go on but those that have ended.
#[derive(Debug, Default)]
struct Known(std::sync::Mutex<Vec<TurnId>>);

impl Turns for Known {
    fn goes_on(&self, agent: &AgentName, turn: TurnId) -> bool {
        assert_eq!(*agent, name("alice"));
        !self.0.lock().expect("no panic").contains(&turn)
    }

    fn end(&self, _agent: &AgentName, turn: TurnId) {
        self.0.lock().expect("no panic").push(turn);
    }
}

#[tokio::test]
async fn a_request_that_comes_after_the_end_of_its_turn_takes_nothing() {
    let broker = broker().await.knowing(Arc::new(Known::default()));
    let alice = name("alice");
    send(&broker, "1").await;
    assert_eq!(recv(&broker, 1, 1).await, fresh(&["1"]));
    broker.ack(&alice, turn(1), None).await.expect("an ack");
    broker
        .release(&alice, turn(2), None, now())
        .await
        .expect("a release");
    send(&broker, "2").await;
    for number in [1, 2] {
        let late = broker.recv(&alice, ask(number, Some(0), 1)).await;
        assert!(
            matches!(&late, Err(RecvError::NoSuchTurn { turn, .. }) if *turn == super::turn(number)),
            "{late:?}"
        );
        // Nor does it wait: nobody would settle what it was given.
        let waits = broker.recv_or_wait(&alice, ask(number, Some(0), 1)).await;
        assert!(waits.is_err(), "{waits:?}");
    }
    send(&broker, "3").await;
    assert_eq!(recv(&broker, 3, 9).await, fresh(&["2", "3"]));
}
