//! The command line: arguments, a client of the admin socket, and pages for people.
//!
//! Every verb asks the daemon for one wire document and either prints it (`--json`) or makes a page of it.
//! The command line decides nothing: a decision about a gate quotes the digest that was shown, and the daemon
//! refuses when it has moved. Text that others wrote is cleaned on its way into a page, so it cannot act on a terminal.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Parser as _;
use jiff::Timestamp;
use shared::AgentName;
use shared::instruction::InstructionKind;

use crate::host::Clock;
use crate::host::clock::SystemClock;
use crate::host::nix::evaluate::{EvaluateArgs, NOT_BECOME, become_evaluator};
use crate::host::nspawn::{launch as container, wipe};
use crate::host::process::launch::{self, LaunchArgs};

mod agent;
mod archive;
mod client;
mod daemon;
mod demo;
mod diff;
mod doctor;
mod egress;
mod error;
mod events;
mod exit;
mod explain;
mod export;
#[cfg(test)]
mod fixtures;
mod gate;
mod history;
mod instructions;
mod login;
mod logs;
mod look;
mod mail;
mod metrics;
mod page;
mod plan;
mod recover;
mod reference;
mod remind;
mod series;
mod shell;
mod spawn;
mod spec;
mod sse;
mod status;
#[cfg(test)]
mod tests;
mod text;
mod turns;
mod ui;
mod units;
mod watch;
mod words;

pub use daemon::{DemoArgs, LogArgs, LogFormat, ServeArgs};
pub use ui::Color;

use client::Client;
use error::CliError;
use exit::Exit;
use look::Look;
use ui::{Form, Ui};

/// Where the daemon listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/run/hyperhive/admin.sock";

/// Runs and watches a hive of coding agents.
#[derive(Debug, clap::Parser)]
#[command(name = "hive", version, after_help = exit::HELP, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every verb.
#[derive(Debug, clap::Args)]
struct Global {
    /// Talk to the daemon on this socket
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET, help_heading = "Global options")]
    socket: Utf8PathBuf,
    /// Print the daemon's documents as JSON, errors too
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    /// Use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        help_heading = "Global options"
    )]
    color: Color,
    /// Print nothing but errors; the exit status tells
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "json",
        help_heading = "Global options"
    )]
    quiet: bool,
}

impl Global {
    fn form(&self) -> Form {
        match (self.json, self.quiet) {
            (true, _) => Form::Json,
            (false, true) => Form::Quiet,
            (false, false) => Form::Human,
        }
    }
}

/// The verbs.
#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Public(Public),
    #[command(flatten)]
    Hidden(Hidden),
}

/// The verbs that only this project's own programs use: in no help, manual page, completion or reference.
#[derive(Debug, clap::Subcommand)]
enum Hidden {
    /// Become an agent's sandbox
    #[command(hide = true)]
    LaunchProcess(LaunchArgs),
    /// Become a limited evaluator
    #[command(hide = true)]
    Evaluate(EvaluateArgs),
    /// Become an agent's container; the agent's unit starts this as root
    #[command(hide = true)]
    Launch(container::LaunchArgs),
    /// Delete what containers leave behind; units start this as root
    #[command(hide = true)]
    Wipe(wipe::WipeArgs),
    /// Write the references of the documentation to a folder
    #[command(hide = true)]
    References {
        /// The folder
        #[arg(value_name = "DIR")]
        dir: Utf8PathBuf,
    },
}

