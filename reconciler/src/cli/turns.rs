//! `hive turns`: what agents' turns used, and how they ended.

use shared::AgentName;
use shared::turn::{TurnInfo, TurnResult};

use super::error::CliError;
use super::exit::Exit;
use super::look::Look;
use super::page::{Page, Span, Table, Tone};
use super::text::shorten;
use super::{Session, series};

/// How much of an error stands in a table, in characters.
const IN_A_LINE: usize = 60;

/// Arguments of `hive turns`.
#[derive(Debug, clap::Args)]
pub(super) struct TurnsArgs {
    /// The agent; without it, all
    agent: Option<AgentName>,
    /// Show only turns with a lower number
    #[arg(long, value_name = "N")]
    before: Option<u64>,
    /// Show at most this many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Show them added up, with the spread of what they took and used
    #[arg(long, conflicts_with_all = ["before", "limit"])]
    stats: bool,
    /// With --stats: look back so many hours
    #[arg(long, value_name = "N", requires = "stats", default_value_t = 168, value_parser = clap::value_parser!(u32).range(1..=2160))]
    hours: u32,
}

pub(super) async fn run(session: &mut Session<'_>, args: TurnsArgs) -> Result<Exit, CliError> {
    let TurnsArgs {
        agent,
        before,
        limit,
        stats,
        hours,
    } = args;
    if stats {
        return series::run(session, agent.as_ref(), hours).await;
    }
    let mut path = format!("/v1/turns?limit={limit}");
    if let Some(agent) = agent {
        path.push_str(&format!("&agent={agent}"));
    }
    if let Some(before) = before {
        path.push_str(&format!("&before={before}"));
    }
    let reply = session.client.get::<Vec<TurnInfo>>(&path).await?;
    let look = session.look();
    session.ui.show(&reply.raw, || render(&reply.view, &look))?;
    Ok(Exit::Done)
}

fn render(turns: &[TurnInfo], look: &Look) -> Page {
    let mut page = Page::default();
    if turns.is_empty() {
        page.line(["no turn is known".into()]);
        return page;
    }
    let header = [
        "N", "WHEN", "AGENT", "WOKEN BY", "RESULT", "TOOK", "TOKENS", "COST", "MODEL",
    ];
    let mut table = Table::with_header(&header);
    for TurnInfo {
        id,
        agent,
        at,
        stats,
        facts,
    } in turns
    {
        table.row([
            Tone::Strong.of(id.to_string()),
            Tone::Faint.of(look.relative(*at)),
            agent.to_string().into(),
            facts.wakers(stats).join(", ").into(),
            result(stats.result, stats.error.as_deref()),
            seconds(stats.duration_ms).into(),
            stats.tokens.total().to_string().into(),
            cost(stats.cost_usd),
            stats.model.as_deref().unwrap_or("").into(),
        ]);
    }
    page.table(&table);
    page
}

fn result(result: TurnResult, error: Option<&str>) -> Span {
    let tone = match result {
        TurnResult::Ok => Tone::Good,
        TurnResult::Interrupted => Tone::Faint,
        TurnResult::RateLimited
        | TurnResult::Overloaded
        | TurnResult::LimitReached
        | TurnResult::ContextFull => Tone::Warn,
        TurnResult::Auth
        | TurnResult::Billing
        | TurnResult::OutOfMemory
        | TurnResult::Crashed
        | TurnResult::Hung
        | TurnResult::Unknown => Tone::Bad,
    };
    match error {
        Some(error) => tone.of(format!("{}: {}", result.as_str(), shorten(error, IN_A_LINE))),
        None => tone.of(result.as_str()),
    }
}

/// A length of time, in seconds and tenths.
pub(super) fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// Nothing is said of a price that nobody knows.
pub(super) fn cost(usd: Option<f64>) -> Span {
    match usd {
        Some(usd) => format!("${usd:.4}").into(),
        None => Tone::Faint.of("?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn a_turn_is_one_line_and_cannot_act_on_a_terminal() {
        let turns: Vec<TurnInfo> = serde_json::from_value(fixtures::turns_json()).expect("a wire document");
        let page = render(&turns, &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        N  WHEN     AGENT  WOKEN BY  RESULT                                  TOOK    TOKENS  COST     MODEL
        8  3 m ago  alice  reminder  ok                                      61.2 s  21345   $0.0123  haiku
        7  3 m ago  alice  agent     crashed: it ended␛[2J without a result  61.2 s  21345   ?        haiku
        ");
    }
}
