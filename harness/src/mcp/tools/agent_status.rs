//! `agent_status`: how another agent is.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::AgentName;
use shared::plan::WaitingOn;
use shared::spec::Role;
use shared::status::{AgentStatus, McpHealth};

use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// How many of anything are listed.
const MOST: usize = 20;

/// The tool.
pub(super) struct StatusOf;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// Whose status.
    agent: AgentName,
}

impl HiveTool for StatusOf {
    const NAME: &'static str = "agent_status";
    const ABOUT: &'static str = "Show how an agent is: whether it runs and is healthy, what it does, which config it has, \
        what it waits on, its MCP servers and unread messages.";
    const EFFECT: Effect = Effect::Reads;
    type Arguments = Arguments;

    async fn call(hive: &Hive, Arguments { agent }: Arguments, _call: &Call) -> Result<String, ToolError> {
        let status = hive.patiently(Again::Looks, || hive.client.agent(&agent)).await?;
        Ok(shown(&status))
    }
}

fn shown(status: &AgentStatus) -> String {
    let AgentStatus {
        name,
        role,
        sync,
        health,
        activity,
        turn,
        waiting,
        generations,
        mcp,
        inbox,
        faults,
        notices,
        ..
    } = status;
    let role = match role {
        Role::Manager => "manager",
        Role::Worker => "worker",
    };
    let mut text = format!("{name}: {role}\n");
    for (axis, value, since, message) in [
        ("sync", sync.value.as_str(), sync.since, &sync.message),
        ("health", health.value.as_str(), health.since, &health.message),
        (
            "activity",
            activity.value.as_str(),
            activity.since,
            &activity.message,
        ),
    ] {
        text.push_str(&format!(
            "{axis}: {value} since {}: {}\n",
            show::time(since),
            show::quoted(message, 300)
        ));
    }
    let turn = turn.map_or("not known", |turn| turn.as_str());
    text.push_str(&format!("turn loop: {turn}; unread messages: {inbox}\n"));
    text.push_str(&match (&generations.commit, generations.proposal) {
        (Some(commit), Some(number)) => format!("deployed: commit {} of proposal {number}", commit.short()),
        (Some(commit), None) => format!("nothing is deployed yet; main is at commit {}", commit.short()),
        (None, _) => "nothing is deployed yet".to_owned(),
    });
    if generations.desired != generations.deployed {
        text.push_str("; what is wanted is another system");
    }
    text.push('\n');
    for waiting in waiting.iter().take(MOST) {
        text.push_str(&format!(
            "waits: {} ({})\n",
            show::quoted(&waiting.what, 200),
            on(&waiting.on)
        ));
    }
    for (server, state) in mcp.iter().take(MOST) {
        let health = match state.health {
            McpHealth::Healthy => "healthy",
            McpHealth::Failed => "failed",
            McpHealth::Unprobed => "not probed",
            McpHealth::Differs => "works, but turns find other tools than the probe did",
            McpHealth::Unknown => "in a state this harness does not know",
        };
        let error = state.error.as_ref();
        let error = error.map_or_else(String::new, |error| format!(": {}", show::quoted(error, 300)));
        text.push_str(&format!("MCP server {server}: {health}{error}\n"));
    }
    for (word, lines) in [("fault of its spec", faults), ("notice", notices)] {
        for line in lines.iter().take(MOST) {
            text.push_str(&format!("{word}: {}\n", show::quoted(line, 300)));
        }
    }
    text
}

fn on(on: &WaitingOn) -> String {
    match on {
        WaitingOn::Gate { gate, class } => format!("the operator's decision at gate {gate}, class {class}"),
        WaitingOn::TurnBoundary { deadline } => {
            format!("the end of its turn, at the latest {}", show::time(*deadline))
        }
        WaitingOn::StaleInventory { source, .. } => format!("news from its {}", crate::tame(source, 60)),
        WaitingOn::Dependency { first } => format!("this first: {}", show::quoted(first, 200)),
        WaitingOn::Backoff { until, error, .. } => {
            format!(
                "the next try at {}: {}",
                show::time(*until),
                show::quoted(error, 300)
            )
        }
        WaitingOn::Health { until } => format!("its health, at the latest {}", show::time(*until)),
        WaitingOn::Suspended { by, .. } => {
            format!("the operator, who suspended it: {}", show::quoted(by, 60))
        }
        WaitingOn::Terminal { error } => format!("it will not mend itself: {}", show::quoted(error, 500)),
        WaitingOn::Breaker { why, .. } => format!("it will not mend itself: {}", show::quoted(why, 300)),
    }
}
