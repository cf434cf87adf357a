//! One line of the program's output as a value.
//!
//! The program changes every few days, and its output passes on what models, tools and providers said. So a line is
//! only ever looked at field by field: what is missing or of another type is as if it were not there, what is unknown
//! is named and left alone, and every text that goes on is bounded.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shared::turn::Tokens;

/// The longest name that is kept: of a tool, a model, a kind of event.
const MAX_NAME: usize = 128;
/// The longest text for a person that is kept.
const MAX_TEXT: usize = 1000;
/// The longest input of a tool, and the longest answer of one, that is passed on.
const MAX_TOOL_TEXT: usize = 4000;
/// The longest piece of the model's text that is passed on.
const MAX_DELTA: usize = 16 * 1024;
/// The most tools of MCP servers that are looked at.
const MAX_TOOLS: usize = 20_000;
/// The most content blocks of one message that are looked at.
const MAX_BLOCKS: usize = 1000;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    /// A conversation is ready. May come late, and more than once.
    Init(Init),
    /// A part of what the model said.
    Assistant(Assistant),
    /// Tools have answered.
    ToolResults(Vec<ToolResult>),
    /// A piece of text, while it is written.
    Text(String),
    /// One request to the model begins; what it reads.
    RequestBegan(Usage),
    /// One request ends; what was written.
    RequestEnded(Usage),
    /// Another event of the stream: a sign of life.
    Alive,
    /// A turn's result. There may be several.
    Result(Box<TurnLine>),
    /// The provider is asked again.
    Retry {
        /// Which attempt this was.
        attempt: u64,
        /// What it said.
        error: String,
    },
    /// The provider's limits.
    RateLimit {
        /// Whether it refuses.
        rejected: bool,
        /// Until when, in seconds since 1970.
        resets_at: Option<i64>,
        /// Which limit.
        kind: String,
    },
    /// The conversation is being shortened.
    Compacting,
    /// That has ended.
    Compacted {
        /// Why it did not work.
        error: Option<String>,
    },
    /// The conversation was shortened to so many tokens.
    Boundary {
        /// What it takes now.
        tokens: Option<u64>,
    },
    /// A tool was not allowed.
    Denied {
        /// Which, and why.
        what: String,
    },
    /// A known event that is of no interest; it is no sign that the turn goes on.
    Quiet,
    /// An object of a kind this build does not know.
    Unknown(String),
    /// Not a JSON object.
    Garbage(String),
}

/// What the program says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Init {
    pub(crate) session: Option<String>,
    pub(crate) model: Option<String>,
    /// MCP servers by name, each with its state; absent when it says nothing of any.
    pub(crate) servers: Option<BTreeMap<String, String>>,
    /// The tools of all MCP servers, by their full names; absent when it names none.
    pub(crate) tools: Option<BTreeSet<String>>,
}

/// A part of what the model said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Assistant {
    /// Absent for what the program made up itself.
    pub(crate) model: Option<String>,
    /// The tools it calls.
    pub(crate) calls: Vec<ToolCall>,
    /// The kind of error, when it tells of one.
    pub(crate) error: Option<String>,
    /// Whether a subagent said it.
    pub(crate) of_subagent: bool,
}

/// A call of a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ToolCall {
    /// Its answer names it; may be empty.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) input: String,
}

/// What a tool answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ToolResult {
    /// The call.
    pub(crate) id: String,
    pub(crate) failed: bool,
    pub(crate) text: String,
}

/// Tokens of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) tokens: Tokens,
    pub(crate) of_subagent: bool,
}

/// What a `result` says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TurnLine {
    pub(crate) subtype: String,
    pub(crate) is_error: bool,
    pub(crate) reason: String,
    pub(crate) text: String,
    pub(crate) api_status: Option<u64>,
    /// What was used since the result before, by model; absent when it does not say.
    pub(crate) models: Option<Vec<ModelUse>>,
    /// The same over all models, without a price.
    pub(crate) usage: Tokens,
    /// The window of each model.
    pub(crate) windows: BTreeMap<String, u64>,
}

