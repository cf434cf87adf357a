//! `send`: writes to somebody.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::agent_api::{MAX_BODY_BYTES, MessageKind, SendRequest};
use shared::name::Address;

use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// The tool.
pub(super) struct SendMessage;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// To whom: an agent's name, or `operator`. `whoami` lists those you may write to.
    to: Address,
    /// The text, at most 256 KiB. Say what you want and what you have tried; the recipient does not see your conversation.
    #[schemars(length(min = 1, max = 262_144))]
    body: String,
    /// The id of the message that this replies to.
    #[schemars(range(min = 1))]
    reply_to: Option<u64>,
}

impl HiveTool for SendMessage {
    const NAME: &'static str = "send";
    const ABOUT: &'static str = "Write to an agent or to the operator. The message is stored before this returns and \
        wakes the recipient; replies come through `recv`. To get an answer that you need, use `ask`; to answer a \
        question, use `answer`.";
    const EFFECT: Effect = Effect::Adds;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, call: &Call) -> Result<String, ToolError> {
        let Arguments { to, body, reply_to } = arguments;
        check_body(&body)?;
        if to == Address::System {
            let why = "nobody reads what is written to `system`: write to an agent or to `operator`";
            return Err(ToolError::Refused(why.into()));
        }
        let request = SendRequest {
            to,
            kind: MessageKind::Message,
            body,
            reply_to,
            dedupe: Some(call.dedupe.clone()),
        };
        let answer = hive
            .patiently(Again::Known, || hive.client.send(&request))
            .await?;
        let duplicate = if answer.duplicate {
            ". It had been sent before, and was not sent twice"
        } else {
            ""
        };
        Ok(format!(
            "Stored as message {} to {}{duplicate}.",
            answer.id, request.to
        ))
    }
}

/// Refuses a body that the daemon would refuse.
pub(super) fn check_body(body: &str) -> Result<(), ToolError> {
    if body.trim().is_empty() {
        return Err(ToolError::Refused("the text is empty".into()));
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(ToolError::Refused(format!(
            "the text has {} bytes, more than {MAX_BODY_BYTES}: shorten it, or send it in parts",
            body.len()
        )));
    }
    Ok(())
}
