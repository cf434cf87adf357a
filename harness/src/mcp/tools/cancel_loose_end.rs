//! `cancel_loose_end`: takes something back.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::loose_end::{LooseEndId, LooseEndKind};

use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// The tool.
pub(super) struct CancelLooseEnd;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// Its name as `loose_ends` shows it: question/12, reminder/3 or message/40.
    #[schemars(regex(pattern = r"^(question|reminder|message)/[1-9][0-9]*$"))]
    id: String,
}

impl HiveTool for CancelLooseEnd {
    const NAME: &'static str = "cancel_loose_end";
    const ABOUT: &'static str = "Take back a question or a reminder of yours, or put a message that could not be \
        delivered out of the list. A manager may do so for everybody. Gates are the operator's alone.";
    const EFFECT: Effect = Effect::Changes;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, _call: &Call) -> Result<String, ToolError> {
        let id: LooseEndId = arguments
            .id
            .parse()
            .map_err(|error| ToolError::Refused(crate::error_chain(&error)))?;
        if id.kind == LooseEndKind::Gate {
            let why = "only the operator decides about a gate: ask the operator to deny it";
            return Err(ToolError::Refused(why.into()));
        }
        hive.patiently(Again::Never, || hive.client.cancel_loose_end(id))
            .await?;
        Ok(format!("{id} is taken back."))
    }
}
