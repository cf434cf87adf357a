//! What a run of the program told so far, and what follows from it (pure).
//!
//! A result decides how the turn went, never an exit status: the program exits with 0 when it was interrupted, and with
//! 1 after errors that it told of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use shared::turn::{Tokens, TurnResult};

use super::parse::{Assistant, Init, Line, ToolCall, ToolResult, TurnLine, Usage};
use crate::driver::{Failure, ServerInTurn, TurnEnd, TurnEvent, Used, tools};
use crate::turn::Purpose;

/// The most tools that may be at work at once.
const MOST_CALLS: usize = 100;

/// How a run of the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal that was not ours.
    Signal(i32),
    /// Killed by the kernel, for want of memory.
    OutOfMemory,
    /// By us, because the turn was to be cut short.
    Interrupted,
    /// By us, because it said nothing for so long.
    Silent(Duration),
    /// By us, because it did not end after its result.
    Lingered,
    /// By us, because it ran another conversation than it was told to.
    Mismatch,
    /// By us, because the agent could not have got at its messages.
    NoServer,
}

/// What is to be done about a run, besides telling how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The turn is over.
    Over(TurnEnd),
    /// The conversation it was told to go on with is not there.
    Unknown(String),
    /// The conversation it was told to begin is there already.
    InUse,
}

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Story {
    purpose: Purpose,
    session: String,
    /// The MCP servers it was given.
    servers: Vec<String>,
    /// Whether an `init` told of our conversation.
    pub(super) began: bool,
    /// What an `init` says that ends the run.
    pub(super) fault: Option<Exit>,
    /// The last result.
    result: Option<TurnLine>,
    /// Whether something happened after it.
    goes_on: bool,
    /// The last error that the model's provider gave.
    error: Option<String>,
    /// Until when the provider refuses.
    resets_at: Option<i64>,
    compaction: Option<Result<(), String>>,
    /// Used up to the last result.
    settled: Tokens,
    cost_usd: Option<f64>,
    cost_unknown: bool,
    /// Used since then, as far as the stream told.
    running: Tokens,
    /// The request that runs.
    request: Tokens,
    context: Option<u64>,
    /// The model that spoke last.
    model: Option<String>,
    windows: BTreeMap<String, u64>,
    /// The tools that have not answered yet, by the ids of their calls.
    calls: BTreeMap<String, String>,
}

impl Story {
    pub(super) fn new(purpose: Purpose, session: String, servers: Vec<String>) -> Self {
        Self {
            purpose,
            session,
            servers,
            ..Self::default()
        }
    }

    /// Whether the run may end any moment: a result came, and nothing after it.
    pub(super) fn has_result(&self) -> bool {
        self.result.is_some() && !self.goes_on
    }

    /// Takes in a line; gives what is worth telling.
    pub(super) fn tell(&mut self, line: Line) -> Vec<TurnEvent> {
        match line {
            Line::Init(init) => self.init(init),
            Line::Assistant(said) => self.assistant(said),
            Line::ToolResults(results) => {
                self.goes_on = true;
                results.into_iter().map(|result| self.answered(result)).collect()
            }
            Line::Text(text) => {
                self.goes_on = true;
                vec![TurnEvent::Text(text)]
            }
            Line::RequestBegan(usage) => self.request_began(usage),
            Line::RequestEnded(usage) => self.request_ended(usage),
            Line::Alive => {
                self.goes_on = true;
                Vec::new()
            }
            Line::Result(result) => self.result(*result),
            Line::Retry { attempt, error } => vec![TurnEvent::Retry { attempt, error }],
            Line::RateLimit {
                rejected,
                resets_at,
                kind,
            } => {
                if !rejected {
                    return vec![TurnEvent::Notice(format!("the provider's {kind} limit is near"))];
                }
                self.resets_at = resets_at;
                vec![TurnEvent::Notice(format!(
                    "the provider's {kind} limit is reached"
                ))]
            }
            Line::Compacting => {
                self.goes_on = true;
                vec![TurnEvent::Compacting(true)]
            }
            Line::Compacted { error } => {
                self.compaction = Some(error.map_or(Ok(()), Err));
                vec![TurnEvent::Compacting(false)]
            }
            Line::Boundary { tokens } => {
                self.compaction.get_or_insert(Ok(()));
                // The old size is wrong in any case.
                self.context = tokens;
                vec![TurnEvent::Compacting(false), TurnEvent::Used(self.used())]
            }
            Line::Denied { what } => vec![TurnEvent::ToolResult {
                name: None,
                failed: true,
                text: format!("not allowed: {what}"),
            }],
            Line::Quiet => Vec::new(),
            Line::Unknown(kind) => vec![TurnEvent::Unknown(kind)],
            Line::Garbage(text) => vec![TurnEvent::Unknown(format!("not JSON: {text}"))],
        }
    }

