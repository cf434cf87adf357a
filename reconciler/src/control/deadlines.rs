//! The timer behind questions and reminders: sleeps until the next deadline, then has the broker settle what is due.
//! Writes nothing when nothing is due. What came due while no daemon ran is settled at its start.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Reconciler;
use crate::broker::Broker;
use crate::gate::backoff;

/// The longest sleep towards a deadline: a clock that is set moves the deadline, and may go unnoticed for this long.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// Settles what is due, for as long as the daemon runs.
pub async fn watch(reconciler: Arc<Reconciler>, broker: Broker) {
    let clock = Arc::clone(&reconciler.host().clock);
    let mut changes = broker.deadlines();
    let mut jumps = reconciler.jumps();
    let mut failures = 0_u32;
    loop {
        // Marked before looking: what comes in between ends the wait at once.
        changes.mark_unchanged();
        jumps.mark_unchanged();
        let wait = match round(&broker, clock.now()).await {
            Ok(next) => {
                failures = 0;
                next.map(|at| until(at, clock.now()))
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                tracing::error!(
                    error = crate::error_chain(&error),
                    tries = failures,
                    "questions and reminders could not be settled"
                );
                let now = clock.now();
                Some(until(backoff(failures, reconciler.host().ids.jitter(), now), now))
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            changed = changes.changed(), if failures == 0 => if changed.is_err() { return },
            changed = jumps.changed() => if changed.is_err() { return },
        }
    }
}

/// Settles what is due; when something is due next, which may be at once.
async fn round(broker: &Broker, now: Timestamp) -> Result<Option<Timestamp>, crate::ledger::LedgerError> {
    let next = broker.next_deadline().await?;
    if next.is_none_or(|next| next > now) {
        return Ok(next);
    }
    let settled = broker.settle(now).await?;
    tracing::debug!(settled, "questions and reminders were settled");
    broker.next_deadline().await
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    let wait = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
    // Timers may end a moment early, and nothing is due before its time.
    wait.saturating_add(Duration::from_millis(1)).min(LOOK_EVERY)
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
