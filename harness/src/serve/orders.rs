//! Orders as they come, made into what the turn loop understands: it knows neither clock nor turns' names.

use std::time::Duration;

use shared::TurnId;
use shared::order::{Order, OrderKind};

use crate::turn::{Command, Ordered};

/// What an order means while this turn runs, which may be one that has no leases.
pub(super) fn understood(order: &Order, running: Option<TurnId>) -> Ordered {
    let Order {
        id,
        kind,
        turn,
        until,
        wake_on_message,
    } = order;
    let command = match kind {
        // The turn that was meant may be over.
        OrderKind::Cancel if *turn == running => Command::Cancel,
        OrderKind::Cancel => Command::Nothing,
        OrderKind::Compact => Command::Compact,
        OrderKind::Nap => Command::Nap {
            length: until.map_or(Duration::MAX, crate::clock::until),
            wake_on_message: *wake_on_message,
        },
        OrderKind::Wake => Command::Wake,
        // The number of the conversation says it.
        OrderKind::NewConversation => Command::Nothing,
        OrderKind::Unknown => {
            tracing::warn!(
                order = id,
                "an order that this harness does not know is passed over"
            );
            Command::Nothing
        }
    };
    tracing::info!(order = id, kind = kind.as_str(), ?command, "order");
    Ordered { id: *id, command }
}
