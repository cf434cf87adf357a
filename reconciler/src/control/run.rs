//! The shell around the loop: timers, tasks, shutdown. Decides nothing.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use shared::event::Level;
use shared::plan::{Waiting, WaitingOn};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::agent_pass::hot_alarm;
use super::reconciler::{Key, PassError, Reconciler, Requeue};
use crate::counters::Counted;
use crate::gate::backoff;
use crate::model::change::Change;
use crate::queue::Queue;

/// Passes that may run at once.
///
/// Passes are cheap, and those that wait for a build or a start hold one of these; what is dear has limits of its own.
const MAX_PASSES: usize = 256;
/// Everything is looked at this often, whether anything was heard of it or not; spread by up to a quarter.
const RESYNC_SECS: i64 = 300;

/// Runs passes until `shutdown` turns true, then lets those that run come to their end.
///
/// `on_pass` is called after every completed pass: it feeds the watchdog.
pub async fn run(
    reconciler: Arc<Reconciler>,
    mut nudged: mpsc::UnboundedReceiver<Key>,
    mut shutdown: watch::Receiver<bool>,
    on_pass: impl Fn(&Key) + Send,
) {
    let mut shell = Shell {
        queue: Queue::default(),
        passes: JoinSet::new(),
        failures: BTreeMap::new(),
        resync_at: None,
        reconciler,
    };
    if !shell.first_inventory(&mut shutdown).await {
        return;
    }
    shell.resync().await;
    let mut jumps = shell.reconciler.jumps();
    loop {
        shell.reconciler.heed_clock();
        if jumps.has_changed().unwrap_or(false) {
            jumps.mark_unchanged();
            // Times asked for by the clock as it was mean nothing any more; each pass says anew when to look again.
            shell.queue.forget_times();
            shell.resync().await;
        }
        shell.start_passes();
        let idle = shell.until_next();
        tokio::select! {
            // Cancel-safe: a key is received whole or not at all.
            key = nudged.recv() => match key {
                Some(key) => {
                    let now = shell.now();
                    shell.queue.add(key, now);
                    while let Ok(key) = nudged.try_recv() {
                        shell.queue.add(key, now);
                    }
                }
                None => break,
            },
            // Cancel-safe: a finished task stays in the set until it is joined.
            Some(ended) = shell.passes.join_next() => {
                if let Ok((key, outcome)) = ended {
                    shell.ended(&key, outcome).await;
                    on_pass(&key);
                }
            }
            () = tokio::time::sleep(idle) => {}
            changed = shutdown.changed() => {
                if changed.is_err() || *shutdown.borrow() {
                    break;
                }
            }
        }
        if shell.resync_due() {
            shell.resync().await;
        }
    }
    tracing::info!(
        running = shell.passes.len(),
        "no new passes; waiting for those that run"
    );
    while shell.passes.join_next().await.is_some() {}
}

struct Shell {
    reconciler: Arc<Reconciler>,
    queue: Queue<Key>,
    passes: JoinSet<(Key, Result<Requeue, PassError>)>,
    /// Passes in a row that could not be finished.
    failures: BTreeMap<Key, u32>,
    resync_at: Option<Timestamp>,
}

impl Shell {
    fn now(&self) -> Timestamp {
        self.reconciler.host().clock.now()
    }

    /// Waits until every agent's container could be observed once. Returns false when the daemon ends before that.
    async fn first_inventory(&mut self, shutdown: &mut watch::Receiver<bool>) -> bool {
        for tries in 1_u32.. {
            let error = match self.reconciler.first_inventory().await {
                Ok(agents) => {
                    tracing::info!(agents, "first inventory is complete");
                    return true;
                }
                Err(error) => crate::error_chain(&error),
            };
            tracing::error!(
                error,
                tries,
                "the agents cannot be observed: nothing is done until they can"
            );
            let on = WaitingOn::StaleInventory {
                source: "runtime".to_owned(),
                error: Some(error),
            };
            let waiting = Waiting {
                what: "every agent".to_owned(),
                on,
                hint: None,
            };
            self.reconciler.views().hive_waiting = vec![waiting];
            let now = self.now();
            let pause = backoff(tries, self.reconciler.host().ids.jitter(), now).duration_since(now);
            tokio::select! {
                () = tokio::time::sleep(Duration::try_from(pause).unwrap_or(Duration::ZERO)) => {}
                _ = shutdown.wait_for(|end| *end) => return false,
            }
        }
        false
    }

