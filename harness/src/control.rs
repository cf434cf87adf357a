//! What a turn's own MCP server tells the loop of the harness, besides what it says to the daemon.

use jiff::Timestamp;
use shared::TurnId;

/// One thing said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// An answer to `recv` came in; the turn's end names the last.
    Received {
        /// The turn.
        turn: TurnId,
        /// The answer's number.
        batch: u64,
        /// How many messages it held.
        messages: usize,
    },
    /// A `recv` waits for messages, or waits no more. Such a turn is not silent.
    Waiting {
        /// The turn.
        turn: TurnId,
        /// Whether it waits.
        waits: bool,
    },
    /// The agent wants no turn before this time, or before somebody writes to it.
    Nap {
        /// Until when.
        until: Timestamp,
        /// Whether a message wakes it earlier.
        wake_on_message: bool,
    },
}
