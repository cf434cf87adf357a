//! `GET /v1/metrics`: what Prometheus is told.
//!
//! Everything is worked out when it is asked for. Labels are words of this program, and names of agents, which the spec
//! bounds; nothing that an agent wrote gets into one.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use shared::gate::GateClass;
use shared::status::{Activity, AgentStatus, Health, Sync};

use super::Context;
use super::error::ApiResult;
use crate::counters::Counted;
use crate::host::Usage;
use crate::ledger::Counts;

mod exposition;
#[cfg(test)]
mod tests;

use exposition::{Exposition, Kind};

/// The media type of Prometheus' text format.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /v1/metrics`.
pub async fn metrics(State(context): State<Context>) -> ApiResult<Response> {
    let snapshot = Snapshot::take(&context).await?;
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], render(&snapshot)).into_response())
}

/// Everything that is told, as it was at one moment.
#[derive(Debug)]
struct Snapshot {
    agents: Vec<AgentStatus>,
    counts: Counts,
    tally: Vec<(Counted, u64)>,
    queue_depth: u64,
    failing: usize,
    started_at: Timestamp,
    last_pass_at: Option<Timestamp>,
    spec: Option<Spec>,
    /// `None`: the kernel did not say.
    usage: Option<Usage>,
}

#[derive(Debug)]
struct Spec {
    generation: u64,
    faults: usize,
    stale: bool,
}

impl Snapshot {
    async fn take(context: &Context) -> ApiResult<Self> {
        let reconciler = &context.reconciler;
        let ledger = reconciler.ledger();
        let counts = ledger.counts().await?;
        let usage = reconciler.host().own_process.usage().await;
        let usage = usage.inspect_err(|error| tracing::debug!(error = error.chain(), "usage is unknown"));
        let spec = reconciler.accepted().map(|accepted| Spec {
            generation: accepted.generation,
            faults: accepted.all_faults().count(),
            stale: accepted.stale,
        });
        let views = reconciler.views();
        Ok(Self {
            agents: views.agents.values().map(|view| view.status.clone()).collect(),
            counts,
            tally: ledger.counters().counts().into_iter().collect(),
            queue_depth: views.queue_depth,
            failing: views.failures.len(),
            started_at: views.started_at,
            last_pass_at: views.last_pass_at,
            spec,
            usage: usage.ok(),
        })
    }
}

fn render(snapshot: &Snapshot) -> String {
    let mut out = Exposition::default();
    out.family(
        "hyperhive_build_info",
        Kind::Gauge,
        "The version of the daemon; always 1.",
    )
    .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    agents(&mut out, snapshot);
    waiting(&mut out, snapshot);
    happened(&mut out, snapshot);
    spec(&mut out, snapshot.spec.as_ref());
    process(&mut out, snapshot);
    out.into_text()
}

/// A value of an axis as both APIs write it.
fn word<T: Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}

fn axis<T: Serialize + Copy + PartialEq>(
    out: &mut Exposition,
    axis: &'static str,
    all: &[T],
    agents: &[AgentStatus],
    of: impl Fn(&AgentStatus) -> T,
) {
    let name = format!("hyperhive_agents_by_{axis}");
    let mut family = out.family(
        &name,
        Kind::Gauge,
        "Agents, by one of the three axes of their status.",
    );
    for value in all {
        let count = agents.iter().filter(|agent| of(agent) == *value).count();
        family.sample(&[(axis, &word(value))], count);
    }
}

fn agents(out: &mut Exposition, snapshot: &Snapshot) {
    let agents = &snapshot.agents;
    axis(out, "sync", Sync::ALL, agents, |agent| agent.sync.value);
    axis(out, "health", Health::ALL, agents, |agent| agent.health.value);
    axis(out, "activity", Activity::ALL, agents, |agent| {
        agent.activity.value
    });
    let mut family = out.family(
        "hyperhive_agent_status",
        Kind::Gauge,
        "How each agent stands on the three axes; always 1.",
    );
    for agent in agents {
        let [sync, health, activity] = [
            word(agent.sync.value),
            word(agent.health.value),
            word(agent.activity.value),
        ];
        let labels = [
            ("agent", agent.name.as_str()),
            ("sync", &sync),
            ("health", &health),
            ("activity", &activity),
        ];
        family.sample(&labels, 1);
    }
    let mut family = out.family(
        "hyperhive_agent_inbox_messages",
        Kind::Gauge,
        "Messages that wait for a turn of the agent.",
    );
    for agent in agents {
        let waiting = snapshot.counts.inboxes.get(agent.name.as_str()).copied();
        family.sample(&[("agent", agent.name.as_str())], waiting.unwrap_or_default());
    }
}

