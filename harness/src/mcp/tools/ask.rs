//! `ask`: asks somebody.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::name::Address;
use shared::question::{AskRequest, MAX_TTL_SECS};

use super::send::check_body;
use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// The tool.
pub(super) struct Ask;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// Whom: an agent's name, or `operator`.
    to: Address,
    /// The question, with what is needed to answer it: the choices, and what you would do.
    #[schemars(length(min = 1, max = 262_144))]
    question: String,
    /// After this many seconds without an answer the question ends, at most 30 days. Without it, it stays open.
    #[schemars(range(min = 1, max = 2_592_000))]
    ttl_secs: Option<u64>,
    /// The answer that holds when none came in time. Only together with ttlSecs.
    #[schemars(length(min = 1))]
    default: Option<String>,
}

impl HiveTool for Ask {
    const NAME: &'static str = "ask";
    const ABOUT: &'static str = "Ask an agent or the operator something and get the answer later as a message of kind \
        `answer`, which wakes you. Do not wait for it: go on with something else, or end your turn.";
    const EFFECT: Effect = Effect::Adds;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, call: &Call) -> Result<String, ToolError> {
        let Arguments {
            to,
            question,
            ttl_secs,
            default,
        } = arguments;
        check_body(&question)?;
        if ttl_secs.is_some_and(|ttl| ttl == 0 || ttl > MAX_TTL_SECS) {
            return Err(ToolError::Refused(format!("ttlSecs is 1 to {MAX_TTL_SECS}")));
        }
        if default.is_some() && ttl_secs.is_none() {
            let why = "a default needs ttlSecs: without it the question never ends by itself";
            return Err(ToolError::Refused(why.into()));
        }
        let request = AskRequest {
            to,
            body: question,
            ttl_secs,
            default,
            dedupe: Some(call.dedupe.clone()),
        };
        let asked = hive.patiently(Again::Known, || hive.client.ask(&request)).await?;
        let end = match (asked.expires_at, &asked.default) {
            (Some(at), Some(_)) => format!(" If none comes by {}, the default holds.", show::time(at)),
            (Some(at), None) => format!(" If none comes by {}, you are told so.", show::time(at)),
            (None, _) => " It stays open until it is answered or taken back.".to_owned(),
        };
        Ok(format!(
            "Asked {}: question {}. The answer comes as a message with replyTo {}.{end} To take it back: \
             cancel_loose_end question/{}.",
            asked.to, asked.id, asked.id, asked.id
        ))
    }
}
