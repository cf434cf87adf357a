//! `nap`: no turn for a while.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::clock;
use crate::control::Said;
use crate::mcp::context::Hive;
use crate::mcp::error::ToolError;
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// The longest nap, in seconds: a week.
const LONGEST: u32 = 7 * 24 * 3600;

/// The tool.
pub(super) struct Nap;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// For how many seconds, at most a week.
    #[schemars(range(min = 1, max = 604_800))]
    secs: u32,
    /// Whether a message wakes you earlier. Default true. With false, messages wait until the nap is over.
    wake_on_message: Option<bool>,
}

impl HiveTool for Nap {
    const NAME: &'static str = "nap";
    const ABOUT: &'static str = "Take no turns for a while, from the end of this turn on. You are not woken by the end \
        of the nap itself, only by what is waiting then: use `remind` to be woken at a time. End your turn after this.";
    const EFFECT: Effect = Effect::Adds;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, _call: &Call) -> Result<String, ToolError> {
        let Arguments {
            secs,
            wake_on_message,
        } = arguments;
        if !(1..=LONGEST).contains(&secs) {
            return Err(ToolError::Refused(format!("secs is 1 to {LONGEST}")));
        }
        let wake_on_message = wake_on_message.unwrap_or(true);
        let until: Timestamp = clock::now()
            .checked_add(SignedDuration::from_secs(secs.into()))
            .map_err(|error| ToolError::Refused(format!("that time cannot be: {error}")))?;
        hive.control
            .say(&Said::Nap {
                until,
                wake_on_message,
            })
            .await?;
        let unless = if wake_on_message {
            ", unless somebody writes to you"
        } else {
            "; messages wait until then"
        };
        Ok(format!(
            "After this turn you take none before {}{unless}. End your turn now.",
            show::time(until)
        ))
    }
}
