//! `hive turns --stats`: what turns took and used, added up per agent.

use std::collections::BTreeMap;

use shared::AgentName;
use shared::turn::{Spread, TurnSeries};

use super::Session;
use super::error::CliError;
use super::exit::Exit;
use super::look::Look;
use super::page::{Page, Table, Tone};
use super::text::count;
use super::turns::{cost, seconds};

/// The most kinds of anything that are named in a line.
const NAMED: usize = 8;

pub(super) async fn run(
    session: &mut Session<'_>,
    agent: Option<&AgentName>,
    hours: u32,
) -> Result<Exit, CliError> {
    let mut path = format!("/v1/turns/stats?hours={hours}");
    if let Some(agent) = agent {
        path.push_str(&format!("&agent={agent}"));
    }
    let reply = session.client.get::<Vec<TurnSeries>>(&path).await?;
    let look = session.look();
    session.ui.show(&reply.raw, || render(&reply.view, &look))?;
    Ok(Exit::Done)
}

fn render(all: &[TurnSeries], look: &Look) -> Page {
    let mut page = Page::default();
    if all.is_empty() {
        page.line(["there are no agents, and no turn is known of that time".into()]);
        return page;
    }
    for series in all {
        page.gap();
        one(&mut page, series, look);
    }
    page
}

fn one(page: &mut Page, series: &TurnSeries, look: &Look) {
    let turns = count(usize::try_from(series.turns).unwrap_or(usize::MAX), "turn");
    let last = series
        .last_turn_at
        .map_or_else(String::new, |at| format!(", the last {}", look.relative(at)));
    page.line([
        Tone::Strong.of(&series.agent),
        format!("  {turns} since {}{last}", look.relative(series.since)).into(),
    ]);
    let mut table = Table::with_header(&["", "P50", "P95", "MAX", "ALL"]);
    let mut row = |name: &str, spread: Option<Spread>, shown: fn(u64) -> String, all: String| {
        if let Some(Spread { p50, p95, max }) = spread {
            table.row([
                Tone::Faint.of(name),
                shown(p50).into(),
                shown(p95).into(),
                shown(max).into(),
                all.into(),
            ]);
        }
    };
    row("took", series.duration_ms, seconds, String::new());
    let plain = |number: u64| number.to_string();
    row(
        "tokens",
        series.tokens_per_turn,
        plain,
        series.tokens.total().to_string(),
    );
    row("context", series.context, plain, String::new());
    if let Some(spread) = series.cost_per_turn {
        let unknown = match series.cost_unknown {
            0 => String::new(),
            unknown => format!(", {unknown} unknown"),
        };
        table.row([
            Tone::Faint.of("cost"),
            cost(Some(spread.p50)),
            cost(Some(spread.p95)),
            cost(Some(spread.max)),
            format!("${:.4}{unknown}", series.cost_usd).into(),
        ]);
    }
    // Of an agent with turns there is always how long they took.
    if series.duration_ms.is_some() {
        page.table(&table);
    }
    for (name, counts) in [
        ("ended", &series.results),
        ("woken by", &series.woken_by),
        ("wrote to", &series.sent),
        ("tools", &series.tool_calls),
    ] {
        if !counts.is_empty() {
            page.line([Tone::Faint.of(format!("  {name:<9}")), named(counts).into()]);
        }
    }
    let inbox = format!("{} now, {} at most", series.inbox, series.inbox_max);
    page.line([Tone::Faint.of("  inbox    "), inbox.into()]);
    if let Some(bytes) = series.notes_bytes {
        page.line([Tone::Faint.of("  notes    "), format!("{bytes} bytes").into()]);
    }
}

/// The most frequent first.
fn named(counts: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let mut text: Vec<String> = sorted
        .iter()
        .take(NAMED)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if sorted.len() > NAMED {
        text.push(format!("{} more", sorted.len() - NAMED));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn an_agent_is_a_paragraph() {
        let series: Vec<TurnSeries> =
            serde_json::from_value(fixtures::series_json()).expect("a wire document");
        let page = render(&series, &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        alice  12 turns since 7 d ago, the last 3 m ago
                   P50      P95      MAX      ALL
          took     1.2 s    61.2 s   90.0 s
          tokens   1200     61250    90000    5120
          context  1200     61250    90000
          cost     $0.1000  $0.2500  $0.5000  $1.5000, 2 unknown
          ended    ok 11, crashed 1
          woken by operator 9, agent 4
          wrote to manager 3
          tools    Re␛[2Jad 30, mcp__hive__recv 12
          inbox    1 now, 7 at most
          notes    4096 bytes

        bob  1 turn since 7 d ago
          inbox    0 now, 0 at most
        ");
    }
}
