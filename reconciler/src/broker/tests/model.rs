//! Random sends, turns and crashes, beside a model of what must come of them: each message is delivered at least once,
//! acknowledged once, in the order in which it was sent, and the same id twice is one message.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    /// A message from one of two senders, perhaps with one of a few dedupe ids.
    Send(usize, Option<u8>),
    Recv(u128, u32),
    Ack(u128),
    Release(u128),
    /// The harness ended, and perhaps one of its turns lives on.
    Crash(Option<u128>),
}

fn op() -> impl Strategy<Value = Op> {
    let turn = || 1..4_u128;
    prop_oneof![
        4 => (0..2_usize, prop::option::of(0..6_u8)).prop_map(|(from, dedupe)| Op::Send(from, dedupe)),
        4 => (turn(), 1..4_u32).prop_map(|(turn, max)| Op::Recv(turn, max)),
        1 => turn().prop_map(Op::Ack),
        2 => turn().prop_map(Op::Release),
        1 => prop::option::of(turn()).prop_map(Op::Crash),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    Leased(u128),
    Acked,
    Dead,
}

#[derive(Debug, Default)]
struct Model {
    /// In the order in which they were sent: number, state, deliveries.
    messages: Vec<(u64, State, u32)>,
    known: BTreeMap<(usize, u8), u64>,
}

impl Model {
    fn recv(&mut self, turn: u128, max: u32) -> Vec<(u64, bool)> {
        let queued = self
            .messages
            .iter_mut()
            .filter(|(_, state, _)| *state == State::Queued);
        let leased = queued.take(usize::try_from(max).expect("a few"));
        leased
            .map(|(id, state, deliveries)| {
                *state = State::Leased(turn);
                *deliveries += 1;
                (*id, *deliveries > 1)
            })
            .collect()
    }

    fn ack(&mut self, turn: u128) -> usize {
        let mut count = 0;
        for (_, state, _) in &mut self.messages {
            if *state == State::Leased(turn) {
                *state = State::Acked;
                count += 1;
            }
        }
        count
    }

    fn release(&mut self, which: impl Fn(u128) -> bool) -> usize {
        let mut count = 0;
        for (_, state, deliveries) in &mut self.messages {
            if matches!(state, State::Leased(turn) if which(*turn)) {
                *state = if *deliveries >= MAX_DELIVERIES {
                    State::Dead
                } else {
                    State::Queued
                };
                count += 1;
            }
        }
        count
    }

    fn queued(&self) -> usize {
        self.messages
            .iter()
            .filter(|(_, state, _)| *state == State::Queued)
            .count()
    }
}

/// Does one thing to both, and compares.
async fn both(broker: &Broker, model: &mut Model, op: &Op) -> Result<(), TestCaseError> {
    let alice = name("alice");
    match op {
        Op::Send(from, dedupe) => {
            let sent = Outgoing {
                from: address(["bob", "operator"][*from]),
                dedupe: dedupe.map(|id| format!("id-{id}")),
                ..message("a body")
            };
            let answer = broker.send(sent, now()).await.expect("it is sent");
            let known = dedupe.and_then(|id| model.known.get(&(*from, id)).copied());
            prop_assert_eq!(answer.duplicate, known.is_some());
            if let Some(known) = known {
                prop_assert_eq!(answer.id, known);
                return Ok(());
            }
            model.known.extend(dedupe.map(|id| ((*from, id), answer.id)));
            model.messages.push((answer.id, State::Queued, 0));
        }
        Op::Recv(number, max) => {
            let leased = broker
                .recv(&alice, ask(*number, None, *max))
                .await
                .expect("a lease");
            let leased: Vec<_> = leased
                .messages
                .into_iter()
                .map(|m| (m.id, m.redelivered))
                .collect();
            prop_assert_eq!(leased, model.recv(*number, *max));
        }
        Op::Ack(number) => {
            let acked = broker.ack(&alice, turn(*number), None).await.expect("a write");
            prop_assert_eq!(acked, model.ack(*number));
        }
        Op::Release(number) => {
            let released = broker
                .release(&alice, turn(*number), None, now())
                .await
                .expect("a write");
            prop_assert_eq!(released, model.release(|turn| turn == *number));
        }
        Op::Crash(live) => {
            let live_turn = live.map(turn);
            let released = broker
                .release_all_but(&alice, live_turn, now())
                .await
                .expect("a write");
            prop_assert_eq!(released, model.release(|turn| Some(turn) != *live));
        }
    }
    let queued = broker.queued(&alice).await.expect("a read");
    prop_assert_eq!(queued, model.queued() as u64);
    Ok(())
}

fn play(ops: &[Op]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let broker = broker().await;
        let mut model = Model::default();
        for op in ops {
            both(&broker, &mut model, op).await?;
        }
        // Whatever happened: after the last crash every message that is not done with is delivered once more.
        both(&broker, &mut model, &Op::Crash(None)).await?;
        while model.queued() > 0 {
            both(&broker, &mut model, &Op::Recv(9, 3)).await?;
        }
        both(&broker, &mut model, &Op::Ack(9)).await?;
        prop_assert!(
            model
                .messages
                .iter()
                .all(|(_, state, _)| matches!(state, State::Acked | State::Dead))
        );
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_mail_behaves_like_the_model(ops in prop::collection::vec(op(), 1..60)) {
        play(&ops)?;
    }
}

/// What the random stories should come across, in one that always does.
#[test]
fn a_story_with_every_turn_of_fate_behaves_like_the_model() {
    let story = [
        Op::Send(0, Some(1)),
        Op::Send(0, Some(1)),
        Op::Send(1, Some(1)),
        Op::Send(0, None),
        Op::Recv(1, 2),
        Op::Recv(2, 2),
        Op::Ack(2),
        Op::Release(1),
        Op::Recv(3, 1),
        Op::Recv(1, 1),
        Op::Crash(Some(3)),
        Op::Recv(2, 3),
        Op::Ack(3),
        Op::Crash(None),
        Op::Recv(1, 3),
        Op::Release(1),
        Op::Recv(1, 3),
        Op::Release(1),
        Op::Recv(1, 3),
        Op::Ack(1),
    ];
    play(&story).expect("the broker does as the model");
}
