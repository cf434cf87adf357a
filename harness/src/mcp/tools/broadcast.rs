//! `broadcast`: writes to every agent.

use schemars::JsonSchema;
use serde::Deserialize;

use super::send::check_body;
use super::whoami::names;
use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// The tool.
pub(super) struct Broadcast;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// The text, at most 256 KiB.
    #[schemars(length(min = 1, max = 262_144))]
    body: String,
}

impl HiveTool for Broadcast {
    const NAME: &'static str = "broadcast";
    const ABOUT: &'static str = "Write the same message to every other agent. It wakes all of them, and each turn costs money: \
        for one or a few, use `send`.";
    const EFFECT: Effect = Effect::Adds;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, call: &Call) -> Result<String, ToolError> {
        check_body(&arguments.body)?;
        let sent = hive
            .patiently(Again::Known, || {
                hive.client.broadcast(&arguments.body, &call.dedupe)
            })
            .await?;
        if sent.duplicate {
            return Ok("It had been sent before, and was not sent twice.".into());
        }
        let full = if sent.full.is_empty() {
            String::new()
        } else {
            format!(" Not to {}: their inboxes are full.", names(&sent.full))
        };
        Ok(format!("Stored. Recipients: {}.{full}", sent.count))
    }
}
