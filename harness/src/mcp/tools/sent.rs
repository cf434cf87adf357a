//! `sent`: where this agent's own messages are.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// How many are shown when nobody says.
const USUAL: u32 = 20;
/// How many are shown at most.
const MOST: u32 = 50;

/// The tool.
pub(super) struct Sent;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// At most this many. Default 20.
    #[schemars(range(min = 1, max = 50))]
    limit: Option<u32>,
    /// Only messages with a lower id: the next page.
    #[schemars(range(min = 1))]
    before: Option<u64>,
}

impl HiveTool for Sent {
    const NAME: &'static str = "sent";
    const ABOUT: &'static str = "List your own messages, newest first, and where each is: waiting, with the recipient, \
        delivered, or dead.";
    const EFFECT: Effect = Effect::Reads;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, _call: &Call) -> Result<String, ToolError> {
        let limit = arguments.limit.unwrap_or(USUAL);
        if !(1..=MOST).contains(&limit) {
            return Err(ToolError::Refused(format!("limit is 1 to {MOST}")));
        }
        let messages = hive
            .patiently(Again::Looks, || hive.client.sent(arguments.before, limit))
            .await?;
        if messages.is_empty() {
            return Ok("None.".into());
        }
        let mut text = String::new();
        for message in &messages {
            text.push_str(&format!(
                "message {} to {} at {}: {} (tried {}x): {}\n",
                message.id,
                message.to,
                show::time(message.at),
                show::delivery(message.state),
                message.deliveries,
                show::quoted(&message.body, 80),
            ));
        }
        // A page ends early when its texts are long, so its length says nothing.
        if let Some(last) = messages.last() {
            text.push_str(&format!("Older ones: before={}\n", last.id));
        }
        Ok(text)
    }
}
