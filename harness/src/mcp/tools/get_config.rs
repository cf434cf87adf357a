//! `get_config`: another agent's configuration.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::AgentName;
use shared::look::ConfigInfo;
use shared::status::Origin;

use super::config_status;
use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// How much of each text is shown, in bytes.
const SHOWN: usize = 16 * 1024;
/// How many proposals are shown.
const PROPOSALS: usize = 5;

/// The tool.
pub(super) struct GetConfig;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// Whose config.
    agent: AgentName,
}

impl HiveTool for GetConfig {
    const NAME: &'static str = "get_config";
    const ABOUT: &'static str = "Show an agent's configuration: what is in force, where each value comes from, its \
        agent.json as deployed, and its last proposals.";
    const EFFECT: Effect = Effect::Reads;
    type Arguments = Arguments;

    async fn call(hive: &Hive, Arguments { agent }: Arguments, _call: &Call) -> Result<String, ToolError> {
        let info = hive
            .patiently(Again::Looks, || hive.client.config_of(&agent))
            .await?;
        Ok(shown(&info))
    }
}

fn shown(info: &ConfigInfo) -> String {
    let ConfigInfo {
        agent,
        commit,
        proposal,
        config,
        origins,
        overlay,
        proposals,
    } = info;
    let marker = crate::ids::marker();
    let mut text = match (commit, proposal) {
        (Some(commit), Some(number)) => {
            format!("{agent}: commit {commit} of proposal {number} is deployed.\n")
        }
        (Some(commit), None) => format!("{agent}: nothing is deployed; main is at commit {commit}.\n"),
        (None, _) => format!("{agent}: there is no config repo yet.\n"),
    };
    if let Some(config) = config {
        let json = serde_json::to_string_pretty(config).unwrap_or_default();
        text.push_str(&part(&marker, "config in force", &json));
    }
    for (field, origin) in origins {
        text.push_str(&format!("{}: {}\n", crate::tame(field, 60), source(*origin)));
    }
    if let Some(overlay) = overlay {
        text.push_str(&part(&marker, "agent.json", overlay));
    }
    for proposal in proposals.iter().take(PROPOSALS) {
        text.push_str(&config_status::line(proposal));
    }
    if proposals.is_empty() {
        text.push_str("Nothing is proposed.\n");
    }
    text
}

/// A text between borders, as much of it as is shown.
fn part(marker: &str, what: &str, text: &str) -> String {
    let begin = show::cut(text, SHOWN);
    let cut = if begin.len() < text.len() {
        "(the rest is not shown)\n"
    } else {
        ""
    };
    format!("{}{cut}", show::bordered(marker, what, begin))
}

fn source(origin: Origin) -> &'static str {
    match origin {
        Origin::Default => "the default",
        Origin::Spec => "declared by the operator",
        Origin::Commit => "from its commit",
        Origin::Granted => "from its commit, granted by the operator beyond what is declared",
        Origin::Lapsed => "declared by the operator, who changed it after the commit was granted",
        Origin::Locked => "declared by the operator and locked",
    }
}
