//! `spawn_draft`: prepares a new agent, step by step.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use shared::AgentName;
use shared::draft::{DraftInfo, MAX_FILE_BYTES, StatePath};
use shared::wire_error::ErrorCode;
use tokio::time::Instant;

use super::propose_config::{author, changes};
use super::spawn::draft_line;
use crate::host_client::ClientError;
use crate::host_client::retry::Backoff;
use crate::mcp::context::{Again, Failed, Hive};
use crate::mcp::error::ToolError;
use crate::mcp::tool::{Call, Effect, HiveTool};
use crate::repo::offer::{Change, RepoPath};

/// How long the daemon may take to make a draft's config repo.
const MAKING: std::time::Duration = std::time::Duration::from_secs(10);

/// The tool.
pub(super) struct SpawnDraft;

/// What it takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Arguments {
    /// The new agent's name: a lower-case letter, then at most 31 lower-case letters, digits or dashes.
    name: AgentName,
    /// Texts to lay down in its state folder, by path, as in notes.md. What is there by that path is replaced.
    #[serde(default)]
    #[schemars(length(max = 256))]
    files: BTreeMap<StatePath, String>,
    /// Paths of such texts to take away.
    #[serde(default)]
    #[schemars(length(max = 256))]
    remove: Vec<StatePath>,
    /// Files of its config repo, as in agent.json: the whole of what is different from the hive's defaults. It replaces what an
    /// earlier call gave.
    #[serde(default)]
    #[schemars(length(max = 256))]
    config: BTreeMap<RepoPath, String>,
    /// Give the draft up instead; nothing of it is kept.
    #[serde(default)]
    give_up: bool,
}

impl HiveTool for SpawnDraft {
    const NAME: &'static str = "spawn_draft";
    const ABOUT: &'static str = "Prepare a new agent without offering it yet: begins the draft if there is none, then lays \
        down files and config. Any change takes an earlier offer back. Offer it with `spawn_commit`.";
    const EFFECT: Effect = Effect::Changes;
    type Arguments = Arguments;

    async fn call(hive: &Hive, arguments: Arguments, _call: &Call) -> Result<String, ToolError> {
        let Arguments {
            name,
            files,
            remove,
            config,
            give_up,
        } = arguments;
        if give_up {
            if !(files.is_empty() && remove.is_empty() && config.is_empty()) {
                let why = "a draft that is given up keeps nothing: leave files, remove and config out";
                return Err(ToolError::Refused(why.into()));
            }
            hive.patiently(Again::Never, || hive.client.give_up_draft(&name))
                .await?;
            return Ok(format!("The draft {name} is given up."));
        }
        if let Some((path, _)) = files.iter().find(|(_, text)| text.len() > MAX_FILE_BYTES) {
            return Err(ToolError::Refused(format!(
                "{path} is larger than {MAX_FILE_BYTES} bytes"
            )));
        }
        let config = changes(config, Vec::new())?;
        let mut draft = begun(hive, &name).await?;
        for path in &remove {
            draft = hive
                .patiently(Again::Never, || hive.client.unstage(&name, path))
                .await?;
        }
        for (path, text) in &files {
            draft = hive
                .patiently(Again::Known, || hive.client.stage(&name, path, text))
                .await?;
        }
        if !config.is_empty() {
            draft = committed(hive, &name, config).await?;
        }
        Ok(format!(
            "{}Offer it with spawn_commit when it is complete.",
            draft_line(&draft)
        ))
    }
}

/// The draft, begun if there was none.
async fn begun(hive: &Hive, name: &AgentName) -> Result<DraftInfo, ToolError> {
    match hive.patiently(Again::Looks, || hive.client.draft(name)).await {
        Err(Failed {
            error: ClientError::Refused { error, .. },
            ..
        }) if error.code == ErrorCode::NotFound => {}
        known => return Ok(known?),
    }
    Ok(hive
        .patiently(Again::Never, || hive.client.begin_draft(name))
        .await?)
}

/// Commits config files on top of the seed, once there is one.
async fn committed(
    hive: &Hive,
    name: &AgentName,
    files: BTreeMap<RepoPath, Option<String>>,
) -> Result<DraftInfo, ToolError> {
    let begin = Instant::now();
    let mut backoff = Backoff::default();
    while hive
        .patiently(Again::Looks, || hive.client.draft(name))
        .await?
        .seed
        .is_none()
    {
        if begin.elapsed() > MAKING {
            return Err(ToolError::Refused(format!(
                "the config repo of the draft {name} is still being made, and its config was not set: call this again with \
                 the same config in a minute; the files are laid down"
            )));
        }
        tokio::time::sleep(backoff.step()).await;
    }
    let _turnstile = hive.committing.lock().await;
    let author = author(hive).await?;
    let seed = hive
        .patiently(Again::Looks, || hive.client.draft_bundle(name))
        .await?;
    let change = Change {
        title: format!("config of {name}"),
        reason: String::new(),
        files,
    };
    let offer = hive.repo.commit_files(seed, &author, &change).await?;
    let answer = hive
        .patiently(Again::Known, || {
            hive.client.commit_draft(name, offer.bundle.clone())
        })
        .await;
    hive.repo.done(offer).await;
    Ok(answer?)
}
