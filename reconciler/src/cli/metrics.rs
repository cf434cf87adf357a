//! `hive metrics`: what Prometheus would be told.

use serde_json::json;

use super::Session;
use super::error::CliError;
use super::exit::Exit;

pub(super) async fn run(session: &mut Session<'_>) -> Result<Exit, CliError> {
    let text = session.client.text("/v1/metrics").await?;
    session.ui.show_text(&json!({ "metrics": text }), &text)?;
    Ok(Exit::Done)
}
