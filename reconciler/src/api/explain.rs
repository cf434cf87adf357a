//! Why something is as it is: from the object down to the root of its wait, each link because of the next.

use jiff::Timestamp;
use shared::admin_api::{Cause, Explanation};
use shared::gate::{Asker, Gate, GateState};
use shared::plan::{Waiting, WaitingOn};
use shared::status::{AgentStatus, Health, Sync};
use shared::wire_error::ErrorCode;
use shared::{AgentName, GateId};

use super::Context;
use super::admin::no_agent;
use super::error::{ApiError, ApiResult};

/// How many events are shown with an explanation.
const RECENT: u32 = 8;

/// Explains an agent's name, `gate/N`, or `hive`.
pub async fn explain(context: &Context, object: &str) -> ApiResult<Explanation> {
    match object.split_once('/') {
        Some(("gate", number)) => {
            let id: GateId = number.parse().map_err(|_| {
                ApiError::new(
                    ErrorCode::BadRequest,
                    format!("{number:?} is not a gate's number"),
                )
            })?;
            gate(context, id).await
        }
        None if object == "hive" => Ok(hive(context)),
        _ => {
            let name: AgentName = object.parse().map_err(|_| {
                let message = format!("{object:?} is neither an agent, nor gate/N, nor hive");
                ApiError::new(ErrorCode::BadRequest, message).hint("hive status")
            })?;
            agent(context, &name).await
        }
    }
}

fn cause(text: impl Into<String>) -> Cause {
    Cause {
        text: text.into(),
        since: None,
        until: None,
    }
}

fn since(text: impl Into<String>, at: Timestamp) -> Cause {
    Cause {
        since: Some(at),
        ..cause(text)
    }
}

fn until(text: impl Into<String>, at: Timestamp) -> Cause {
    Cause {
        until: Some(at),
        ..cause(text)
    }
}

