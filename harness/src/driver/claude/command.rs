//! The command line, environment and files of one run of the program (pure).

use std::collections::BTreeMap;
use std::ffi::OsString;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};
use shared::TurnId;
use shared::config::AgentConfig;
use shared::spec::Role;

use super::servers;
use super::session::Session;
use crate::driver::running::TURN_MARK;
use crate::driver::tools::{self, Offered};
use crate::turn::Purpose;

/// What is passed on from the harness's environment: where the program finds others, where the provider is, and who pays.
pub const PASSED_ON: [&str; 16] = [
    "PATH",
    "LANG",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_CUSTOM_HEADERS",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_MAX_RETRIES",
    "API_TIMEOUT_MS",
];

/// What wakes the agent. Fixed: the program carries out `/words` and opens `@files` in a prompt, so nothing that somebody
/// wrote may ever be in it.
const WAKE: &str =
    "You have messages. Fetch them with the tool mcp__hive__recv, deal with them, then end your turn.";
/// The same for an agent whose notes have become too large. No turn is taken for that alone.
const WAKE_AND_TIDY: &str = "You have messages. Fetch them with the tool mcp__hive__recv and deal with them. Your notes have become too large to be \
     read: before you end your turn, tidy them up. Keep what still matters in a few short files, and delete the rest.";
const COMPACT: &str = "/compact";

const WORKER: &str = include_str!("../../../prompts/worker.md");
const MANAGER: &str = include_str!("../../../prompts/manager.md");

/// What goes to standard input; with a word about the notes if need be.
pub(super) fn prompt(purpose: Purpose, tidy: bool) -> &'static str {
    match purpose {
        Purpose::Messages if tidy => WAKE_AND_TIDY,
        Purpose::Messages => WAKE,
        Purpose::Compaction => COMPACT,
    }
}

/// Where the program keeps everything of its own.
pub(super) fn home(state: &Utf8Path) -> Utf8PathBuf {
    state.join("claude")
}

/// Its file of MCP servers.
pub(super) fn servers_file(state: &Utf8Path) -> Utf8PathBuf {
    home(state).join("hive-mcp.json")
}

/// Its settings.
pub(super) fn settings_file(state: &Utf8Path) -> Utf8PathBuf {
    home(state).join("hive-settings.json")
}

/// The least that the program accepts as a limit, in US dollars: it refuses nothing at all.
const LEAST_USD: f64 = 0.0001;

/// The words after the program's name. `usd` is what this run may cost; the program counts what the conversation has cost
/// before as nothing.
pub(super) fn args(
    config: &AgentConfig,
    session: &Session,
    state: &Utf8Path,
    usd: Option<f64>,
) -> Vec<String> {
    let mut words = Words::default();
    words.all([
        "-p",
        "--output-format",
        "stream-json",
        "--verbose",
        "--include-partial-messages",
    ]);
    let conversation = if session.began { "--resume" } else { "--session-id" };
    words.all([conversation, &session.id.to_string()]);
    words.all([
        "--mcp-config",
        servers_file(state).as_str(),
        "--strict-mcp-config",
    ]);
    words.all([
        "--setting-sources",
        "",
        "--settings",
        settings_file(state).as_str(),
    ]);
    words.all(["--tools", &built_in(config).join(",")]);
    // A list goes on up to the next option.
    words.all(["--allowedTools"]);
    words.0.extend(config.tools.allow.iter().cloned());
    words.0.extend(servers::allowed(config));
    words.all(["--permission-mode", "dontAsk"]);
    if let Some(model) = &config.driver.model {
        words.all(["--model", model]);
    }
    if let Some(usd) = usd {
        words.all(["--max-budget-usd", &usd.max(LEAST_USD).to_string()]);
    }
    words.all(["--append-system-prompt", &system_prompt(config, state)]);
    words.all(["--system-prompt-snapshot", "off"]);
    words.0
}

#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn all<const N: usize>(&mut self, words: [&str; N]) {
        self.0.extend(words.map(str::to_owned));
    }
}