    fn start_passes(&mut self) {
        let now = self.now();
        while self.passes.len() < MAX_PASSES {
            let Some(popped) = self.queue.pop(now) else { break };
            if popped.hot {
                self.alarm(&popped.key, now);
            }
            let reconciler = Arc::clone(&self.reconciler);
            let key = popped.key;
            self.passes.spawn(async move {
                // A key whose pass is lost would count as running for good, and never be looked at again.
                let pass = AssertUnwindSafe(reconciler.reconcile(&key)).catch_unwind();
                let outcome = pass.await.unwrap_or(Err(PassError::Panicked));
                (key, outcome)
            });
        }
        let depth = u64::try_from(self.queue.waiting()).unwrap_or(u64::MAX);
        self.reconciler.views().queue_depth = depth;
    }

    fn alarm(&self, key: &Key, now: Timestamp) {
        let change = match key {
            Key::Agent(name) => hot_alarm(name, now),
            Key::Hive => Change::Event {
                agent: None,
                level: Level::Warning,
                kind: "hotObject",
                message: "the hive is looked at unusually often: something keeps changing underneath it"
                    .to_owned(),
                data: serde_json::json!({}),
                at: now,
            },
        };
        let ledger = self.reconciler.ledger().clone();
        tokio::spawn(async move {
            if let Err(error) = ledger.apply(vec![change]).await {
                tracing::warn!(
                    error = crate::error_chain(&error),
                    "the alarm could not be recorded"
                );
            }
        });
    }

    async fn ended(&mut self, key: &Key, outcome: Result<Requeue, PassError>) {
        let now = self.now();
        let of = match key {
            Key::Hive => "hive",
            Key::Agent(_) => "agent",
        };
        let outcome_word = if outcome.is_ok() { "finished" } else { "failed" };
        self.reconciler.ledger().counters().add(Counted::Pass {
            of,
            outcome: outcome_word,
        });
        let label = match key {
            Key::Hive => "hive".to_owned(),
            Key::Agent(name) => name.to_string(),
        };
        let again = match outcome {
            Ok(requeue) => {
                self.failures.remove(key);
                let mut views = self.reconciler.views();
                views.failures.remove(&label);
                views.last_pass_at = Some(now);
                drop(views);
                // In their order: keys of one moment would come by name.
                let mut at = now;
                for other in requeue.others {
                    self.queue.add(other, at);
                    at = at.checked_add(SignedDuration::from_micros(1)).unwrap_or(at);
                }
                requeue.at
            }
            Err(error) => {
                let count = self.failures.entry(key.clone()).or_default();
                *count = count.saturating_add(1);
                let message = crate::error_chain(&error);
                tracing::error!(
                    key = label,
                    error = message,
                    tries = *count,
                    "a pass could not be finished"
                );
                let again = backoff(*count, self.reconciler.host().ids.jitter(), now);
                self.reconciler.views().failures.insert(label, message);
                Some(again)
            }
        };
        self.queue.done(key, again);
    }

    /// How long nothing is due.
    fn until_next(&self) -> Duration {
        let next = [self.queue.next_at(), self.resync_at].into_iter().flatten().min();
        let wait = next.map_or(SignedDuration::from_secs(RESYNC_SECS), |next| {
            next.duration_since(self.now())
        });
        Duration::try_from(wait).unwrap_or(Duration::ZERO)
    }

    fn resync_due(&self) -> bool {
        self.resync_at.is_some_and(|at| self.now() >= at)
    }

    /// Asks for a look at everything.
    async fn resync(&mut self) {
        let now = self.now();
        self.queue.add(Key::Hive, now);
        match self.reconciler.ledger().agents().await {
            Ok(records) => {
                for record in records.items {
                    self.queue.add(Key::Agent(record.name), now);
                }
                for row in records.undecodable {
                    tracing::error!(error = crate::error_chain(&row), "an agent's row cannot be read");
                }
            }
            Err(error) => tracing::error!(error = crate::error_chain(&error), "the agents cannot be listed"),
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "below a quarter of the resync interval"
        )]
        let spread = (self.reconciler.host().ids.jitter() * 0.25 * 300.0) as i64;
        self.resync_at = now
            .checked_add(SignedDuration::from_secs(RESYNC_SECS + spread))
            .ok();
    }
}
