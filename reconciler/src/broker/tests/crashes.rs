//! A story of messages, questions and a reminder, with one write failing: before it happens, or after, so that its
//! answer is lost; with a daemon that goes on, or one that dies there. Everybody tries again until it is told that it
//! is done. Whatever was lost, the end is the same.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use shared::agent_api::{DeliveryState, SentMessage};
use shared::question::{AskRequest, QuestionState};
use shared::reminder::{Missed, ReminderRequest, Schedule};

use super::questions::{answers, later, mail_of, question};
use super::*;
use crate::ledger::Boundary;

mod mail;

/// Fails one transaction.
#[derive(Debug)]
struct Fault {
    at: usize,
    after: bool,
    count: AtomicUsize,
    met: AtomicBool,
}

impl Fault {
    fn here(&self, number: usize, after: bool) -> Result<(), LedgerError> {
        if number == self.at && after == self.after {
            self.met.store(true, Ordering::SeqCst);
            return Err(LedgerError::Closed);
        }
        Ok(())
    }
}

#[async_trait]
impl Boundary for Fault {
    async fn before(&self) -> Result<usize, LedgerError> {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        self.here(number, false)?;
        Ok(number)
    }

    async fn after(&self, number: usize) -> Result<(), LedgerError> {
        self.here(number, true)
    }
}

pub(super) struct World {
    pub(super) broker: Broker,
    fault: Arc<Fault>,
    dies: bool,
}

impl World {
    pub(super) async fn new(at: usize, after: bool, dies: bool) -> Self {
        Self::of(broker().await, at, after, dies)
    }

    /// What a broker has is there already.
    fn of(broker: Broker, at: usize, after: bool, dies: bool) -> Self {
        let fault = Arc::new(Fault {
            at,
            after,
            count: AtomicUsize::new(0),
            met: AtomicBool::new(false),
        });
        let broker = Broker::new(broker.ledger.bounded_by(Arc::clone(&fault) as _));
        Self { broker, fault, dies }
    }

    /// Whether the write was there that was to fail.
    pub(super) fn was_met(&self) -> bool {
        self.fault.met.load(Ordering::SeqCst)
    }

    /// Tries until it is done.
    pub(super) async fn until_done<T, E: std::fmt::Display>(
        &mut self,
        attempt: impl AsyncFn(&Broker) -> Result<T, E>,
    ) -> T {
        for _ in 0..3 {
            match attempt(&self.broker).await {
                Ok(value) => return value,
                Err(error) => {
                    assert!(
                        self.fault.met.load(Ordering::SeqCst),
                        "only the fault is an error: {error}"
                    );
                    if self.dies {
                        let image = self.broker.ledger.image().await.expect("an image");
                        let ledger = Ledger::from_image(&image).expect("a ledger");
                        self.broker = Broker::new(ledger.bounded_by(Arc::clone(&self.fault) as _));
                    }
                }
            }
        }
        panic!("tried in vain");
    }

    async fn send(&mut self, dedupe: &str, message: Outgoing) -> u64 {
        let message = Outgoing {
            dedupe: Some(dedupe.to_owned()),
            ..message
        };
        self.until_done(async |broker: &Broker| broker.send(message.clone(), now()).await)
            .await
            .id
    }

    async fn ask(&mut self, dedupe: &str, ttl_secs: Option<u64>) -> u64 {
        let request = AskRequest {
            dedupe: Some(dedupe.to_owned()),
            ttl_secs,
            ..question("alice")
        };
        self.until_done(async |broker: &Broker| broker.ask(address("bob"), request.clone(), now()).await)
            .await
            .id
    }

    /// A turn of alice that takes up all there is, in batches of two.
    async fn turn(&mut self, number: u128) -> Vec<u64> {
        let alice = name("alice");
        let mut received = 0;
        let handled = self.take_up(&alice, number, &mut received).await;
        self.until_done(async |broker: &Broker| broker.ack(&alice, turn(number), Some(received)).await)
            .await;
        handled
    }

    /// What a turn gets until there is no more, after so many batches.
    async fn take_up(&mut self, agent: &AgentName, number: u128, received: &mut u64) -> Vec<u64> {
        let mut handled = Vec::new();
        loop {
            let after = *received;
            let batch = self
                .until_done(async |broker: &Broker| broker.recv(agent, ask(number, Some(after), 2)).await)
                .await;
            if batch.messages.is_empty() {
                return handled;
            }
            *received = batch.number;
            handled.extend(batch.messages.iter().map(|message| message.id));
        }
    }