/// What one model was used for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ModelUse {
    pub(crate) tokens: Tokens,
    /// Absent when the price is made up.
    pub(crate) cost_usd: Option<f64>,
}

/// Reads one line.
pub(crate) fn parse(line: &[u8]) -> Line {
    let Ok(value @ Value::Object(_)) = serde_json::from_slice::<Value>(line) else {
        return Line::Garbage(crate::tame(&String::from_utf8_lossy(head(line)), 200));
    };
    match text(&value, "type") {
        "system" => system(&value),
        "assistant" => Line::Assistant(assistant(&value)),
        "user" => tool_results(&value),
        "stream_event" => stream_event(&value),
        "result" => Line::Result(Box::new(result(&value))),
        "rate_limit_event" => rate_limit(&value),
        "tool_progress" => Line::Alive,
        "auth_status" | "session_state_changed" | "conversation_reset" | "control_response" => Line::Quiet,
        other => Line::Unknown(name(other)),
    }
}

/// Enough of a line to be recognised.
fn head(line: &[u8]) -> &[u8] {
    line.get(..1000).unwrap_or(line)
}

fn system(value: &Value) -> Line {
    match text(value, "subtype") {
        "init" => Line::Init(init(value)),
        "status" => status(value),
        "compact_boundary" => Line::Boundary {
            tokens: value["compact_metadata"]["post_tokens"].as_u64(),
        },
        "api_retry" => Line::Retry {
            attempt: value["attempt"].as_u64().unwrap_or_default(),
            error: match value["error_status"].as_u64() {
                Some(status) => format!("{status} {}", crate::tame(text(value, "error"), MAX_NAME)),
                None => format!("not reachable {}", crate::tame(text(value, "error"), MAX_NAME)),
            },
        },
        "permission_denied" => Line::Denied {
            what: crate::tame(
                &format!("{}: {}", text(value, "tool_name"), text(value, "message")),
                MAX_TEXT,
            ),
        },
        "model_fallback" | "hook_started" | "hook_response" | "thinking_tokens" => Line::Alive,
        "background_tasks_changed"
        | "task_started"
        | "task_updated"
        | "task_notification"
        | "task_progress"
        | "notification"
        | "informational" => Line::Quiet,
        other => Line::Unknown(format!("system/{}", name(other))),
    }
}

fn init(value: &Value) -> Init {
    Init {
        session: optional(value, "session_id"),
        model: optional(value, "model"),
        servers: value["mcp_servers"].as_array().map(|servers| {
            let servers = servers.iter().take(1000);
            servers
                .map(|server| (name(text(server, "name")), name(text(server, "status"))))
                .collect()
        }),
        tools: of_servers(&value["tools"]),
    }
}

/// The hive's own tools are always among them: none at all says that they are told in another way.
fn of_servers(tools: &Value) -> Option<BTreeSet<String>> {
    let names = tools.as_array()?.iter().filter_map(Value::as_str);
    let names = names.filter(|name| name.starts_with("mcp__"));
    let names: BTreeSet<String> = names.take(MAX_TOOLS).map(name).collect();
    (!names.is_empty()).then_some(names)
}

fn status(value: &Value) -> Line {
    if text(value, "status") == "compacting" {
        return Line::Compacting;
    }
    match text(value, "compact_result") {
        "" => Line::Alive,
        "success" => Line::Compacted { error: None },
        other => {
            let error = format!("{other} {}", text(value, "compact_error"));
            Line::Compacted {
                error: Some(crate::tame(&error, MAX_TEXT)),
            }
        }
    }
}

fn assistant(value: &Value) -> Assistant {
    let message = &value["message"];
    let blocks = message["content"].as_array().into_iter().flatten();
    let calls = blocks.take(MAX_BLOCKS).filter(|block| {
        matches!(
            text(block, "type"),
            "tool_use" | "server_tool_use" | "mcp_tool_use"
        )
    });
    Assistant {
        model: optional(message, "model").filter(|model| model != "<synthetic>"),
        calls: calls.map(tool_call).collect(),
        error: optional(value, "error"),
        of_subagent: of_subagent(value),
    }
}

