//! Why something is as it is: from the object down the chain of its waits.

use jiff::Timestamp;
use shared::admin_api::Explanation;
use shared::gate::GateState;
use shared::plan::{Waiting, WaitingOn};
use shared::wire_error::ErrorCode;
use shared::{AgentName, GateId};

use super::Context;
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

fn sentence(waiting: &Waiting) -> String {
    let on = match &waiting.on {
        WaitingOn::Gate { gate, class } => format!("the operator's decision about gate {gate} ({class})"),
        WaitingOn::TurnBoundary { deadline } => format!("the end of its turn, at the latest {deadline}"),
        WaitingOn::StaleInventory { source, error: None } => format!("news from the {source}"),
        WaitingOn::StaleInventory {
            source,
            error: Some(error),
        } => {
            format!("the {source}, which cannot be observed: {error}")
        }
        WaitingOn::Dependency { first } => format!("this first: {first}"),
        WaitingOn::Backoff {
            until,
            attempts,
            error,
        } => {
            format!("the next try at {until}, after {attempts} that failed: {error}")
        }
        WaitingOn::Health { until } => format!("its health report, at the latest {until}"),
        WaitingOn::Suspended { by, .. } => format!("the operator: {by} suspended it"),
        WaitingOn::Terminal { error } => format!("new input, because it will not mend itself: {error}"),
        WaitingOn::Breaker { until, why } => format!("the breaker until {until}: {why}"),
    };
    format!("{} waits on {on}", waiting.what)
}

fn next_commands(waiting: &[Waiting]) -> Vec<String> {
    let mut next: Vec<String> = waiting.iter().filter_map(|w| w.hint.clone()).collect();
    next.dedup();
    next
}

async fn agent(context: &Context, name: &AgentName) -> ApiResult<Explanation> {
    let status = context
        .reconciler
        .views()
        .agents
        .get(name)
        .map(|view| view.status.clone());
    let Some(status) = status else {
        let message = format!("there is no agent {name}");
        return Err(ApiError::new(ErrorCode::NotFound, message).hint("hive status"));
    };
    let mut chain = vec![
        format!("{name} is {}: {}", status.sync.value, status.sync.message),
        format!("it is {}: {}", status.health.value, status.health.message),
        format!("it is {}: {}", status.activity.value, status.activity.message),
    ];
    chain.extend(status.waiting.iter().map(sentence));
    let ledger = context.reconciler.ledger();
    for waiting in &status.waiting {
        if let WaitingOn::Gate { gate, .. } = waiting.on
            && let Some(record) = ledger.gate(gate).await?
        {
            let (id, opened) = (record.gate.id, record.gate.opened_at);
            chain.push(format!(
                "gate {id} is open since {opened}: {}",
                record.gate.view.summary
            ));
        }
    }
    let mut recent = ledger.events_about(name, RECENT).await?;
    recent.sort_by_key(|event| std::cmp::Reverse(event.seq));
    let next = next_commands(&status.waiting);
    Ok(Explanation {
        object: name.to_string(),
        chain,
        waiting: status.waiting,
        recent,
        next,
    })
}

async fn gate(context: &Context, id: GateId) -> ApiResult<Explanation> {
    let ledger = context.reconciler.ledger();
    let Some(record) = ledger.gate(id).await? else {
        return Err(
            ApiError::new(ErrorCode::NotFound, format!("there is no gate {id}")).hint("hive gate list"),
        );
    };
    let gate = record.gate;
    let mut chain = vec![
        format!("gate {id} ({}) asks: {}", gate.class, gate.view.summary),
        format!("it is {} since {}", gate.state.as_str(), since(&gate)),
    ];
    if let Some(decision) = &gate.decision {
        let verb = if decision.approve { "approved" } else { "denied" };
        let why = if decision.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", decision.reason)
        };
        chain.push(format!("{} {verb} it{why}", decision.by));
    }
    chain.extend(gate.ended_because.clone());
    let next = match gate.state {
        GateState::Open => vec![
            format!("hive gate show {id}"),
            format!("hive gate approve {id}"),
            format!("hive gate deny {id} --reason '…'"),
        ],
        _ => gate
            .agent
            .iter()
            .map(|agent| format!("hive explain {agent}"))
            .collect(),
    };
    let recent = match &gate.agent {
        Some(agent) => ledger.events_about(agent, RECENT).await?,
        None => Vec::new(),
    };
    Ok(Explanation {
        object: format!("gate/{id}"),
        chain,
        waiting: Vec::new(),
        recent,
        next,
    })
}

fn since(gate: &shared::gate::Gate) -> Timestamp {
    gate.consumed_at
        .or(gate.decision.as_ref().map(|d| d.at))
        .unwrap_or(gate.opened_at)
}

fn hive(context: &Context) -> Explanation {
    let views = context.reconciler.views();
    let waiting = views.hive_waiting.clone();
    let mut chain: Vec<String> = waiting.iter().map(sentence).collect();
    if chain.is_empty() {
        chain.push("the hive itself waits on nothing; ask about an agent".to_owned());
    }
    let failures = views
        .failures
        .iter()
        .map(|(key, error)| format!("the pass over {key} failed: {error}"));
    chain.extend(failures);
    let next = next_commands(&waiting);
    Explanation {
        object: "hive".to_owned(),
        chain,
        waiting,
        recent: Vec::new(),
        next,
    }
}
