//! `loose_ends`: what is still open.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// How many are shown when nobody says.
const USUAL: usize = 30;
/// How many are shown at most.
const MOST: usize = 100;

/// The tool.
pub(super) struct LooseEnds;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// At most this many. Default 30.
    #[schemars(range(min = 1, max = 100))]
    limit: Option<usize>,
    /// How many to leave out from the beginning: the next page.
    offset: Option<usize>,
}

impl HiveTool for LooseEnds {
    const NAME: &'static str = "loose_ends";
    const ABOUT: &'static str = "List what is still open and involves you, oldest first: questions asked by or of you, \
        reminders, gates that wait for the operator, messages that could not be delivered. Of a manager: everybody's.";
    const EFFECT: Effect = Effect::Reads;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, _call: &Call) -> Result<String, ToolError> {
        let limit = arguments.limit.unwrap_or(USUAL);
        let offset = arguments.offset.unwrap_or(0);
        if !(1..=MOST).contains(&limit) {
            return Err(ToolError::Refused(format!("limit is 1 to {MOST}")));
        }
        let all = hive.patiently(Again::Looks, || hive.client.loose_ends()).await?;
        let mut text = String::new();
        for end in all.iter().skip(offset).take(limit) {
            text.push_str(&format!("{} of {}", crate::tame(&end.id, 40), end.owner));
            if let Some(who) = &end.waits_for {
                text.push_str(&format!(", waits for {who}"));
            }
            text.push_str(&format!(", since {}", show::time(end.since)));
            if let Some(due) = end.due {
                text.push_str(&format!(", due {}", show::time(due)));
            }
            text.push_str(&format!(": {}", show::quoted(&end.about, 160)));
            if let Some(error) = &end.error {
                text.push_str(&format!(" - wrong with it: {}", show::quoted(error, 160)));
            }
            text.push('\n');
        }
        let shown = text.lines().count();
        if shown == 0 {
            return Ok(format!("None{}.", if offset > 0 { " from there on" } else { "" }));
        }
        if offset + shown < all.len() {
            text.push_str(&format!(
                "{} in all; next page: offset={}\n",
                all.len(),
                offset + shown
            ));
        }
        Ok(text)
    }
}