fn tool_call(call: &Value) -> ToolCall {
    ToolCall {
        id: name(text(call, "id")),
        name: name(text(call, "name")),
        input: match &call["input"] {
            Value::Null => String::new(),
            input => shortened(&input.to_string()),
        },
    }
}

fn tool_results(value: &Value) -> Line {
    let blocks = value["message"]["content"].as_array().into_iter().flatten();
    let results = blocks
        .take(MAX_BLOCKS)
        .filter(|block| text(block, "type") == "tool_result")
        .map(|block| ToolResult {
            id: name(text(block, "tool_use_id")),
            failed: block["is_error"] == true,
            text: match &block["content"] {
                Value::String(text) => shortened(text),
                other => shortened(text(&other[0], "text")),
            },
        });
    Line::ToolResults(results.collect())
}

fn stream_event(value: &Value) -> Line {
    let event = &value["event"];
    let usage = |usage: &Value| Usage {
        tokens: tokens(
            usage,
            [
                "input_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
                "output_tokens",
            ],
        ),
        of_subagent: of_subagent(value),
    };
    match text(event, "type") {
        "message_start" => Line::RequestBegan(usage(&event["message"]["usage"])),
        "message_delta" => Line::RequestEnded(usage(&event["usage"])),
        "content_block_delta" if text(&event["delta"], "type") == "text_delta" => {
            Line::Text(text(&event["delta"], "text").chars().take(MAX_DELTA).collect())
        }
        _ => Line::Alive,
    }
}

fn result(value: &Value) -> TurnLine {
    let errors = value["errors"].as_array().into_iter().flatten();
    let errors: Vec<&str> = errors.filter_map(Value::as_str).take(10).collect();
    let said = match text(value, "result") {
        "" => errors.join("; "),
        said => said.to_owned(),
    };
    let names = [
        "inputTokens",
        "cacheReadInputTokens",
        "cacheCreationInputTokens",
        "outputTokens",
    ];
    let models = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let since = &value["model_usage_since_last_result"];
    TurnLine {
        subtype: name(text(value, "subtype")),
        is_error: value["is_error"] == true,
        reason: name(text(value, "terminal_reason")),
        text: crate::tame(&said, MAX_TEXT),
        api_status: value["api_error_status"].as_u64(),
        models: since.is_object().then(|| {
            let each = models(since).into_iter().map(|(_, used)| ModelUse {
                tokens: tokens(&used, names),
                cost_usd: used["costUSD"]
                    .as_f64()
                    .filter(|cost| used["costBasis"] != "unknown" && cost.is_finite() && *cost >= 0.0),
            });
            each.collect()
        }),
        usage: tokens(
            &value["usage"],
            [
                "input_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
                "output_tokens",
            ],
        ),
        windows: models(&value["modelUsage"])
            .into_iter()
            .filter_map(|(model, used)| Some((name(&model), used["contextWindow"].as_u64()?)))
            .collect(),
    }
}

fn rate_limit(value: &Value) -> Line {
    let info = &value["rate_limit_info"];
    Line::RateLimit {
        rejected: text(info, "status") == "rejected",
        resets_at: info["resetsAt"].as_i64(),
        kind: name(text(info, "rateLimitType")),
    }
}

fn of_subagent(value: &Value) -> bool {
    value["parent_tool_use_id"].is_string()
}

/// In the order fresh, cached, created, output.
fn tokens(value: &Value, [fresh, cached, created, output]: [&str; 4]) -> Tokens {
    let count = |name: &str| value[name].as_u64().unwrap_or_default();
    Tokens {
        fresh: count(fresh),
        cached: count(cached),
        created: count(created),
        output: count(output),
    }
}

/// A field that is a text; the empty one when it is not.
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn optional(value: &Value, field: &str) -> Option<String> {
    value[field].as_str().map(name)
}

/// The beginning of a text, with an ellipsis where that is not all.
fn shortened(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(MAX_TOOL_TEXT).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

fn name(text: &str) -> String {
    crate::tame(text, MAX_NAME)
}

#[cfg(test)]
mod tests;
