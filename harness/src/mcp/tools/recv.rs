//! `recv`: what was written to this agent.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use shared::agent_api::{MAX_BATCH, MAX_WAIT_SECS, Message, RecvRequest};
use tokio::time::Instant;

use crate::control::Said;
use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::files::{self, Older};
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// How much of all bodies is shown at once, in bytes: clients replace results that are much longer by an error.
const SHOWN: usize = 48 * 1024;
/// How many whole bodies are kept in files.
const KEPT: usize = 256;
/// How many messages come when nobody says.
const USUAL: u32 = 16;
/// How long a call waits for an earlier one that does not wait for messages.
const TURNSTILE: Duration = Duration::from_secs(2);

/// The tool.
pub(super) struct Recv;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// How many seconds to wait for the first message when there is none. Default 0. Ending your turn is better than
    /// waiting: you are woken when somebody writes.
    #[schemars(range(min = 0, max = 180))]
    wait_secs: Option<u32>,
    /// At most this many messages. Default 16.
    #[schemars(range(min = 1, max = 32))]
    max: Option<u32>,
}

impl HiveTool for Recv {
    const NAME: &'static str = "recv";
    const ABOUT: &'static str = "Take up the messages that wait for you, oldest first. Each is shown once in a turn: act \
        on what you get. When there may be more, call it again. Questions are answered with `answer`.";
    const EFFECT: Effect = Effect::Adds;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, _call: &Call) -> Result<String, ToolError> {
        let wait = arguments.wait_secs.unwrap_or(0);
        let max = arguments.max.unwrap_or(USUAL);
        if wait > MAX_WAIT_SECS {
            return Err(ToolError::Refused(format!("waitSecs is at most {MAX_WAIT_SECS}")));
        }
        if !(1..=MAX_BATCH).contains(&max) {
            return Err(ToolError::Refused(format!("max is 1 to {MAX_BATCH}")));
        }
        let until = Instant::now() + Duration::from_secs(wait.into());
        // The daemon ends a wait when the same agent asks again, and both would name the same batch.
        let patience = Duration::from_secs(wait.into()).max(TURNSTILE);
        let Ok(mut received) = tokio::time::timeout(patience, hive.received.lock()).await else {
            return Err(ToolError::Busy);
        };
        let waiting = if wait > 0 {
            Some(Waiting::begin(hive).await)
        } else {
            None
        };
        let last = *received;
        let ask = || async move {
            let left = until.saturating_duration_since(Instant::now());
            let request = RecvRequest {
                turn: hive.turn,
                max,
                wait_secs: u32::try_from(left.as_secs()).unwrap_or(MAX_WAIT_SECS).min(wait),
                received: Some(last),
            };
            hive.client.recv(&request).await
        };
        // When an answer is lost, the daemon gives the same again, because the same batch is named.
        let answer = hive.patiently(Again::Looks, ask).await;
        if let Some(waiting) = waiting {
            waiting.end().await;
        }
        let answer = answer?;
        if answer.messages.is_empty() {
            return Ok(
                "No messages. You are woken when somebody writes: end your turn when nothing is left to do."
                    .into(),
            );
        }
        *received = answer.batch;
        let told = hive
            .mention(Said::Received {
                turn: hive.turn,
                batch: answer.batch,
                messages: answer.messages.len(),
            })
            .await;
        let full = answer.messages.len() >= usize::try_from(max).unwrap_or(usize::MAX);
        let mut text = show(hive, &answer.messages).await;
        if full {
            text.push_str("There may be more: call recv again.\n");
        }
        if !told {
            text.push_str(
                "The harness could not be told that these came in: they may come again in the next turn.\n",
            );
        }
        Ok(text)
    }
}

async fn show(hive: &Hive, messages: &[Message]) -> String {
    let marker = crate::ids::marker();
    let mut text = match messages.len() {
        1 => "1 message.\n".to_owned(),
        count => format!("{count} messages.\n"),
    };
    let mut left = SHOWN;
    for (index, message) in messages.iter().enumerate() {
        let share = left / (messages.len() - index).max(1);
        let whole = message.body.len();
        let shown = show::cut(&message.body, share);
        let rest = if shown.len() < whole {
            keep(hive, message).await
        } else {
            None
        };
        // Better a long answer than a message that nobody can read.
        let shown = if shown.len() < whole && rest.is_none() {
            &message.body
        } else {
            shown
        };
        left = left.saturating_sub(shown.len());
        text.push('\n');
        text.push_str(&show::head(message));
        text.push('\n');
        text.push_str(&show::bordered(
            &marker,
            &format!("body of message {}", message.id),
            shown,
        ));
        if let Some(path) = rest {
            text.push_str(&format!(
                "These are the first {} of {whole} bytes; the whole body is in {path}\n",
                shown.len()
            ));
        }
    }
    text
}

/// Keeps a body that is too long to be shown.
async fn keep(hive: &Hive, message: &Message) -> Option<String> {
    let name = format!("{}.txt", message.id);
    let body = message.body.clone();
    match files::keep(&hive.state, "messages", name, body, Older::Dropped(KEPT)).await {
        Ok(path) => Some(path.into_string()),
        Err(error) => {
            tracing::warn!(%error, "long message shown whole");
            None
        }
    }
}

/// A wait that the harness knows of. It hears of its end even when the call is given up.
struct Waiting<'a> {
    hive: &'a Hive,
    over: bool,
}

impl<'a> Waiting<'a> {
    async fn begin(hive: &'a Hive) -> Self {
        let waiting = Self { hive, over: false };
        hive.mention(waiting.said(true)).await;
        waiting
    }

    async fn end(mut self) {
        self.over = true;
        self.hive.mention(self.said(false)).await;
    }

    fn said(&self, waits: bool) -> Said {
        Said::Waiting {
            turn: self.hive.turn,
            waits,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let (control, said) = (self.hive.control.clone(), self.said(false));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = control.say(&said).await {
                    tracing::warn!(%error, "the harness was not told that a wait is over");
                }
            });
        }
    }
}
