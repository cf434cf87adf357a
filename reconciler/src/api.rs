//! The two doors of the daemon on this machine: the admin API and one agent API per agent, each on its own socket.
//!
//! Handlers read views and the ledger, and ask [`crate::control::command`] for changes; they never carry anything
//! out. Who speaks is decided by the socket: on the admin door by the peer's credentials, on an agent's door by the
//! path alone.

pub mod admin;
pub mod agent;
pub mod archive;
mod caller;
pub mod connections;
pub mod doors;
mod drafts;
mod egress;
pub mod endpoint;
pub mod error;
pub mod events;
pub mod explain;
mod live;
mod look;
mod mail;
pub mod metrics;
pub mod openapi;
mod orders;
pub mod peer;

use std::sync::Arc;

use tokio::sync::watch;

use crate::broker::Broker;
use crate::control::Reconciler;
use crate::host::harness_link::Link;
use crate::host::layout::Layout;

/// What the handlers of both doors work with.
#[derive(Clone)]
pub struct Context {
    /// The loop.
    pub reconciler: Arc<Reconciler>,
    /// Messages.
    pub broker: Broker,
    /// What harnesses report and are told.
    pub link: Arc<Link>,
    /// Where bundles are received.
    pub layout: Layout,
    /// Turns true when the daemon ends: long answers come to their end.
    pub shutdown: watch::Receiver<bool>,
}
