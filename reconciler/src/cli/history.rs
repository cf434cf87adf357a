//! `hive history`: what was carried out and decided.

use shared::AgentName;
use shared::admin_api::HistoryEntry;

use super::error::CliError;
use super::exit::Exit;
use super::look::Look;
use super::page::{Page, Table, Tone};
use super::{Session, words};

/// Arguments of `hive history`.
#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    /// Show only this agent's history
    agent: Option<AgentName>,
    /// Show routine, too: what the policy approved by itself
    #[arg(long)]
    all: bool,
    /// Show at most this many entries
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

pub(super) async fn run(session: &mut Session<'_>, args: HistoryArgs) -> Result<Exit, CliError> {
    let all = args.all || session.ui.is_json();
    // Every step has its automatic approval; there must be enough left without them.
    let limit = if all {
        args.limit
    } else {
        args.limit.saturating_mul(3)
    };
    let mut path = format!("/v1/history?limit={limit}");
    if let Some(agent) = &args.agent {
        path.push_str(&format!("&agent={agent}"));
    }
    let reply = session.client.get::<Vec<HistoryEntry>>(&path).await?;
    let look = session.look();
    session.ui.show(&reply.raw, || {
        let mut entries = reply.view;
        entries.retain(|entry| all || !is_routine(entry));
        entries.truncate(usize::try_from(args.limit).unwrap_or(usize::MAX));
        render(&entries, &look)
    })?;
    Ok(Exit::Done)
}

/// Whether the policy decided it; what was done about it has an entry of its own.
fn is_routine(entry: &HistoryEntry) -> bool {
    entry.kind == "decision" && entry.summary.starts_with("policy:")
}

fn render(entries: &[HistoryEntry], look: &Look) -> Page {
    let mut page = Page::default();
    if entries.is_empty() {
        page.line(["nothing has happened yet".into()]);
        return page;
    }
    let mut table = Table::with_header(&["WHEN", "AGENT", "KIND", "DIGEST", "SUMMARY"]);
    for entry in entries {
        let digest = entry.digest.as_ref().map_or("", |digest| digest.short());
        let gate = entry.gate.map_or_else(String::new, |id| format!(" (gate {id})"));
        let summary = words::without_name(&entry.summary, entry.agent.as_ref());
        table.row([
            Tone::Faint.of(look.relative(entry.at)),
            words::agent(entry.agent.as_ref()),
            entry.kind.as_str().into(),
            Tone::Faint.of(digest),
            Tone::Plain.of(format!("{summary}{gate}")),
        ]);
    }
    page.table(&table);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn history_is_one_line_per_entry() {
        let page = render(&fixtures::history(), &fixtures::look());
        insta::assert_snapshot!(fixtures::plain(&page), @r"
        WHEN      AGENT   KIND      DIGEST        SUMMARY
        1 m ago   alice   decision  eeeeeeeeeeee  approved by unix:root (gate 3)
        27 h ago  (hive)  spec                    generation 4: alice changed
        ");
    }
}
