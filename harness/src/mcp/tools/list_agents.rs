//! `list_agents`: who is in the hive, as far as a manager's own door shows it.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::name::Address;

use super::spawn::draft_line;
use super::whoami::MOST_NAMES;
use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// The tool.
pub(super) struct ListAgents;

/// What it takes: nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {}

impl HiveTool for ListAgents {
    const NAME: &'static str = "list_agents";
    const ABOUT: &'static str = "List the agents that you may write to, which of them are managers, and the agents that \
        you prepare as drafts. What is open about any of them, `loose_ends` shows.";
    const EFFECT: Effect = Effect::Reads;
    type Arguments = Arguments;

    async fn call(hive: &Hive, Arguments {}: Arguments, _call: &Call) -> Result<String, ToolError> {
        let me = hive.patiently(Again::Looks, || hive.client.whoami()).await?;
        let drafts = hive.patiently(Again::Looks, || hive.client.drafts()).await?;
        let mut text = String::new();
        let agents = me.recipients.iter().filter_map(|address| match address {
            Address::Agent(name) => Some(name),
            Address::Operator | Address::System => None,
        });
        let count = agents.clone().count();
        for name in agents.take(MOST_NAMES) {
            let role = if me.managers.contains(name) {
                "manager"
            } else {
                "worker"
            };
            text.push_str(&format!("{name}: {role}\n"));
        }
        if count > MOST_NAMES {
            text.push_str(&format!("and {} more\n", count - MOST_NAMES));
        }
        if count == 0 {
            text.push_str("There is no other agent that you may write to.\n");
        }
        for draft in &drafts {
            text.push_str(&draft_line(draft));
        }
        Ok(text)
    }
}
