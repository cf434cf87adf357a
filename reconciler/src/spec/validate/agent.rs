//! The rules for one agent.

use std::collections::{BTreeMap, BTreeSet};

use shared::Address;
use shared::config::OWN_MCP_SERVER;
use shared::spec::{
    AgentSpec, BudgetSpec, DriverKind, DriverSpec, LimitsSpec, McpServerSpec, Network, SecretSpec, ToolsSpec,
};

use super::words;
use crate::spec::fault::{At, Findings, quoted};

/// Ten thousand cores: beyond that it is a slip.
const MAX_PERCENT: u64 = 1_000_000;

/// Judges one agent. `known` names the agents of the document; without it recipients are not looked up.
pub(in crate::spec) fn agent(
    at: &At<'_>,
    agent: &AgentSpec,
    known: Option<&BTreeSet<String>>,
    out: &mut Findings,
) {
    let AgentSpec {
        role: _,
        run: _,
        driver,
        prompt,
        mcp_servers,
        tools,
        recipients,
        binds,
        limits,
        network,
        egress,
        drain: _,
        budget,
        max_turn_minutes,
        secrets,
        secret_env,
        locked: _,
        system,
        modules,
    } = agent;
    let path = |field: &str| at.key(field).to_string();
    self::driver(&at.key("driver"), driver, out);
    if prompt.contains('\0') {
        out.judge(path("prompt"), "contains a NUL character: remove it");
    }
    let servers = at.key("mcpServers");
    let secrets_path = path("secrets");
    let named = Secrets {
        path: &secrets_path,
        names: secrets,
    };
    for (name, server) in mcp_servers {
        if name.as_str() == OWN_MCP_SERVER {
            let what = "is the name of the harness's own MCP server: choose another";
            out.judge(servers.key(name.as_str()).to_string(), what);
        }
        if name.as_str().contains("__") || name.as_str().ends_with('_') {
            let what = "has two underscores in a row or one at its end: agents' programs put two between a server and \
                        its tool, and would take it for another's";
            out.judge(servers.key(name.as_str()).to_string(), what);
        }
        mcp_server(&servers.key(name.as_str()), server, &named, out);
    }
    self::tools(&at.key("tools"), tools, out);
    if let Some(recipients) = recipients {
        self::recipients(path("recipients"), recipients, known, out);
    }
    super::binds::binds(&at.key("binds"), binds, out);
    self::limits(&at.key("limits"), limits, out);
    if !egress.is_empty() && *network != Network::Hosts && !out.is_patched(&path("network")) {
        out.judge(
            path("egress"),
            "has an effect only with \"network\": \"hosts\": write that, or leave egress out",
        );
    }
    for host in egress {
        words::host(&path("egress"), host, out);
    }
    self::budget(&at.key("budget"), budget, out);
    words::range(&path("maxTurnMinutes"), *max_turn_minutes, 1, 1440, out);
    self::secrets(&at.key("secrets"), secrets, out);
    let env = at.key("secretEnv");
    for (variable, secret) in secret_env {
        let at = env.key(variable).to_string();
        variable_name(&at, variable, out);
        if variable.starts_with("HIVE_") {
            out.judge(
                at.clone(),
                "is a variable of hyperhive's own: choose a name that does not begin with HIVE_",
            );
        }
        named.look_up(at, secret, out);
    }
    if let Some(system) = system {
        words::absolute_path(&path("system"), system, out);
    }
    let modules_at = at.key("modules");
    for (index, module) in modules.iter().enumerate() {
        words::absolute_path(&modules_at.item(index).to_string(), module, out);
    }
}

/// The secrets of the agent, for those who name one.
struct Secrets<'a> {
    path: &'a str,
    names: &'a BTreeMap<String, SecretSpec>,
}

impl Secrets<'_> {
    fn look_up(&self, path: String, secret: &str, out: &mut Findings) {
        if self.names.contains_key(secret) {
            return;
        }
        let mut declaration = self.path.to_owned();
        crate::spec::fault::push_key(&mut declaration, secret);
        if !out.is_patched(&declaration) {
            out.judge(
                path,
                format!(
                    "names the secret {}, which this agent does not have: declare it in {}",
                    quoted(secret, 64),
                    self.path
                ),
            );
        }
    }
}

