//! `spawn`: asks for a new agent in one go.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use shared::AgentName;
use shared::config::Overlay;
use shared::draft::{DraftInfo, DraftPhase, SpawnRequest, StatePath};

use super::propose_config::check_reason;
use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// The tool.
pub(super) struct Spawn;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// The new agent's name: a lower-case letter, then at most 31 lower-case letters, digits or dashes.
    name: AgentName,
    /// What is different from the hive's defaults for spawned agents.
    #[serde(default)]
    #[schemars(transform = without_scripts)]
    config: Overlay,
    /// Texts that lie in its state folder when it wakes for the first time, by path, as in notes.md.
    #[serde(default)]
    #[schemars(length(max = 256))]
    files: BTreeMap<StatePath, String>,
    /// Why the agent is wanted, for the operator who decides.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    reason: String,
}

impl HiveTool for Spawn {
    const NAME: &'static str = "spawn";
    const ABOUT: &'static str = "Ask for a new agent in one go: name, config, first files. It is built first; then the \
        operator decides. You get a message about the outcome. To prepare one in several steps, use `spawn_draft`.";
    const EFFECT: Effect = Effect::Adds;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, _call: &Call) -> Result<String, ToolError> {
        let Arguments {
            name,
            config,
            files,
            reason,
        } = arguments;
        check_reason(&reason)?;
        let request = SpawnRequest {
            name,
            config,
            files,
            reason,
        };
        let draft = hive
            .patiently(Again::Never, || hive.client.spawn(&request))
            .await?;
        Ok(format!(
            "{}You get a message about the outcome.",
            draft_line(&draft)
        ))
    }
}

/// Scripts are for demos and tests: long to describe, and no model has a use for them.
fn without_scripts(schema: &mut schemars::Schema) {
    if let Some(object) = schema.as_object_mut() {
        object.values_mut().for_each(strip);
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("script");
            object.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A draft in one line.
pub(super) fn draft_line(draft: &DraftInfo) -> String {
    let place = match (draft.phase, &draft.gate) {
        (_, Some(gate)) => format!("offered, waits for the operator at gate {gate}"),
        (DraftPhase::Making, None) => "its config repo is being made".to_owned(),
        (DraftPhase::Draft, None) => "being prepared, not offered".to_owned(),
        (DraftPhase::Offered, None) => "offered: it is built, then the operator decides".to_owned(),
        (DraftPhase::Denied, None) => "denied; change it and offer it again, or give it up".to_owned(),
        (DraftPhase::Unknown, None) => "in a phase this harness does not know".to_owned(),
    };
    let why = draft
        .reason
        .as_ref()
        .map(|reason| format!("; why: {}", show::quoted(reason, 1000)))
        .unwrap_or_default();
    let config = match (&draft.commit, &draft.seed) {
        (Some(commit), _) => format!(", config {}", commit.short()),
        (None, Some(_)) => ", config as the hive's defaults".to_owned(),
        (None, None) => String::new(),
    };
    format!(
        "draft {}: {place}{config}, {} files{why}\n",
        draft.name,
        draft.files.len()
    )
}
