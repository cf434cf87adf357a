//! `start`, `stop`, `restart`, `rebuild`, `update`, `archive`: what a manager orders about other agents.

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
/// `rebuild`.
pub(super) struct Rebuild;
/// `update`.
pub(super) struct Update;
/// `archive`.
pub(super) struct Archive;

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

impl HiveTool for Rebuild {
    const NAME: &'static str = "rebuild";
    const ABOUT: &'static str = "Have what an agent is to be (operator's settings and its deployed commit) built once \
        more, and deployed if something else comes of it. For an agent whose build failed for a reason that is gone.";
    const EFFECT: Effect = Effect::Changes;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, call: &Call) -> Result<String, ToolError> {
        order(hive, "rebuild", arguments, call).await
    }
}

impl HiveTool for Update {
    const NAME: &'static str = "update";
    const ABOUT: &'static str = "Bring an agent to the current base system. Where agents have no base of their own (the \
        plain builder), this is what `rebuild` does.";
    const EFFECT: Effect = Effect::Changes;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, call: &Call) -> Result<String, ToolError> {
        let said = order(hive, "update", arguments, call).await?;
        Ok(format!(
            "{said} With the plain builder, the only one yet, an update is a rebuild."
        ))
    }
}

impl HiveTool for Archive {
    const NAME: &'static str = "archive";
    const ABOUT: &'static str = "Have an agent that was spawned stopped and put away with its state; the operator can bring \
        it back. The operator decides, unless the policy says otherwise; you are told. Agents that the operator declared \
        are not yours to archive.";
    const EFFECT: Effect = Effect::Changes;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, call: &Call) -> Result<String, ToolError> {
        order(hive, "archive", arguments, call).await
    }
}
