//! The hyperhive daemon: compares what is declared with what is there, and converges the difference.
//!
//! Pure modules take values and return values: [`model`], [`plan`], [`gate`], [`invariants`], [`queue`].
//! Everything outside goes through [`host`]. `docs/architecture.md` has the picture.

pub mod api;
pub mod broker;
pub mod cli;
pub mod control;
pub mod counters;
pub mod doctor;
pub mod egress;
pub mod execute;
pub mod export;
pub mod gate;
pub mod host;
pub mod invariants;
pub mod ledger;
pub mod model;
pub mod observe;
pub mod plan;
pub mod queue;
pub mod recover;
pub mod spec;
mod untrusted;

/// An error and its sources on one line, each said once.
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
