//! `answer`: answers a question.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::question::AnswerRequest;

use super::send::check_body;
use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// The tool.
pub(super) struct Answer;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// The question's number: the id of its message.
    #[schemars(range(min = 1))]
    question: u64,
    /// The answer, at most 256 KiB.
    #[schemars(length(min = 1, max = 262_144))]
    body: String,
}

impl HiveTool for Answer {
    const NAME: &'static str = "answer";
    const ABOUT: &'static str = "Answer a question that was asked of you. Whoever asked is always allowed to get it. A \
        question is answered once.";
    const EFFECT: Effect = Effect::Adds;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, _call: &Call) -> Result<String, ToolError> {
        let Arguments { question, body } = arguments;
        check_body(&body)?;
        let request = AnswerRequest { body };
        let answered = hive
            .patiently(Again::Never, || hive.client.answer_question(question, &request))
            .await?;
        Ok(format!(
            "Question {} of {} is answered.",
            answered.id, answered.from
        ))
    }
}
