//! What all connections share: where names lead, the time, and the book of what the daemon is to be told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use shared::AgentName;
use shared::egress::RefusalReason;
use tokio::sync::{Notify, OnceCell};

use super::address;
use super::book::{Book, Page};
use super::count::Counter;
use super::provider::{ProviderError, Tls};
use super::resolve::{Judge, Resolver};
use super::rule::Target;
use crate::host::Clock;

/// What all connections share.
pub struct Outside {
    pub(super) resolver: Arc<dyn Resolver>,
    pub(super) judge: Judge,
    clock: Arc<dyn Clock>,
    book: Mutex<Book>,
    counters: Mutex<BTreeMap<AgentName, Arc<Counter>>>,
    refused: Notify,
    tls: OnceCell<Tls>,
}

impl Outside {
    /// With nothing in the book.
    pub fn new(resolver: Arc<dyn Resolver>, clock: Arc<dyn Clock>) -> Self {
        Self {
            resolver,
            judge: address::refusal,
            clock,
            book: Mutex::default(),
            counters: Mutex::default(),
            refused: Notify::new(),
            tls: OnceCell::new(),
        }
    }

    /// The same, trusting these certificates.
    #[must_use]
    pub fn trusting(mut self, tls: Tls) -> Self {
        self.tls = OnceCell::new_with(Some(tls));
        self
    }

    /// The same, with another opinion of addresses: tests have only this machine's.
    #[cfg(test)]
    pub(super) fn judging(mut self, judge: Judge) -> Self {
        self.judge = judge;
        self
    }

    /// Speaks TLS; read once, when it is needed first.
    pub(super) async fn tls(&self) -> Result<&Tls, ProviderError> {
        let of_machine = || async {
            let read = tokio::task::spawn_blocking(Tls::of_machine).await;
            read.map_err(|_| ProviderError::NoRoots)?
        };
        self.tls.get_or_try_init(of_machine).await
    }

    /// The counter of an agent.
    pub(super) fn counter(&self, agent: &AgentName) -> Arc<Counter> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(counters.entry(agent.clone()).or_default())
    }

    /// An agent was refused a connection.
    pub(super) fn refuse(&self, agent: &AgentName, target: &Target, reason: RefusalReason) {
        tracing::info!(%agent, %target, reason = reason.as_str(), "refused");
        let now = self.clock.now();
        self.book().refused(agent, target, reason, now);
        self.refused.notify_one();
    }

    /// Returns when something was refused since this was asked last.
    pub async fn refused(&self) {
        self.refused.notified().await;
    }

    /// Takes what is to be told.
    pub fn take(&self) -> Page {
        let mut book = self.book();
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        for (agent, counter) in counters.iter() {
            book.moved(agent, counter.take());
        }
        // Those of agents that are gone.
        counters.retain(|_, counter| Arc::strong_count(counter) > 1);
        book.take()
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
