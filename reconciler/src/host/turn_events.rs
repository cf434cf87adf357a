//! What happens in agents' turns, as their harnesses tell: a little of it in memory, for whoever watches.
//!
//! Nothing of it is ever in the ledger, and nothing follows from it. Each agent has a ring of its newest events, all of
//! them together a bound, so that a thousand agents take no more room than a few talkative ones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use shared::AgentName;
use shared::agent_event::{AgentEvent, AgentEventKind, AgentEventPage, EventBatch, StreamedEvent};
use tokio::sync::watch;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// The most events of one agent.
    pub events: usize,
    /// The most bytes of one agent.
    pub bytes: usize,
    /// The most bytes of all agents.
    pub all_bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            events: 1000,
            bytes: 256 * 1024,
            all_bytes: 8 * 1024 * 1024,
        }
    }
}

/// What an event takes besides its text, more or less.
const ROW: usize = 256;

/// The newest events of all agents.
#[derive(Debug)]
pub struct TurnEvents {
    /// Since when these are kept: part of every epoch.
    since: Timestamp,
    room: Room,
    rings: Mutex<Rings>,
}

#[derive(Debug, Default)]
struct Rings {
    of: BTreeMap<AgentName, Ring>,
    bytes: usize,
    /// How many rings there ever were.
    made: u64,
    /// How many batches came in: says which ring is the stalest.
    told: u64,
}

#[derive(Debug)]
struct Ring {
    epoch: String,
    events: VecDeque<StreamedEvent>,
    bytes: usize,
    last: u64,
    /// The run that tells, and its last event.
    heard: Option<(String, u64)>,
    /// When it was told of something, in batches.
    told: u64,
    news: watch::Sender<u64>,
}

impl TurnEvents {
    /// Nothing is known yet.
    pub fn new(since: Timestamp, room: Room) -> Self {
        Self {
            since,
            room,
            rings: Mutex::default(),
        }
    }

    /// Takes in what a harness tells. What was told already is left out. Returns whether somebody watches.
    pub fn tell(&self, agent: &AgentName, batch: EventBatch) -> bool {
        let mut rings = self.rings();
        rings.told += 1;
        let told = rings.told;
        let before = self.ring(&mut rings, agent).bytes;
        let ring = self.ring(&mut rings, agent);
        ring.told = told;
        let EventBatch { run_id, events } = batch;
        let known = ring.heard.take().filter(|(run, _)| *run == run_id);
        let mut last = known.map_or(0, |(_, last)| last);
        for event in events {
            // A harness numbers from 1.
            if event.seq > last {
                last = event.seq;
                ring.push(event, self.room);
            }
        }
        ring.heard = Some((run_id, last));
        ring.news.send_if_modified(|position| {
            let newer = *position != ring.last;
            *position = ring.last;
            newer
        });
        let watched = ring.news.receiver_count() > 0;
        let after = ring.bytes;
        rings.bytes = rings.bytes.saturating_sub(before) + after;
        while rings.bytes > self.room.all_bytes && rings.empty_stalest(agent) {}
        watched
    }

    /// Events after a position, the oldest first: the first `most` of them, or the last without a position. Where some
    /// are gone that came after the position, an event says so.
    pub fn page(&self, agent: &AgentName, after: Option<u64>, most: usize) -> AgentEventPage {
        let mut rings = self.rings();
        let ring = self.ring(&mut rings, agent);
        AgentEventPage {
            epoch: ring.epoch.clone(),
            last: ring.last,
            events: match after {
                None => {
                    let surplus = ring.events.len().saturating_sub(most);
                    ring.events.iter().skip(surplus).cloned().collect()
                }
                Some(after) => ring.after(after, most),
            },
        }
    }

    /// The same for a reader that is in the middle of an epoch; nothing when that is over.
    pub fn next(
        &self,
        agent: &AgentName,
        epoch: &str,
        after: u64,
        most: usize,
    ) -> Option<Vec<StreamedEvent>> {
        let rings = self.rings();
        let ring = rings.of.get(agent).filter(|ring| ring.epoch == epoch)?;
        Some(ring.after(after, most))
    }

    /// Tells of news: the last position. Ends when the agent is forgotten.
    pub fn subscribe(&self, agent: &AgentName) -> watch::Receiver<u64> {
        let mut rings = self.rings();
        self.ring(&mut rings, agent).news.subscribe()
    }

    /// Drops all of an agent that is gone; whoever watches it sees the end.
    pub fn forget(&self, agent: &AgentName) {
        let mut rings = self.rings();
        if let Some(ring) = rings.of.remove(agent) {
            rings.bytes = rings.bytes.saturating_sub(ring.bytes);
        }
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring<'a>(&self, rings: &'a mut Rings, agent: &AgentName) -> &'a mut Ring {
        let Rings { of, made, .. } = rings;
        of.entry(agent.clone()).or_insert_with(|| {
            *made += 1;
            Ring {
                epoch: format!("{}-{made}", self.since.as_microsecond()),
                events: VecDeque::new(),
                bytes: 0,
                last: 0,
                heard: None,
                told: 0,
                news: watch::Sender::new(0),
            }
        })
    }
}

impl Rings {
    /// Empties the ring that was told of nothing for the longest time, besides this one. Returns whether there was any.
    fn empty_stalest(&mut self, besides: &AgentName) -> bool {
        let full = self
            .of
            .iter_mut()
            .filter(|(name, ring)| *name != besides && !ring.events.is_empty());
        let Some((_, ring)) = full.min_by_key(|(_, ring)| ring.told) else {
            return false;
        };
        self.bytes = self.bytes.saturating_sub(ring.bytes);
        ring.bytes = 0;
        ring.events = VecDeque::new();
        true
    }
}

impl Ring {
    fn push(&mut self, event: AgentEvent, room: Room) {
        self.last += 1;
        self.bytes += weight(&event);
        self.events.push_back(StreamedEvent {
            position: self.last,
            event,
        });
        while self.events.len() > room.events || self.bytes > room.bytes {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes = self.bytes.saturating_sub(weight(&oldest.event));
        }
    }

    fn after(&self, after: u64, most: usize) -> Vec<StreamedEvent> {
        let newer = self.events.iter().filter(|event| event.position > after);
        let all = self.gap(after).into_iter().chain(newer.cloned());
        all.take(most.max(1)).collect()
    }

    /// What stands for events after a position that are gone.
    fn gap(&self, after: u64) -> Option<StreamedEvent> {
        // Whoever has seen nothing misses nothing.
        let first = self.events.front().map_or(self.last + 1, |event| event.position);
        let gone = first.saturating_sub(after + 1);
        if after == 0 || gone == 0 {
            return None;
        }
        let at = self
            .events
            .front()
            .map_or(Timestamp::UNIX_EPOCH, |first| first.event.at);
        Some(StreamedEvent {
            position: first - 1,
            event: AgentEvent {
                seq: 0,
                at,
                turn: None,
                kind: AgentEventKind::Lost,
                text: format!("{gone} events are missing here: they are no longer in the daemon's memory"),
                tool: None,
                ok: None,
                used: None,
            },
        })
    }
}

fn weight(event: &AgentEvent) -> usize {
    event.text.len() + event.tool.as_ref().map_or(0, String::len) + ROW
}

#[cfg(test)]
mod tests;