    fn init(&mut self, init: Init) -> Vec<TurnEvent> {
        self.goes_on = true;
        let Init {
            session,
            model,
            servers,
            tools,
        } = init;
        let mut events = Vec::new();
        match session {
            Some(session) if session == self.session => {
                self.began = true;
                events.push(TurnEvent::Session(session));
            }
            other => {
                let other = other.unwrap_or_else(|| "none".to_owned());
                let expected = &self.session;
                events.push(TurnEvent::Alarm(format!(
                    "it runs the conversation {other}, not {expected}"
                )));
                self.fault = Some(Exit::Mismatch);
            }
        }
        if let Some(model) = model {
            events.push(TurnEvent::Model(model));
        }
        if let Some(servers) = servers {
            self.compare(&servers, tools.as_ref(), &mut events);
        }
        events
    }

    /// Which servers do not work. One whose declaration the program does not like is not even listed.
    fn compare(
        &mut self,
        found: &BTreeMap<String, String>,
        tools: Option<&BTreeSet<String>>,
        events: &mut Vec<TurnEvent>,
    ) {
        let mut seen = BTreeMap::new();
        for server in &self.servers {
            let state = found.get(server).map_or("not listed", String::as_str);
            let in_turn = match state {
                "connected" => ServerInTurn {
                    fault: None,
                    tools: tools.map(|tools| of_server(server, tools)),
                },
                "failed" | "not listed" | "needs-auth" | "disabled" => ServerInTurn {
                    fault: Some(state.to_owned()),
                    tools: None,
                },
                // It may come to work yet, or a newer program says it in another word.
                _ => continue,
            };
            let own = server == super::servers::OWN;
            let works = in_turn.fault.is_none();
            if !own {
                seen.insert(server.clone(), in_turn);
            }
            if works {
                continue;
            }
            let text = format!("MCP server {server} does not work in this turn: {state}");
            if own && self.purpose == Purpose::Messages {
                self.fault.get_or_insert(Exit::NoServer);
                events.push(TurnEvent::Alarm(text));
            } else {
                events.push(TurnEvent::Notice(text));
            }
        }
        if !seen.is_empty() {
            events.push(TurnEvent::Servers(seen));
        }
    }

    fn assistant(&mut self, said: Assistant) -> Vec<TurnEvent> {
        self.goes_on = true;
        let Assistant {
            model,
            calls,
            error,
            of_subagent,
        } = said;
        // What went well after an error was mended by it.
        self.error = error;
        let calls: Vec<TurnEvent> = calls.into_iter().map(|call| self.called(call)).collect();
        let model = model.filter(|model| !of_subagent && self.model.as_ref() != Some(model));
        let named = model.map(|model| {
            self.model = Some(model.clone());
            TurnEvent::Model(model)
        });
        named.into_iter().chain(calls).collect()
    }

    fn called(&mut self, call: ToolCall) -> TurnEvent {
        let ToolCall { id, name, input } = call;
        if self.calls.len() < MOST_CALLS {
            self.calls.insert(id, name.clone());
        }
        TurnEvent::ToolCall { name, input }
    }

    fn answered(&mut self, result: ToolResult) -> TurnEvent {
        let ToolResult { id, failed, text } = result;
        TurnEvent::ToolResult {
            name: self.calls.remove(&id),
            failed,
            text,
        }
    }