/// The built-in tools that exist: the names in the patterns, each once.
fn built_in(config: &AgentConfig) -> Vec<&str> {
    let names = config.tools.allow.iter().map(|pattern| {
        let name = pattern.split('(').next().unwrap_or_default();
        name.trim()
    });
    let mut names: Vec<&str> = names
        .filter(|name| !name.starts_with("mcp__"))
        .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Who the agent is, and what its operator wants of it. Given anew with each turn, so that no shortening loses it.
pub(in crate::driver) fn system_prompt(config: &AgentConfig, state: &Utf8Path) -> String {
    let operator = match (&config.operator.name, &config.operator.pronouns) {
        (Some(name), Some(pronouns)) => format!("{name} ({pronouns}), the operator,"),
        (Some(name), None) => format!("{name}, the operator,"),
        (None, _) => "The operator, a human,".to_owned(),
    };
    let role = match config.role {
        Role::Worker => WORKER.to_owned(),
        Role::Manager => format!("{WORKER}{MANAGER}"),
    };
    let mut text = role
        .replace("{agent}", config.agent.as_str())
        .replace("{hive}", &config.hive)
        .replace("{state}", state.as_str())
        .replace("{operator}", &operator);
    if !config.prompt.trim().is_empty() {
        text.push_str("\nYour standing instructions:\n\n");
        text.push_str(config.prompt.trim());
        text.push('\n');
    }
    text
}

/// What no tool may do, whatever is allowed. A guard rail: the container is the boundary. What is known to be offered
/// and is not allowed is denied by name: the model is not even told of it, and its description takes no room.
pub(super) fn settings(config: &AgentConfig, offered: &Offered, state: &Utf8Path) -> Value {
    let mut deny: Vec<String> = config.tools.deny.iter().cloned().collect();
    deny.extend(tools::forbidden(config, offered));
    // Two slashes begin an absolute path.
    deny.push(format!("Read(/{}/.credentials.json)", home(state)));
    deny.push(format!("Edit(/{}/**)", home(state)));
    json!({ "permissions": { "deny": deny } })
}

/// The whole environment. `passed` is what [`PASSED_ON`] names of the harness's own.
pub(in crate::driver) fn environment(
    passed: &BTreeMap<String, OsString>,
    config: &AgentConfig,
    state: &Utf8Path,
    turn: TurnId,
) -> BTreeMap<String, OsString> {
    let home = home(state);
    let mut environment: BTreeMap<String, OsString> = BTreeMap::new();
    let mut set = |name: &str, value: &str| environment.insert(name.to_owned(), value.into());
    set("TMPDIR", "/tmp");
    set("LANG", "C.UTF-8");
    // Wrong logins and empty accounts are tried again too: with the program's own ten attempts that takes minutes.
    set("CLAUDE_CODE_MAX_RETRIES", "4");
    environment.extend(
        passed
            .iter()
            .filter(|(name, _)| PASSED_ON.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    let mut set = |name: &str, value: &str| environment.insert(name.to_owned(), value.into());
    if let Some(url) = &config.model_url {
        set("ANTHROPIC_BASE_URL", url);
    }
    set("HOME", state.as_str());
    for (name, folder) in [
        ("XDG_CONFIG_HOME", "xdg/config"),
        ("XDG_CACHE_HOME", "xdg/cache"),
        ("XDG_DATA_HOME", "xdg/data"),
        ("XDG_STATE_HOME", "xdg/state"),
    ] {
        set(name, home.join(folder).as_str());
    }
    set("CLAUDE_CONFIG_DIR", home.as_str());
    set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    set("DISABLE_AUTOUPDATER", "1");
    set("DISABLE_TELEMETRY", "1");
    set("DISABLE_ERROR_REPORTING", "1");
    // A task in the background would keep the turn open, and begin turns of its own.
    set("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1");
    set("ENABLE_TOOL_SEARCH", "false");
    // Longer than a `recv` may wait, shorter than the silence that ends a turn.
    set("MCP_TOOL_TIMEOUT", "600000");
    set("MCP_TIMEOUT", "20000");
    set("HIVE_DOLLAR", "$");
    set(TURN_MARK, &turn.to_string());
    environment
}

#[cfg(test)]
mod tests;
