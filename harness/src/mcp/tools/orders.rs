//! `start`, `stop`, `restart`: what a manager orders about other agents.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::AgentName;
use shared::order::OrderRequest;

use super::propose_config::check_reason;
use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// `start`.
pub(super) struct Start;
/// `stop`.
pub(super) struct Stop;
/// `restart`.
pub(super) struct Restart;

/// What each of them takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// Which agent.
    agent: AgentName,
    /// Why, for the operator and for history.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    reason: String,
}

async fn order(hive: &Hive, verb: &str, arguments: Arguments, call: &Call) -> Result<String, ToolError> {
    let Arguments { agent, reason } = arguments;
    check_reason(&reason)?;
    let request = OrderRequest {
        reason,
        dedupe: Some(call.dedupe.clone()),
    };
    // The same order once more is the same order.
    let answer = hive
        .patiently(Again::Known, || hive.client.order(&agent, verb, &request))
        .await?;
    Ok(format!("{}.", crate::tame(&answer.message, 1000)))
}

impl HiveTool for Start {
    const NAME: &'static str = "start";
    const ABOUT: &'static str = "Have an agent run that is stopped. The policy allows it, has the operator decide, or \
        forbids it; what the operator stopped stays stopped.";
    const EFFECT: Effect = Effect::Changes;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, call: &Call) -> Result<String, ToolError> {
        order(hive, "start", arguments, call).await
    }
}

impl HiveTool for Stop {
    const NAME: &'static str = "stop";
    const ABOUT: &'static str = "Have an agent stop when its turn is over, and stay stopped until somebody starts it. \
        Its messages wait. The policy allows it, has the operator decide, or forbids it.";
    const EFFECT: Effect = Effect::Changes;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, call: &Call) -> Result<String, ToolError> {
        order(hive, "stop", arguments, call).await
    }
}

impl HiveTool for Restart {
    const NAME: &'static str = "restart";
    const ABOUT: &'static str = "Have an agent restart when its turn is over; its conversation goes on. For one that \
        misbehaves: a new config needs none. The policy allows it, has the operator decide, or forbids it.";
    const EFFECT: Effect = Effect::Changes;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, call: &Call) -> Result<String, ToolError> {
        order(hive, "restart", arguments, call).await
    }
}
