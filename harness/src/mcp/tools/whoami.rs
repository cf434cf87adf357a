//! `whoami`: who this agent is.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::agent_api::WhoAmI;
use shared::spec::Role;

use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// How many names are listed.
pub(super) const MOST_NAMES: usize = 500;

/// The tool.
pub(super) struct Whoami;

/// What it takes: nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {}

impl HiveTool for Whoami {
    const NAME: &'static str = "whoami";
    const ABOUT: &'static str = "Say who you are: your name, hive, role and operator, whom you may write to, who the \
        managers are, which config of yours is deployed, and the time.";
    const EFFECT: Effect = Effect::Reads;
    type Arguments = Arguments;

    async fn call(hive: &Hive, Arguments {}: Arguments, _call: &Call) -> Result<String, ToolError> {
        let WhoAmI {
            name,
            hive: home,
            role,
            operator,
            recipients,
            managers,
            commit,
            now,
        } = hive.patiently(Again::Looks, || hive.client.whoami()).await?;
        let role = match role {
            Role::Manager => "a manager",
            Role::Worker => "an agent",
        };
        let mut text = format!(
            "You are {name}, {role} of the hive {}.\n",
            show::quoted(&home, 80)
        );
        text.push_str("Operator: ");
        text.push_str(&match &operator.name {
            Some(name) => format!("operator, whose name is {}", show::quoted(name, 80)),
            None => "operator".to_owned(),
        });
        if let Some(pronouns) = &operator.pronouns {
            text.push_str(&format!(" ({})", crate::tame(pronouns, 40)));
        }
        text.push('\n');
        text.push_str(&format!("You may write to: {}\n", names(&recipients)));
        text.push_str(&format!("Managers: {}\n", names(&managers)));
        text.push_str(&match &commit {
            Some(commit) => format!("Deployed config: commit {commit}\n"),
            None => "Deployed config: none yet\n".to_owned(),
        });
        text.push_str(&format!("Time: {}\n", show::time(now)));
        Ok(text)
    }
}

/// Names in one line.
pub(super) fn names<T: std::fmt::Display>(all: &[T]) -> String {
    if all.is_empty() {
        return "nobody".to_owned();
    }
    let shown: Vec<String> = all.iter().take(MOST_NAMES).map(ToString::to_string).collect();
    let more = all.len() - shown.len();
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", shown.join(", "))
}
