//! `list_agents`: who is in the hive, as far as a manager's own door shows it.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::AgentName;
use shared::name::Address;
use shared::status::AgentStatus;

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
    const ABOUT: &'static str = "List the agents that you may write to, which of them are managers, how each is, and the \
        agents that you prepare as drafts. `agent_status` says more; what is open about any, `loose_ends` shows.";
    const EFFECT: Effect = Effect::Reads;
    type Arguments = Arguments;

    async fn call(hive: &Hive, Arguments {}: Arguments, _call: &Call) -> Result<String, ToolError> {
        let me = hive.patiently(Again::Looks, || hive.client.whoami()).await?;
        let drafts = hive.patiently(Again::Looks, || hive.client.drafts()).await?;
        // How they are is more than was asked for first: the list is shown even when nobody says it.
        let states = hive.client.agents().await.unwrap_or_default();
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
            text.push_str(&format!("{name}: {role}{}\n", state(&states, name)));
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

/// How an agent is, in a few words.
fn state(states: &[AgentStatus], name: &AgentName) -> String {
    let Some(status) = states.iter().find(|status| status.name == *name) else {
        return String::new();
    };
    let turn = status.turn.map_or("", |turn| turn.as_str());
    let turn = if turn.is_empty() {
        String::new()
    } else {
        format!(", {turn}")
    };
    format!("; {}, {}{turn}", status.health.value, status.activity.value)
}
