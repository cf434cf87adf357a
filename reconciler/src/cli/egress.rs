//! `hive egress`: the service that is the agents' way out. `hive egress allow` makes a refusal a change of the spec.

use std::io::Read as _;
use std::sync::Arc;

use camino::Utf8PathBuf;
use shared::secret::CREDENTIALS_VARIABLE;

use super::daemon::LogArgs;
use super::error::CliError;
use super::exit::Exit;
use super::ui::Ui;
use crate::control::serve::wait_for_signal;
use crate::egress::resolve::SystemResolver;
use crate::egress::service::{self, Settings};
use crate::host::Ids as _;
use crate::host::clock::{RandomIds, SystemClock};

mod allow;

/// Verbs of `hive egress`.
#[derive(Debug, Clone, clap::Subcommand)]
pub(super) enum EgressCommand {
    /// Make a refusal a change of the spec: print it, or carry it out in a file
    Allow(allow::AllowArgs),
}

/// Arguments of `hive egress`.
#[derive(Debug, Clone, clap::Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(super) struct EgressArgs {
    #[command(subcommand)]
    command: Option<EgressCommand>,
    /// The file of what agents are allowed, as the daemon writes it
    #[arg(long, value_name = "FILE", default_value = "/run/hyperhive/egress.json")]
    pub(super) policy: Utf8PathBuf,
    /// The folder for the agents' sockets
    #[arg(long, value_name = "DIR", default_value = "/run/hyperhive-egress")]
    pub(super) dir: Utf8PathBuf,
    /// Tell the daemon on this socket
    #[arg(long, value_name = "PATH", default_value = "/run/hyperhive/egress.sock")]
    pub(super) daemon: Utf8PathBuf,
    /// End when standard input does
    #[arg(long, hide = true)]
    pub(super) until_input_ends: bool,
    #[command(flatten)]
    pub(super) logging: LogArgs,
}

/// Runs the service, or the verb that was given.
pub(super) async fn run(ui: &mut Ui, args: EgressArgs) -> Result<Exit, CliError> {
    match args.command.clone() {
        Some(EgressCommand::Allow(args)) => allow::run(ui, args).await,
        None => serve(args).await,
    }
}

/// Runs the service until it is told to stop.
async fn serve(args: EgressArgs) -> Result<Exit, CliError> {
    args.logging.init();
    let settings = Settings {
        policy: args.policy,
        folder: args.dir,
        daemon: args.daemon,
        credentials: credentials(),
        run: RandomIds.hive_id().to_string(),
    };
    let ready = || {
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::debug!(error = error.to_string(), "systemd was not told");
        }
    };
    let ended = async {
        tokio::select! {
            () = wait_for_signal() => {}
            () = input_ends(), if args.until_input_ends => {}
        }
    };
    if let Err(error) = crate::host::open_files::raise() {
        let error = error.to_string();
        tracing::warn!(error, "the limit of open files stays as it is");
    }
    let run = service::run(
        settings,
        Arc::new(SystemResolver),
        Arc::new(SystemClock),
        ready,
        ended,
    );
    Box::pin(run)
        .await
        .map_err(|error| CliError::Daemon(crate::error_chain(&error)))?;
    Ok(Exit::Done)
}

#[expect(
    clippy::disallowed_methods,
    reason = "systemd says by a variable where the credentials of a service are"
)]
fn credentials() -> Option<Utf8PathBuf> {
    std::env::var(CREDENTIALS_VARIABLE).ok().map(Utf8PathBuf::from)
}

/// The daemon that started this holds the other end: when it is gone, however it went, so is this.
async fn input_ends() {
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own, which nobody waits for: it may read for ever.
    let reader = std::thread::Builder::new().spawn(move || {
        let mut input = std::io::stdin().lock();
        while matches!(input.read(&mut [0]), Ok(1)) {}
        // The receiver is gone when the service ends otherwise.
        let _ended = tell.send(());
    });
    match reader {
        Ok(_) => drop(told.await),
        Err(error) => {
            tracing::error!(%error, "the end of the daemon will not be seen");
            std::future::pending::<()>().await;
        }
    }
}
