//! Random mail, turns, crashes and questions, beside a model of what must come of them: each message is delivered at
//! least once and acknowledged once, in the order in which it was sent; the same id twice is one message; a batch that
//! was lost is given again; each question ends once, and its asker gets one answer.

use proptest::prelude::*;
use shared::question::{AskRequest, QuestionState};

use super::questions::{answers, mail_of, question};
use super::*;

/// A turn that does not count its batches, as one of an older harness.
const UNCOUNTED: u128 = 3;

#[derive(Debug, Clone)]
enum Op {
    /// A message from one of two senders, perhaps with one of a few dedupe ids.
    Send(usize, Option<u8>),
    /// A turn asks for so many; whether the answer is lost on its way.
    Recv(u128, u32, bool),
    Ack(u128),
    Release(u128),
    /// The harness ended, and perhaps one of its turns lives on.
    Crash(Option<u128>),
    /// Bob asks alice, perhaps for so many seconds.
    Ask(Option<u8>),
    /// One of the questions so far is answered by one of three.
    Answer(usize, usize),
    /// One of the questions so far is taken back by one of three.
    Cancel(usize, usize),
    /// So many seconds pass.
    Pass(u8),
}

/// Who may try to end a question: the one asked, the asker, the operator.
const PARTIES: [&str; 3] = ["alice", "bob", "operator"];

