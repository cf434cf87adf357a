//! `hive export` and `hive replay`: what plans are made from, taken elsewhere.

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::daemon::{LogArgs, LogFormat, ServeArgs};
use super::error::CliError;
use super::exit::Exit;
use super::look::Look;
use super::page::{Page, Tone};
use super::ui::Ui;
use super::{Client, plan};
use crate::export::{self, MAX_BYTES, Replay, VerdictOn};
use crate::host::folders::{read_bounded, write_atomic};

/// Arguments of `hive export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// Write it there; without, print it
    file: Option<Utf8PathBuf>,
    /// Ask no daemon: read this state folder, while its daemon is down
    #[arg(long, value_name = "DIR")]
    state: Option<Utf8PathBuf>,
    /// The folder for sockets, with --state
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/hyperhive",
        requires = "state"
    )]
    run: Utf8PathBuf,
    /// The spec, with --state
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/hyperhive/hive.json",
        requires = "state"
    )]
    spec: Utf8PathBuf,
}

/// Arguments of `hive replay`.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// What hive export wrote
    file: Utf8PathBuf,
}

pub(super) async fn export(ui: &mut Ui, args: ExportArgs, socket: &Utf8Path) -> Result<Exit, CliError> {
    let ExportArgs {
        file,
        state,
        run,
        spec,
    } = args;
    let document: Value = match state {
        None => Client::new(socket)?.get::<Value>("/v1/export").await?.raw,
        Some(state) => {
            let serve = ServeArgs {
                spec,
                state,
                run,
                harness: None,
                logging: LogArgs {
                    log: "error".to_owned(),
                    log_format: LogFormat::Text,
                },
            };
            let export = crate::control::serve::export(&serve)
                .await
                .map_err(|error| CliError::Offline(crate::error_chain(&error)))?;
            serde_json::to_value(export).map_err(|error| CliError::Offline(error.to_string()))?
        }
    };
    let Some(file) = file else {
        ui.raw_json(&document)?;
        return Ok(Exit::Done);
    };
    let path = camino::absolute_utf8(&file).map_err(|source| CliError::Unreadable {
        path: file.to_string(),
        source,
    })?;
    // Prompts and diffs are nobody else's business.
    write_atomic(&path, format!("{document}\n").as_bytes(), 0o600)
        .map_err(|error| CliError::Offline(error.chain()))?;
    let told = serde_json::json!({ "file": path });
    ui.show(&told, || {
        let mut page = Page::default();
        let text = format!("{path} is written; it holds prompts and diffs, but no message and no secret");
        page.line([Tone::Good.of("✓ "), text.into()]);
        page
    })?;
    Ok(Exit::Done)
}

pub(super) fn replay(ui: &mut Ui, args: &ReplayArgs) -> Result<Exit, CliError> {
    let file = &args.file;
    let path = camino::absolute_utf8(file).map_err(|source| CliError::Unreadable {
        path: file.to_string(),
        source,
    })?;
    let failed = |why: String| CliError::Offline(format!("{file} cannot be replayed: {why}"));
    let bytes = read_bounded(&path, MAX_BYTES)
        .map_err(|error| failed(error.chain()))?
        .ok_or_else(|| {
            failed(format!(
                "there is no plain file of at most {} MiB",
                MAX_BYTES >> 20
            ))
        })?;
    let document = export::read(&bytes).map_err(|error| failed(crate::error_chain(&error)))?;
    let replay = export::replay(&document).map_err(|error| failed(crate::error_chain(&error)))?;
    let look = Look {
        now: document.now,
        socket: None,
    };
    ui.show(&replay, || render(&replay, &look))?;
    Ok(if replay.same() { Exit::Done } else { Exit::Error })
}

fn render(replay: &Replay, look: &Look) -> Page {
    let mut page = plan::render(&replay.plans, look);
    page.heading("Compared with the export");
    for verdict in &replay.verdicts {
        compare(&mut page, verdict);
    }
    page
}

fn compare(page: &mut Page, verdict: &VerdictOn) {
    let who = verdict.agent.as_ref().map_or("the hive", |agent| agent.as_str());
    if verdict.same {
        let text = format!("{who}: the same plan ({})", verdict.replayed.short());
        page.line([Tone::Good.of("  ✓ "), text.into()]);
        return;
    }
    let text = format!(
        "{who}: another plan ({}, exported {})",
        verdict.replayed.short(),
        verdict.exported.short()
    );
    page.line([Tone::Bad.of("  ✗ "), text.into()]);
    if let Some(difference) = &verdict.difference {
        let words = |step: &Option<String>| step.clone().unwrap_or_else(|| "no step".to_owned());
        page.line([format!(
            "      step {} was: {}",
            difference.step,
            words(&difference.exported)
        )
        .into()]);
        page.line([format!(
            "      step {} is:  {}",
            difference.step,
            words(&difference.replayed)
        )
        .into()]);
    }
}
