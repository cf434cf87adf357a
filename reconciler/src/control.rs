//! The loop: keys in, passes out.
//!
//! ```text
//!  spec file, process ends, reports, decisions, timers --nudge--> Queue --key--> Reconciler::reconcile(key)
//!                                                                    ^                    |
//!                                                                    +---- wake_at -------+
//! ```
//!
//! [`Reconciler::reconcile`] is never told why it runs: it observes, plans, revalidates gates, carries out what is
//! permitted, and says when to look again. One run per key at a time is the queue's law, so a run holds its agent's
//! lock by construction. [`run`] is the thin shell around it: timers, tasks, shutdown.

pub mod agent_pass;
pub mod command;
pub mod deadlines;
pub mod drafts;
mod egress;
pub mod export;
pub mod hive_pass;
pub mod lifecycle;
pub mod lock;
pub mod orders;
mod permits;
pub mod reconciler;
mod rest;
pub mod rollback;
mod rollout;
pub mod run;
pub mod serve;
pub mod storage;
pub mod views;
mod watching;

pub use reconciler::{Key, PassError, Reconciler, Requeue};