/// The verbs for people.
#[derive(Debug, clap::Subcommand)]
enum Public {
    #[command(flatten)]
    Ask(Request),
    /// Print the spec's schema, or check a file against it
    #[command(subcommand)]
    Spec(spec::SpecCommand),
    /// Check programs, kernel, folders, ledger, spec, repos and daemon; change nothing
    #[command(after_help = doctor::HELP)]
    Doctor(doctor::DoctorArgs),
    /// Write down everything plans are made from, for a fault report
    Export(export::ExportArgs),
    /// Make the plans of an export again, and compare; exit status 1 when one differs
    Replay(export::ReplayArgs),
    /// Rebuild a ledger that is lost, while the daemon is down
    Recover(recover::RecoverArgs),
    /// Open a shell in an agent's container, or run a command there
    Shell(shell::ShellArgs),
    /// Print or install what systemd and polkit need to run agents in containers
    Units(units::UnitsArgs),
    /// Run the daemon
    Serve(daemon::ServeArgs),
    /// Run a small hive that needs nothing but this program
    Demo(daemon::DemoArgs),
    /// Run the agents' way out: model gateway and proxy, on two sockets for each agent
    Egress(egress::EgressArgs),
    /// Print the OpenAPI document of one of the daemon's APIs
    Api(reference::ApiArgs),
    /// Print a script that completes this command line in a shell
    Completions(reference::CompletionsArgs),
    /// Print the manual page of hive, or write the pages of all verbs to a folder
    Man(reference::ManArgs),
}

/// The verbs that talk to the daemon.
#[derive(Debug, clap::Subcommand)]
enum Request {
    /// Show the hive at a glance, or one agent in full
    #[command(after_help = exit::HELP)]
    Status(status::StatusArgs),
    /// Show what is not as declared
    #[command(after_help = exit::HELP)]
    Diff(diff::DiffArgs),
    /// Show what would be done, and what it waits on
    #[command(after_help = exit::HELP)]
    Plan(plan::PlanArgs),
    /// Say why an agent, a gate or the hive is as it is
    Explain(explain::ExplainArgs),
    /// See what waits for a decision, and decide
    #[command(subcommand)]
    Gate(gate::GateCommand),
    /// Show what was carried out and decided
    History(history::HistoryArgs),
    /// Show what happened in the hive or in an agent's turns, or follow it; with --json one event a line
    Events(events::EventsArgs),
    /// Start an agent, and keep it running
    Start(agent::OverrideArgs),
    /// Stop an agent, and keep it stopped
    Stop(agent::TimedOverrideArgs),
    /// Keep an agent running, but let it take no turns
    Pause(agent::TimedOverrideArgs),
    /// Have another model run an agent's turns than its config says
    Model(agent::ModelArgs),
    /// Log an agent's driver in: shows an address to open, and takes the code that is shown there
    Login(login::LoginArgs),
    /// End the turn that an agent runs
    Cancel(agent::OverrideArgs),
    /// Shorten an agent's conversation before its next turn
    Compact(agent::OverrideArgs),
    /// Let an agent take no turns for a while, or until it is woken
    Nap(instructions::NapArgs),
    /// Let an agent take turns again
    Wake(agent::OverrideArgs),
    /// See to an agent's conversation
    #[command(subcommand)]
    Session(instructions::SessionCommand),
    /// Restart an agent between two turns
    Restart(agent::OverrideArgs),
    /// Build what an agent is to be once more, whatever an earlier build led to
    Rebuild(agent::OverrideArgs),
    /// Propose what an agent had deployed before
    Rollback(agent::RollbackArgs),
    /// Leave an agent as it is: reconcile it no more
    Suspend(agent::TimedOverrideArgs),
    /// Reconcile a suspended agent again
    Resume(agent::OverrideArgs),
    /// Try again what failed, without waiting
    Retry(agent::OverrideArgs),
    /// Make an agent that the spec does not declare, from spawnDefaults
    Spawn(spawn::SpawnArgs),
    /// Show what is kept of removed agents
    Archive,
    /// Remove an agent that the spec does not declare; with --purge, keep nothing of it
    Destroy(archive::DestroyArgs),
    /// Bring a removed agent back, with its state
    Restore(archive::RestoreArgs),
    /// Send an agent a message
    Send(agent::SendArgs),
    /// Show your messages, or an agent's, and where they are
    Inbox(mail::InboxArgs),
    /// Ask an agent a question; the answer is in hive questions --all
    Ask(mail::AskArgs),
    /// Show the questions that are open
    Questions(mail::QuestionsArgs),
    /// Answer a question
    Answer(mail::AnswerArgs),
    /// Have an agent told something later; hive loose-ends shows it, and takes it back
    Remind(remind::RemindArgs),
    /// Show what is still open, and whom it waits for
    LooseEnds(mail::LooseEndsArgs),
    /// Show what turns used, and how they ended
    Turns(turns::TurnsArgs),
    /// Show the end of what an agent printed
    Logs(logs::LogsArgs),
    /// Print the daemon's metrics in Prometheus' text format
    Metrics,
}

