//! `get_logs`: the end of what an agent printed, and what happened to it.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::AgentName;
use shared::look::AgentLog;

use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// How many lines are shown when nobody says.
const USUAL: u32 = 50;
/// How many are shown at most.
const MOST: u32 = 500;
/// How many events are shown.
const EVENTS: u32 = 20;
/// How much of the lines is shown, in bytes.
const SHOWN: usize = 32 * 1024;

/// The tool.
pub(super) struct GetLogs;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// Whose log, yours unless given. Only managers see those of others.
    agent: Option<AgentName>,
    /// At most this many lines from the end. Default 50.
    #[schemars(range(min = 1, max = 500))]
    lines: Option<u32>,
    /// Show what the newest build of the config said, also while it runs, not what was printed.
    #[serde(default)]
    build: bool,
}

impl HiveTool for GetLogs {
    const NAME: &'static str = "get_logs";
    const ABOUT: &'static str = "Show the end of what your harness and driver printed (starts, turns, errors), and what \
        happened to you last. For finding out why something failed.";
    const EFFECT: Effect = Effect::Reads;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, _call: &Call) -> Result<String, ToolError> {
        let lines = arguments.lines.unwrap_or(USUAL);
        if !(1..=MOST).contains(&lines) {
            return Err(ToolError::Refused(format!("lines is 1 to {MOST}")));
        }
        let agent = match arguments.agent {
            Some(agent) => agent,
            None => hive.patiently(Again::Looks, || hive.client.whoami()).await?.name,
        };
        let log = hive
            .patiently(Again::Looks, || {
                hive.client.logs(&agent, lines, EVENTS, arguments.build)
            })
            .await?;
        Ok(shown(&log))
    }
}

fn shown(log: &AgentLog) -> String {
    let AgentLog {
        agent,
        lines,
        cut,
        events,
    } = log;
    // The newest are worth most.
    let mut left = SHOWN;
    let fits = |line: &&String| {
        left = left.saturating_sub(line.len() + 1);
        left > 0
    };
    let count = lines.iter().rev().take_while(fits).count();
    let end = &lines[lines.len() - count..];
    let mut text = if end.is_empty() {
        format!("{agent} has printed nothing.\n")
    } else {
        let marker = crate::ids::marker();
        let before = if *cut || count < lines.len() {
            "; there is more before them"
        } else {
            ""
        };
        let what = format!("log of {agent}");
        format!(
            "The last {count} lines{before}.\n{}",
            show::bordered(&marker, &what, &end.join("\n"))
        )
    };
    if events.is_empty() {
        text.push_str("Nothing has happened to it.\n");
    } else {
        text.push_str("What happened last, oldest first:\n");
    }
    for event in events {
        text.push_str(&format!(
            "{} {}: {}\n",
            show::time(event.at),
            crate::tame(&event.kind, 60),
            show::quoted(&event.message, 300)
        ));
    }
    text
}
