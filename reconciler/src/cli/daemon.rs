//! `hive serve` and `hive demo`: the verbs that run the daemon itself.

use camino::Utf8PathBuf;
use tracing_subscriber::EnvFilter;

use super::error::CliError;
use super::exit::Exit;

/// How log lines are written: for people, or one JSON object a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// What to log, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// Log this level and above: error, warn, info, debug, trace; or a filter such as info,reconciler::plan=debug
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = parse_filter)]
    pub log: String,
    /// Write log lines in this form
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

impl LogArgs {
    /// Sends the program's log to standard error. A second call changes nothing.
    pub fn init(&self) {
        let builder = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(&self.log))
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
        // Refused only when a log is set up already, which is as good.
        match self.log_format {
            LogFormat::Text => builder.try_init().unwrap_or_default(),
            LogFormat::Json => builder.json().try_init().unwrap_or_default(),
        }
    }
}

/// Arguments of `hive serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// The spec
    #[arg(long, value_name = "FILE", default_value = "/etc/hyperhive/hive.json")]
    pub spec: Utf8PathBuf,
    /// The folder for what must survive a reboot
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hyperhive")]
    pub state: Utf8PathBuf,
    /// The folder for sockets
    #[arg(long, value_name = "DIR", default_value = "/run/hyperhive")]
    pub run: Utf8PathBuf,
    /// The harness program; by default hive-harness beside this program
    #[arg(long, value_name = "FILE")]
    pub harness: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub logging: LogArgs,
}

/// What runs alice in the demo.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DemoDriver {
    /// Rules; no model is called
    #[default]
    Scripted,
    /// Claude Code, with a login of her own
    Claude,
}

/// Arguments of `hive demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// The folder that holds the whole demo
    #[arg(long, value_name = "DIR", default_value_t = demo_dir())]
    pub dir: Utf8PathBuf,
    /// Begin anew: remove what an earlier demo left there
    #[arg(long)]
    pub fresh: bool,
    /// What runs alice
    #[arg(long, value_name = "DRIVER", value_enum, default_value_t)]
    pub driver: DemoDriver,
    /// Claude Code's program, for --driver claude; by default `claude` in PATH
    #[arg(long, value_name = "FILE")]
    pub claude: Option<Utf8PathBuf>,
    /// The model that answers alice, in Claude Code's words
    #[arg(long, value_name = "MODEL", default_value = "haiku")]
    pub model: String,
    /// The model provider's address; by default the one that Claude Code knows
    #[arg(long, value_name = "URL")]
    pub model_url: Option<String>,
    // For those who play the demo's story with a daemon of their own.
    /// Print the demo's spec and end
    #[arg(long, hide = true)]
    pub print_spec: bool,
    #[command(flatten)]
    pub logging: LogArgs,
}

/// One demo per user, so that users do not meet in each other's folders.
fn demo_dir() -> Utf8PathBuf {
    let temp = Utf8PathBuf::from_path_buf(std::env::temp_dir()).unwrap_or_else(|_| "/tmp".into());
    let uid = rustix::process::getuid().as_raw();
    temp.join(format!("hyperhive-demo-{uid}"))
}

/// Runs the daemon until it is told to stop.
pub(super) async fn serve(args: ServeArgs) -> Result<Exit, CliError> {
    args.logging.init();
    let daemon = |error: &dyn std::error::Error| CliError::Daemon(crate::error_chain(error));
    crate::control::serve::serve(args)
        .await
        .map_err(|error| daemon(&error))?;
    Ok(Exit::Done)
}