impl Cli {
    /// Reads the command line. When there is nothing to run, help or the error has been printed and the exit code
    /// is returned.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, ExitCode> {
        Self::try_parse_from(args).map_err(|error| {
            // Whoever closed our output does not want to read this.
            error.print().unwrap_or_default();
            Exit::of_usage(&error).into()
        })
    }

    /// Becomes an agent's sandbox or an evaluator, when that is the verb; then it returns an exit code only when it could
    /// not.
    #[expect(clippy::print_stderr, reason = "the daemon reads the reason from stderr")]
    pub fn launch(&self) -> Option<ExitCode> {
        let (reason, code) = match &self.command {
            Command::Hidden(Hidden::LaunchProcess(args)) => match launch::run(args) {
                Ok(never) => match never {},
                Err(error) => (crate::error_chain(&error), error.exit_code()),
            },
            Command::Hidden(Hidden::Launch(args)) => match container::run(args) {
                Ok(never) => match never {},
                Err(error) => (error.chain(), container::exit_code(&error)),
            },
            Command::Hidden(Hidden::Evaluate(args)) => match become_evaluator(args) {
                Ok(never) => match never {},
                Err(error) => (error.chain(), NOT_BECOME),
            },
            Command::Hidden(Hidden::Wipe(args)) => match wipe::run(args) {
                Ok(()) => return Some(ExitCode::SUCCESS),
                Err(error) => (error.chain(), container::exit_code(&error)),
            },
            Command::Public(_) | Command::Hidden(Hidden::References { .. }) => return None,
        };
        eprintln!("{reason}");
        Some(ExitCode::from(code))
    }

    /// Whether it runs the daemon or a service of it, which want more than one thread.
    pub fn is_daemon(&self) -> bool {
        matches!(
            self.command,
            Command::Public(Public::Serve(_) | Public::Demo(_) | Public::Egress(_))
        )
    }
}

/// Runs a command and reports how it ended.
pub async fn run(cli: Cli) -> ExitCode {
    let mut ui = Ui::standard(cli.global.form(), cli.global.color);
    run_with(cli, &mut ui, Arc::new(SystemClock)).await.into()
}

async fn run_with(cli: Cli, ui: &mut Ui, clock: Arc<dyn Clock>) -> Exit {
    let look = Look {
        now: clock.now(),
        socket: other_socket(&cli.global.socket),
    };
    match dispatch(cli, ui, clock).await {
        Ok(exit) => exit,
        Err(error) => {
            if !matches!(error, CliError::OutputClosed) {
                ui.error(&error, &look);
            }
            error.exit()
        }
    }
}

async fn dispatch(cli: Cli, ui: &mut Ui, clock: Arc<dyn Clock>) -> Result<Exit, CliError> {
    match cli.command {
        Command::Hidden(
            Hidden::LaunchProcess(_) | Hidden::Launch(_) | Hidden::Wipe(_) | Hidden::Evaluate(_),
        ) => Err(CliError::Daemon(
            "that verb is for the hive's own programs alone".to_owned(),
        )),
        Command::Hidden(Hidden::References { dir }) => reference::write_all(dir).await,
        Command::Public(Public::Shell(args)) => match shell::run(&args)? {},
        Command::Public(Public::Units(args)) => units::run(ui, args).await,
        Command::Public(Public::Serve(args)) => daemon::serve(args).await,
        Command::Public(Public::Demo(args)) => demo::run(ui, args).await,
        Command::Public(Public::Spec(command)) => spec::run(ui, command).await,
        Command::Public(Public::Doctor(args)) => {
            Box::pin(doctor::run(ui, args, &cli.global.socket, clock.now())).await
        }
        Command::Public(Public::Export(args)) => Box::pin(export::export(ui, args, &cli.global.socket)).await,
        Command::Public(Public::Replay(args)) => export::replay(ui, &args),
        Command::Public(Public::Recover(args)) => Box::pin(recover::run(ui, args, clock.now())).await,
        Command::Public(Public::Egress(args)) => Box::pin(egress::run(ui, args)).await,
        Command::Public(Public::Api(args)) => reference::api(ui, &args),
        Command::Public(Public::Completions(args)) => reference::completions(ui, &args),
        Command::Public(Public::Man(args)) => reference::man(ui, args).await,
        Command::Public(Public::Ask(request)) => {
            let session = &mut Session::new(ui, clock, &cli.global.socket)?;
            ask(session, request).await
        }
    }
}

