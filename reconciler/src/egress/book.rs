//! What the daemon is still to be told (pure): refusals, each host once with a count, and bytes.
//!
//! It is bounded: an agent can be refused as often, and at as many hosts, as it likes. What does not fit is counted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use shared::AgentName;
use shared::egress::{Refusal, RefusalReason, Traffic};

use super::rule::Target;

/// The most different targets of one agent that wait to be told.
const MAX_OF_AGENT: usize = 64;
/// The most of all agents.
const MAX: usize = 4096;

/// The book.
#[derive(Debug, Default)]
pub struct Book {
    refusals: BTreeMap<AgentName, BTreeMap<(String, u16), Refusal>>,
    waiting: usize,
    dropped: u64,
    traffic: BTreeMap<AgentName, Traffic>,
}

/// What was in the book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// What was refused.
    pub refusals: Vec<Refusal>,
    /// How many refused connections did not fit.
    pub dropped: u64,
    /// Bytes.
    pub traffic: BTreeMap<AgentName, Traffic>,
}

impl Book {
    /// Writes down that an agent was refused a connection.
    pub fn refused(&mut self, agent: &AgentName, target: &Target, reason: RefusalReason, now: Timestamp) {
        let key = (target.host().to_owned(), target.port());
        let of_agent = self.refusals.entry(agent.clone()).or_default();
        if let Some(refusal) = of_agent.get_mut(&key) {
            refusal.count = refusal.count.saturating_add(1);
            refusal.reason = reason;
            refusal.last_at = now;
            return;
        }
        if of_agent.len() >= MAX_OF_AGENT || self.waiting >= MAX {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.waiting += 1;
        let (host, port) = key.clone();
        let refusal = Refusal {
            agent: agent.clone(),
            host,
            port,
            reason,
            count: 1,
            first_at: now,
            last_at: now,
        };
        of_agent.insert(key, refusal);
    }

    /// Writes down bytes of an agent.
    pub fn moved(&mut self, agent: &AgentName, bytes: Traffic) {
        if bytes == Traffic::default() {
            return;
        }
        let sum = self.traffic.entry(agent.clone()).or_default();
        sum.sent = sum.sent.saturating_add(bytes.sent);
        sum.received = sum.received.saturating_add(bytes.received);
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0 && self.dropped == 0 && self.traffic.is_empty()
    }

    /// Takes everything out.
    pub fn take(&mut self) -> Page {
        let Self {
            refusals,
            waiting: _,
            dropped,
            traffic,
        } = std::mem::take(self);
        let refusals = refusals.into_values().flat_map(BTreeMap::into_values).collect();
        Page {
            refusals,
            dropped,
            traffic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn agent(name: &str) -> AgentName {
        name.parse().expect("a name")
    }

    fn target(text: &str) -> Target {
        Target::parse(text).expect("a target")
    }

    #[test]
    fn the_same_host_is_told_once_with_a_count() {
        let mut book = Book::default();
        let alice = agent("alice");
        book.refused(&alice, &target("a.b:443"), RefusalReason::NotListed, at(1));
        book.refused(&alice, &target("A.b.:443"), RefusalReason::PrivateAddress, at(5));
        book.refused(&alice, &target("a.b:80"), RefusalReason::NotListed, at(6));
        book.refused(&agent("bob"), &target("a.b:443"), RefusalReason::NotListed, at(7));
        let page = book.take();
        let told: Vec<_> = page
            .refusals
            .iter()
            .map(|r| (r.agent.as_str(), r.port, r.count))
            .collect();
        assert_eq!(told, [("alice", 80, 1), ("alice", 443, 2), ("bob", 443, 1)]);
        let twice = &page.refusals[1];
        assert_eq!((twice.first_at, twice.last_at), (at(1), at(5)));
        assert_eq!(twice.reason, RefusalReason::PrivateAddress);
        assert!(book.is_empty());
        assert_eq!(book.take(), Page::default());
    }

    #[test]
    fn an_agent_that_tries_every_host_fills_its_own_share_and_the_rest_is_counted() {
        let mut book = Book::default();
        for number in 0..1000 {
            let target = target(&format!("h{number}.example:443"));
            book.refused(&agent("mallory"), &target, RefusalReason::NotListed, at(number));
        }
        book.refused(
            &agent("alice"),
            &target("a.b:443"),
            RefusalReason::NotListed,
            at(1),
        );
        let page = book.take();
        assert_eq!(page.refusals.len(), MAX_OF_AGENT + 1);
        assert_eq!(page.dropped, 1000 - MAX_OF_AGENT as u64);
        assert!(
            page.refusals
                .iter()
                .any(|refusal| refusal.agent == agent("alice"))
        );
    }

    #[test]
    fn a_thousand_agents_fill_no_more_than_the_book() {
        let mut book = Book::default();
        for number in 0..200 {
            for host in 0..64 {
                let target = target(&format!("h{host}.example:443"));
                book.refused(
                    &agent(&format!("a{number}")),
                    &target,
                    RefusalReason::NotListed,
                    at(1),
                );
            }
        }
        let page = book.take();
        assert_eq!((page.refusals.len(), page.dropped), (MAX, 200 * 64 - MAX as u64));
    }

    #[test]
    fn bytes_are_summed_by_agent_and_none_are_nothing_to_tell() {
        let mut book = Book::default();
        let bytes = |sent, received| Traffic { sent, received };
        book.moved(&agent("alice"), bytes(0, 0));
        assert!(book.is_empty());
        book.moved(&agent("alice"), bytes(1, 10));
        book.moved(&agent("alice"), bytes(2, u64::MAX));
        assert_eq!(book.take().traffic, [(agent("alice"), bytes(3, u64::MAX))].into());
    }
}
