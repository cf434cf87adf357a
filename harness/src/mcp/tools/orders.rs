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
pub(in crate::mcp) struct Arguments {
    /// Which agent.
    agent: AgentName,
    /// Why, for the operator and for history.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    reason: String,
}

/// What each of them is beside that.
trait Order: 'static {
    /// Its name, as a tool and as an order.
    const VERB: &'static str;
    /// What the model reads of it.
    const WHAT: &'static str;
    /// What is to be said of its outcome, besides what the daemon says.
    const NOTE: &'static str = "";
}

impl<O: Order> HiveTool for O {
    const NAME: &'static str = O::VERB;
    const ABOUT: &'static str = O::WHAT;
    const EFFECT: Effect = Effect::Changes;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, call: &Call) -> Result<String, ToolError> {
        let Arguments { agent, reason } = arguments;
        check_reason(&reason)?;
        let request = OrderRequest {
            reason,
            dedupe: Some(call.dedupe.clone()),
        };
        // The same order once more is the same order.
        let answer = hive
            .patiently(Again::Known, || hive.client.order(&agent, O::VERB, &request))
            .await?;
        Ok(format!("{}.{}", crate::tame(&answer.message, 1000), O::NOTE))
    }
}

impl Order for Start {
    const VERB: &'static str = "start";
    const WHAT: &'static str = "Have an agent run that is stopped. The policy allows it, has the operator decide, or \
        forbids it; what the operator stopped stays stopped.";
}

impl Order for Stop {
    const VERB: &'static str = "stop";
    const WHAT: &'static str = "Have an agent stop when its turn is over, and stay stopped until somebody starts it. \
        Its messages wait. The policy allows it, has the operator decide, or forbids it.";
}

impl Order for Restart {
    const VERB: &'static str = "restart";
    const WHAT: &'static str = "Have an agent restart when its turn is over; its conversation goes on. For one that \
        misbehaves: a new config needs none. The policy allows it, has the operator decide, or forbids it.";
}

impl Order for Rebuild {
    const VERB: &'static str = "rebuild";
    const WHAT: &'static str = "Have what an agent is to be (operator's settings and its deployed commit) built once \
        more, and deployed if something else comes of it. For an agent whose build failed for a reason that is gone.";
}

impl Order for Update {
    const VERB: &'static str = "update";
    const WHAT: &'static str = "Bring an agent to the current base system. The daemon does so by itself, a few agents at \
        a time, so this is what `rebuild` does.";
    const NOTE: &'static str =
        " An update is a rebuild: what all agents are built upon is taken up without being asked for.";
}

impl Order for Archive {
    const VERB: &'static str = "archive";
    const WHAT: &'static str = "Have an agent that was spawned stopped and put away with its state; the operator can bring \
        it back. The operator decides, unless the policy says otherwise; you are told. Agents that the operator declared \
        are not yours to archive.";
}
