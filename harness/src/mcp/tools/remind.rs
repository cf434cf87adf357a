//! `remind`: a message to oneself at a later time.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use shared::agent_api::MAX_BODY_BYTES;
use shared::reminder::{CronSchedule, MAX_REMINDER_BYTES, Missed, ReminderRequest, Schedule};

use super::send::check_body;
use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::files::{self, Older};
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// The most reminders whose text is in a file.
const MOST_FILES: usize = 1000;

/// The tool.
pub(super) struct Remind;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// What to be reminded of. Write it for somebody who has forgotten everything. What is longer than 4 KiB is kept
    /// in a file that the reminder names.
    #[schemars(length(min = 1, max = 262_144))]
    body: String,
    /// Once, after this many seconds. Give exactly one of afterSecs, at and cron.
    #[schemars(range(min = 1))]
    after_secs: Option<u64>,
    /// Once, at this time, as in 2026-05-01T09:00:00Z.
    at: Option<Timestamp>,
    /// Again and again: minute, hour, day of the month, month, day of the week, as in `0 9 * * 1-5`.
    #[schemars(length(min = 9, max = 200))]
    cron: Option<String>,
    /// The time zone of cron by its IANA name, as in Europe/Berlin. Default UTC.
    #[schemars(length(min = 1, max = 64))]
    time_zone: Option<String>,
    /// What becomes of it when it was due while nobody was there: it comes late (run, the default), not at all (skip), or
    /// a message says that it was missed (notify).
    missed: Option<Missed>,
}

impl HiveTool for Remind {
    const NAME: &'static str = "remind";
    const ABOUT: &'static str = "Send yourself a message at a later time, once or again and again. It wakes you, also \
        after restarts. Use it instead of waiting or polling.";
    const EFFECT: Effect = Effect::Adds;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, call: &Call) -> Result<String, ToolError> {
        let Arguments {
            body,
            after_secs,
            at,
            cron,
            time_zone,
            missed,
        } = arguments;
        check_body(&body)?;
        if time_zone.is_some() && cron.is_none() {
            return Err(ToolError::Refused("timeZone is for cron alone".into()));
        }
        let schedule = match (after_secs, at, cron) {
            (Some(secs), None, None) => Schedule::AfterSecs(secs),
            (None, Some(at), None) => Schedule::At(at),
            (None, None, Some(expression)) => Schedule::Cron(CronSchedule {
                expression,
                time_zone,
            }),
            _ => {
                return Err(ToolError::Refused(
                    "give exactly one of afterSecs, at and cron".into(),
                ));
            }
        };
        let body = shorten(hive, body, call).await?;
        let request = ReminderRequest {
            schedule,
            body,
            missed: missed.unwrap_or_default(),
            dedupe: Some(call.dedupe.clone()),
        };
        let set = hive
            .patiently(Again::Known, || hive.client.remind(&request))
            .await?;
        let due = set.due.map_or_else(|| "at no time".to_owned(), show::time);
        Ok(format!(
            "Reminder {} is set; it comes next {due}. To take it back: cancel_loose_end reminder/{}.",
            set.id, set.id
        ))
    }
}

/// The text itself, or one that names the file it is in.
async fn shorten(hive: &Hive, body: String, call: &Call) -> Result<String, ToolError> {
    const { assert!(MAX_REMINDER_BYTES < MAX_BODY_BYTES) };
    if body.len() <= MAX_REMINDER_BYTES {
        return Ok(body);
    }
    let begin = show::cut(&body, 1000).to_owned();
    let name = format!("{}.txt", call.dedupe);
    let path = files::keep(&hive.state, "reminders", name, body, Older::Kept(MOST_FILES)).await?;
    Ok(format!(
        "The whole text of this reminder is in {path}. It begins:\n\n{begin}"
    ))
}