async fn ask(session: &mut Session<'_>, request: Request) -> Result<Exit, CliError> {
    match request {
        Request::Status(args) => status::run(session, args).await,
        Request::Diff(args) => diff::run(session, args).await,
        Request::Plan(args) => plan::run(session, args).await,
        Request::Explain(args) => explain::run(session, args).await,
        Request::Gate(command) => gate::run(session, command).await,
        Request::History(args) => history::run(session, args).await,
        Request::Events(args) => events::run(session, args).await,
        Request::Start(args) => agent::command(session, "start", args.into()).await,
        Request::Stop(args) => agent::command(session, "stop", args).await,
        Request::Pause(args) => agent::command(session, "pause", args).await,
        Request::Model(args) => agent::model(session, args).await,
        Request::Login(args) => login::run(session, args).await,
        Request::Cancel(args) => instructions::simple(session, InstructionKind::Cancel, args).await,
        Request::Compact(args) => instructions::simple(session, InstructionKind::Compact, args).await,
        Request::Nap(args) => instructions::nap(session, args).await,
        Request::Wake(args) => instructions::simple(session, InstructionKind::Wake, args).await,
        Request::Session(command) => instructions::conversation(session, command).await,
        Request::Restart(args) => agent::command(session, "restart", args.into()).await,
        Request::Rebuild(args) => agent::command(session, "rebuild", args.into()).await,
        Request::Rollback(args) => agent::rollback(session, args).await,
        Request::Suspend(args) => agent::command(session, "suspend", args).await,
        Request::Resume(args) => agent::command(session, "resume", args.into()).await,
        Request::Retry(args) => agent::command(session, "retry", args.into()).await,
        Request::Spawn(args) => spawn::run(session, args).await,
        Request::Archive => archive::list(session).await,
        Request::Destroy(args) => archive::destroy(session, args).await,
        Request::Restore(args) => archive::restore(session, args).await,
        Request::Send(args) => agent::send(session, args).await,
        Request::Inbox(args) => mail::inbox(session, args).await,
        Request::Ask(args) => mail::ask(session, args).await,
        Request::Questions(args) => mail::questions(session, args).await,
        Request::Answer(args) => mail::answer(session, args).await,
        Request::Remind(args) => remind::run(session, args).await,
        Request::LooseEnds(args) => mail::loose_ends(session, args).await,
        Request::Turns(args) => turns::run(session, args).await,
        Request::Logs(args) => logs::run(session, args).await,
        Request::Metrics => metrics::run(session).await,
    }
}

/// The socket, when it is not the default one.
fn other_socket(socket: &Utf8Path) -> Option<String> {
    (socket != DEFAULT_SOCKET).then(|| socket.to_string())
}

/// What a verb works with.
struct Session<'a> {
    client: Client,
    ui: &'a mut Ui,
    clock: Arc<dyn Clock>,
    /// The socket, when it is not the default one.
    socket: Option<String>,
}

impl<'a> Session<'a> {
    fn new(ui: &'a mut Ui, clock: Arc<dyn Clock>, socket: &Utf8Path) -> Result<Self, CliError> {
        Ok(Self {
            client: Client::new(socket)?,
            ui,
            clock,
            socket: other_socket(socket),
        })
    }

    fn look(&self) -> Look {
        self.look_at(self.clock.now())
    }

    fn look_at(&self, now: Timestamp) -> Look {
        Look {
            now,
            socket: self.socket.clone(),
        }
    }
}

/// The query that asks about one agent only.
fn of_agent(agent: Option<&AgentName>) -> String {
    agent.map_or_else(String::new, |name| format!("?agent={name}"))
}
