//! The script: which reply to which request.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is kept of one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// The model.
    pub model: String,
    /// The text of the last message, results of tools included.
    pub last: String,
    /// The text of all messages.
    pub all: String,
    /// The system prompt.
    pub system: String,
    /// The names of the tools that are offered.
    pub tools: Vec<String>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// The key that came with it.
    pub key: Option<String>,
}

impl Asked {
    pub(crate) fn new(request: &Value, headers: &HeaderMap) -> Self {
        let messages = request["messages"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let text = |value: &Value| {
            let mut text = String::new();
            collect(value, &mut text);
            text
        };
        let header = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
        let tools = request["tools"].as_array().into_iter().flatten();
        Self {
            model: request["model"].as_str().unwrap_or_default().to_owned(),
            // The program puts hints of its own behind what a user or a tool said.
            last: messages
                .iter()
                .rfind(|message| message["role"] == "user")
                .map(|message| text(&message["content"]))
                .unwrap_or_default(),
            all: messages
                .iter()
                .map(|message| text(&message["content"]))
                .collect::<Vec<_>>()
                .join("\n"),
            system: text(&request["system"]),
            tools: tools
                .filter_map(|tool| tool["name"].as_str().map(str::to_owned))
                .collect(),
            stream: request["stream"] == true,
            key: header("x-api-key").or_else(|| header("authorization")),
        }
    }
}

/// All texts in a value, one after another.
fn collect(value: &Value, text: &mut String) {
    match value {
        Value::String(part) => {
            text.push_str(part);
            text.push('\n');
        }
        Value::Array(parts) => parts.iter().for_each(|part| collect(part, text)),
        Value::Object(fields) => {
            for name in ["text", "content", "input"] {
                if let Some(part) = fields.get(name) {
                    collect(part, text);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Part of the last message; the empty text fits all.
    #[serde(default)]
    pub on: String,
    /// How often it may be used; without, for ever.
    #[serde(default)]
    pub times: Option<u32>,
    /// What is answered.
    #[serde(flatten)]
    pub reply: Reply,
}

/// One reply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// What the model says. With `status`, the error's message.
    #[serde(default)]
    pub text: Option<String>,
    /// What it does, after what it says.
    #[serde(default)]
    pub blocks: Vec<Block>,
    /// An HTTP status instead of an answer.
    #[serde(default)]
    pub status: Option<u16>,
    /// The kind of error, as in `overloaded_error`.
    #[serde(default)]
    pub error: Option<String>,
    /// Further headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How long nothing is answered, in milliseconds.
    #[serde(default)]
    pub delay_ms: Option<u64>,
    /// Never goes on after the first piece of text.
    #[serde(default)]
    pub hang: bool,
    /// Breaks off after the first piece of text.
    #[serde(default)]
    pub cut: bool,
    /// An error in the middle of the stream.
    #[serde(default)]
    pub broken: Option<String>,
    /// Tokens, instead of made-up ones.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// What the model does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Block {
    /// Says something.
    Text(String),
    /// Thinks something.
    Thinking(String),
    /// Calls a tool.
    Tool {
        /// Which.
        name: String,
        /// With this.
        input: Value,
    },
}

/// Tokens of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Read.
    pub input: u64,
    /// Written.
    pub output: u64,
}

impl Rule {
    /// Answers what has `on` in it with this text.
    pub fn text(on: &str, text: &str) -> Self {
        Self {
            on: on.to_owned(),
            reply: Reply {
                text: Some(text.to_owned()),
                ..Reply::default()
            },
            ..Self::default()
        }
    }

    /// Answers what has `on` in it by calling a tool.
    pub fn tool(on: &str, name: &str, input: Value) -> Self {
        let block = Block::Tool {
            name: name.to_owned(),
            input,
        };
        Self {
            on: on.to_owned(),
            reply: Reply {
                blocks: vec![block],
                ..Reply::default()
            },
            ..Self::default()
        }
    }

    /// Answers what has `on` in it with an error.
    pub fn error(on: &str, status: u16, kind: &str, message: &str) -> Self {
        Self {
            on: on.to_owned(),
            reply: Reply {
                status: Some(status),
                error: Some(kind.to_owned()),
                text: Some(message.to_owned()),
                ..Reply::default()
            },
            ..Self::default()
        }
    }

    /// The same, so often and no more.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self {
            times: Some(times),
            ..self
        }
    }

    /// The same, with something changed in the reply.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Reply)) -> Self {
        change(&mut self.reply);
        self
    }
}

/// The first rule that fits; where there is none, a short text, so that nothing waits for ever.
pub(crate) fn choose(rules: &mut [Rule], asked: &Asked) -> Reply {
    let fits = |rule: &&mut Rule| rule.times != Some(0) && asked.last.contains(&rule.on);
    match rules.iter_mut().find(fits) {
        Some(rule) => {
            rule.times = rule.times.map(|times| times.saturating_sub(1));
            rule.reply.clone()
        }
        None => Reply {
            text: Some("(no rule)".to_owned()),
            ..Reply::default()
        },
    }
}

pub(crate) fn put_headers(reply: &Reply, headers: &mut HeaderMap) {
    for (name, value) in &reply.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.insert(name, value);
        }
    }
}