fn driver(at: &At<'_>, driver: &DriverSpec, out: &mut Findings) {
    let DriverSpec {
        kind,
        model,
        command,
        args,
        script,
    } = driver;
    if let Some(model) = model
        && !words::is_model(model)
    {
        out.judge(
            at.key("model").to_string(),
            format!(
                "expected the name of a model such as \"haiku\", found {}",
                quoted(model, 40)
            ),
        );
    }
    if out.is_patched(&at.key("kind").to_string()) {
        return;
    }
    if !script.is_empty() && *kind != DriverKind::Scripted {
        out.judge(
            at.key("script").to_string(),
            "is for the scripted driver: write \"kind\": \"scripted\" beside it, or leave script out",
        );
    }
    if *kind == DriverKind::Acp {
        let command_at = at.key("command").to_string();
        match command {
            Some(command) => words::absolute_path(&command_at, command, out),
            None if out.is_patched(&command_at) => {}
            None => out.judge(
                command_at,
                "is missing: the acp driver needs the absolute path of a program that speaks the Agent Client Protocol",
            ),
        }
        no_nul(&at.key("args"), args, out);
        return;
    }
    for (field, given) in [("command", command.is_some()), ("args", !args.is_empty())] {
        if given {
            out.judge(
                at.key(field).to_string(),
                format!("is for the acp driver: write \"kind\": \"acp\" beside it, or leave {field} out"),
            );
        }
    }
}

fn mcp_server(at: &At<'_>, server: &McpServerSpec, secrets: &Secrets<'_>, out: &mut Findings) {
    let McpServerSpec {
        command,
        args,
        env,
        url,
        secret_headers,
        allowed_tools,
    } = server;
    let path = |field: &str| at.key(field).to_string();
    match (command, url) {
        (Some(command), None) => {
            words::absolute_path(&path("command"), command, out);
            if !secret_headers.is_empty() {
                out.judge(
                    path("secretHeaders"),
                    "is for servers with a url: give a program its secrets through the agent's secretEnv",
                );
            }
        }
        (None, Some(url)) => {
            words::http_url(&path("url"), url, out);
            for (field, empty) in [("args", args.is_empty()), ("env", env.is_empty())] {
                if !empty {
                    out.judge(path(field), "is for servers with a command: leave it out");
                }
            }
        }
        (Some(_), Some(_)) => out.judge(
            at.to_string(),
            "has both a command and a url: keep the command for a program, or the url for an HTTP server",
        ),
        (None, None) => out.judge(
            at.to_string(),
            "has neither a command nor a url: give the absolute path of a program, or the address of an HTTP server",
        ),
    }
    no_nul(&at.key("args"), args, out);
    let env_at = at.key("env");
    for (variable, value) in env {
        let at = env_at.key(variable).to_string();
        variable_name(&at, variable, out);
        if value.contains('\0') {
            out.judge(at, "contains a NUL character: remove it");
        }
    }
    let headers_at = at.key("secretHeaders");
    for (header, secret) in secret_headers {
        let at = headers_at.key(header).to_string();
        if !words::is_header(header) {
            out.judge(
                at.clone(),
                "cannot name an HTTP header: write it as in \"Authorization\"",
            );
        }
        // A program has none; that was said above.
        if url.is_some() {
            secrets.look_up(at, secret, out);
        }
    }
    tool_names(path("allowedTools"), allowed_tools, out);
}

fn no_nul(at: &At<'_>, args: &[String], out: &mut Findings) {
    for (index, arg) in args.iter().enumerate() {
        if arg.contains('\0') {
            out.judge(at.item(index).to_string(), "contains a NUL character: remove it");
        }
    }
}

fn tools(at: &At<'_>, tools: &ToolsSpec, out: &mut Findings) {
    let ToolsSpec { allow, deny } = tools;
    tool_names(at.key("allow").to_string(), allow, out);
    tool_names(at.key("deny").to_string(), deny, out);
}

