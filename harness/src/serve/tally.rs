//! What a turn was, gathered while it runs.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use shared::TurnId;
use shared::agent_api::{Message, MessageKind};
use shared::name::Address;
use shared::turn::{TurnResult, TurnStats};

use crate::driver::{ToolCalls, TurnEnd, TurnEvent, Used};

/// The longest error that is told.
const MAX_ERROR: usize = 2000;

/// What is known of a turn so far.
#[derive(Debug)]
pub(super) struct Tally {
    turn: TurnId,
    started_at: Timestamp,
    woken_by: Vec<String>,
    model: Option<String>,
    session: Option<String>,
    used: Used,
    tools: ToolCalls,
    alarms: Vec<String>,
}

impl Tally {
    pub(super) fn new(turn: TurnId, started_at: Timestamp, woken_by: Vec<String>) -> Self {
        Self {
            turn,
            started_at,
            woken_by,
            model: None,
            session: None,
            used: Used::default(),
            tools: ToolCalls::default(),
            alarms: Vec::new(),
        }
    }

    /// Takes in what is to be kept of an event.
    pub(super) fn note(&mut self, event: &TurnEvent) {
        match event {
            TurnEvent::Session(session) => self.session = Some(session.clone()),
            TurnEvent::Model(model) => self.model = Some(model.clone()),
            TurnEvent::Used(used) => self.used = *used,
            TurnEvent::ToolCall { name, .. } => self.tools.count(name),
            // A few say it; more would only be the same again.
            TurnEvent::Alarm(text) if self.alarms.len() < 3 => self.alarms.push(text.clone()),
            TurnEvent::Alarm(_)
            | TurnEvent::Notice(_)
            | TurnEvent::Servers(_)
            | TurnEvent::Text(_)
            | TurnEvent::ToolResult { .. }
            | TurnEvent::Retry { .. }
            | TurnEvent::Compacting(_)
            | TurnEvent::Unknown(_) => {}
        }
    }

    /// How full the model's window is, and how large it is.
    pub(super) fn context(&self) -> Option<(u64, u64)> {
        Some((self.used.context?, self.used.window?))
    }

    /// All that was gathered.
    pub(super) fn stats(self, end: &TurnEnd, duration: Duration) -> TurnStats {
        let (result, error) = match end {
            TurnEnd::Completed => (TurnResult::Ok, None),
            TurnEnd::Interrupted => (TurnResult::Interrupted, None),
            TurnEnd::Failed(failure) => (failure.result, Some(failure.error.clone())),
            TurnEnd::ExitHarness(status) => (
                TurnResult::Crashed,
                Some(format!("the driver ended the harness with status {status}")),
            ),
        };
        let errors: Vec<String> = self.alarms.into_iter().chain(error).collect();
        TurnStats {
            turn: self.turn,
            started_at: self.started_at,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            result,
            error: (!errors.is_empty()).then(|| crate::tame(&errors.join("; "), MAX_ERROR)),
            model: self.model,
            session: self.session,
            tokens: self.used.tokens,
            context: self.used.context,
            cost_usd: self.used.cost_usd,
            tool_calls: self.tools.into_map(),
            woken_by: self.woken_by,
            notes_bytes: None,
        }
    }
}

/// The kinds of sender of these messages, each once.
pub(super) fn woken_by(messages: &[Message]) -> Vec<String> {
    let kinds: BTreeSet<&str> = messages
        .iter()
        .map(|message| match (&message.from, message.kind) {
            (_, MessageKind::System) | (Address::System, _) => "system",
            (Address::Operator, _) => "operator",
            (Address::Agent(_), _) => "agent",
        })
        .collect();
    kinds.into_iter().map(str::to_owned).collect()
}
