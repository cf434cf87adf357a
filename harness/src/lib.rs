//! The program inside each agent's container: it takes turns, and tells the daemon what it sees.
//!
//! ```text
//!            report, wait        +---------------------------+
//!   daemon <------------------->| poller  --answers--+       |
//!     ^                          |                   v       |
//!     |  recv, send, propose     |  turn::decide (pure)      |   config file --> config
//!     +--------------------------|  turn task <--actions--+  |   MCP servers --> mcp_probe
//!                                +---------------------------+
//! ```
//!
//! [`turn`] decides and does nothing else; [`serve`] carries out what it decided. Everything that can be lost in a
//! crash is in the daemon: messages are leased to a turn and acknowledged when it ended well, and every message
//! sent carries an id that makes a repetition harmless.
#![warn(missing_docs)]

pub mod children;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod driver;
pub mod events;
pub mod fds;
pub mod host_client;
pub mod ids;
pub mod leftovers;
pub mod lock;
pub mod mcp;
pub mod mcp_probe;
pub mod notes;
pub mod reap;
pub mod relay;
pub mod repo;
pub mod secrets;
pub mod serve;
pub mod turn;

/// An error and its sources on one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A text from outside, fit for a log line or a report: control characters replaced, at most `max` characters.
pub fn tame(text: &str, max: usize) -> String {
    let mut chars = text.trim().chars();
    let mut tamed: String = chars
        .by_ref()
        .take(max)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if chars.next().is_some() {
        tamed.push('…');
    }
    tamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_outside_is_shortened_and_loses_its_control_characters() {
        assert_eq!(tame("  a\x1b[31m\nb ", 100), "a [31m b");
        assert_eq!(tame("äöü", 2), "äö…");
        assert_eq!(tame("äö", 2), "äö");
    }
}