fn tool_names(path: String, names: &BTreeSet<String>, out: &mut Findings) {
    let sane = |name: &String| !name.trim().is_empty() && !name.chars().any(char::is_control);
    if let Some(bad) = names.iter().find(|name| !sane(name)) {
        out.judge(
            path,
            format!(
                "{} is not the name of a tool: write it as in \"Read\" or \"Bash(git *)\"",
                quoted(bad, 40)
            ),
        );
    }
}

fn recipients(
    path: String,
    recipients: &BTreeSet<Address>,
    known: Option<&BTreeSet<String>>,
    out: &mut Findings,
) {
    for recipient in recipients {
        match recipient {
            Address::Operator => {}
            Address::System => out.judge(
                path.clone(),
                "\"system\" only ever sends: name agents, or \"operator\"",
            ),
            Address::Agent(name) => {
                if known.is_some_and(|known| !known.contains(name.as_str())) {
                    out.judge(
                        path.clone(),
                        format!(
                            "there is no agent {:?}: declare it, or leave it out here",
                            name.as_str()
                        ),
                    );
                }
            }
        }
    }
}

fn limits(at: &At<'_>, limits: &LimitsSpec, out: &mut Findings) {
    let LimitsSpec { cpu, memory, tasks } = limits;
    let percent = |text: &str| text.strip_suffix('%').and_then(positive);
    if let Some(cpu) = cpu
        && percent(cpu).is_none_or(|percent| percent > MAX_PERCENT)
    {
        out.judge(
            at.key("cpu").to_string(),
            format!(
                "expected a share of one core in percent, from \"1%\" to \"{MAX_PERCENT}%\", such as \"200%\" for \
                 two cores, found {}",
                quoted(cpu, 40)
            ),
        );
    }
    if let Some(memory) = memory
        && bytes(memory).is_none()
    {
        out.judge(
            at.key("memory").to_string(),
            format!(
                "expected a whole number with K, M, G or T, such as \"4G\", found {}",
                quoted(memory, 40)
            ),
        );
    }
    if *tasks == Some(0) {
        out.judge(
            at.key("tasks").to_string(),
            "expected 1 or more; leave it out for no limit",
        );
    }
}

/// A positive number in digits alone.
fn positive(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|number| plain && *number > 0)
}

fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let shift = match unit {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    positive(digits)?.checked_mul(1 << shift)
}

fn budget(at: &At<'_>, budget: &BudgetSpec, out: &mut Findings) {
    let BudgetSpec {
        usd_per_day,
        tokens_per_day: _,
        turns_per_day: _,
        usd_per_turn,
        tokens_per_turn: _,
    } = budget;
    for (field, limit) in [("usdPerDay", usd_per_day), ("usdPerTurn", usd_per_turn)] {
        dollars(&at.key(field).to_string(), *limit, out);
    }
}

pub(super) fn dollars(path: &str, limit: Option<f64>, out: &mut Findings) {
    if let Some(limit) = limit
        && !(limit.is_finite() && limit >= 0.0)
    {
        out.judge(
            path.to_owned(),
            format!("expected 0 or more dollars, found {limit}; leave it out for no limit"),
        );
    }
}

fn secrets(at: &At<'_>, secrets: &BTreeMap<String, SecretSpec>, out: &mut Findings) {
    for (name, SecretSpec { file, version }) in secrets {
        let at = at.key(name);
        if !words::is_identifier(name) {
            out.judge(
                at.to_string(),
                "cannot name a secret: use at most 64 letters, digits, dashes and underscores, beginning with a \
                 letter",
            );
        }
        words::secret_file(&at.key("file").to_string(), file, out);
        if version.len() > 256 || version.chars().any(char::is_control) {
            out.judge(
                at.key("version").to_string(),
                "expected at most 256 bytes without control characters, such as a date or a hash",
            );
        }
    }
}

fn variable_name(path: &str, name: &str, out: &mut Findings) {
    if !words::is_variable(name) {
        out.judge(
            path.to_owned(),
            "cannot name an environment variable: use letters, digits and underscores, not beginning with a digit",
        );
    }
}
