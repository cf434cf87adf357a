//! The talk with the agent's program in one turn: what to say next, and what follows from what it says (pure).
//!
//! ```text
//!  initialize --> session/new, resume or load --> [session/set_config_option] --> session/prompt --> its answer
//! ```

use serde_json::{Value, json};
use shared::turn::{Tokens, TurnResult};

use super::permit::{Permit, tool_of};
use super::plan::{self, Servers};
use super::session::is_id;
use super::wire::{self, Fault, Heard, name, text};
use crate::driver::{Failure, ServerInTurn, TurnEnd, TurnEvent, Used};

/// The version of the protocol.
const VERSION: u64 = 1;
/// The most that is told of what goes into a tool, in characters.
const MAX_INPUT: usize = 4000;
/// The longest piece of the model's text that is passed on, in characters.
const MAX_DELTA: usize = 16 * 1024;

/// What a turn needs.
#[derive(Debug)]
pub(super) struct Plan {
    /// The conversation that goes on.
    pub(super) session: Option<String>,
    /// The agent's folder.
    pub(super) cwd: String,
    pub(super) servers: Servers,
    pub(super) meta: Value,
    pub(super) model: Option<String>,
    pub(super) instructions: String,
    pub(super) permit: Permit,
}

/// How a talk ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The turn is over.
    Over(TurnEnd),
    /// The conversation it was told to go on with is not there.
    Lost(String),
}

/// What our latest request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Initialize,
    /// Whether a conversation is to go on.
    Session {
        goes_on: bool,
    },
    Model,
    Prompt,
}

/// The talk so far.
#[derive(Debug)]
pub(super) struct Talk {
    plan: Plan,
    stage: Stage,
    /// The number of our latest request.
    number: u64,
    outbox: Vec<Value>,
    embeds: bool,
    /// The conversation.
    pub(super) session: Option<String>,
    pub(super) ending: Option<Ending>,
    cancelled: bool,
    tokens: Option<Tokens>,
    context: Option<u64>,
    window: Option<u64>,
    /// The largest context so far: the least that was read.
    most: u64,
    model: Option<String>,
}

impl Talk {
    /// Begins it.
    pub(super) fn new(plan: Plan) -> Self {
        let mut talk = Self {
            plan,
            stage: Stage::Initialize,
            number: 0,
            outbox: Vec::new(),
            embeds: false,
            session: None,
            ending: None,
            cancelled: false,
            tokens: None,
            context: None,
            window: None,
            most: 0,
            model: None,
        };
        talk.request(Stage::Initialize, "initialize", &plan::initialize());
        talk
    }

