//! What a turn's own MCP server tells the loop of the harness, besides what it says to the daemon.
//!
//! It is said over a Unix socket in the state folder: one JSON object a line, each answered by one. Whoever is told
//! `ok` knows that the loop will see it before anything that happens later.

mod client;
mod listen;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::TurnId;

pub use client::{ControlClient, SayError};
pub use listen::{ListenError, listen};

/// Where the socket is, below the state folder.
pub const SOCKET: &str = "run/control.sock";
/// The longest line either side sends.
const MAX_LINE: u64 = 4096;

/// One thing said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
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

/// The answer to one thing said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Reply {
    /// The loop has it.
    Ok,
    /// It is not understood; the connection is closed.
    Error(String),
}

#[cfg(test)]
mod tests;