fn waiting(out: &mut Exposition, snapshot: &Snapshot) {
    let mut family = out.family(
        "hyperhive_gates_open",
        Kind::Gauge,
        "Gates that wait for a decision.",
    );
    for class in GateClass::ALL {
        let open = snapshot.counts.open_gates.get(class.as_str()).copied();
        family.sample(&[("class", class.as_str())], open.unwrap_or_default());
    }
    out.family(
        "hyperhive_messages_dead",
        Kind::Gauge,
        "Messages that were given up and are still kept.",
    )
    .sample(&[], snapshot.counts.dead_messages);
    out.family(
        "hyperhive_queue_depth",
        Kind::Gauge,
        "Keys that are to be looked at, now or later.",
    )
    .sample(&[], snapshot.queue_depth);
    out.family(
        "hyperhive_keys_failing",
        Kind::Gauge,
        "Keys whose last pass could not be finished.",
    )
    .sample(&[], snapshot.failing);
    let mut family = out.family(
        "hyperhive_last_pass_timestamp_seconds",
        Kind::Gauge,
        "When the last pass was finished; absent before the first.",
    );
    if let Some(at) = snapshot.last_pass_at {
        family.sample(&[], seconds(at));
    }
}

/// The counters. Each starts anew with the daemon.
fn happened(out: &mut Exposition, snapshot: &Snapshot) {
    let counter =
        |out: &mut Exposition, name: &str, help: &str, labels: &dyn Fn(&Counted) -> Option<Vec<Label>>| {
            let mut family = out.family(name, Kind::Counter, help);
            for (counted, count) in &snapshot.tally {
                if let Some(labels) = labels(counted) {
                    family.sample(&labels, *count);
                }
            }
        };
    counter(
        out,
        "hyperhive_passes_total",
        "Passes.",
        &|counted| match *counted {
            Counted::Pass { of, outcome } => Some(vec![("of", of), ("outcome", outcome)]),
            _ => None,
        },
    );
    counter(
        out,
        "hyperhive_steps_total",
        "Steps that were carried out, or tried.",
        &|counted| match *counted {
            Counted::Step { kind, outcome } => Some(vec![("kind", kind), ("outcome", outcome)]),
            _ => None,
        },
    );
    counter(
        out,
        "hyperhive_events_total",
        "Events that were recorded.",
        &|counted| match *counted {
            Counted::Event { kind, level } => Some(vec![("kind", kind), ("level", level)]),
            _ => None,
        },
    );
    counter(
        out,
        "hyperhive_messages_total",
        "Messages that were accepted.",
        &|counted| match *counted {
            Counted::Message { kind } => Some(vec![("kind", kind)]),
            _ => None,
        },
    );
    counter(
        out,
        "hyperhive_decisions_total",
        "Decisions about gates.",
        &|counted| match *counted {
            Counted::Decision { class, verdict, by } => {
                Some(vec![("class", class), ("verdict", verdict), ("by", by)])
            }
            _ => None,
        },
    );
}

type Label = (&'static str, &'static str);

fn spec(out: &mut Exposition, spec: Option<&Spec>) {
    let Some(spec) = spec else { return };
    out.family(
        "hyperhive_spec_generation",
        Kind::Gauge,
        "How often the meaning of the spec changed.",
    )
    .sample(&[], spec.generation);
    out.family(
        "hyperhive_spec_faults",
        Kind::Gauge,
        "Faults of the spec file as it is now.",
    )
    .sample(&[], spec.faults);
    out.family(
        "hyperhive_spec_stale",
        Kind::Gauge,
        "Whether what is in force is older than the file: 0 or 1.",
    )
    .sample(&[], u8::from(spec.stale));
}

/// The names are those that every program uses.
fn process(out: &mut Exposition, snapshot: &Snapshot) {
    out.family(
        "process_start_time_seconds",
        Kind::Gauge,
        "When the daemon started, in seconds since 1970.",
    )
    .sample(&[], seconds(snapshot.started_at));
    let Some(usage) = &snapshot.usage else { return };
    out.family(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Memory that is really there, in bytes.",
    )
    .sample(&[], usage.resident_bytes);
    out.family("process_open_fds", Kind::Gauge, "Open file descriptors.")
        .sample(&[], usage.open_files);
    if let Some(most) = usage.max_files {
        out.family(
            "process_max_fds",
            Kind::Gauge,
            "How many file descriptors may be open.",
        )
        .sample(&[], most);
    }
}

/// Seconds since 1970, to the millisecond.
fn seconds(at: Timestamp) -> String {
    let millis = at.as_millisecond();
    format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000))
}
