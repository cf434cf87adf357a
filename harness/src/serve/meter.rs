//! What the running turn uses: told to the daemon as it goes on, and held against what the turn may use.
//!
//! The limits hold also while the daemon is away. What it is told last counts when the turn's end is never told.

use std::sync::Arc;

use shared::TurnId;
use shared::budget::{TurnLimits, TurnUsage};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::driver::Used;
use crate::host_client::HostClient;
use crate::host_client::retry::Backoff;

/// Measures one turn.
#[derive(Debug)]
pub(super) struct Meter {
    used: watch::Sender<TurnUsage>,
    limits: watch::Receiver<TurnLimits>,
    telling: JoinHandle<()>,
}

impl Meter {
    /// Measures a turn that begins, and that may use this much.
    pub(super) fn start(client: Arc<HostClient>, turn: TurnId, limits: TurnLimits) -> Self {
        let (used, told) = watch::channel(nothing_of(turn));
        let (heard, limits) = watch::channel(limits);
        let telling = tokio::spawn(tell(client, told, heard));
        Self {
            used,
            limits,
            telling,
        }
    }

    /// Takes in what was used so far.
    pub(super) fn note(&self, used: &Used) {
        self.used.send_if_modified(|told| {
            let new = TurnUsage {
                turn: told.turn,
                tokens: used.tokens.total(),
                cost_usd: used.cost_usd,
            };
            std::mem::replace(told, new) != new
        });
    }

    /// Waits until the turn has used what it may, and says so. Cancel-safe.
    pub(super) async fn exceeded(&mut self) -> String {
        let mut used = self.used.subscribe();
        loop {
            if let Some(why) = over(&self.limits.borrow_and_update(), &used.borrow_and_update()) {
                return why;
            }
            tokio::select! {
                Ok(()) = self.limits.changed() => {}
                Ok(()) = used.changed() => {}
                else => std::future::pending().await,
            }
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // What it all came to is told with the turn's end.
        self.telling.abort();
    }
}

/// A turn that has used nothing yet.
pub(super) fn nothing_of(turn: TurnId) -> TurnUsage {
    TurnUsage {
        turn,
        tokens: 0,
        cost_usd: None,
    }
}

/// Tells the newest, one at a time.
async fn tell(
    client: Arc<HostClient>,
    mut used: watch::Receiver<TurnUsage>,
    limits: watch::Sender<TurnLimits>,
) {
    let mut backoff = Backoff::default();
    while used.changed().await.is_ok() {
        let usage = *used.borrow_and_update();
        match client.turn_uses(&usage).await {
            Ok(heard) => {
                backoff.reset();
                limits.send_replace(heard);
            }
            Err(error) => {
                let error = crate::error_chain(&error);
                tracing::debug!(turn = %usage.turn, error, "what the turn uses is told later");
                tokio::time::sleep(backoff.step()).await;
                used.mark_changed();
            }
        }
    }
}

/// Why a turn that has used so much must end.
fn over(limits: &TurnLimits, used: &TurnUsage) -> Option<String> {
    if let Some(most) = limits.tokens.filter(|most| used.tokens >= *most) {
        return Some(format!(
            "ended early: it has used {} tokens, and its budget allows {most}",
            used.tokens
        ));
    }
    let cost = used.cost_usd?;
    let most = limits.cost_usd.filter(|most| cost >= *most)?;
    Some(format!(
        "ended early: it has cost ${cost:.2}, and its budget allows ${most:.2}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_at_its_limit_and_an_unknown_cost_reaches_none() {
        let turn = TurnId(uuid::Uuid::nil());
        let used = |tokens, cost_usd| TurnUsage {
            turn,
            tokens,
            cost_usd,
        };
        let limits = TurnLimits {
            over_budget: false,
            tokens: Some(100),
            cost_usd: Some(0.5),
        };
        assert_eq!(over(&TurnLimits::default(), &used(u64::MAX, Some(1e9))), None);
        assert_eq!(over(&limits, &used(99, Some(0.49))), None);
        assert_eq!(over(&limits, &used(99, None)), None);
        assert!(over(&limits, &used(100, None)).is_some_and(|why| why.contains("100 tokens")));
        assert!(over(&limits, &used(0, Some(0.5))).is_some_and(|why| why.contains("$0.50")));
    }
}
