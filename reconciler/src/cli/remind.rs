//! `hive remind`: what an agent is to be told later.

use jiff::{SignedDuration, Timestamp};
use shared::AgentName;
use shared::reminder::{CronSchedule, Missed, ReminderInfo, ReminderRequest, Schedule};

use super::Session;
use super::agent::text_of;
use super::error::CliError;
use super::exit::Exit;
use super::look::parse_duration;
use super::mail::said;

/// Arguments of `hive remind`.
#[derive(Debug, clap::Args)]
pub(super) struct RemindArgs {
    /// The agent
    agent: AgentName,
    /// What it is told; - reads it from standard input
    #[arg(allow_hyphen_values = true)]
    text: String,
    #[command(flatten)]
    when: When,
    /// The time zone of --cron, such as Europe/Berlin; UTC unless given
    #[arg(long, value_name = "ZONE", conflicts_with_all = ["after", "at"])]
    time_zone: Option<String>,
    /// What becomes of it when it was due while the daemon was not there
    #[arg(long, value_name = "WHAT", default_value = "run")]
    missed: WhenMissed,
    /// Set it once however often this command is run with the same id
    #[arg(long, value_name = "ID")]
    dedupe: Option<String>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct When {
    /// Once, after this time, such as 30m, 2h or 1d
    #[arg(long = "in", value_name = "TIME", value_parser = parse_duration)]
    after: Option<SignedDuration>,
    /// Once, at this time, such as 2026-12-24T18:00:00Z
    #[arg(long, value_name = "TIMESTAMP")]
    at: Option<Timestamp>,
    /// Whenever this expression fits: minute, hour, day of the month, month, day of the week, such as "0 9 * * 1-5"
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum WhenMissed {
    /// It comes as soon as possible, once
    Run,
    /// It does not come
    Skip,
    /// It does not come, and the agent is told that it was missed
    Notify,
}

pub(super) async fn run(session: &mut Session<'_>, args: RemindArgs) -> Result<Exit, CliError> {
    let RemindArgs {
        agent,
        text,
        when,
        time_zone,
        missed,
        dedupe,
    } = args;
    let body = text_of(text, &format!("the reminder for {agent}")).await?;
    let request = ReminderRequest {
        schedule: schedule(when, time_zone),
        body,
        missed: match missed {
            WhenMissed::Run => Missed::Run,
            WhenMissed::Skip => Missed::Skip,
            WhenMissed::Notify => Missed::Notify,
        },
        dedupe,
    };
    let path = format!("/v1/agents/{agent}/reminders");
    let reply = session.client.post::<ReminderInfo>(&path, &request).await?;
    let ReminderInfo { id, due, .. } = &reply.view;
    session.ui.show(&reply.raw, || {
        let due = due.map_or_else(String::new, |due| format!(", due {due}"));
        said(format!("reminder {id} for {agent} is set{due}"))
    })?;
    Ok(Exit::Done)
}

/// One of them is given.
fn schedule(when: When, time_zone: Option<String>) -> Schedule {
    match when {
        When {
            cron: Some(expression),
            ..
        } => Schedule::Cron(CronSchedule {
            expression,
            time_zone,
        }),
        When { at: Some(at), .. } => Schedule::At(at),
        When { after, .. } => {
            let secs = after.map_or(0, |after| after.unsigned_abs().as_secs());
            Schedule::AfterSecs(secs)
        }
    }
}