    fn request_began(&mut self, usage: Usage) -> Vec<TurnEvent> {
        self.goes_on = true;
        self.running = sum(self.running, self.request);
        self.request = usage.tokens;
        if !usage.of_subagent {
            self.context = Some(usage.tokens.total());
        }
        Vec::new()
    }

    /// What was written is counted from the request's start, so the last word of it counts.
    fn request_ended(&mut self, usage: Usage) -> Vec<TurnEvent> {
        self.goes_on = true;
        let Tokens {
            fresh,
            cached,
            created,
            output,
        } = usage.tokens;
        let request = &mut self.request;
        request.fresh = request.fresh.max(fresh);
        request.cached = request.cached.max(cached);
        request.created = request.created.max(created);
        request.output = request.output.max(output);
        if !usage.of_subagent {
            self.context = Some(self.request.total());
        }
        vec![TurnEvent::Used(self.used())]
    }

    fn result(&mut self, result: TurnLine) -> Vec<TurnEvent> {
        self.goes_on = false;
        match &result.models {
            Some(models) => {
                for used in models {
                    self.settled = sum(self.settled, used.tokens);
                    match used.cost_usd {
                        Some(cost) => self.cost_usd = Some(self.cost_usd.unwrap_or_default() + cost),
                        None => self.cost_unknown = true,
                    }
                }
                self.cost_usd.get_or_insert(0.0);
            }
            None => {
                self.settled = sum(self.settled, result.usage);
                self.cost_unknown |= result.usage.total() > 0;
            }
        }
        (self.running, self.request) = (Tokens::default(), Tokens::default());
        self.windows.extend(
            result
                .windows
                .iter()
                .map(|(model, window)| (model.clone(), *window)),
        );
        self.result = Some(result);
        vec![TurnEvent::Used(self.used())]
    }

    /// What was used so far.
    pub(super) fn used(&self) -> Used {
        let unsettled = sum(self.running, self.request);
        let known = !self.cost_unknown && unsettled.total() == 0;
        let own = self.model.as_ref().and_then(|model| self.windows.get(model));
        Used {
            tokens: sum(self.settled, unsettled),
            cost_usd: self.cost_usd.filter(|_| known),
            context: self.context,
            window: own.or_else(|| self.windows.values().min()).copied(),
        }
    }

    /// What follows from the end of the run. `errors` is the last of what it wrote to its standard error.
    pub(super) fn judge(&self, exit: Exit, errors: &str, now: Timestamp) -> Verdict {
        if !self.began
            && let Some(verdict) = self.not_begun(errors)
        {
            return verdict;
        }
        Verdict::Over(self.end(exit, errors, now))
    }

    /// The conversation itself was the matter.
    fn not_begun(&self, errors: &str) -> Option<Verdict> {
        let said = self.result.as_ref().map(|result| result.text.as_str());
        let says = |part: &str| errors.contains(part) || said.is_some_and(|said| said.contains(part));
        if says("No conversation found") {
            return Some(Verdict::Unknown(crate::tame(said.unwrap_or(errors), 200)));
        }
        says("already in use").then_some(Verdict::InUse)
    }

    fn end(&self, exit: Exit, errors: &str, now: Timestamp) -> TurnEnd {
        let failed = |result, error: String| TurnEnd::Failed(Failure::new(result, error));
        match exit {
            Exit::Mismatch => failed(
                TurnResult::Crashed,
                "the driver ran another conversation than it was told to, and was stopped: begin a new conversation \
                 if this goes on"
                    .to_owned(),
            ),
            Exit::NoServer => failed(
                TurnResult::Crashed,
                "the hive's own MCP server did not start, so the agent could not have read its messages: see the \
                 agent's log"
                    .to_owned(),
            ),
            // It may have come to its end while it was being interrupted.
            Exit::Interrupted
            | Exit::Silent(_)
            | Exit::Lingered
            | Exit::Code(_)
            | Exit::Signal(_)
            | Exit::OutOfMemory
                if self.has_result() =>
            {
                self.by_result(now)
            }
            Exit::Interrupted => TurnEnd::Interrupted,
            Exit::OutOfMemory => failed(
                TurnResult::OutOfMemory,
                "the driver's program was killed because the agent had no memory left: raise limits.memory, or give it \
                 less to do at once"
                    .to_owned(),
            ),
            Exit::Silent(time) => failed(
                TurnResult::Hung,
                format!("the driver said nothing for {} s", time.as_secs()),
            ),
            Exit::Lingered | Exit::Code(_) | Exit::Signal(_) => {
                let how = match exit {
                    Exit::Signal(signal) => format!("was killed by signal {signal}"),
                    Exit::Code(code) => format!("ended with status {code}"),
                    _ => "was stopped".to_owned(),
                };
                let mut error = format!("the driver's program {how} before the turn's result");
                if !errors.is_empty() {
                    error.push_str("; it wrote: ");
                    error.push_str(errors);
                }
                failed(TurnResult::Crashed, error)
            }
        }
    }

