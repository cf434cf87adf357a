//! Plays moves against the real loop in a fake world.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use jiff::{SignedDuration, Timestamp};
use reconciler::control::reconciler::Settings;
use reconciler::control::{Key, PassError, Reconciler, Requeue};
use reconciler::gate::backoff;
use reconciler::host::fake::{Auditor, Behaviour, Lag, Probe, Source, State, Stop, World};
use reconciler::ledger::Ledger;
use reconciler::queue::Queue;
use shared::HiveId;
use tokio::sync::mpsc::UnboundedReceiver;

use super::audit;
use super::command;
pub(crate) use super::end::End;
pub(crate) use super::moves::{Decide, Move, Scenario};
use super::oracle;
use super::survey::Survey;
use super::walk::Dice;

/// More passes than this for one move, and it does not converge.
const MAX_PASSES: usize = 400;
/// How long the daemon goes at most without a look at everything.
const RESYNC_SECS: i64 = 300;
/// Passes that may take turns.
const MAX_RUNNING: usize = 3;
/// Tries of a command whose answer was lost.
const MAX_TRIES: usize = 4;

/// What is left of a hive when its daemon dies between two moves.
#[derive(Clone)]
pub(crate) struct Saved {
    state: State,
    image: Arc<[u8]>,
}

/// What one pass sees otherwise than it is.
#[derive(Debug, Clone, Copy)]
enum Twist {
    Blind(Source),
    Lag(Source, Lag),
}

/// What is to go wrong, in numbers that count from the beginning of the play.
#[derive(Debug, Default)]
struct Armed {
    dropped: Option<usize>,
    doubled: Option<usize>,
    twist: Option<(usize, Twist)>,
    decision: Option<bool>,
}

type Pass = Pin<Box<dyn Future<Output = Result<Requeue, PassError>>>>;

/// A hive that is being played with.
pub(crate) struct Player {
    pub(super) world: World,
    pub(super) ledger: Ledger,
    pub(super) reconciler: Arc<Reconciler>,
    pub(super) convictions: Arc<Mutex<Vec<String>>>,
    /// The most passes that one move took.
    pub(super) most_passes: usize,
    nudged: UnboundedReceiver<Key>,
    queue: Queue<Key>,
    running: Vec<(Key, Pass)>,
    failures: BTreeMap<Key, u32>,
    armed: Armed,
    /// Events so far, and those that come once more while their key is looked at.
    events: usize,
    again: Vec<Key>,
    passes: usize,
    /// Something was kept from the daemon: only a look at everything brings it to light.
    hidden: bool,
    /// Something was decided at a boundary.
    decided: bool,
    dice: Option<Dice>,
    /// What the move looks like from inside, while somebody wants to know.
    pub(super) survey: Option<Survey>,
}

fn boot(world: &World, ledger: &Ledger) -> (Arc<Reconciler>, UnboundedReceiver<Key>) {
    let settings = Settings {
        harness: "/fake/hive-harness".into(),
        max_transitions: 4,
    };
    let bounded = ledger.clone().bounded_by(Arc::new(world.clone()));
    Reconciler::new(world.host(), bounded, settings)
}

