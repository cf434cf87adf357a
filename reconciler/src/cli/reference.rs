//! `hive api`, `completions` and `man`: what this program is, in the forms that other programs read. Needs no daemon.
//!
//! The same texts are the references of the documentation; a test compares them with the committed files.

use camino::{Utf8Path, Utf8PathBuf};
use clap::{CommandFactory as _, ValueEnum};
use clap_complete::Shell;
use serde_json::Value;

use super::error::CliError;
use super::exit::Exit;
use super::text::escape_json;
use super::ui::Ui;
use super::{Global, Public, exit};
use crate::api::openapi;
use crate::host::folders::write_atomic;

mod markdown;
#[cfg(test)]
mod tests;

/// Whoever installs the pages may read them.
const MODE: u32 = 0o644;

/// Arguments of `hive api`.
#[derive(Debug, clap::Args)]
pub(super) struct ApiArgs {
    /// The API
    #[arg(value_enum)]
    api: Api,
}

// Without item docs: clap would print them as a long list in `--help`.
/// The daemon's APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Api {
    Admin,
    Agent,
}

impl Api {
    fn document(self) -> &'static Value {
        match self {
            Self::Admin => openapi::admin(),
            Self::Agent => openapi::agent(),
        }
    }
}

/// Arguments of `hive completions`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `hive man`.
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Write the pages of all verbs to this folder, as hive.1, hive-status.1 and so on
    #[arg(value_name = "DIR")]
    dir: Option<Utf8PathBuf>,
}

/// The command line without the verbs that are not for people.
#[derive(Debug, clap::Parser)]
#[command(name = "hive", version, about = ABOUT, after_help = exit::HELP, max_term_width = 100)]
struct Visible {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Public,
}

const ABOUT: &str = "Runs and watches a hive of coding agents";

fn visible() -> clap::Command {
    let mut command = Visible::command().disable_help_subcommand(true);
    command.build();
    command
}

pub(super) fn api(ui: &mut Ui, args: &ApiArgs) -> Result<Exit, CliError> {
    ui.raw_json(args.api.document())?;
    Ok(Exit::Done)
}

pub(super) fn completions(ui: &mut Ui, args: &CompletionsArgs) -> Result<Exit, CliError> {
    ui.raw_text(&completion_script(args.shell))?;
    Ok(Exit::Done)
}

fn completion_script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Visible::command(), "hive", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

pub(super) async fn man(ui: &mut Ui, args: ManArgs) -> Result<Exit, CliError> {
    let pages = pages(&visible())?;
    match args.dir {
        Some(dir) => write(dir, pages).await?,
        // The page of the program itself comes last, after those of its verbs.
        None => ui.raw_text(pages.last().map_or("", |(_, page)| page))?,
    }
    Ok(Exit::Done)
}

/// The manual pages of a command and all below it, with the names of their files.
fn pages(command: &clap::Command) -> Result<Vec<(String, String)>, CliError> {
    let mut all = Vec::new();
    for below in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        all.extend(pages(below)?);
    }
    let man = clap_mangen::Man::new(command.clone()).manual("Hyperhive");
    let mut page = Vec::new();
    man.render(&mut page)?;
    all.push((man.get_filename(), String::from_utf8_lossy(&page).into_owned()));
    Ok(all)
}

/// The references of the documentation: names of files and what is in them.
fn references() -> Vec<(String, String)> {
    let json = |api: Api| escape_json(&format!("{:#}\n", api.document()));
    vec![
        ("admin-api.json".to_owned(), json(Api::Admin)),
        ("agent-api.json".to_owned(), json(Api::Agent)),
        ("cli.md".to_owned(), markdown::render(&visible())),
    ]
}

pub(super) async fn write_all(dir: Utf8PathBuf) -> Result<Exit, CliError> {
    write(dir, references()).await?;
    Ok(Exit::Done)
}

/// Writes files to a folder, which is made when it is missing.
async fn write(dir: Utf8PathBuf, files: Vec<(String, String)>) -> Result<(), CliError> {
    let written = tokio::task::spawn_blocking(move || write_now(&dir, &files)).await;
    written.unwrap_or_else(|ended| Err(CliError::Daemon(ended.to_string())))
}

fn write_now(dir: &Utf8Path, files: &[(String, String)]) -> Result<(), CliError> {
    let unwritable = |source| CliError::Unwritable {
        path: dir.to_string(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(|error| unwritable(error.into()))?;
    for (name, text) in files {
        write_atomic(&dir.join(name), text.as_bytes(), MODE).map_err(|error| unwritable(error.into()))?;
    }
    Ok(())
}