    fn by_result(&self, now: Timestamp) -> TurnEnd {
        let Some(result) = &self.result else {
            return TurnEnd::Interrupted;
        };
        if self.purpose == Purpose::Compaction && !result.is_error {
            return match &self.compaction {
                // A conversation without messages is short enough.
                Some(Ok(())) | None => TurnEnd::Completed,
                Some(Err(error)) => TurnEnd::Failed(Failure::new(
                    TurnResult::ContextFull,
                    format!("the conversation could not be shortened: {error}"),
                )),
            };
        }
        if !result.is_error && !result.subtype.starts_with("error") {
            return TurnEnd::Completed;
        }
        let kind = self.kind(result);
        if kind == TurnResult::Interrupted {
            return TurnEnd::Interrupted;
        }
        let said = [&result.text, &result.reason, &result.subtype];
        let said = said.into_iter().find(|text| !text.is_empty());
        let pause = self
            .resets_at
            .filter(|_| kind == TurnResult::RateLimited)
            .and_then(|at| Timestamp::from_second(at).ok())
            .and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        TurnEnd::Failed(Failure {
            result: kind,
            error: said.cloned().unwrap_or_else(|| "no reason given".to_owned()),
            pause,
        })
    }

    fn kind(&self, result: &TurnLine) -> TurnResult {
        let error = self.error.as_deref().unwrap_or_default();
        match (result.reason.as_str(), result.subtype.as_str()) {
            ("aborted_streaming" | "aborted_tools", _) => return TurnResult::Interrupted,
            ("prompt_too_long", _) => return TurnResult::ContextFull,
            ("max_turns" | "budget_exhausted", _) => return TurnResult::LimitReached,
            (_, "error_max_turns" | "error_max_budget_usd") => return TurnResult::LimitReached,
            _ => {}
        }
        let failed_to_shorten = matches!(self.compaction, Some(Err(_)));
        match (error, result.api_status) {
            ("authentication_failed", _) | (_, Some(401 | 403)) => TurnResult::Auth,
            ("billing_error", _) | (_, Some(402)) => TurnResult::Billing,
            ("rate_limit", _) | (_, Some(429)) => TurnResult::RateLimited,
            ("server_error" | "overloaded", _) | (_, Some(500..=599)) => TurnResult::Overloaded,
            _ if result.text.starts_with("Not logged in") => TurnResult::Auth,
            _ if failed_to_shorten || result.text.starts_with("Prompt is too long") => {
                TurnResult::ContextFull
            }
            _ => TurnResult::Crashed,
        }
    }
}

/// The tools of one server, of all that a program names.
fn of_server(server: &str, tools: &BTreeSet<String>) -> BTreeSet<String> {
    let prefix = tools::full(server, "");
    let own = tools.iter().filter_map(|tool| tool.strip_prefix(&prefix));
    own.map(str::to_owned).collect()
}

fn sum(a: Tokens, b: Tokens) -> Tokens {
    Tokens {
        fresh: a.fresh.saturating_add(b.fresh),
        cached: a.cached.saturating_add(b.cached),
        created: a.created.saturating_add(b.created),
        output: a.output.saturating_add(b.output),
    }
}

#[cfg(test)]
mod tests;
