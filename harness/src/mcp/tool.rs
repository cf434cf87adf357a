//! What a tool is: a name, a description, a schema, and a function.

use std::pin::Pin;
use std::sync::Arc;

use rmcp::model::{JsonObject, MetaObject, ToolAnnotations};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::context::Hive;
use super::error::ToolError;
use super::schema;

/// What a call does, for clients that ask people first.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// It only looks.
    Reads,
    /// It adds something.
    Adds,
    /// It takes something away or replaces it.
    Changes,
}

/// A tool.
pub(super) trait HiveTool: 'static {
    /// Its name.
    const NAME: &'static str;
    /// What it does, when to use it, what comes of it. The model reads this in every turn: short.
    const ABOUT: &'static str;
    /// What a call does.
    const EFFECT: Effect;
    /// What it takes.
    type Arguments: DeserializeOwned + JsonSchema + Send;

    /// Does it, and says in words what came of it.
    fn call(
        hive: &Hive,
        arguments: Self::Arguments,
        call: &Call,
    ) -> impl Future<Output = Result<String, ToolError>> + Send;
}

/// One call, besides its arguments.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The same for a call that the client repeats, as far as the client says which those are.
    pub(super) dedupe: String,
}

type Outcome = Pin<Box<dyn Future<Output = Result<String, ToolError>> + Send>>;

/// A tool as the server keeps it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) tool: rmcp::model::Tool,
    pub(super) for_managers: bool,
    pub(super) run: fn(Arc<Hive>, JsonObject, Call) -> Outcome,
}

/// A tool of every agent.
pub(super) fn of_everybody<T: HiveTool>() -> Entry {
    entry::<T>(false)
}

/// A tool of managers alone.
pub(super) fn of_managers<T: HiveTool>() -> Entry {
    entry::<T>(true)
}

fn entry<T: HiveTool>(for_managers: bool) -> Entry {
    let hints = ToolAnnotations::new()
        .read_only(matches!(T::EFFECT, Effect::Reads))
        .destructive(matches!(T::EFFECT, Effect::Changes))
        .open_world(false);
    let mut meta = JsonObject::new();
    // Claude Code keeps tools from the model until it searches for them; these are needed in every turn.
    meta.insert("anthropic/alwaysLoad".into(), json!(true));
    let tool = rmcp::model::Tool::new(T::NAME, T::ABOUT, Arc::new(schema::of::<T::Arguments>()))
        .with_annotations(hints)
        .with_meta(MetaObject(meta));
    Entry {
        tool,
        for_managers,
        run: |hive, arguments, call| {
            Box::pin(async move {
                let arguments = read::<T::Arguments>(arguments)?;
                T::call(&hive, arguments, &call).await
            })
        },
    }
}

fn read<A: DeserializeOwned>(arguments: JsonObject) -> Result<A, ToolError> {
    let mut track = serde_path_to_error::Track::new();
    let value = Value::Object(arguments);
    A::deserialize(serde_path_to_error::Deserializer::new(value, &mut track)).map_err(|error| {
        ToolError::Arguments {
            at: crate::tame(&track.path().to_string(), 100),
            error: crate::tame(&error.to_string(), 400),
        }
    })
}