    /// What is to be said now.
    pub(super) fn take_outbox(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.outbox)
    }

    /// Asks the program to end the turn. Returns whether there is one to end.
    pub(super) fn cancel(&mut self) -> bool {
        self.cancelled = true;
        let running = self.session.as_ref().filter(|_| self.stage == Stage::Prompt);
        let Some(session) = running.filter(|_| self.ending.is_none()) else {
            return false;
        };
        let cancel = wire::notification("session/cancel", &json!({ "sessionId": session }));
        self.outbox.push(cancel);
        true
    }

    /// Takes in a message; gives what is worth telling.
    pub(super) fn hear(&mut self, heard: Heard) -> Vec<TurnEvent> {
        if self.ending.is_some() {
            return Vec::new();
        }
        match heard {
            Heard::Answer { id, result } if id == Some(self.number) => match result {
                Ok(result) => self.answered(&result),
                Err(fault) => self.refused(&fault),
            },
            Heard::Answer { .. } => {
                vec![TurnEvent::Unknown(
                    "an answer to nothing that was asked".to_owned(),
                )]
            }
            Heard::Asked { id, method, params } => self.asked(&id, &method, &params),
            Heard::Told { method, params } if method == "session/update" => self.update(&params),
            // Extensions begin with an underscore.
            Heard::Told { method, .. } if method.starts_with('_') => Vec::new(),
            Heard::Told { method, .. } => vec![TurnEvent::Unknown(method)],
            Heard::Garbage(text) => vec![TurnEvent::Unknown(format!("no message: {text}"))],
        }
    }

    fn request(&mut self, stage: Stage, method: &str, params: &Value) {
        self.stage = stage;
        self.number += 1;
        self.outbox.push(wire::request(self.number, method, params));
    }

    fn end(&mut self, end: TurnEnd) {
        self.ending = Some(Ending::Over(end));
    }

    fn fail(&mut self, result: TurnResult, error: impl Into<String>) {
        self.end(TurnEnd::Failed(Failure::new(result, error)));
    }

    fn answered(&mut self, result: &Value) -> Vec<TurnEvent> {
        match self.stage {
            Stage::Initialize => self.initialized(result),
            Stage::Session { goes_on } => self.in_session(result, goes_on),
            Stage::Model => {
                self.prompt();
                Vec::new()
            }
            Stage::Prompt => self.prompted(result),
        }
    }

    fn initialized(&mut self, result: &Value) -> Vec<TurnEvent> {
        if result["protocolVersion"].as_u64() != Some(VERSION) {
            self.fail(
                TurnResult::Crashed,
                format!(
                    "the agent's program speaks version {} of the Agent Client Protocol, and this harness {VERSION}: \
                     use another version of it",
                    crate::tame(&result["protocolVersion"].to_string(), 20)
                ),
            );
            return Vec::new();
        }
        let can = &result["agentCapabilities"];
        self.embeds = can["promptCapabilities"]["embeddedContext"] == true;
        let mut servers = std::mem::take(&mut self.plan.servers.programs);
        let mut events = Vec::new();
        let remote = std::mem::take(&mut self.plan.servers.remote);
        let mut unreached = std::mem::take(&mut self.plan.servers.withheld);
        if can["mcpCapabilities"]["http"] == true {
            servers.extend(remote.into_iter().map(|(_, server)| server));
        } else {
            let names = remote.into_iter().map(|(name, _)| name);
            unreached.extend(names.map(|name| (name, "the agent's program speaks to no server over HTTP")));
        }
        if !unreached.is_empty() {
            let unreached = unreached.into_iter();
            let faults = unreached.map(|(name, fault)| {
                (
                    name,
                    ServerInTurn {
                        fault: Some(fault.to_owned()),
                        tools: None,
                    },
                )
            });
            events.push(TurnEvent::Servers(faults.collect()));
        }
        let mut params = json!({ "cwd": self.plan.cwd, "mcpServers": servers, "_meta": self.plan.meta });
        let method = match &self.plan.session {
            // Without the history, which nobody here reads.
            Some(_) if can["sessionCapabilities"]["resume"].is_object() => "session/resume",
            Some(_) if can["loadSession"] == true => "session/load",
            Some(_) => {
                events.push(TurnEvent::Alarm(
                    "the agent's program cannot go on with a conversation: it begins a new one with each turn".to_owned(),
                ));
                "session/new"
            }
            None => "session/new",
        };
        let goes_on = method != "session/new";
        if let Some(session) = self.plan.session.as_ref().filter(|_| goes_on) {
            params["sessionId"] = session.as_str().into();
        }
        self.request(Stage::Session { goes_on }, method, &params);
        events
    }

    fn in_session(&mut self, result: &Value, goes_on: bool) -> Vec<TurnEvent> {
        let told = result["sessionId"].as_str();
        let known = self.plan.session.as_deref().filter(|_| goes_on);
        let session = match (known, told) {
            (Some(known), Some(told)) if known != told => return self.mismatch(told),
            (Some(known), _) => known.to_owned(),
            (None, Some(told)) if is_id(told) => told.to_owned(),
            (None, _) => {
                self.fail(
                    TurnResult::Crashed,
                    "the agent's program began a conversation without a usable id",
                );
                return Vec::new();
            }
        };
        self.session = Some(session.clone());
        let mut events = vec![TurnEvent::Session(session.clone())];
        match self.model_option(result) {
            None => self.prompt(),
            Some(Ok((option, model))) => {
                let params = json!({ "sessionId": session, "configId": option, "value": model });
                self.request(Stage::Model, "session/set_config_option", &params);
            }
            Some(Err(model)) => {
                events.push(TurnEvent::Notice(format!(
                    "the agent's program does not offer the model {model}: it takes its own"
                )));
                self.prompt();
            }
        }
        events
    }

    /// Which option to set to which model; or the model, when there is no such option. Nothing when it is set already.
    fn model_option(&self, result: &Value) -> Option<Result<(String, String), String>> {
        let model = self.plan.model.clone()?;
        let options = result["configOptions"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let option = options.iter().find(|option| text(option, "category") == "model");
        let offered = option.filter(|option| offers(&option["options"], &model));
        match offered {
            Some(option) if option["currentValue"] == model.as_str() => None,
            Some(option) => Some(Ok((text(option, "id").to_owned(), model))),
            None => Some(Err(model)),
        }
    }

    fn prompt(&mut self) {
        let prompt = plan::prompt(&self.plan.instructions, self.embeds);
        let params = json!({ "sessionId": self.session, "prompt": prompt });
        self.request(Stage::Prompt, "session/prompt", &params);
    }

    fn prompted(&mut self, result: &Value) -> Vec<TurnEvent> {
        let usage = &result["usage"];
        if usage.is_object() {
            let count = |field: &str| usage[field].as_u64().unwrap_or_default();
            self.tokens = Some(Tokens {
                fresh: count("inputTokens"),
                cached: count("cachedReadTokens"),
                created: count("cachedWriteTokens"),
                output: count("outputTokens"),
            });
        }
        match text(result, "stopReason") {
            "end_turn" => self.end(TurnEnd::Completed),
            "cancelled" => self.end(TurnEnd::Interrupted),
            "max_tokens" => self.fail(
                TurnResult::LimitReached,
                "the model's answer was longer than it may be",
            ),
            "max_turn_requests" => {
                self.fail(TurnResult::LimitReached, "the turn took more steps than it may");
            }
            "refusal" => self.fail(TurnResult::Crashed, "the model refused to go on"),
            other => {
                let other = name(other);
                self.fail(
                    TurnResult::Crashed,
                    format!("the turn stopped for a reason that is not known: {other}"),
                );
            }
        }
        vec![TurnEvent::Used(self.used())]
    }

    fn refused(&mut self, fault: &Fault) -> Vec<TurnEvent> {
        match self.stage {
            Stage::Session { goes_on: true } if is_lost(fault) => {
                self.ending = Some(Ending::Lost(fault.message.clone()));
            }
            Stage::Model => {
                let notice = TurnEvent::Notice(format!("the model was not set: {}", fault.message));
                self.prompt();
                return vec![notice];
            }
            Stage::Prompt if self.cancelled => self.end(TurnEnd::Interrupted),
            Stage::Initialize | Stage::Session { .. } | Stage::Prompt => {
                self.fail(kind(fault), &*fault.message);
            }
        }
        vec![TurnEvent::Used(self.used())]
    }

    fn asked(&mut self, id: &Value, method: &str, params: &Value) -> Vec<TurnEvent> {
        if method != "session/request_permission" {
            self.outbox.push(wire::refusal(id));
            return vec![TurnEvent::Unknown(method.to_owned())];
        }
        if self.cancelled {
            let cancelled = json!({ "outcome": { "outcome": "cancelled" } });
            self.outbox.push(wire::answer(id, &cancelled));
            return Vec::new();
        }
        let verdict = self.plan.permit.judge(params);
        self.outbox.push(wire::answer(id, &verdict.answer));
        let refused = verdict.refused.map(failed);
        refused.into_iter().collect()
    }

    /// Of what comes before the prompt only the history is told, if anything.
    fn update(&mut self, params: &Value) -> Vec<TurnEvent> {
        let told = text(params, "sessionId");
        if self.session.as_deref().is_some_and(|session| session != told) {
            return self.mismatch(told);
        }
        if self.stage != Stage::Prompt {
            return Vec::new();
        }
        let update = &params["update"];
        match text(update, "sessionUpdate") {
            "agent_message_chunk" => {
                let text: String = text(&update["content"], "text").chars().take(MAX_DELTA).collect();
                vec![TurnEvent::Text(text)]
            }
            "tool_call" => vec![TurnEvent::ToolCall {
                name: tool_of(update),
                input: input_of(update),
            }],
            "tool_call_update" if text(update, "status") == "failed" => {
                let said = text(&update["content"][0]["content"], "text");
                let said = if said.is_empty() {
                    text(update, "rawOutput")
                } else {
                    said
                };
                vec![failed(crate::tame(said, 1000))]
            }
            "usage_update" => self.usage(update),
            "user_message_chunk"
            | "agent_thought_chunk"
            | "tool_call_update"
            | "plan"
            | "available_commands_update"
            | "current_mode_update"
            | "config_option_update"
            | "session_info_update" => Vec::new(),
            other => vec![TurnEvent::Unknown(format!("session/update {}", name(other)))],
        }
    }

    fn usage(&mut self, update: &Value) -> Vec<TurnEvent> {
        self.context = update["used"].as_u64().or(self.context);
        self.window = update["size"].as_u64().filter(|size| *size > 0).or(self.window);
        self.most = self.most.max(self.context.unwrap_or_default());
        let mut events = vec![TurnEvent::Used(self.used())];
        let model = update["_meta"]["_claude/model"].as_str().map(name);
        if model.is_some() && self.model != model {
            self.model.clone_from(&model);
            events.extend(model.map(TurnEvent::Model));
        }
        events
    }

    fn mismatch(&mut self, told: &str) -> Vec<TurnEvent> {
        let known = self.session.as_ref().or(self.plan.session.as_ref());
        let alarm = TurnEvent::Alarm(format!(
            "it runs the conversation {}, not {}",
            name(told),
            known.map_or("none", String::as_str)
        ));
        self.fail(
            TurnResult::Crashed,
            "the agent's program ran another conversation than it was told to, and was stopped: begin a new conversation \
             if this goes on",
        );
        vec![alarm]
    }

    /// What was used so far. Programs do not agree on what a cost is, of a turn or of the conversation, at which price: it
    /// is not told. One that tells no tokens has read its context at least once.
    pub(super) fn used(&self) -> Used {
        let least = || Tokens {
            fresh: self.most,
            ..Tokens::default()
        };
        Used {
            tokens: self.tokens.unwrap_or_else(least),
            cost_usd: None,
            context: self.context,
            window: self.window,
        }
    }
}