impl Player {
    /// A hive in which nothing has happened yet.
    pub(crate) async fn new(behaviours: &[(&'static str, Behaviour)], unbuildable: &[&'static str]) -> Self {
        let world = World::new();
        {
            let mut state = world.lock();
            let behaviour = |(text, behaviour): &(&str, Behaviour)| ((*text).to_owned(), *behaviour);
            state.behaviours = behaviours.iter().map(behaviour).collect();
            state.unbuildable = unbuildable.iter().map(|&text| text.to_owned()).collect();
        }
        let now = world.lock().now;
        let hive = HiveId(uuid::Uuid::from_u128(7));
        let ledger = Ledger::open_in_memory(now, hive).await.unwrap();
        Self::over(world, ledger)
    }

    /// A hive that goes on from what was saved: the daemon starts and looks at everything.
    pub(crate) async fn resume(saved: &Saved) -> Self {
        let world = World::of(saved.state.clone());
        let ledger = Ledger::from_image(&saved.image).unwrap();
        let mut player = Self::over(world, ledger);
        player.world.restart_daemon();
        player.resync().await;
        player.rest().await;
        player.most_passes = 0;
        player
    }

    fn over(world: World, ledger: Ledger) -> Self {
        let convictions = Arc::default();
        world.lock().auditor = Some(auditor(&ledger, &convictions));
        let (reconciler, nudged) = boot(&world, &ledger);
        Self {
            world,
            ledger,
            reconciler,
            convictions,
            most_passes: 0,
            nudged,
            queue: Queue::default(),
            running: Vec::new(),
            failures: BTreeMap::new(),
            armed: Armed::default(),
            events: 0,
            again: Vec::new(),
            passes: 0,
            hidden: false,
            decided: false,
            dice: None,
            survey: None,
        }
    }

    /// What would be left if the daemon died now.
    pub(crate) async fn save(&self) -> Saved {
        let mut state = self.world.lock().clone();
        state.auditor = None;
        let image = self.ledger.image().await.unwrap().into();
        Saved { state, image }
    }

    /// Makes a move and lets the hive come to rest.
    pub(crate) async fn play(&mut self, step: &Move) {
        if step.is_ahead() {
            self.arm(step);
            return;
        }
        self.world.remember();
        self.make(step).await;
        self.rest().await;
        let blind = !self.world.lock().blind.is_empty();
        if std::mem::take(&mut self.hidden) || blind {
            self.world.lock().blind.clear();
            self.world.advance(RESYNC_SECS);
            self.resync().await;
            self.rest().await;
        }
    }

    /// Whether what was to go wrong has not happened yet.
    pub(crate) fn is_armed(&self) -> bool {
        let Armed {
            dropped,
            doubled,
            twist,
            decision,
        } = &self.armed;
        let own = dropped.is_some() || doubled.is_some() || twist.is_some() || decision.is_some();
        own || self.world.lock().fault.is_some()
    }

    /// Whether nothing happened that must not, and all of it soon enough.
    pub(crate) fn is_spotless(&self) -> bool {
        self.convictions.lock().unwrap().is_empty() && self.most_passes <= oracle::MOST_PASSES
    }

    /// Whether what went wrong made a difference: an answer was not true, a gate was decided.
    pub(crate) fn mattered(&self) -> bool {
        self.world.lock().misled || self.decided
    }

    /// Forgets what did not happen.
    pub(crate) fn disarm(&mut self) {
        self.armed = Armed::default();
        self.dice = None;
        let mut state = self.world.lock();
        state.fault = None;
        state.stop = Stop::Nowhere;
    }

    fn arm(&mut self, step: &Move) {
        let mut state = self.world.lock();
        match *step {
            Move::Blind(source) => state.blind.push(source),
            Move::Fault(away, fault) => state.fault = Some((state.boundaries + away, fault)),
            Move::Decide(Decide { away, after, approve }) => {
                let boundary = state.boundaries + away;
                state.stop = Stop::At { boundary, after };
                self.armed.decision = Some(approve);
            }
            Move::Interleave(seed) => {
                state.stop = Stop::Everywhere;
                self.dice = Some(Dice::new(seed));
            }
            Move::BlindPass(away, source) => {
                self.armed.twist = Some((self.passes + away, Twist::Blind(source)));
            }
            Move::LagPass(away, source, lag) => {
                self.armed.twist = Some((self.passes + away, Twist::Lag(source, lag)));
            }
            Move::Drop(away) => self.armed.dropped = Some(self.events + away),
            Move::Double(away) => self.armed.doubled = Some(self.events + away),
            _ => unreachable!("{step:?} happens at once"),
        }
    }

    async fn make(&mut self, step: &Move) {
        match step {
            Move::Wait(secs) => {
                self.world.advance(*secs);
                self.resync().await;
            }
            Move::Restart => self.restart().await,
            _ => {
                if let Some(key) = command::happens(&self.world, &self.ledger, step).await {
                    self.notice(key);
                }
                self.ask(step).await;
            }
        }
    }

    /// Has somebody ask the daemon for something, again if the answer was lost.
    async fn ask(&mut self, step: &Move) {
        let mut why = String::new();
        for _ in 0..MAX_TRIES {
            self.count_uids().await;
            let (world, reconciler) = (self.world.clone(), Arc::clone(&self.reconciler));
            let mut asking = Box::pin(command::ask(&world, &reconciler, step));
            let answer = loop {
                match once(&mut asking).await {
                    Poll::Ready(answer) => break Some(answer),
                    Poll::Pending if self.world.lock().crashed => break None,
                    // Two people who decide at once are another story.
                    Poll::Pending => {
                        self.armed.decision = None;
                        if let (Some(survey), Some(at)) = (&mut self.survey, self.world.lock().stopped.take())
                        {
                            survey.stopped(at, false);
                        }
                    }
                }
            };
            drop(asking);
            match answer {
                None => self.restart().await,
                Some(Ok(())) => return,
                Some(Err(error)) => {
                    why = error.to_string();
                    // Whoever was refused because something cannot be looked at asks again once it can.
                    self.world.lock().blind.clear();
                }
            }
        }
        panic!("{step:?} was never answered: {why}");
    }

    /// Somebody stopped at a boundary: what was to happen there happens.
    async fn stopped(&mut self) {
        let stopped = self.world.lock().stopped.take();
        if let Some(at) = stopped
            && self.survey.is_some()
        {
            let asks = self.asking().await.0 > 0;
            self.survey.iter_mut().for_each(|survey| survey.stopped(at, asks));
        }
        match self.armed.decision.take_if(|_| stopped.is_some()) {
            Some(approve) => {
                self.decided |= self.asking().await.0 > 0;
                let decision = if approve { Move::Approve } else { Move::Deny };
                self.ask(&decision).await;
            }
            // It waits for another pass.
            None => tokio::task::yield_now().await,
        }
    }

    /// The daemon dies and starts again over the same ledger and the same world.
    async fn restart(&mut self) {
        self.running.clear();
        self.failures.clear();
        {
            let mut state = self.world.lock();
            state.blind.clear();
            state.lag = None;
        }
        self.world.restart_daemon();
        let (reconciler, nudged) = boot(&self.world, &self.ledger);
        self.reconciler = reconciler;
        self.nudged = nudged;
        self.queue = Queue::default();
        self.resync().await;
    }

    pub(super) async fn resync(&mut self) {
        let now = self.now();
        self.queue.add(Key::Hive, now);
        for record in self.ledger.agents().await.unwrap().complete().unwrap() {
            self.queue.add(Key::Agent(record.name), now);
        }
    }

    fn now(&self) -> Timestamp {
        self.world.lock().now
    }

    /// Somebody asks for a look at `key`.
    fn notice(&mut self, key: Key) {
        let number = self.events;
        self.events += 1;
        if self.armed.dropped.take_if(|at| *at == number).is_some() {
            self.hidden = true;
            return;
        }
        if self.armed.doubled.take_if(|at| *at == number).is_some() {
            self.again.push(key.clone());
        }
        let now = self.now();
        self.queue.add(key, now);
    }

    /// Runs passes until nothing is due and no timer within a quarter of an hour is left.
    pub(super) async fn rest(&mut self) {
        self.rest_until(900).await;
    }

    pub(super) async fn rest_until(&mut self, horizon_secs: i64) {
        let horizon = self
            .now()
            .checked_add(SignedDuration::from_secs(horizon_secs))
            .unwrap();
        let first = self.passes;
        loop {
            while let Ok(key) = self.nudged.try_recv() {
                self.notice(key);
            }
            self.start_passes().await;
            if self.running.is_empty() {
                match self.queue.next_at() {
                    Some(next) if next <= horizon => {
                        let mut state = self.world.lock();
                        state.now = state.now.max(next);
                        continue;
                    }
                    _ => break,
                }
            }
            self.go_on().await;
            assert!(
                self.passes - first < MAX_PASSES,
                "does not converge within {MAX_PASSES} passes"
            );
        }
        self.most_passes = self.most_passes.max(self.passes - first);
    }

    /// Whoever is tried again gets the uid of the first try: how often something was tried says nothing about its end.
    async fn count_uids(&self) {
        let agents = self.ledger.agents().await.unwrap().items.len();
        let archived = self.ledger.archived().await.unwrap().items.len();
        self.world.uids_in_use(agents + archived);
    }

    async fn start_passes(&mut self) {
        let now = self.now();
        let most = if self.dice.is_some() { MAX_RUNNING } else { 1 };
        while self.running.len() < most {
            let Some(popped) = self.queue.pop(now) else { return };
            assert!(!popped.hot, "{:?} is looked at again and again", popped.key);
            let key = popped.key;
            if key == Key::Hive {
                self.count_uids().await;
            }
            if let Some(at) = self.again.iter().position(|again| *again == key) {
                self.again.swap_remove(at);
                self.queue.add(key.clone(), now);
            }
            if let Some((_, twist)) = self.armed.twist.take_if(|(at, _)| *at == self.passes) {
                self.hidden = true;
                let mut state = self.world.lock();
                match twist {
                    Twist::Blind(source) => state.blind.push(source),
                    Twist::Lag(source, lag) => state.lag = Some((source, lag)),
                }
            }
            self.passes += 1;
            self.world.lock().probe = self.survey.as_ref().map(|_| Probe::default());
            let (reconciler, of) = (Arc::clone(&self.reconciler), key.clone());
            self.running
                .push((key, Box::pin(async move { reconciler.reconcile(&of).await })));
        }
    }

    /// Lets one of the passes go on until it stops or ends.
    async fn go_on(&mut self) {
        let index = match &mut self.dice {
            Some(dice) => dice.below(self.running.len()),
            None => 0,
        };
        let (_, pass) = &mut self.running[index];
        let Poll::Ready(outcome) = once(pass).await else {
            if self.world.lock().crashed {
                self.restart().await;
            } else {
                self.stopped().await;
            }
            return;
        };
        let (key, _) = self.running.swap_remove(index);
        if let Some(survey) = &mut self.survey {
            survey.passed(self.world.lock().probe.take());
        }
        if self.hidden {
            let mut state = self.world.lock();
            state.blind.clear();
            let lagged = state.lag.take();
            drop(state);
            if matches!(lagged, Some((Source::Runtime, _))) {
                // How a process ended is told by a signal, however late.
                self.notice(key.clone());
            }
        }
        let now = self.now();
        match outcome {
            Ok(requeue) => {
                self.failures.remove(&key);
                self.queue.done(&key, requeue.at);
                for other in requeue.others {
                    self.queue.add(other, now);
                }
            }
            Err(error) => {
                let broken = matches!(error, PassError::Invariant(_) | PassError::Restless(_));
                assert!(!broken, "{key:?}: {error}");
                let count = self.failures.entry(key.clone()).or_default();
                *count += 1;
                self.queue.done(&key, Some(backoff(*count, 0.0, now)));
            }
        }
    }
}

/// Polls once.
async fn once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// Notes every effect that nothing allows.
fn auditor(ledger: &Ledger, convictions: &Arc<Mutex<Vec<String>>>) -> Auditor {
    let (ledger, convictions) = (ledger.clone(), Arc::clone(convictions));
    Auditor(Arc::new(move |effect, state| {
        if let Err(why) = audit::check(&ledger, state, effect) {
            convictions.lock().unwrap().push(format!("{effect:?}: {why}"));
        }
    }))
}
