//! What happens in turns, kept for a week and streamed.
//!
//! ```text
//!             +--> lane --> keep --> log (SQLite in the state folder)
//!   Feed::tell|
//!             +--> lane --> stream --> the daemon
//! ```
//!
//! Telling never waits and never fails: a lane is bounded, and says how much it had to drop. The two ends of it know
//! nothing of each other, so that a log that cannot be written holds up nothing that is watched. While no turn runs
//! nothing here is awake, and no file is open.

pub mod command;
mod keep;
mod lane;
pub mod log;
mod stream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camino::Utf8Path;
use shared::TurnId;
use shared::agent_event::{AgentEvent, AgentEventKind, MAX_BATCH_EVENTS, MAX_TEXT_BYTES, UsedSoFar};
use shared::turn::TurnResult;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::driver::{TurnEnd, TurnEvent, Used};
use crate::host_client::HostClient;
use lane::Lane;

/// The longest name of a tool, in characters.
const MAX_NAME: usize = 128;
/// The largest batch that is streamed, in bytes.
const BATCH_BYTES: usize = 128 * 1024;
/// How long the end waits for the last events to be kept and streamed.
const LAST: Duration = Duration::from_millis(500);

/// What keeps and streams the events of one agent.
#[derive(Debug)]
pub(crate) struct Events {
    feed: Feed,
    keeping: JoinHandle<()>,
    streaming: JoinHandle<()>,
    fault: watch::Receiver<Option<String>>,
}

impl Events {
    /// Begins to keep what is told, and to stream it as what this run of the harness tells. Nothing is opened yet.
    pub(crate) fn start(feed: Feed, state: &Utf8Path, client: Arc<HostClient>, run_id: String) -> Self {
        let (sender, fault) = watch::channel(None);
        let keeping = keep::keep(
            feed.clone(),
            state.join(log::FILE),
            keep::Times::default(),
            sender,
        );
        let streaming = stream::stream(feed.clone(), client, run_id, stream::Times::default());
        Self {
            feed,
            keeping: tokio::spawn(keeping),
            streaming: tokio::spawn(streaming),
            fault,
        }
    }

    /// Waits for a change of why nothing is kept: the reason, or none any more. Cancel-safe.
    pub(crate) async fn fault(&mut self) -> Option<String> {
        if self.fault.changed().await.is_err() {
            // What keeps has said its last.
            std::future::pending::<()>().await;
        }
        self.fault.borrow_and_update().clone()
    }

    /// Ends, once the last events are kept and streamed or that takes too long.
    pub(crate) async fn end(self) {
        self.feed.close();
        let last = async { (self.keeping.await, self.streaming.await) };
        if tokio::time::timeout(LAST, last).await.is_err() {
            tracing::warn!("the last events were not kept, or not streamed");
        }
    }
}

/// Where events are told. All copies are one.
#[derive(Debug, Clone, Default)]
pub struct Feed(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lanes: Mutex<Lanes>,
    /// Something waits for the log.
    to_keep: Notify,
    /// Something waits for the daemon.
    to_stream: Notify,
    /// Nothing more is told.
    closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Lanes {
    /// The number of the last event.
    seq: u64,
    keep: Lane,
    stream: Lane,
}

/// An event before it is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    kind: AgentEventKind,
    text: String,
    tool: Option<String>,
    ok: Option<bool>,
    used: Option<UsedSoFar>,
}

impl Told {
    fn new(kind: AgentEventKind, text: &str) -> Self {
        Self {
            kind,
            text: text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned(),
            tool: None,
            ok: None,
            used: None,
        }
    }

    /// A turn began, for these.
    pub(crate) fn started(woken_by: &[String]) -> Self {
        let why = match woken_by {
            [] => "messages".to_owned(),
            senders => senders.join(", "),
        };
        Self::new(AgentEventKind::Started, &why)
    }

    /// A turn ended.
    pub(crate) fn ended(end: &TurnEnd) -> Self {
        let text = match end {
            TurnEnd::Completed => TurnResult::Ok.as_str().to_owned(),
            TurnEnd::Interrupted => TurnResult::Interrupted.as_str().to_owned(),
            TurnEnd::Failed(failure) => format!("{}: {}", failure.result.as_str(), failure.error),
            TurnEnd::ExitHarness(status) => format!("the driver ends the harness with status {status}"),
        };
        Self {
            ok: Some(*end == TurnEnd::Completed),
            ..Self::new(AgentEventKind::Ended, &text)
        }
    }

