//! What a manager orders about another agent.

use serde::{Deserialize, Serialize};

/// An order: start, stop, restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OrderRequest {
    /// Why, for the operator and for history. At most 4096 bytes are kept.
    #[serde(default)]
    pub reason: String,
    /// The same id given twice for the same agent is one order. At most 64 characters.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub dedupe: Option<String>,
}