/// Whether a list of values, or of groups of them, has this one.
fn offers(options: &Value, wanted: &str) -> bool {
    let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
    options.iter().any(|option| {
        let grouped = option["options"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        option["value"] == wanted || grouped.iter().any(|option| option["value"] == wanted)
    })
}

/// Whether the program says that it has no such conversation.
fn is_lost(fault: &Fault) -> bool {
    let said = fault.message.to_lowercase();
    let words = [
        "not found",
        "no conversation",
        "no such session",
        "unknown session",
        "does not exist",
    ];
    fault.code == -32002 || words.iter().any(|word| said.contains(word))
}

/// What kind of failure an error is. Programs agree only on the number for a missing login.
fn kind(fault: &Fault) -> TurnResult {
    let said = fault.message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match (fault.code, fault.kind.as_str()) {
        (-32000, _) | (_, "authentication_failed") => TurnResult::Auth,
        (_, "billing_error") => TurnResult::Billing,
        (_, "rate_limit") => TurnResult::RateLimited,
        (_, "server_error" | "overloaded") => TurnResult::Overloaded,
        _ if says(&["prompt is too long", "context length", "context window"]) => TurnResult::ContextFull,
        _ if says(&["rate limit", "too many requests", "429"]) => TurnResult::RateLimited,
        _ if says(&[
            "authentication",
            "unauthorized",
            "not logged in",
            "api key",
            "401",
        ]) =>
        {
            TurnResult::Auth
        }
        _ if says(&["billing", "credit", "quota", "402"]) => TurnResult::Billing,
        _ if says(&["overloaded", "unavailable", "529", "503"]) => TurnResult::Overloaded,
        _ => TurnResult::Crashed,
    }
}

/// A call of a tool that failed, or was not allowed.
fn failed(text: String) -> TurnEvent {
    TurnEvent::ToolResult {
        name: None,
        failed: true,
        text,
    }
}

/// What goes into a tool, as far as the program tells it.
fn input_of(update: &Value) -> String {
    match &update["rawInput"] {
        Value::Null => String::new(),
        input => crate::tame(&input.to_string(), MAX_INPUT),
    }
}

#[cfg(test)]
mod tests;
