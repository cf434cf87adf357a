//! What an agent may do when its program asks (pure).
//!
//! Nobody is there to be asked, so every question is answered at once, by `tools.allow` and `tools.deny` and by what is
//! allowed of each MCP server. What no rule allows is refused. A guard rail: programs do not ask about everything.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use shared::config::{AgentConfig, OWN_MCP_SERVER};

use super::wire::{name, text};
use crate::driver::tools::{self, Offered};

/// Characters with which a command can start another one.
const OPERATORS: [char; 10] = [';', '|', '&', '`', '$', '(', '<', '>', '\n', '\\'];

/// The rules of one turn.
#[derive(Debug, Clone)]
pub(super) struct Permit {
    config: std::sync::Arc<AgentConfig>,
    offered: Offered,
}

/// An answer to a question for permission.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    /// What goes back.
    pub(super) answer: Value,
    /// What was refused, for the log.
    pub(super) refused: Option<String>,
}

impl Permit {
    pub(super) fn new(config: std::sync::Arc<AgentConfig>, offered: Offered) -> Self {
        Self { config, offered }
    }

    /// Answers a `session/request_permission` with these parameters.
    pub(super) fn judge(&self, params: &Value) -> Verdict {
        let call = &params["toolCall"];
        let tool = tool_of(call);
        let allowed = self.allows(&tool, call);
        let wanted: &[&str] = if allowed {
            &["allow_once"]
        } else {
            &["reject_once", "reject_always"]
        };
        let options = params["options"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let option = wanted
            .iter()
            .find_map(|kind| options.iter().find(|option| text(option, "kind") == *kind));
        let outcome = match option.and_then(|option| option["optionId"].as_str()) {
            Some(id) => json!({ "outcome": "selected", "optionId": id }),
            // It may only be answered in a way that we do not mean.
            None => json!({ "outcome": "cancelled" }),
        };
        let done = allowed && option.is_some();
        Verdict {
            answer: json!({ "outcome": outcome }),
            refused: (!done).then(|| format!("not allowed: {tool}")),
        }
    }

    fn allows(&self, tool: &str, call: &Value) -> bool {
        let rules = &self.config.tools;
        if may_be_of_server(tool, call)
            && let Some((server, of_server)) = self.server_of(tool)
        {
            return self.allows_of_server(&server, &of_server);
        }
        let names = names_of(tool, call);
        let command = call["rawInput"]["command"].as_str();
        let fits = |rule: &String, unsure: bool| {
            let (of, pattern) = rule
                .split_once('(')
                .map_or((rule.as_str(), None), |(of, pattern)| {
                    (of, Some(pattern.strip_suffix(')').unwrap_or(pattern)))
                });
            let same = names.iter().any(|name| name.eq_ignore_ascii_case(of.trim()));
            same && pattern.is_none_or(|pattern| matches(pattern, command, unsure))
        };
        // What cannot be judged fits every prohibition, and no permission.
        rules.allow.iter().any(|rule| fits(rule, false)) && !rules.deny.iter().any(|rule| fits(rule, true))
    }

    fn allows_of_server(&self, server: &str, tool: &str) -> bool {
        if tools::denies(&self.config.tools.deny, server, tool) {
            return false;
        }
        server == OWN_MCP_SERVER
            || tools::declared(&self.config)
                .any(|(name, declared)| name.as_str() == server && tools::allows(declared, tool))
    }

    /// The server of a tool, and the tool's name there, in the ways that programs name both together.
    fn server_of(&self, tool: &str) -> Option<(String, String)> {
        let split = |(server, tool): (&str, &str)| (server.to_owned(), tool.to_owned());
        if let Some(rest) = tool.strip_prefix("mcp__") {
            return rest.split_once("__").map(split);
        }
        if let Some(own) = tool.strip_prefix("hive_") {
            return Some((OWN_MCP_SERVER.to_owned(), own.to_owned()));
        }
        // Only what is known to be a tool of that server: `web_fetch` may be a tool of the program's own.
        self.offered.iter().find_map(|(server, offered)| {
            let rest = tool.strip_prefix(server.as_str())?.strip_prefix('_')?;
            let known = offered.iter().any(|offered| tools::plain(offered) == rest);
            known.then(|| (server.to_string(), rest.to_owned()))
        })
    }
}

/// What the program calls the tool.
pub(super) fn tool_of(call: &Value) -> String {
    let names = [
        &call["name"],
        &call["_meta"]["claudeCode"]["toolName"],
        &call["title"],
        &call["kind"],
    ];
    let told = names
        .into_iter()
        .find_map(|name| name.as_str().filter(|name| !name.is_empty()));
    name(told.unwrap_or("tool"))
}

/// Whether the program names the tool itself, and not only what it is about to do.
fn is_named(call: &Value) -> bool {
    call["name"].is_string() || call["_meta"]["claudeCode"]["toolName"].is_string()
}

/// A title may be a command, which the model wrote: it is the name of a server's tool only where nothing else can be meant.
fn may_be_of_server(tool: &str, call: &Value) -> bool {
    let other = matches!(text(call, "kind"), "" | "other") && call["rawInput"]["command"].is_null();
    tools::plain(tool) == tool && (is_named(call) || other)
}

/// Under which names rules may mean this tool. A program that names no tool says at least what kind of thing it does.
fn names_of<'a>(tool: &'a str, call: &'a Value) -> BTreeSet<&'a str> {
    if is_named(call) {
        return [tool].into();
    }
    match text(call, "kind") {
        "read" => ["Read"].into(),
        "edit" | "delete" | "move" => ["Edit"].into(),
        "search" => ["Grep"].into(),
        "execute" => ["Bash"].into(),
        "fetch" => ["WebFetch"].into(),
        // A title is not a name.
        _ => BTreeSet::new(),
    }
}

/// Whether a pattern such as `git *` fits a command. `unsure` is the answer when that cannot be told.
fn matches(pattern: &str, command: Option<&str>, unsure: bool) -> bool {
    let Some(command) = command else {
        return unsure;
    };
    if command.contains(OPERATORS) {
        return unsure;
    }
    let pattern = pattern.trim();
    match pattern.strip_suffix('*').map(|start| start.trim_end_matches(':')) {
        Some(start) => command.starts_with(start) || command == start.trim_end(),
        None => command.trim() == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::config;

    fn permit(allow: &[&str], deny: &[&str]) -> Permit {
        let config = config(&json!({
            "driver": { "kind": "acp" },
            "tools": { "allow": allow, "deny": deny },
            "mcpServers": {
                "wiki": { "command": "/w", "allowedTools": ["look"] },
                "web": { "command": "/w" },
            },
        }));
        let offered = [("wiki", vec!["look", "draw"]), ("web", vec!["get"])].map(|(name, tools)| {
            let tools = tools.into_iter().map(str::to_owned).collect();
            (name.parse().expect("a name"), tools)
        });
        Permit::new(std::sync::Arc::new(config), offered.into())
    }

    fn options() -> Value {
        json!([
            { "optionId": "1", "kind": "allow_always" },
            { "optionId": "2", "kind": "allow_once" },
            { "optionId": "3", "kind": "reject_once" },
        ])
    }

    fn selected(permit: &Permit, call: &Value) -> String {
        let verdict = permit.judge(&json!({ "toolCall": call, "options": options() }));
        let option = text(&verdict.answer["outcome"], "optionId").to_owned();
        assert_eq!(verdict.refused.is_some(), option == "3", "{verdict:?}");
        option
    }

    #[test]
    fn what_is_allowed_is_allowed_once_and_the_rest_refused() {
        let permit = permit(&["Read", "Bash(git *)"], &["Bash(git push*)", "mcp__web__get"]);
        let bash = |command: &str| json!({ "name": "Bash", "rawInput": { "command": command } });
        for (call, allowed) in [
            (json!({ "name": "Read" }), true),
            (json!({ "name": "read" }), true),
            (json!({ "name": "Write" }), false),
            (json!({ "title": "Read the login", "kind": "read" }), true),
            (json!({ "title": "Read", "kind": "edit" }), false),
            (json!({ "title": "Read", "kind": "other" }), false),
            (json!({}), false),
            (json!(7), false),
            (bash("git log"), true),
            (bash("git"), true),
            (bash("gitx"), false),
            (bash("git push origin"), false),
            (bash("git log; rm -rf /"), false),
            (bash("git log $(rm x)"), false),
            (json!({ "name": "Bash" }), false),
            (json!({ "name": "mcp__hive__recv" }), true),
            (json!({ "name": "hive_recv" }), true),
            (json!({ "name": "mcp__wiki__look" }), true),
            (json!({ "name": "mcp__wiki__draw" }), false),
            (json!({ "title": "wiki_look" }), true),
            (json!({ "title": "wiki_draw" }), false),
            (json!({ "title": "web_get" }), false),
            (json!({ "title": "web_fetch", "kind": "other" }), false),
            (json!({ "title": "hive_recv", "kind": "other" }), true),
            (json!({ "title": "hive_recv", "kind": "execute" }), false),
            (
                json!({ "title": "hive_recv", "rawInput": { "command": "hive_recv" } }),
                false,
            ),
            (json!({ "title": "hive_recv; rm -rf /" }), false),
            (json!({ "title": "mcp__hive__x $(rm x)", "kind": "other" }), false),
            (json!({ "name": "mcp__other__look" }), false),
            (json!({ "name": "mcp__" }), false),
        ] {
            let expected = if allowed { "2" } else { "3" };
            assert_eq!(selected(&permit, &call), expected, "{call}");
        }
    }

    #[test]
    fn a_prohibition_holds_where_a_command_cannot_be_judged() {
        let permit = permit(&["Bash"], &["Bash(rm *)"]);
        let bash = |command: &str| json!({ "name": "Bash", "rawInput": { "command": command } });
        assert_eq!(selected(&permit, &bash("ls")), "2");
        assert_eq!(selected(&permit, &bash("rm -rf /")), "3");
        assert_eq!(selected(&permit, &bash("ls; rm -rf /")), "3");
    }

    #[test]
    fn nothing_is_allowed_for_ever_and_a_question_without_a_fitting_answer_is_cancelled() {
        let permit = permit(&["Read"], &[]);
        for options in [
            json!([{ "optionId": "1", "kind": "allow_always" }]),
            json!([]),
            json!(3),
        ] {
            let verdict = permit.judge(&json!({ "toolCall": { "name": "Read" }, "options": options }));
            assert_eq!(verdict.answer, json!({ "outcome": { "outcome": "cancelled" } }));
            assert_eq!(verdict.refused.as_deref(), Some("not allowed: Read"));
        }
    }
}
