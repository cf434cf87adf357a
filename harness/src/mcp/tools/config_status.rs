//! `config_status`: what became of proposals, and the repo to work in.

use schemars::JsonSchema;
use serde::Deserialize;
use shared::agent_api::{ProposalInfo, ProposalPhase};

use super::propose_config::author;
use crate::mcp::context::{Again, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::show;
use crate::mcp::tool::{Call, Effect, HiveTool};

/// How many are shown when nobody says.
const USUAL: usize = 10;
/// How many are shown at most.
const MOST: usize = 50;

/// The tool.
pub(super) struct ConfigStatus;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// At most this many proposals, newest first. Default 10.
    #[schemars(range(min = 1, max = 50))]
    limit: Option<usize>,
    /// Whether to fetch the config repo into the `config` folder of your state folder as well, and say how it stands to
    /// main. What you have there is never touched. Default true.
    fetch: Option<bool>,
}

impl HiveTool for ConfigStatus {
    const NAME: &'static str = "config_status";
    const ABOUT: &'static str = "Show your config proposals: where each is, why, and which gate it waits at. Also fetches \
        your config repo, so that you can read it and commit to it.";
    const EFFECT: Effect = Effect::Adds;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, _call: &Call) -> Result<String, ToolError> {
        let limit = arguments.limit.unwrap_or(USUAL);
        if !(1..=MOST).contains(&limit) {
            return Err(ToolError::Refused(format!("limit is 1 to {MOST}")));
        }
        let proposals = hive.patiently(Again::Looks, || hive.client.proposals()).await?;
        let mut text = String::new();
        for proposal in proposals.iter().take(limit) {
            text.push_str(&line(proposal));
        }
        match proposals.len() {
            0 => text.push_str("You have proposed nothing.\n"),
            count if count > limit => {
                text.push_str(&format!("{} older ones are not shown.\n", count - limit));
            }
            _ => {}
        }
        if arguments.fetch.unwrap_or(true) {
            // The list is what was asked for first: it is shown even when git does not work.
            match fetched(hive).await {
                Ok(more) => text.push_str(&more),
                Err(error) => text.push_str(&format!("The config repo was not fetched: {error}\n")),
            }
        }
        Ok(text)
    }
}

pub(super) fn line(proposal: &ProposalInfo) -> String {
    let ProposalInfo {
        number,
        commit,
        title,
        phase,
        reason,
        gate,
        at,
    } = proposal;
    let place = match (phase, gate) {
        (_, Some(gate)) => format!("waits for the operator at gate {gate}"),
        (ProposalPhase::Proposed, None) => "received, not built yet".to_owned(),
        (ProposalPhase::Building, None) => "being built".to_owned(),
        (ProposalPhase::Approved, None) => "approved, not deployed yet".to_owned(),
        (ProposalPhase::Deployed, None) => "deployed".to_owned(),
        (ProposalPhase::Failed, None) => "failed".to_owned(),
        (ProposalPhase::Denied, None) => "denied".to_owned(),
    };
    let why = reason
        .as_ref()
        .map(|reason| format!("; why: {}", show::quoted(reason, 2000)))
        .unwrap_or_default();
    format!(
        "proposal {number} ({}, {}) {}: {place}{why}\n",
        show::quoted(title, 80),
        commit.short(),
        show::time(*at)
    )
}

async fn fetched(hive: &Hive) -> Result<String, ToolError> {
    let _turnstile = hive.committing.lock().await;
    let author = author(hive).await?;
    let main = hive.patiently(Again::Looks, || hive.client.repo_bundle()).await?;
    let tree = hive.repo.refresh(main, &author).await?;
    let uncommitted = if tree.uncommitted {
        ", with uncommitted work"
    } else {
        ""
    };
    Ok(format!(
        "{} is on {}; ahead of hive/main (what is deployed) by {}, behind it by {}{uncommitted}.\n",
        tree.folder, tree.head, tree.ahead, tree.behind
    ))
}
