//! The writes that the first story does without: to everybody, to one that waits, given back, given up, queued again,
//! dismissed, taken back, and forgotten after a time.

use shared::agent_api::BroadcastRequest;
use shared::loose_end::{LooseEndId, LooseEndKind};

use super::*;
use crate::broker::loose_ends::LooseEndError;

/// How long after the story what was delivered is forgotten.
const DAYS: i64 = 8;

/// What the story comes to, without times.
#[derive(Debug, PartialEq, Eq)]
struct End {
    handled: Vec<u64>,
    /// Before and after what is old is forgotten: number, recipient, where it is, how many turns had it.
    mail: Vec<(u64, String, DeliveryState, u64)>,
    kept: Vec<u64>,
    answers: usize,
    loose_ends: Vec<String>,
    events: Vec<String>,
}

/// Two agents, of which alice is a manager.
async fn hive() -> Broker {
    let broker = broker().await;
    sql(
        &broker,
        "UPDATE agents SET life = 'active';
         UPDATE agents SET doc = json_set(doc, '$.deployed', json('{\"output\":{\"config\":{\"role\":\"manager\"}}}'))
         WHERE name = 'alice'",
    )
    .await;
    broker
}

async fn mail(broker: &Broker) -> Vec<SentMessage> {
    let search = Search {
        limit: 100,
        ..Search::default()
    };
    let mut found = broker.search(search).await.expect("a read");
    found.reverse();
    found
}

impl World {
    /// Bob writes to alice what no turn of hers gets past: each ends badly, the last with the harness.
    async fn poison(&mut self, dedupe: &str, first_turn: u128) -> u64 {
        let id = self.send(dedupe, message("poison")).await;
        let alice = name("alice");
        let last = first_turn + u128::from(MAX_DELIVERIES) - 1;
        for number in first_turn..=last {
            let mut received = 0;
            let handled = self.take_up(&alice, number, &mut received).await;
            assert_eq!(handled, [id], "turn {number}");
            if number == last {
                self.until_done(async |broker: &Broker| broker.release_all_but(&alice, None, now()).await)
                    .await;
            } else {
                self.until_done(async |broker: &Broker| {
                    broker.release(&alice, turn(number), Some(received), now()).await
                })
                .await;
            }
        }
        id
    }

    /// Takes a loose end back. Without a dedupe id, who is told that it has done so has done so.
    async fn take_back(&mut self, kind: LooseEndKind, number: u64, by: &str) {
        let (end, by) = (LooseEndId { kind, number }, address(by));
        self.until_done(
            async |broker: &Broker| match broker.drop_loose_end(end, by.clone(), now()).await {
                Err(LooseEndError::Question(SendError::Question(Refusal::Ended {
                    by: Some(ended), ..
                }))) if ended == by => Ok(()),
                outcome => outcome,
            },
        )
        .await;
    }

    async fn remind(&mut self, dedupe: &str) -> u64 {
        let (alice, request) = (
            name("alice"),
            ReminderRequest {
                schedule: Schedule::AfterSecs(60),
                body: "water the plants".to_owned(),
                missed: Missed::Run,
                dedupe: Some(dedupe.to_owned()),
            },
        );
        self.until_done(async |broker: &Broker| broker.remind(&alice, request.clone(), now()).await)
            .await
            .id
    }

    /// Bob waits when alice writes to all; then he takes up what there is.
    async fn broadcast(&mut self) -> Vec<u64> {
        let bob = name("bob");
        let (before, mut wait) = self
            .until_done(async |broker: &Broker| broker.recv_or_wait(&bob, ask(1, Some(0), 2)).await)
            .await;
        assert!(before.messages.is_empty());
        let broadcast = Broadcast {
            from: name("alice"),
            request: BroadcastRequest {
                body: "all hands".to_owned(),
                dedupe: Some("all".to_owned()),
            },
        };
        self.until_done(async |broker: &Broker| broker.broadcast(broadcast.clone(), now()).await)
            .await;
        // Whoever sent may have had no answer and the one that waited its batch, or the other way round.
        let batch = wait.try_recv().unwrap_or_default();
        let mut received = if batch.messages.is_empty() {
            0
        } else {
            batch.number
        };
        let mut handled: Vec<u64> = batch.messages.iter().map(|message| message.id).collect();
        handled.extend(self.take_up(&bob, 1, &mut received).await);
        self.until_done(async |broker: &Broker| broker.ack(&bob, turn(1), Some(received)).await)
            .await;
        handled
    }
}

async fn story(world: &mut World) -> End {
    let mut handled = world.broadcast().await;

    let again = world.poison("p1", 10).await;
    world
        .until_done(async |broker: &Broker| {
            match broker.requeue(again, "the operator".to_owned(), now()).await {
                // It was done, and the answer was lost.
                Err(MessageError::NotDead {
                    state: DeliveryState::Queued,
                    ..
                }) => Ok(()),
                outcome => outcome.map(drop),
            }
        })
        .await;
    handled.extend(world.turn(20).await);
    let dismissed = world.poison("p2", 30).await;
    world.take_back(LooseEndKind::Message, dismissed, "bob").await;

    let question = world.ask("q1", None).await;
    world.take_back(LooseEndKind::Question, question, "bob").await;
    let reminder = world.remind("r1").await;
    world.take_back(LooseEndKind::Reminder, reminder, "alice").await;
    let reminder = world.remind("r2").await;
    let alice = address("alice");
    world
        .until_done(async |broker: &Broker| broker.forget_reminder(reminder, alice.clone(), now()).await)
        .await;
    world.timer(later(120)).await;
    handled.extend(world.turn(40).await);

    let before = mail(&world.broker).await;
    world
        .until_done(async |broker: &Broker| broker.ledger.prune(later(DAYS * 24 * 3600)).await)
        .await;
    let broker = &world.broker;
    let ends = broker.loose_ends(None).await.expect("a read");
    let events = broker.ledger.events(0, 100).await.expect("a read");
    End {
        handled,
        mail: before
            .iter()
            .map(|mail| (mail.id, mail.to.to_string(), mail.state, mail.deliveries))
            .collect(),
        kept: mail(broker).await.iter().map(|mail| mail.id).collect(),
        answers: answers(broker, "bob", question).await.len(),
        loose_ends: ends.into_iter().map(|end| end.id).collect(),
        events: events.into_iter().map(|event| event.kind).collect(),
    }
}

#[tokio::test]
async fn whatever_write_is_lost_nothing_is_given_up_sent_or_taken_back_twice_or_not_at_all() {
    use DeliveryState::{Dead, Delivered, Queued};
    let (calm, points) = lost_everywhere(hive, story).await;
    let (alice, bob) = (|| "alice".to_owned(), || "bob".to_owned());
    assert_eq!(
        calm.mail,
        [
            (1, bob(), Delivered, 1),
            (2, alice(), Delivered, 2),
            (3, alice(), Dead, 5),
            (4, alice(), Dead, 0),
            (5, bob(), Queued, 0),
        ]
    );
    assert_eq!(calm.handled, [1, 2]);
    assert_eq!(calm.kept, [3, 4, 5], "what is dead is kept longer");
    assert_eq!((calm.answers, calm.loose_ends.len()), (1, 0));
    let dead = calm.events.iter().filter(|kind| *kind == "messageDead").count();
    assert_eq!(dead, 2, "{:?}", calm.events);
    assert!(points >= 120, "{points} points were tried");
}
