//! `hive recover`: a ledger that is lost, made anew from what is left. Needs no daemon, and refuses while one runs.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::error::CliError;
use super::exit::Exit;
use super::page::{Page, Table, Tone};
use super::text::count;
use super::ui::Ui;
use crate::host::clock::RandomIds;
use crate::host::layout::Layout;
use crate::model::records::AgentLife;
use crate::recover::report::{AgentReport, Report};
use crate::recover::{self, Order};

/// Arguments of `hive recover`.
#[derive(Debug, clap::Args)]
pub(super) struct RecoverArgs {
    /// The folder for what must survive a reboot
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hyperhive")]
    state: Utf8PathBuf,
    /// The folder for sockets
    #[arg(long, value_name = "DIR", default_value = "/run/hyperhive")]
    run: Utf8PathBuf,
    /// The spec; it says which agents are still declared
    #[arg(long, value_name = "FILE", default_value = "/etc/hyperhive/hive.json")]
    spec: Utf8PathBuf,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(ui: &mut Ui, args: RecoverArgs, now: Timestamp) -> Result<Exit, CliError> {
    let RecoverArgs {
        state,
        run,
        spec,
        dry_run,
    } = args;
    let order = Order {
        layout: Layout::new(absolute(&state)?, absolute(&run)?),
        declared: recover::declared(&spec),
        dry_run,
        now,
    };
    let report = recover::recover(order, &RandomIds)
        .await
        .map_err(|error| CliError::Offline(crate::error_chain(&error)))?;
    ui.show(&report, || render(&report))?;
    Ok(Exit::Done)
}

fn absolute(path: &Utf8Path) -> Result<Utf8PathBuf, CliError> {
    camino::absolute_utf8(path).map_err(|source| CliError::Unreadable {
        path: path.to_string(),
        source,
    })
}

fn render(report: &Report) -> Page {
    let mut page = Page::default();
    page.line([
        Tone::Warn.of("! "),
        format!("the ledger in {}: {}", report.state, report.ledger).into(),
    ]);
    let done = match (report.dry_run, &report.kept) {
        (true, _) => "nothing was changed: this is what would be done".to_owned(),
        (false, Some(kept)) => format!("a new one is in its place; the old one is kept as {kept}"),
        (false, None) => "a new one is in its place".to_owned(),
    };
    page.line([Tone::Good.of("✓ "), done.into()]);
    let hive = if report.same_hive { "" } else { " (new)" };
    page.line([Tone::Faint.of(format!("  hive {}{hive}", report.hive))]);
    if !report.agents.is_empty() {
        page.heading("Agents");
        let mut table = Table::with_header(&["AGENT", "FROM", "LIFE", "MAIN", "PROPOSALS", "RUNS", "UID"]);
        for agent in &report.agents {
            table.row(row(agent));
        }
        page.table(&table);
        for agent in &report.agents {
            for note in &agent.notes {
                page.line([Tone::Warn.of("  ! "), format!("{}: {note}", agent.name).into()]);
            }
        }
    }
    if !report.salvaged.is_empty() {
        page.heading("Read from the damaged ledger");
        let mut table = Table::default();
        for (name, tally) in &report.salvaged {
            let mut lost = match tally.unreadable {
                0 => String::new(),
                rows => format!("{rows} unreadable"),
            };
            if tally.cut_short {
                lost.push_str(if lost.is_empty() {
                    "breaks off"
                } else {
                    ", breaks off"
                });
            }
            table.row([
                (*name).into(),
                count(tally.read, "row").into(),
                Tone::Bad.of(lost),
            ]);
        }
        page.table(&table);
    }
    list(&mut page, "Gone", &report.gone);
    list(&mut page, "Next", &report.next);
    page
}

fn row(agent: &AgentReport) -> [super::page::Span; 7] {
    let life = match agent.life {
        AgentLife::Archived { .. } | AgentLife::Purged { .. } => "archived",
        AgentLife::Active => "active",
        AgentLife::Declared => "to be made",
        _ => "as it was",
    };
    let proposals: Vec<String> = agent
        .proposals
        .iter()
        .map(|(phase, number)| format!("{number} {phase}"))
        .collect();
    let runs = agent
        .process
        .map_or_else(String::new, |pid| format!("process {pid}"));
    [
        Tone::Strong.of(agent.name.as_str()),
        agent.from.into(),
        life.into(),
        agent.main.as_ref().map_or("", |main| main.short()).into(),
        proposals.join(", ").into(),
        runs.into(),
        Tone::Faint.of(agent.uid.to_string()),
    ]
}

fn list(page: &mut Page, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    page.heading(title);
    for line in lines {
        page.line([Tone::Faint.of("  - "), line.as_str().into()]);
    }
}
