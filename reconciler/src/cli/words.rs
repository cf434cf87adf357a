//! Wire values in words and symbols, the same in every command.

use shared::AgentName;
use shared::gate::{Asker, Gate, GateState};
use shared::plan::{Waiting, WaitingOn};
use shared::status::{Activity, Health, Sync};

use super::look::Look;
use super::page::{Page, Span, Tone};

/// Whether what is there is what is wanted.
pub(crate) fn sync(value: Sync) -> Span {
    let (tone, symbol) = match value {
        Sync::InSync => (Tone::Good, "✓"),
        Sync::OutOfSync => (Tone::Warn, "≠"),
        Sync::Unknown => (Tone::Warn, "?"),
    };
    tone.of(format!("{symbol} {value}"))
}

/// Whether the agent works.
pub(crate) fn health(value: Health) -> Span {
    let (tone, symbol) = match value {
        Health::Healthy => (Tone::Good, "✓"),
        Health::Progressing => (Tone::Info, "…"),
        Health::Degraded => (Tone::Warn, "!"),
        Health::Missing => (Tone::Bad, "✗"),
        Health::Suspended => (Tone::Faint, "-"),
        Health::Unknown => (Tone::Warn, "?"),
    };
    tone.of(format!("{symbol} {value}"))
}

/// What is being done about it.
pub(crate) fn activity(value: Activity) -> Span {
    let (tone, symbol) = match value {
        Activity::Idle => (Tone::Faint, "·"),
        Activity::AwaitingGate => (Tone::Warn, "◆"),
        Activity::WaitingForTurn => (Tone::Info, "…"),
        Activity::Applying => (Tone::Info, "→"),
        Activity::BackingOff => (Tone::Warn, "↻"),
        Activity::Stalled => (Tone::Bad, "✗"),
    };
    tone.of(format!("{symbol} {value}"))
}

/// A gate's state.
pub(crate) fn gate_state(state: GateState) -> Span {
    let tone = match state {
        GateState::Open => Tone::Warn,
        GateState::Approved => Tone::Good,
        GateState::Denied => Tone::Bad,
        GateState::Superseded | GateState::Expired | GateState::Consumed => Tone::Faint,
    };
    tone.of(state.as_str())
}

/// Who asked for what a gate would allow.
pub(crate) fn asker(gate: &Gate) -> String {
    match (gate.asked_by, &gate.agent) {
        (Asker::Spec, _) => "the spec".to_owned(),
        (Asker::Agent, Some(agent)) => agent.to_string(),
        (Asker::Agent, None) => "an agent".to_owned(),
        (Asker::Manager, _) => "a manager".to_owned(),
    }
}

/// An agent's name, or the hive.
pub(crate) fn agent(name: Option<&AgentName>) -> Span {
    match name {
        Some(name) => Tone::Strong.of(name),
        None => Tone::Faint.of("(hive)"),
    }
}

/// What it waits on, as the end of a sentence.
pub(crate) fn waits(on: &WaitingOn, look: &Look) -> Span {
    let when = |at| look.relative(at);
    let with = |text: String, detail: &str| {
        if detail.is_empty() {
            text
        } else {
            format!("{text}: {detail}")
        }
    };
    match on {
        WaitingOn::Gate { gate, class } => Tone::Warn.of(format!("waits on gate {gate} ({class})")),
        WaitingOn::TurnBoundary { deadline } => Tone::Info.of(format!(
            "waits for the end of the turn; deadline {}",
            when(*deadline)
        )),
        WaitingOn::StaleInventory { source, error } => Tone::Warn.of(with(
            format!("waits for a fresh look at {source}"),
            error.as_deref().unwrap_or_default(),
        )),
        WaitingOn::Dependency { first } => Tone::Info.of(format!("waits for {first}")),
        WaitingOn::Backoff {
            until,
            attempts,
            error,
        } => {
            let failures = super::text::count(*attempts as usize, "failure");
            Tone::Warn.of(with(
                format!("tries again {} after {failures}", when(*until)),
                error,
            ))
        }
        WaitingOn::Health { until } => {
            Tone::Info.of(format!("waits for its health report; deadline {}", when(*until)))
        }
        WaitingOn::Suspended { until, by, reason } => {
            let end = until.map_or_else(String::new, |at| format!(", ends {}", when(at)));
            Tone::Warn.of(with(format!("suspended by {by}{end}"), reason))
        }
        WaitingOn::Terminal { error } => Tone::Bad.of(with("stalled".to_owned(), error)),
        WaitingOn::Breaker { until, why } => {
            Tone::Warn.of(with(format!("breaker open, closes {}", when(*until)), why))
        }
    }
}

/// The command that unblocks it.
pub(crate) fn way_out(waiting: &Waiting, agent: Option<&AgentName>) -> Option<String> {
    waiting.hint.clone().or_else(|| match (&waiting.on, agent) {
        (WaitingOn::Gate { gate, .. }, _) => Some(format!("hive gate show {gate}")),
        (WaitingOn::Suspended { .. }, Some(agent)) => Some(format!("hive resume {agent}")),
        (WaitingOn::Terminal { .. } | WaitingOn::Breaker { .. }, Some(agent)) => {
            Some(format!("hive retry {agent}"))
        }
        _ => None,
    })
}

/// A text without the agent's name before it, where the name stands beside it anyway.
pub(crate) fn without_name<'a>(text: &'a str, agent: Option<&AgentName>) -> &'a str {
    agent
        .and_then(|name| text.strip_prefix(name.as_str())?.strip_prefix(": "))
        .unwrap_or(text)
}

/// A blocked thing with its agent, its reason and its way out.
pub(crate) fn blocked(page: &mut Page, waiting: &Waiting, agent: Option<&AgentName>, look: &Look) {
    wait(page, &[self::agent(agent), "  ".into()], waiting, agent, look);
}

/// The same on a page that is about this agent alone.
pub(crate) fn own_wait(page: &mut Page, waiting: &Waiting, agent: Option<&AgentName>, look: &Look) {
    wait(page, &[], waiting, agent, look);
}

fn wait(page: &mut Page, name: &[Span], waiting: &Waiting, agent: Option<&AgentName>, look: &Look) {
    let mut line = vec![Span::from("  ")];
    line.extend_from_slice(name);
    line.extend([
        waiting.what.as_str().into(),
        Tone::Faint.of(" - "),
        waits(&waiting.on, look),
    ]);
    page.line(line);
    if let Some(command) = way_out(waiting, agent) {
        page.line([Tone::Faint.of("    → "), look.command(&command)]);
    }
}
