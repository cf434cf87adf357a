//! `hive spec`: the format of the spec, and whether a file keeps it. Needs no daemon.

use std::fs::File;
use std::io::{self, Read as _};

use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use serde_json::Value;

use super::error::CliError;
use super::exit::Exit;
use super::page::{Page, Tone};
use super::text::count;
use super::ui::Ui;

/// The largest file that is taken for a spec.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

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
            let schema = schema();
            ui.raw_json(&schema)?;
            Ok(Exit::Done)
        }
        SpecCommand::Check { file } => check(ui, &file).await,
    }
}

async fn check(ui: &mut Ui, file: &Utf8Path) -> Result<Exit, CliError> {
    let unreadable = |source| CliError::Unreadable {
        path: file.to_string(),
        source,
    };
    let path = file.to_owned();
    let bytes = tokio::task::spawn_blocking(move || read(&path))
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(unreadable)?;
    let report = report(&bytes);
    ui.show(&report, || render(file, &report))?;
    if report.faults.is_empty() {
        return Ok(Exit::Done);
    }
    Err(CliError::BadSpec {
        path: file.to_string(),
        faults: count(report.faults.len(), "fault"),
    })
}

fn read(path: &Utf8Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it is longer than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

fn render(file: &Utf8Path, report: &Report) -> Page {
    let mut page = Page::default();
    for fault in &report.faults {
        page.line([Tone::Bad.of("✗ "), fault.as_str().into()]);
    }
    if report.faults.is_empty() {
        let agents = count(report.agents, "agent");
        page.line([
            Tone::Good.of("✓ "),
            format!("{file} is a valid spec with {agents}").into(),
        ]);
    }
    page
}

/// The JSON Schema of the spec.
fn schema() -> Value {
    schemars::schema_for!(shared::spec::Spec).to_value()
}

/// Every fault in a document.
fn report(bytes: &[u8]) -> Report {
    let parser = &mut serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, shared::spec::Spec>(parser) {
        Ok(spec) => Report {
            agents: spec.agents.len(),
            faults: Vec::new(),
        },
        Err(error) => Report {
            agents: 0,
            faults: vec![format!("{}: {}", error.path(), error.inner())],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn a_fault_names_the_path_of_the_field() {
        let report = report(br#"{"version":1,"hive":{"name":"h"},"agents":{"alice":{"run":"maybe"}}}"#);
        assert_eq!(report.faults.len(), 1);
        assert!(report.faults[0].starts_with("agents.alice.run: "), "{report:?}");
    }

    #[test]
    fn a_good_file_says_what_is_in_it() {
        let report = report(br#"{"version":1,"hive":{"name":"h"},"agents":{"alice":{}}}"#);
        assert_eq!(
            fixtures::plain(&render(Utf8Path::new("hive.json"), &report)),
            "✓ hive.json is a valid spec with 1 agent\n"
        );
    }

    #[test]
    fn the_schema_describes_the_agents() {
        assert!(schema().pointer("/properties/agents").is_some());
    }
}
