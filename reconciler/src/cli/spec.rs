//! `hive spec`: the format of the spec, and whether a file keeps it. Needs no daemon.

use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use super::error::CliError;
use super::exit::Exit;
use super::page::{Page, Tone};
use super::text::count;
use super::ui::Ui;
use crate::spec;

/// Verbs of `hive spec`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum SpecCommand {
    /// Print the JSON Schema of the spec
    Schema,
    /// Name every fault in a file; exit status 1 when there is one
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: Utf8PathBuf,
    },
}

/// What is to say about a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// The agents without a fault.
    agents: usize,
    /// Every fault, with the path of the bad field.
    faults: Vec<String>,
}

pub(super) async fn run(ui: &mut Ui, command: SpecCommand) -> Result<Exit, CliError> {
    match command {
        SpecCommand::Schema => {
            ui.raw_json(&spec::schema())?;
            Ok(Exit::Done)
        }
        SpecCommand::Check { file } => check(ui, &file).await,
    }
}

async fn check(ui: &mut Ui, file: &Utf8Path) -> Result<Exit, CliError> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || spec::read(&path)).await;
    let bytes = match read {
        Ok(read) => read?,
        Err(ended) => return Err(CliError::Daemon(ended.to_string())),
    };
    let parsed = spec::parse(&bytes);
    let faults: Vec<String> = parsed.all_faults().map(ToString::to_string).collect();
    let agents = parsed.spec.as_ref().map_or(0, |spec| spec.agents.len());
    let report = Report { agents, faults };
    ui.show(&report, || {
        render(&spec::report(file, &parsed), report.faults.is_empty())
    })?;
    if report.faults.is_empty() {
        return Ok(Exit::Done);
    }
    Err(CliError::BadSpec {
        path: file.to_string(),
        faults: count(report.faults.len(), "fault"),
    })
}

fn render(report: &str, valid: bool) -> Page {
    let mut page = Page::default();
    let mark = if valid {
        Tone::Good.of("✓ ")
    } else {
        Tone::Bad.of("✗ ")
    };
    for line in report.lines() {
        page.line([mark.clone(), line.into()]);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    fn rendered(document: &str) -> String {
        let parsed = spec::parse(document.as_bytes());
        let report = spec::report(Utf8Path::new("hive.json"), &parsed);
        fixtures::plain(&render(&report, parsed.all_faults().next().is_none()))
    }

    #[test]
    fn a_fault_names_the_path_of_the_field() {
        let page = rendered(r#"{"version":1,"hive":{"name":"h"},"agents":{"alice":{"run":"maybe"}}}"#);
        assert!(page.contains("agents.alice.run: "), "{page}");
    }

    #[test]
    fn a_good_file_says_what_is_in_it() {
        assert_eq!(
            rendered(r#"{"version":1,"hive":{"name":"h"},"agents":{"alice":{}}}"#),
            "✓ hive.json: no faults; 1 agent declared\n"
        );
    }
}
