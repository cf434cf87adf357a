//! `hive diff`: every fact that is not as wanted.

use shared::AgentName;
use shared::admin_api::DiffEntry;

use super::error::CliError;
use super::exit::{Exit, Facts, exit};
use super::page::{Page, Table, Tone};
use super::text::{count, short_id};
use super::{Session, of_agent, words};

/// Arguments of `hive diff`.
#[derive(Debug, clap::Args)]
pub(super) struct DiffArgs {
    /// Compare only this agent
    agent: Option<AgentName>,
}

pub(super) async fn run(session: &mut Session<'_>, args: DiffArgs) -> Result<Exit, CliError> {
    let path = format!("/v1/diff{}", of_agent(args.agent.as_ref()));
    let reply = session.client.get::<Vec<DiffEntry>>(&path).await?;
    session.ui.show(&reply.raw, || render(&reply.view))?;
    Ok(exit(Facts::of_diff(&reply.view)))
}

fn render(entries: &[DiffEntry]) -> Page {
    let mut page = Page::default();
    if entries.is_empty() {
        page.line([Tone::Good.of("✓ "), "no differences".into()]);
        return page;
    }
    let mut table = Table::with_header(&["AGENT", "FACT", "OBSERVED", "", "DESIRED"]);
    for entry in entries {
        let (desired, seen) = identities(entry);
        let observed = match (seen, entry.known) {
            (Some(value), true) => Tone::Bad.of(value),
            (Some(value), false) => Tone::Warn.of(format!("{value}, not sure")),
            (None, true) => Tone::Faint.of("nothing"),
            (None, false) => Tone::Warn.of("unknown"),
        };
        table.row([
            words::agent(entry.agent.as_ref()),
            entry.fact.as_str().into(),
            observed,
            Tone::Faint.of("→"),
            Tone::Good.of(desired),
        ]);
    }
    page.table(&table);
    page.gap();
    page.line([count(entries.len(), "difference").into()]);
    page
}

/// Both sides of a difference, cut short unless that would make them look the same.
fn identities(entry: &DiffEntry) -> (String, Option<String>) {
    let desired = short_id(&entry.desired);
    let observed = entry.observed.as_deref().map(short_id);
    if observed.as_ref() == Some(&desired) {
        (entry.desired.clone(), entry.observed.clone())
    } else {
        (desired, observed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn unknown_is_not_shown_as_absent() {
        insta::assert_snapshot!(fixtures::plain(&render(&fixtures::diff())), @r"
          AGENT   FACT            OBSERVED         DESIRED
          alice   config          config1-ccc   →  config1-ddd
          alice   tag deployed/1  nothing       →  0123456789
          bob     running         unknown       →  stopped
          (hive)  spec            generation 3  →  generation 4

        4 differences
        ");
    }

    #[test]
    fn identities_that_begin_alike_are_shown_in_full() {
        let [same, other] = ["0".repeat(39) + "1", "0".repeat(39) + "2"];
        let mut entry = fixtures::diff().remove(0);
        (entry.desired, entry.observed) = (same.clone(), Some(other.clone()));
        assert_eq!(identities(&entry), (same, Some(other)));
    }

    #[test]
    fn no_differences_are_said_so() {
        assert_eq!(fixtures::plain(&render(&[])), "✓ no differences\n");
    }
}
