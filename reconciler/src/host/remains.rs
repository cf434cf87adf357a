//! What lies in a state folder, whoever put it there. Reads, and changes nothing.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use camino::Utf8Path;
use jiff::Timestamp;
use shared::config::ConfigFile;
use shared::{AgentName, AgentUid};

use super::git::{RepoSurvey, survey};
use super::layout::Layout;
use super::{HostError, LaunchFile, folders, process};
use crate::model::build::BuildOutput;
use crate::model::inventory::Known;

/// The largest description of a system that is read.
const MAX_SYSTEM: u64 = 16 * 1024 * 1024;

/// What is left of a hive besides its ledger.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Remains {
    /// Agents that have a folder or a repo, by name.
    pub agents: BTreeMap<AgentName, Remnant>,
    /// What the archive keeps.
    pub archives: Vec<ArchiveRemnant>,
}

/// What is left of one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Remnant {
    /// Whether it has a folder.
    pub folder: bool,
    /// What it is started from, if that is whole.
    pub launch: Option<LaunchFile>,
    /// What its harness loads, if that is whole.
    pub config: Option<ConfigFile>,
    /// The system that both were written from, if that is whole.
    pub active: Option<BuildOutput>,
    /// Its config repo; `None`: there is none.
    pub repo: Known<Option<RepoSurvey>>,
    /// Its process, if it runs.
    pub process: Option<i32>,
}

/// What the archive keeps of one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchiveRemnant {
    /// The agent.
    pub name: AgentName,
    /// Its uid.
    pub uid: AgentUid,
    /// When something was last moved in or out.
    pub since: Timestamp,
    /// Its config repo.
    pub repo: Known<Option<RepoSurvey>>,
}

/// The names of what lies in a folder, sorted; none when there is no folder. Blocks.
///
/// # Errors
/// When the folder cannot be listed.
pub fn entries(folder: &Utf8Path) -> Result<Vec<String>, HostError> {
    let failed = || HostError::io("list", folder.as_str());
    let listed = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(failed())?,
    };
    let mut names = Vec::new();
    for entry in listed {
        names.push(
            entry
                .map_err(failed())?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort();
    Ok(names)
}

/// The agent whose repo is called this.
pub fn repo_name(entry: &str) -> Option<AgentName> {
    entry.strip_suffix(".git")?.parse().ok()
}

/// The agent whose archive is called this.
pub fn archive_name(entry: &str) -> Option<(AgentName, AgentUid)> {
    // A uid has a fixed length, and names may hold hyphens.
    let at = entry.len().checked_sub(36)?;
    let (name, uid) = (entry.get(..at)?, entry.get(at..)?);
    Some((name.strip_suffix('-')?.parse().ok()?, uid.parse().ok()?))
}

/// Whether anything lies there that a ledger must have known. Blocks.
///
/// # Errors
/// When a folder cannot be listed.
pub fn any(layout: &Layout) -> Result<bool, HostError> {
    let agents = entries(&layout.agents())?;
    let repos = entries(&layout.repos())?;
    let archives = entries(&layout.archives())?;
    Ok(agents.iter().any(|entry| entry.parse::<AgentName>().is_ok())
        || repos.iter().any(|entry| repo_name(entry).is_some())
        || archives.iter().any(|entry| archive_name(entry).is_some()))
}

/// Looks at everything. Blocks.
///
/// # Errors
/// When a folder or a file of the daemon's own cannot be read. A repo that cannot is part of the answer.
pub fn look(layout: &Layout) -> Result<Remains, HostError> {
    let folders: Vec<AgentName> = entries(&layout.agents())?
        .iter()
        .filter_map(|entry| entry.parse().ok())
        .collect();
    let mut names = folders.clone();
    names.extend(
        entries(&layout.repos())?
            .iter()
            .filter_map(|entry| repo_name(entry)),
    );
    let mut remains = Remains::default();
    for name in names {
        if remains.agents.contains_key(&name) {
            continue;
        }
        let remnant = Remnant {
            folder: folders.contains(&name),
            launch: folders::launch_file(layout, &name)?,
            config: folders::config_file(layout, &name)?,
            active: None,
            repo: surveyed(&layout.repo(&name), &name),
            process: process::running(layout, &name)?,
        };
        remains.agents.insert(name, remnant);
    }
    find_active(layout, &mut remains)?;
    for entry in entries(&layout.archives())? {
        let folder = layout.archives().join(&entry);
        let Some((name, uid)) = folders::archive_of(&folder)?.or_else(|| archive_name(&entry)) else {
            continue;
        };
        let repo = surveyed(&folder.join("repo.git"), &name);
        remains.archives.push(ArchiveRemnant {
            since: modified(&folder)?,
            name,
            uid,
            repo,
        });
    }
    Ok(remains)
}

fn surveyed(path: &Utf8Path, agent: &AgentName) -> Known<Option<RepoSurvey>> {
    survey(path, &format!("repo of {agent}")).map_err(|error| error.chain())
}

fn modified(folder: &Utf8Path) -> Result<Timestamp, HostError> {
    let failed = HostError::io("look at", folder.as_str());
    let metadata = std::fs::metadata(folder).map_err(failed)?;
    let modified = metadata
        .modified()
        .ok()
        .and_then(|at| Timestamp::try_from(at).ok());
    Ok(modified.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Finds the system of each agent's files among those that were built.
fn find_active(layout: &Layout, remains: &mut Remains) -> Result<(), HostError> {
    for entry in entries(&layout.systems())? {
        let path = layout.systems().join(&entry).join("system.json");
        let Some(bytes) = folders::read_bounded(&path, MAX_SYSTEM)? else {
            continue;
        };
        let Ok(output) = serde_json::from_slice::<BuildOutput>(&bytes) else {
            continue;
        };
        let Some(remnant) = remains.agents.get_mut(&output.config.agent) else {
            continue;
        };
        let launched = remnant.launch.as_ref().map(|file| &file.digest);
        let loaded = remnant.config.as_ref().map(|file| &file.digest);
        if launched == Some(&output.toplevel) && loaded == Some(&output.config_digest) && output.is_intact() {
            remnant.active = Some(output);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_known_by_its_name_also_when_the_agents_name_holds_hyphens() {
        let uid = "00000000-0000-0000-0000-000000000001";
        let (name, found) = archive_name(&format!("a-b-c-{uid}")).expect("an archive");
        assert_eq!((name.as_str(), found.to_string().as_str()), ("a-b-c", uid));
        for stranger in [
            "",
            uid,
            "notes",
            ".purge-alice-00000000-0000-0000-0000-000000000001",
        ] {
            assert_eq!(archive_name(stranger), None, "{stranger}");
        }
        assert_eq!(repo_name(".alice.git.new"), None);
    }
}