fn reason(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

/// What a wait is for; a gate's own story follows from the gate.
fn link(waiting: &Waiting) -> Cause {
    let what = &waiting.what;
    match &waiting.on {
        WaitingOn::Gate { gate, class } => cause(format!("{what} waits on gate {gate} ({class})")),
        WaitingOn::TurnBoundary { deadline } => {
            until(format!("{what} waits for the end of its turn"), *deadline)
        }
        WaitingOn::StaleInventory { source, error: None } => {
            cause(format!("{what} waits for a fresh look at the {source}"))
        }
        WaitingOn::StaleInventory {
            source,
            error: Some(error),
        } => cause(format!("the {source} cannot be observed: {error}")),
        WaitingOn::Dependency { first } => cause(format!("{what} waits until {first}")),
        WaitingOn::Backoff {
            until: at,
            attempts,
            error,
        } => until(
            format!("{what} failed {attempts} times and is tried again later: {error}"),
            *at,
        ),
        WaitingOn::Health { until: at } => until(format!("{what} waits for its health report"), *at),
        WaitingOn::Suspended {
            until: at,
            by,
            reason: why,
        } => Cause {
            until: *at,
            ..cause(format!("{by} suspended it{}", reason(why)))
        },
        WaitingOn::Terminal { error } => cause(format!(
            "{what} failed and will not mend itself without new input: {error}"
        )),
        WaitingOn::Breaker { until: at, why } => until(format!("{what} is held back: {why}"), *at),
    }
}

/// The most telling first: what somebody can act on, then what passes by itself.
fn by_weight(waiting: &mut [Waiting]) {
    waiting.sort_by_key(|waiting| match waiting.on {
        WaitingOn::Suspended { .. } => 0,
        WaitingOn::Gate { .. } => 1,
        WaitingOn::Terminal { .. } | WaitingOn::Breaker { .. } => 2,
        WaitingOn::Backoff { .. } => 3,
        WaitingOn::TurnBoundary { .. } => 4,
        WaitingOn::Health { .. } => 5,
        WaitingOn::StaleInventory { .. } | WaitingOn::Dependency { .. } => 6,
    });
}

fn next_commands(waiting: &[Waiting]) -> Vec<String> {
    let mut next = Vec::new();
    for command in waiting.iter().filter_map(|waiting| waiting.hint.as_ref()) {
        if !next.contains(command) {
            next.push(command.clone());
        }
    }
    next
}

async fn agent(context: &Context, name: &AgentName) -> ApiResult<Explanation> {
    let status = context
        .reconciler
        .views()
        .agents
        .get(name)
        .map(|view| view.status.clone());
    let mut status = status.ok_or_else(|| no_agent(context, name))?;
    by_weight(&mut status.waiting);
    let ledger = context.reconciler.ledger();
    let root = match status.waiting.first().map(|waiting| &waiting.on) {
        Some(WaitingOn::Gate { gate, .. }) => ledger.gate(*gate).await?.map(|record| record.gate),
        _ => None,
    };
    let chain = agent_chain(&status, root.as_ref());
    let mut recent = ledger.events_about(name, RECENT).await?;
    recent.sort_by_key(|event| std::cmp::Reverse(event.seq));
    let mut next = next_commands(&status.waiting);
    if let Some(gate) = &root {
        let open = decide_commands(gate)
            .into_iter()
            .filter(|command| !next.contains(command));
        next.extend(open.collect::<Vec<_>>());
    }
    Ok(Explanation {
        object: name.to_string(),
        chain,
        waiting: status.waiting,
        recent,
        next,
    })
}

/// From an agent's state to the root of its first wait.
fn agent_chain(status: &AgentStatus, root: Option<&Gate>) -> Vec<Cause> {
    let AgentStatus {
        name, sync, health, ..
    } = status;
    let calm = sync.value == Sync::InSync;
    let well = health.value == Health::Healthy;
    let mut chain = Vec::new();
    match (calm, well) {
        // In sync with what is decided; what it waits on is not decided yet.
        (true, true) if !status.waiting.is_empty() => {
            let text = format!("{name} is in sync and healthy, and {}", status.activity.value);
            chain.push(since(text, status.activity.since));
        }
        (true, true) => {
            let text = format!("{name} is in sync and healthy: {}", sync.message);
            chain.push(since(text, sync.since.max(health.since)));
        }
        (true, false) => chain.push(since(
            format!("{name} is in sync, and {}", health.value),
            health.since,
        )),
        (false, _) => {
            let text = format!("{name} is {}: {}", sync.value, sync.message);
            chain.push(since(text, sync.since));
        }
    }
    if !well {
        let subject = if calm {
            ""
        } else {
            &format!("{name} is {}: ", health.value)
        };
        chain.push(cause(format!("{subject}{}", health.message)));
    }
    chain.extend(status.faults.iter().cloned().map(cause));
    match status.waiting.first() {
        Some(waiting) => chain.push(link(waiting)),
        None if !calm => {
            let text = format!("it is {}: {}", status.activity.value, status.activity.message);
            chain.push(since(text, status.activity.since));
        }
        None => chain.extend(status.notices.iter().cloned().map(cause)),
    }
    chain.extend(root.map(gate_link));
    chain
}

/// Where a gate is in its life.
fn gate_link(gate: &Gate) -> Cause {
    let Gate {
        id, state, decision, ..
    } = gate;
    match (state, decision) {
        (GateState::Open, _) => since(
            format!("gate {id} is open: nobody has decided yet"),
            gate.opened_at,
        ),
        (GateState::Approved, Some(decision)) => since(
            format!("{} approved gate {id}{}", decision.by, reason(&decision.reason)),
            decision.at,
        ),
        (GateState::Denied, Some(decision)) => since(
            format!("{} denied gate {id}{}", decision.by, reason(&decision.reason)),
            decision.at,
        ),
        _ => cause(format!("gate {id} is {}", state.as_str())),
    }
}

fn decide_commands(gate: &Gate) -> Vec<String> {
    let id = gate.id;
    match gate.state {
        GateState::Open => vec![
            format!("hive gate show {id}"),
            format!("hive gate approve {id}"),
            format!("hive gate deny {id} --reason TEXT"),
        ],
        _ => Vec::new(),
    }
}

async fn gate(context: &Context, id: GateId) -> ApiResult<Explanation> {
    let ledger = context.reconciler.ledger();
    let Some(record) = ledger.gate(id).await? else {
        return Err(
            ApiError::new(ErrorCode::NotFound, format!("there is no gate {id}")).hint("hive gate list"),
        );
    };
    let gate = record.gate;
    let mut next = decide_commands(&gate);
    if next.is_empty() {
        next.extend(gate.agent.iter().map(|agent| format!("hive explain {agent}")));
    }
    let mut recent = match &gate.agent {
        Some(agent) => ledger.events_about(agent, RECENT).await?,
        None => Vec::new(),
    };
    recent.sort_by_key(|event| std::cmp::Reverse(event.seq));
    Ok(Explanation {
        object: format!("gate/{id}"),
        chain: gate_chain(&gate),
        waiting: Vec::new(),
        recent,
        next,
    })
}

/// From what became of a gate back to who asked.
fn gate_chain(gate: &Gate) -> Vec<Cause> {
    let Gate {
        id, state, decision, ..
    } = gate;
    let mut chain = Vec::new();
    match (state, gate.consumed_at, gate.completed_at) {
        (GateState::Open, ..) => {}
        (GateState::Consumed, _, Some(at)) => match &gate.ended_because {
            Some(why) => chain.push(since(format!("gate {id} was withdrawn: {why}"), at)),
            None => chain.push(since(
                format!("gate {id} is done: its effect was carried out"),
                at,
            )),
        },
        (GateState::Consumed, Some(at), None) => {
            chain.push(since(format!("gate {id} is being carried out"), at));
        }
        _ => {
            let why = gate.ended_because.as_deref().unwrap_or_default();
            chain.push(cause(format!("gate {id} is {}{}", state.as_str(), reason(why))));
        }
    }
    match decision {
        Some(decision) => {
            let verb = if decision.approve { "approved" } else { "denied" };
            let text = format!("{} {verb} it{}", decision.by, reason(&decision.reason));
            chain.push(since(text, decision.at));
        }
        None if *state == GateState::Open => {
            chain.push(since(
                format!("gate {id} is open: nobody has decided yet"),
                gate.opened_at,
            ));
        }
        None => {}
    }
    let asker = match (gate.asked_by, &gate.agent) {
        (Asker::Spec, _) => "the spec".to_owned(),
        (Asker::Manager, _) => "a manager".to_owned(),
        (Asker::Agent, Some(agent)) => agent.to_string(),
        (Asker::Agent, None) => "an agent".to_owned(),
    };
    let text = format!("{asker} asks to {} ({})", gate.view.summary, gate.class);
    chain.push(since(text, gate.opened_at));
    chain
}

fn hive(context: &Context) -> Explanation {
    let views = context.reconciler.views();
    let mut waiting = views.hive_waiting.clone();
    by_weight(&mut waiting);
    let mut chain: Vec<Cause> = waiting.first().map(link).into_iter().collect();
    let failures = views
        .failures
        .iter()
        .map(|(key, error)| cause(format!("the pass over {key} failed: {error}")));
    chain.extend(failures);
    if chain.is_empty() {
        chain.push(cause("the hive itself waits on nothing; ask about an agent"));
    }
    let next = next_commands(&waiting);
    Explanation {
        object: "hive".to_owned(),
        chain,
        waiting,
        recent: Vec::new(),
        next,
    }
}
