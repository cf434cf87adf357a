//! The latest turn as the loop holds it: the other end of what its task listens to.

use shared::TurnId;
use tokio::sync::watch;

use crate::turn::{Interruption, Purpose};

/// The latest turn; it may be over.
pub(super) struct Latest {
    /// The turn that leases messages; absent when it has none, or there was no turn yet.
    pub(super) lease: Option<TurnId>,
    /// The model that it was begun with.
    pub(super) model: Option<String>,
    interruption: watch::Sender<Option<Interruption>>,
    received: watch::Sender<u64>,
    waits: watch::Sender<bool>,
}

/// What the task of a turn listens to.
pub(super) struct Signals {
    /// Why the turn is to be cut short, once it is.
    interruption: watch::Receiver<Option<Interruption>>,
    /// The last batch that the agent has fetched; 0 before the first.
    pub(super) received: watch::Receiver<u64>,
    /// Whether the agent waits for messages.
    pub(super) waits: watch::Receiver<bool>,
}

impl Latest {
    /// There was no turn yet.
    pub(super) fn none() -> Self {
        Self {
            lease: None,
            model: None,
            interruption: watch::Sender::new(None),
            received: watch::Sender::new(0),
            waits: watch::Sender::new(false),
        }
    }

    /// A turn that begins with this model.
    pub(super) fn begin(turn: TurnId, purpose: Purpose, model: Option<String>) -> (Self, Signals) {
        let latest = Self {
            lease: match purpose {
                Purpose::Messages => Some(turn),
                Purpose::Compaction => None,
            },
            model,
            ..Self::none()
        };
        let signals = Signals {
            interruption: latest.interruption.subscribe(),
            received: latest.received.subscribe(),
            waits: latest.waits.subscribe(),
        };
        (latest, signals)
    }

    /// Cuts it short.
    pub(super) fn interrupt(&self, why: Interruption) {
        self.interruption.send_replace(Some(why));
    }

    /// Its agent has fetched a batch; word of an earlier one may come late.
    pub(super) fn received(&self, batch: u64) {
        self.received.send_modify(|known| *known = batch.max(*known));
    }

    /// Its agent waits for messages, or no more.
    pub(super) fn waits(&self, waits: bool) {
        self.waits.send_replace(waits);
    }
}

impl Signals {
    /// Waits for an interruption; for ever when nobody can send one any more. Cancel-safe.
    pub(super) async fn interrupted(&mut self) -> Interruption {
        let why = match self.interruption.wait_for(Option::is_some).await {
            Ok(why) => *why,
            Err(_) => None,
        };
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }
}