    /// What a driver tells, as far as it is worth it.
    pub(crate) fn of(event: &TurnEvent) -> Option<Self> {
        let told = |kind, text: &str| Some(Self::new(kind, text));
        match event {
            TurnEvent::Notice(text) => told(AgentEventKind::Notice, text),
            TurnEvent::Alarm(text) => told(AgentEventKind::Alarm, text),
            TurnEvent::Session(session) => told(AgentEventKind::Notice, &format!("conversation {session}")),
            TurnEvent::Model(model) => told(AgentEventKind::Notice, &format!("model {model}")),
            TurnEvent::Text(text) if text.is_empty() => None,
            TurnEvent::Text(text) => told(AgentEventKind::Text, text),
            TurnEvent::ToolCall { name, input } => Some(Self {
                tool: Some(crate::tame(name, MAX_NAME)),
                ..Self::new(AgentEventKind::ToolCall, input)
            }),
            TurnEvent::ToolResult { name, failed, text } => Some(Self {
                tool: name.as_ref().map(|name| crate::tame(name, MAX_NAME)),
                ok: Some(!failed),
                ..Self::new(AgentEventKind::ToolResult, text)
            }),
            TurnEvent::Retry { attempt, error } => told(
                AgentEventKind::Notice,
                &format!("the provider is asked again, attempt {attempt}: {error}"),
            ),
            TurnEvent::Compacting(true) => {
                told(AgentEventKind::Notice, "the conversation is being shortened")
            }
            TurnEvent::Compacting(false) => told(AgentEventKind::Notice, "the conversation was shortened"),
            TurnEvent::Used(used) => Some(Self {
                used: Some(usage(*used)),
                ..Self::new(AgentEventKind::Used, "")
            }),
            TurnEvent::Unknown(what) => told(AgentEventKind::Raw, what),
            // Shown where the agent's servers are.
            TurnEvent::Servers(_) => None,
        }
    }
}

fn usage(used: Used) -> UsedSoFar {
    let Used {
        tokens,
        cost_usd,
        context,
        window,
    } = used;
    UsedSoFar {
        tokens,
        cost_usd,
        context,
        window,
    }
}

impl Feed {
    /// Tells of something in a turn. Never waits.
    pub(crate) fn tell(&self, turn: TurnId, told: Told) {
        let Told {
            kind,
            text,
            tool,
            ok,
            used,
        } = told;
        let at = crate::clock::now();
        let mut lanes = self.lanes();
        lanes.seq += 1;
        let event = AgentEvent {
            seq: lanes.seq,
            at,
            turn: Some(turn),
            kind,
            text,
            tool,
            ok,
            used,
        };
        lanes.keep.push(event.clone());
        lanes.stream.push(event);
        drop(lanes);
        self.0.to_keep.notify_one();
        self.0.to_stream.notify_one();
    }

    /// Nothing more is told: what keeps and streams comes to its end.
    pub(crate) fn close(&self) {
        self.0.closed.send_replace(true);
    }

    /// Waits until something is there to be kept, or the feed is closed.
    async fn wait_to_keep(&self) {
        while self.lanes().keep.is_empty() && !self.is_closed() {
            // A notice that comes between the look and the wait is stored.
            tokio::select! {
                () = self.0.to_keep.notified() => {}
                () = self.closed() => {}
            }
        }
    }

    /// The same for what is to be streamed.
    async fn wait_to_stream(&self) {
        while self.lanes().stream.is_empty() && !self.is_closed() {
            tokio::select! {
                () = self.0.to_stream.notified() => {}
                () = self.closed() => {}
            }
        }
    }

    /// The next batch to be streamed.
    fn take_to_stream(&self) -> Vec<AgentEvent> {
        self.lanes().stream.take(MAX_BATCH_EVENTS, BATCH_BYTES)
    }

    /// All that waits to be kept.
    fn take_to_keep(&self) -> Vec<AgentEvent> {
        self.lanes().keep.take(usize::MAX, usize::MAX)
    }

    /// Waits for so long, or until the feed is closed.
    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.closed() => {}
        }
    }

    async fn closed(&self) {
        let mut closed = self.0.closed.subscribe();
        if closed.wait_for(|closed| *closed).await.is_err() {
            tracing::debug!("the feed is gone");
        }
    }

    fn is_closed(&self) -> bool {
        *self.0.closed.borrow()
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> TurnId {
        TurnId(uuid::Uuid::from_u128(1))
    }

    #[test]
    fn events_are_numbered_in_the_order_in_which_they_are_told() {
        let feed = Feed::default();
        feed.tell(turn(), Told::started(&["operator".to_owned()]));
        for piece in ["Hel", "lo"] {
            feed.tell(
                turn(),
                Told::of(&TurnEvent::Text(piece.to_owned())).expect("an event"),
            );
        }
        feed.tell(turn(), Told::ended(&TurnEnd::Completed));
        let told: Vec<_> = feed
            .take_to_keep()
            .into_iter()
            .map(|event| (event.seq, event.kind, event.text))
            .collect();
        let expected = [
            (1, AgentEventKind::Started, "operator".to_owned()),
            (3, AgentEventKind::Text, "Hello".to_owned()),
            (4, AgentEventKind::Ended, "ok".to_owned()),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let long = "é".repeat(MAX_TEXT_BYTES);
        let told = Told::of(&TurnEvent::Notice(long)).expect("an event");
        assert_eq!(told.text.len(), MAX_TEXT_BYTES);
        let uneven = format!("x{}", "é".repeat(MAX_TEXT_BYTES));
        let told = Told::of(&TurnEvent::Notice(uneven)).expect("an event");
        assert_eq!(told.text.len(), MAX_TEXT_BYTES - 1);
    }
}