fn op() -> impl Strategy<Value = Op> {
    let turn = || 1..4_u128;
    prop_oneof![
        4 => (0..2_usize, prop::option::of(0..6_u8)).prop_map(|(from, dedupe)| Op::Send(from, dedupe)),
        5 => (turn(), 1..4_u32, prop::bool::weighted(0.3)).prop_map(|(turn, max, lost)| Op::Recv(turn, max, lost)),
        1 => turn().prop_map(Op::Ack),
        2 => turn().prop_map(Op::Release),
        1 => prop::option::of(turn()).prop_map(Op::Crash),
        2 => prop::option::of(1..60_u8).prop_map(Op::Ask),
        1 => (0..9_usize, 0..3_usize).prop_map(|(which, by)| Op::Answer(which, by)),
        1 => (0..9_usize, 0..3_usize).prop_map(|(which, by)| Op::Cancel(which, by)),
        1 => (1..40_u8).prop_map(Op::Pass),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    Leased(u128, u64),
    Acked,
    Dead,
    /// The question ended before anybody had it.
    Withdrawn,
}

#[derive(Debug)]
struct Mail {
    id: u64,
    state: State,
    deliveries: u32,
}

#[derive(Debug)]
struct Asked {
    id: u64,
    expires: Option<i64>,
    /// Who ended it.
    ended: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Model {
    /// In the order in which they were sent.
    messages: Vec<Mail>,
    known: BTreeMap<(usize, u8), u64>,
    questions: Vec<Asked>,
    /// The last batch that came in, of each turn.
    received: BTreeMap<u128, u64>,
    /// Seconds since the beginning.
    now: i64,
}

impl Model {
    fn received(&self, turn: u128) -> Option<u64> {
        (turn != UNCOUNTED).then(|| self.received.get(&turn).copied().unwrap_or(0))
    }

    fn sent(&mut self, id: u64) {
        self.messages.push(Mail {
            id,
            state: State::Queued,
            deliveries: 0,
        });
    }

    /// The number of the batch and what is in it.
    fn recv(&mut self, turn: u128, max: u32) -> (u64, Vec<(u64, bool)>) {
        let received = self.received(turn);
        let after = |state| matches!(state, State::Leased(of, batch) if of == turn && Some(batch) > received);
        let lost = self
            .messages
            .iter()
            .filter(|mail| received.is_some() && after(mail.state));
        let lost = lost
            .filter_map(|mail| match mail.state {
                State::Leased(_, batch) => Some(batch),
                _ => None,
            })
            .min();
        if let Some(batch) = lost {
            let again = self
                .messages
                .iter()
                .filter(|mail| mail.state == State::Leased(turn, batch));
            return (batch, again.map(|mail| (mail.id, mail.deliveries > 1)).collect());
        }
        let number = received.unwrap_or(0) + 1;
        let queued = self
            .messages
            .iter_mut()
            .filter(|mail| mail.state == State::Queued);
        let leased = queued.take(usize::try_from(max).expect("a few")).map(|mail| {
            mail.state = State::Leased(turn, number);
            mail.deliveries += 1;
            (mail.id, mail.deliveries > 1)
        });
        (number, leased.collect())
    }

    /// What never came in goes back, and does not count.
    fn return_unread(&mut self, turn: u128) -> usize {
        let Some(received) = self.received(turn) else {
            return 0;
        };
        let mut count = 0;
        for mail in &mut self.messages {
            if matches!(mail.state, State::Leased(of, batch) if of == turn && batch > received) {
                mail.state = State::Queued;
                mail.deliveries -= 1;
                count += 1;
            }
        }
        count
    }

    fn ack(&mut self, turn: u128) -> usize {
        self.return_unread(turn);
        let mut count = 0;
        for mail in &mut self.messages {
            if matches!(mail.state, State::Leased(of, _) if of == turn) {
                mail.state = State::Acked;
                count += 1;
            }
        }
        self.received.remove(&turn);
        count
    }

    fn release(&mut self, which: impl Fn(u128) -> bool) -> usize {
        let mut count = 0;
        for mail in &mut self.messages {
            if matches!(mail.state, State::Leased(turn, _) if which(turn)) {
                mail.state = if mail.deliveries >= MAX_DELIVERIES {
                    State::Dead
                } else {
                    State::Queued
                };
                count += 1;
            }
        }
        self.received.retain(|turn, _| !which(*turn));
        count
    }

    /// A question ends; whether alice must be told by a notice.
    fn end(&mut self, which: usize, by: &'static str) -> bool {
        let asked = &mut self.questions[which];
        asked.ended = Some(by);
        let mail = self
            .messages
            .iter_mut()
            .find(|mail| mail.id == asked.id)
            .expect("its message");
        if by == "alice" {
            return false;
        }
        let unread = mail.state == State::Queued && mail.deliveries == 0;
        if unread {
            mail.state = State::Withdrawn;
        }
        !unread
    }

    fn queued(&self) -> usize {
        self.messages
            .iter()
            .filter(|mail| mail.state == State::Queued)
            .count()
    }

    fn time(&self) -> Timestamp {
        now() + SignedDuration::from_secs(self.now)
    }
}

/// Takes up the notice that alice must have been sent.
async fn noticed(broker: &Broker, model: &mut Model) -> Result<(), TestCaseError> {
    let known = model.messages.last().map_or(0, |mail| mail.id);
    let mail = mail_of(broker, "alice").await;
    let new: Vec<_> = mail.iter().filter(|mail| mail.id > known).collect();
    for mail in &new {
        prop_assert_eq!(mail.kind, MessageKind::System);
        model.sent(mail.id);
    }
    Ok(())
}

/// Somebody tries to end a question, and the model says whether that must work.
async fn ends(
    broker: &Broker,
    model: &mut Model,
    (which, by): (usize, usize),
    takes_back: bool,
) -> Result<(), TestCaseError> {
    let Some(which) = which.checked_rem(model.questions.len()) else {
        return Ok(());
    };
    let (by, at) = (PARTIES[by], model.time());
    let (id, ended) = (model.questions[which].id, model.questions[which].ended);
    let outcome = if takes_back {
        broker.cancel(id, address(by), at).await
    } else {
        broker.answer(id, address(by), "an answer".into(), at).await
    };
    let stranger = by == if takes_back { "alice" } else { "bob" };
    match outcome {
        Ok(question) => {
            prop_assert!(
                !stranger && ended.is_none(),
                "{by} ended {id}, which {ended:?} had ended"
            );
            prop_assert_eq!(question.ended_by, Some(address(by)));
            if model.end(which, by) {
                noticed(broker, model).await?;
            }
        }
        Err(SendError::Question(Refusal::NotAsked { .. } | Refusal::NotAsker { .. })) => {
            prop_assert!(stranger);
        }
        Err(SendError::Question(Refusal::Ended { .. })) => prop_assert!(ended.is_some()),
        Err(error) => panic!("{error}"),
    }
    Ok(())
}

async fn pass(broker: &Broker, model: &mut Model, secs: i64) -> Result<(), TestCaseError> {
    model.now += secs;
    let now = model.now;
    let ran_out = |asked: &Asked| asked.ended.is_none() && asked.expires.is_some_and(|at| at <= now);
    let due: Vec<usize> = (0..model.questions.len())
        .filter(|which| ran_out(&model.questions[*which]))
        .collect();
    let deadline = broker.next_deadline().await.expect("a read");
    prop_assert_eq!(deadline.is_some_and(|at| at <= model.time()), !due.is_empty());
    let settled = broker.settle(model.time()).await.expect("a write");
    prop_assert_eq!(settled, due.len());
    let mut notices = false;
    for which in due {
        notices |= model.end(which, "system");
    }
    if notices {
        noticed(broker, model).await?;
    }
    Ok(())
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
            let answer = broker.send(sent, model.time()).await.expect("it is sent");
            let known = dedupe.and_then(|id| model.known.get(&(*from, id)).copied());
            prop_assert_eq!(answer.duplicate, known.is_some());
            if let Some(known) = known {
                prop_assert_eq!(answer.id, known);
                return Ok(());
            }
            model.known.extend(dedupe.map(|id| ((*from, id), answer.id)));
            model.sent(answer.id);
        }
        Op::Recv(number, max, lost) => {
            let ask = ask(*number, model.received(*number), *max);
            let batch = broker.recv(&alice, ask).await.expect("a lease");
            let leased: Vec<_> = batch.messages.iter().map(|m| (m.id, m.redelivered)).collect();
            let (expected, messages) = model.recv(*number, *max);
            prop_assert_eq!(&leased, &messages);
            if !messages.is_empty() {
                prop_assert_eq!(batch.number, expected);
                if !lost {
                    model.received.insert(*number, expected);
                }
            }
        }
        Op::Ack(number) => {
            let received = model.received(*number);
            let acked = broker
                .ack(&alice, turn(*number), received)
                .await
                .expect("a write");
            prop_assert_eq!(acked, model.ack(*number));
        }
        Op::Release(number) => {
            let received = model.received(*number);
            let released = broker
                .release(&alice, turn(*number), received, model.time())
                .await
                .expect("a write");
            let unread = model.return_unread(*number);
            prop_assert_eq!(released, unread + model.release(|turn| turn == *number));
        }
        Op::Crash(live) => {
            let live_turn = live.map(turn);
            let released = broker
                .release_all_but(&alice, live_turn, model.time())
                .await
                .expect("a write");
            prop_assert_eq!(released, model.release(|turn| Some(turn) != *live));
        }
        Op::Ask(secs) => {
            let request = AskRequest {
                ttl_secs: secs.map(u64::from),
                ..question("alice")
            };
            let asked = broker
                .ask(address("bob"), request, model.time())
                .await
                .expect("asked");
            model.sent(asked.id);
            model.questions.push(Asked {
                id: asked.id,
                expires: secs.map(|secs| model.now + i64::from(secs)),
                ended: None,
            });
        }
        Op::Answer(which, by) => ends(broker, model, (*which, *by), false).await?,
        Op::Cancel(which, by) => ends(broker, model, (*which, *by), true).await?,
        Op::Pass(secs) => pass(broker, model, i64::from(*secs)).await?,
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
        // Whatever happened: what may run out does, the rest is taken back, and after the last crash every message that
        // is not done with is delivered once more.
        pass(&broker, &mut model, 1000).await?;
        for which in 0..model.questions.len() {
            both(&broker, &mut model, &Op::Cancel(which, 2)).await?;
        }
        both(&broker, &mut model, &Op::Crash(None)).await?;
        while model.queued() > 0 {
            both(&broker, &mut model, &Op::Recv(9, 3, false)).await?;
        }
        both(&broker, &mut model, &Op::Ack(9)).await?;
        prop_assert!(
            model
                .messages
                .iter()
                .all(|mail| matches!(mail.state, State::Acked | State::Dead | State::Withdrawn))
        );
        let kept = broker.questions(None, true).await.expect("a read");
        prop_assert_eq!(kept.len(), model.questions.len());
        prop_assert!(kept.iter().all(|question| question.state != QuestionState::Open));
        for asked in &model.questions {
            let answers = answers(&broker, "bob", asked.id).await;
            let by: Vec<_> = answers.iter().map(|(by, _)| Some(by.as_str())).collect();
            prop_assert_eq!(by, [asked.ended]);
        }
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_mail_behaves_like_the_model(ops in prop::collection::vec(op(), 1..60)) {
        play(&ops)?;
    }
}

/// What the random stories should come across, in one that always does.
#[test]
fn a_story_with_every_turn_of_fate_behaves_like_the_model() {
    let recv = |turn, max| Op::Recv(turn, max, false);
    let story = [
        Op::Send(0, Some(1)),
        Op::Send(0, Some(1)),
        Op::Send(1, Some(1)),
        Op::Send(0, None),
        recv(1, 2),
        recv(2, 2),
        Op::Ack(2),
        Op::Release(1),
        recv(3, 1),
        recv(1, 1),
        Op::Crash(Some(3)),
        recv(2, 3),
        Op::Ack(3),
        Op::Crash(None),
        recv(1, 3),
        Op::Release(1),
        recv(1, 3),
        Op::Release(1),
        recv(1, 3),
        Op::Ack(1),
    ];
    play(&story).expect("the broker does as the model");
}

#[test]
fn a_story_in_which_every_question_ends_another_way_behaves_like_the_model() {
    let story = [
        Op::Ask(None),
        Op::Ask(Some(30)),
        Op::Ask(None),
        Op::Ask(Some(30)),
        Op::Ask(None),
        Op::Recv(1, 2, true),
        Op::Recv(1, 1, false),
        Op::Answer(0, 1),
        Op::Answer(0, 0),
        Op::Answer(0, 2),
        Op::Cancel(0, 1),
        Op::Cancel(2, 0),
        Op::Cancel(2, 1),
        Op::Pass(30),
        Op::Answer(1, 0),
        Op::Recv(1, 3, true),
        Op::Answer(4, 2),
        Op::Ack(1),
        Op::Recv(2, 3, false),
    ];
    play(&story).expect("the broker does as the model");
}
