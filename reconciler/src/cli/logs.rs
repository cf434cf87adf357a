//! `hive logs`: the end of what an agent printed.

use shared::AgentName;
use shared::look::{AgentLog, LogLine};

use super::error::CliError;
use super::exit::Exit;
use super::page::{Page, Tone};
use super::{Session, sse};

/// Arguments of `hive logs`.
#[derive(Debug, clap::Args)]
pub(super) struct LogsArgs {
    /// The agent
    agent: AgentName,
    /// Show at most this many lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    lines: u32,
    /// Follow: show new lines as they are printed, until Ctrl-C
    #[arg(short, long, conflicts_with = "build")]
    follow: bool,
    /// Show what its newest build said, not what it printed itself
    #[arg(long)]
    build: bool,
}

pub(super) async fn run(session: &mut Session<'_>, args: LogsArgs) -> Result<Exit, CliError> {
    let LogsArgs {
        agent,
        lines,
        follow,
        build,
    } = args;
    if follow {
        return tokio::select! {
            // Nothing is lost by dropping the follower in the middle: it only reads.
            stop = tokio::signal::ctrl_c() => stop.map(|()| Exit::Done).map_err(CliError::Output),
            end = go_on(session, &agent, lines) => end,
        };
    }
    let build = if build { "&build=true" } else { "" };
    let path = format!("/v1/agents/{agent}/logs?lines={lines}{build}");
    let reply = session.client.get::<AgentLog>(&path).await?;
    session.ui.show(&reply.raw, || render(&reply.view))?;
    Ok(Exit::Done)
}

/// Shows lines as they come, across restarts of the daemon. What is printed while it is away is not shown: without `-f` all of
/// it is.
async fn go_on(session: &mut Session<'_>, agent: &AgentName, lines: u32) -> Result<Exit, CliError> {
    let path = format!("/v1/agents/{agent}/logs?follow=true&lines={lines}");
    let mut stream = session.client.stream(&path, "").await?;
    loop {
        sse::read(stream, |line: LogLine| {
            session.ui.show_line(&line, || {
                let mut page = Page::default();
                page.line([line.line.as_str().into()]);
                page
            })
        })
        .await?;
        sse::pause().await;
        let path = format!("/v1/agents/{agent}/logs?follow=true&lines=0");
        stream = sse::patiently(async || session.client.stream(&path, "").await).await?;
    }
}

fn render(log: &AgentLog) -> Page {
    let mut page = Page::default();
    if log.lines.is_empty() {
        let said = format!("{} has printed nothing; hive events has what happened", log.agent);
        page.line([Tone::Faint.of(said)]);
    } else if log.cut {
        page.line([Tone::Faint.of("… there is more before this")]);
    }
    for line in &log.lines {
        page.line([line.as_str().into()]);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn a_log_is_shown_line_by_line_and_cannot_act_on_a_terminal() {
        let log: AgentLog = serde_json::from_value(fixtures::log_json()).expect("a wire document");
        insta::assert_snapshot!(fixtures::plain(&render(&log)), @r"
        … there is more before this
        INFO a turn begins
        the wiki ␛[2Jis ready
        ");
        let nothing = AgentLog {
            lines: Vec::new(),
            cut: false,
            ..log
        };
        insta::assert_snapshot!(fixtures::plain(&render(&nothing)), @"alice has printed nothing; hive events has what happened");
    }
}
