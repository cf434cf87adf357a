//! `hive units`: what systemd and polkit need to know about a hive.

use camino::{Utf8Path, Utf8PathBuf};

use super::error::CliError;
use super::exit::Exit;
use super::page::Page;
use super::ui::Ui;
use crate::host::folders::write_atomic;
use crate::host::nspawn::units::{self, Paths};

/// Arguments of `hive units`.
#[derive(Debug, clap::Args)]
pub(super) struct UnitsArgs {
    #[command(flatten)]
    paths: Paths,
    /// Write the files below this folder instead of printing them
    #[arg(long, value_name = "DIR", conflicts_with = "install")]
    dir: Option<Utf8PathBuf>,
    /// Write the files to /etc (as root); NixOS does this by itself
    #[arg(long)]
    install: bool,
}

pub(super) async fn run(ui: &mut Ui, args: UnitsArgs) -> Result<Exit, CliError> {
    let daemon = |error: &dyn std::error::Error| CliError::Daemon(crate::error_chain(error));
    let hive = match &args.paths.hive {
        Some(hive) => hive.clone(),
        None => own_program()?,
    };
    let files = units::files(hive, &args.paths).map_err(|error| daemon(&error))?;
    let below = match (args.dir, args.install) {
        (Some(dir), _) => Some(dir),
        (None, true) => Some("/etc".into()),
        (None, false) => None,
    };
    let mut page = Page::default();
    let Some(below) = below else {
        for file in &files {
            page.line([format!("# /etc/{}", file.place).into()]);
            for line in file.text.lines() {
                page.line([line.into()]);
            }
            page.line([]);
        }
        ui.page(&page)?;
        return Ok(Exit::Done);
    };
    for file in files {
        let path = below.join(file.place);
        let text = file.text;
        let written = path.clone();
        tokio::task::spawn_blocking(move || write(&written, &text))
            .await
            .map_err(|error| daemon(&error))?
            .map_err(|error| daemon(&error))?;
        page.line([format!("wrote {path}").into()]);
    }
    if args.install {
        page.line([
            "next: systemd-sysusers; systemd-tmpfiles --create; systemctl daemon-reload; systemctl enable --now hyperhive hyperhive-egress".into(),
        ]);
    }
    ui.page(&page)?;
    Ok(Exit::Done)
}

fn write(path: &Utf8Path, text: &str) -> Result<(), crate::host::HostError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(crate::host::HostError::io("make", parent.as_str()))?;
    }
    write_atomic(path, text.as_bytes(), 0o644)
}

fn own_program() -> Result<Utf8PathBuf, CliError> {
    let path = std::env::current_exe().map_err(|error| CliError::Daemon(error.to_string()))?;
    Utf8PathBuf::from_path_buf(path)
        .map_err(|path| CliError::Daemon(format!("{} is no UTF-8: pass --hive", path.display())))
}