    /// The timer looks, and settles what is due.
    async fn timer(&mut self, at: Timestamp) {
        loop {
            let next = self.broker.next_deadline().await.expect("a read");
            if next.is_none_or(|next| next > at) {
                break;
            }
            self.until_done(async |broker: &Broker| broker.settle(at).await)
                .await;
        }
    }
}

/// What the story comes to, without times.
#[derive(Debug, PartialEq, Eq)]
struct End {
    handled: Vec<u64>,
    alice: Vec<(u64, DeliveryState, String)>,
    answers: Vec<Vec<(String, String)>>,
    states: Vec<QuestionState>,
}

async fn story(world: &mut World) -> End {
    let mut ids = Vec::new();
    for (dedupe, ttl) in [("q1", Some(60)), ("q2", None), ("q3", None), ("q4", None)] {
        ids.push(world.ask(dedupe, ttl).await);
        world.send(&format!("m-{dedupe}"), message(dedupe)).await;
    }
    let reminder = ReminderRequest {
        schedule: Schedule::AfterSecs(60),
        body: "water the plants".to_owned(),
        missed: Missed::Run,
        dedupe: Some("r".into()),
    };
    let alice = name("alice");
    world
        .until_done(async |broker: &Broker| broker.remind(&alice, reminder.clone(), now()).await)
        .await;
    let mut handled = world.turn(1).await;

    let by_message = Outgoing {
        from: address("alice"),
        to: address("bob"),
        kind: MessageKind::Answer,
        reply_to: Some(ids[1]),
        ..message("blue")
    };
    world.send("a2", by_message).await;
    // Without a dedupe id, who is told that it has answered has answered.
    let own = |outcome: Result<_, SendError>, by: &Address| match outcome {
        Err(SendError::Question(Refusal::Ended { by: Some(ended), .. })) if ended == *by => Ok(()),
        outcome => outcome.map(drop),
    };
    let operator = address("operator");
    world
        .until_done(async |broker: &Broker| {
            own(
                broker.answer(ids[2], operator.clone(), "red".into(), now()).await,
                &operator,
            )
        })
        .await;
    let bob = address("bob");
    world
        .until_done(async |broker: &Broker| own(broker.cancel(ids[3], bob.clone(), now()).await, &bob))
        .await;
    world.timer(later(60)).await;
    handled.extend(world.turn(2).await);
    world.timer(later(120)).await;

    let broker = &world.broker;
    let shown = |mail: SentMessage| (mail.id, mail.state, mail.body);
    let mut told = Vec::new();
    for id in &ids {
        told.push(answers(broker, "bob", *id).await);
    }
    End {
        handled,
        alice: mail_of(broker, "alice").await.into_iter().map(shown).collect(),
        answers: told,
        states: broker
            .questions(None, true)
            .await
            .expect("a read")
            .iter()
            .map(|q| q.state)
            .collect(),
    }
}

/// Plays a story once as it should be, then with each write lost in each way: it comes to the same. Returns what it comes
/// to, and how often it was played.
pub(super) async fn lost_everywhere<T: PartialEq + std::fmt::Debug>(
    hive: impl AsyncFn() -> Broker,
    story: impl AsyncFn(&mut World) -> T,
) -> (T, usize) {
    let calm = story(&mut World::of(hive().await, usize::MAX, false, false)).await;
    let mut points = 0;
    for (after, dies) in [(false, false), (true, false), (false, true), (true, true)] {
        for at in 0.. {
            let mut world = World::of(hive().await, at, after, dies);
            let end = story(&mut world).await;
            assert_eq!(end, calm, "transaction {at}, after: {after}, dies: {dies}");
            if !world.was_met() {
                break;
            }
            points += 1;
        }
    }
    (calm, points)
}

#[tokio::test]
async fn whatever_write_is_lost_each_message_is_handled_and_each_question_ends_once() {
    let (calm, points) = lost_everywhere(broker, story).await;
    let ids: Vec<u64> = calm.alice.iter().map(|mail| mail.0).collect();
    assert_eq!(
        calm.handled, ids,
        "each once, in the order in which they were sent"
    );
    assert!(
        calm.alice.iter().all(|mail| mail.1 == DeliveryState::Delivered),
        "{:?}",
        calm.alice
    );
    assert_eq!(
        calm.alice
            .iter()
            .filter(|mail| mail.2.starts_with("reminder "))
            .count(),
        1
    );
    let by: Vec<_> = calm
        .answers
        .iter()
        .map(|told| (told.len(), told[0].0.as_str()))
        .collect();
    assert_eq!(by, [(1, "system"), (1, "alice"), (1, "operator"), (1, "bob")]);
    assert!(!calm.states.contains(&QuestionState::Open));

    assert!(points >= 80, "{points} points were tried");
}
