//! `hive doctor`: whether host, state folder, ledger, spec, repos and daemon are as they should be. Changes nothing.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use shared::status::HiveStatus;

use super::Client;
use super::daemon::{LogArgs, LogFormat, ServeArgs};
use super::error::CliError;
use super::exit::Exit;
use super::page::{Page, Table, Tone};
use super::text::count;
use super::ui::Ui;
use crate::control::lock::{self, LockError};
use crate::control::serve::{harness_program, search_path};
use crate::doctor::{Finding, Level, examine};
use crate::host::checkup::{Subject, gather};
use crate::host::layout::Layout;

/// What the exit statuses mean for this verb.
pub(super) const HELP: &str = "\
Exit status:
  0  everything is as it should be
  1  something does not work
  2  something should not stay as it is";

/// Arguments of `hive doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// The folder for what must survive a reboot
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hyperhive")]
    state: Utf8PathBuf,
    /// The folder for sockets
    #[arg(long, value_name = "DIR", default_value = "/run/hyperhive")]
    run: Utf8PathBuf,
    /// The spec
    #[arg(long, value_name = "FILE", default_value = "/etc/hyperhive/hive.json")]
    spec: Utf8PathBuf,
    /// The harness program; by default hive-harness beside this program
    #[arg(long, value_name = "FILE")]
    harness: Option<Utf8PathBuf>,
}

pub(super) async fn run(
    ui: &mut Ui,
    args: DoctorArgs,
    socket: &Utf8Path,
    now: Timestamp,
) -> Result<Exit, CliError> {
    let serve = ServeArgs {
        spec: args.spec,
        state: args.state,
        run: args.run,
        harness: args.harness,
        logging: LogArgs {
            log: "error".to_owned(),
            log_format: LogFormat::Text,
        },
    };
    let absolute = |path: &Utf8Path| {
        camino::absolute_utf8(path).map_err(|source| CliError::Unreadable {
            path: path.to_string(),
            source,
        })
    };
    let layout = Layout::new(absolute(&serve.state)?, absolute(&serve.run)?);
    let holder = match lock::check(&layout) {
        Ok(()) => Ok(None),
        Err(LockError::Taken { pid, .. }) => Ok(Some(pid.unwrap_or_else(|| "?".to_owned()))),
        Err(error) => Err(crate::error_chain(&error)),
    };
    let subject = Subject {
        layout,
        spec: absolute(&serve.spec)?,
        harness: harness_program(&serve).map_err(|error| crate::error_chain(&error)),
        holder,
        now,
    };
    let mut facts = gather(subject, &search_path()).await;
    let asked = match Client::new(socket) {
        Ok(client) => client.get::<HiveStatus>("/v1/status").await,
        Err(error) => Err(error),
    };
    facts.daemon = asked
        .map(|reply| Box::new(reply.view))
        .map_err(|error| crate::error_chain(&error));
    let findings = examine(&facts);
    ui.show(&findings, || render(&findings))?;
    Ok(match worst(&findings) {
        Level::Ok => Exit::Done,
        Level::Warn => Exit::Pending,
        Level::Fail => Exit::Error,
    })
}

fn worst(findings: &[Finding]) -> Level {
    findings
        .iter()
        .map(|finding| finding.verdict)
        .max()
        .unwrap_or(Level::Ok)
}

fn render(findings: &[Finding]) -> Page {
    let mut page = Page::default();
    let mut table = Table::default();
    for finding in findings {
        let mark = match finding.verdict {
            Level::Ok => Tone::Good.of("✓"),
            Level::Warn => Tone::Warn.of("!"),
            Level::Fail => Tone::Bad.of("✗"),
        };
        table.row([
            mark,
            Tone::Strong.of(finding.check),
            finding.found.as_str().into(),
        ]);
    }
    page.table(&table);
    let todo: Vec<&Finding> = findings.iter().filter(|finding| finding.todo.is_some()).collect();
    if !todo.is_empty() {
        page.heading("What to do");
        for finding in &todo {
            let todo = finding.todo.as_deref().unwrap_or_default();
            page.line([
                Tone::Faint.of("  - "),
                format!("{}: {todo}", finding.check).into(),
            ]);
        }
    }
    page.gap();
    let of = |level| findings.iter().filter(|finding| finding.verdict == level).count();
    page.line([format!(
        "{}: {} failed, {}",
        count(findings.len(), "check"),
        of(Level::Fail),
        count(of(Level::Warn), "warning")
    )
    .into()]);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    #[test]
    fn what_is_wrong_stands_with_what_to_do_and_the_worst_decides_the_status() {
        let finding = |check, verdict, found: &str, todo: Option<&str>| Finding {
            check,
            verdict,
            found: found.to_owned(),
            todo: todo.map(str::to_owned),
        };
        let findings = [
            finding("git", Level::Ok, "git version 2.50", None),
            finding("space", Level::Warn, "500 MiB free", Some("free space")),
            finding(
                "ledger",
                Level::Fail,
                "it is damaged",
                Some("hive recover --dry-run"),
            ),
        ];
        insta::assert_snapshot!(fixtures::plain(&render(&findings)), @r"
          ✓  git     git version 2.50
          !  space   500 MiB free
          ✗  ledger  it is damaged

        What to do
          - space: free space
          - ledger: hive recover --dry-run

        3 checks: 1 failed, 1 warning
        ");
        assert_eq!(worst(&findings), Level::Fail);
        assert_eq!(worst(&findings[..2]), Level::Warn);
        assert_eq!(worst(&findings[..1]), Level::Ok);
    }
}
