//! `hive spawn`: an agent that no spec declares, in one go.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use shared::AgentName;
use shared::config::Overlay;
use shared::draft::{DraftInfo, MAX_FILE_BYTES, SpawnRequest, StatePath};

use super::Session;
use super::agent::acknowledged;
use super::error::CliError;
use super::exit::Exit;

/// Arguments of `hive spawn`.
#[derive(Debug, clap::Args)]
pub(super) struct SpawnArgs {
    /// The name of the new agent
    agent: AgentName,
    /// Its standing instructions
    #[arg(long, value_name = "TEXT", conflicts_with = "config")]
    prompt: Option<String>,
    /// What is different from spawnDefaults: a file like agent.json in a config repo
    #[arg(long, value_name = "FILE")]
    config: Option<Utf8PathBuf>,
    /// Lay a text file down in its /state before it runs; may be given several times
    #[arg(long = "file", value_name = "PATH=FILE", value_parser = staged_file)]
    files: Vec<(StatePath, Utf8PathBuf)>,
    /// Say why; kept in the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

fn staged_file(text: &str) -> Result<(StatePath, Utf8PathBuf), String> {
    let (path, file) = text
        .split_once('=')
        .ok_or("write where it goes and what goes there, as in notes.md=./notes.md")?;
    let path = path.strip_prefix("/state/").unwrap_or(path);
    let path = path.parse::<StatePath>().map_err(|error| error.to_string())?;
    Ok((path, file.into()))
}

pub(super) async fn run(session: &mut Session<'_>, args: SpawnArgs) -> Result<Exit, CliError> {
    let SpawnArgs {
        agent,
        prompt,
        config,
        files,
        reason,
    } = args;
    let config = match config {
        Some(file) => overlay(&file).await?,
        None => Overlay {
            prompt,
            ..Overlay::default()
        },
    };
    let mut texts = BTreeMap::new();
    for (path, file) in files {
        texts.insert(path, read(&file).await?);
    }
    let request = SpawnRequest {
        name: agent.clone(),
        config,
        files: texts,
        reason,
    };
    let reply = session.client.post::<DraftInfo>("/v1/spawn", &request).await?;
    session.ui.show(&reply.raw, || {
        acknowledged(&shared::admin_api::Acknowledged {
            message: format!("{agent} is built and, as the policy says, asked about; hive status {agent}"),
            changed: true,
        })
    })?;
    Ok(Exit::Done)
}

async fn overlay(file: &Utf8Path) -> Result<Overlay, CliError> {
    let text = read(file).await?;
    serde_json::from_str(&text).map_err(|error| CliError::BadMessage(format!("{file} is no config: {error}")))
}

async fn read(file: &Utf8Path) -> Result<String, CliError> {
    let read = tokio::fs::read(file)
        .await
        .map_err(|source| CliError::Unreadable {
            path: file.to_string(),
            source,
        })?;
    if read.len() > MAX_FILE_BYTES {
        return Err(CliError::BadMessage(format!(
            "{file} has more than {MAX_FILE_BYTES} bytes"
        )));
    }
    String::from_utf8(read).map_err(|_| CliError::BadMessage(format!("{file} is no text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_place_in_state() {
        let (path, file) = staged_file("/state/notes/a.md=./a=b.md").expect("a staged file");
        assert_eq!((path.as_str(), file.as_str()), ("notes/a.md", "./a=b.md"));
        for bad in ["notes.md", "../x=y", "/etc/passwd=x", ".profile=x", "=x"] {
            assert!(staged_file(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
