//! `spawn_commit`: offers a draft to the operator.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::AgentName;

use super::propose_config::check_reason;
use super::spawn::draft_line;
use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// The tool.
pub(super) struct SpawnCommit;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// The draft's name.
    name: AgentName,
    /// Why the agent is wanted, for the operator who decides.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    reason: String,
}

impl HiveTool for SpawnCommit {
    const NAME: &'static str = "spawn_commit";
    const ABOUT: &'static str = "Offer a draft that you prepared with `spawn_draft`. It is built; then the operator \
        decides. You get a message about the outcome.";
    const EFFECT: Effect = Effect::Adds;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, _call: &Call) -> Result<String, ToolError> {
        let Arguments { name, reason } = arguments;
        check_reason(&reason)?;
        let draft = hive
            .patiently(Again::Never, || hive.client.offer_draft(&name, &reason))
            .await?;
        Ok(format!(
            "{}You get a message about the outcome.",
            draft_line(&draft)
        ))
    }
}
