//! The agents' folders on disk, and the one way to replace a file.
//!
//! Whatever lies in `state/` was put there by the agent and is never opened here. Everything else is written by the
//! daemon alone, with modes that do not depend on the umask. A folder that turns out to be a link is refused.

mod archive;
mod file;
mod tree;

#[cfg(test)]
mod tests;

use std::io;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use shared::canonical::{self, Encoding};
use shared::config::ConfigFile;
use shared::{AgentName, AgentUid, CommitOid, Digest};

pub use file::write_atomic;
pub(crate) use file::{read_bounded, remove_leftovers};

use super::layout::{Layout, MAX_SOCKET_PATH};
use super::nspawn::programs;
use super::{ArchiveState, FolderState, Folders, HostError, LaunchFile, Space};

/// Nobody but the daemon.
const PRIVATE: u32 = 0o700;
/// Readable inside the sandbox whatever uid it runs under; the agent's folder above shields it outside.
const SHOWN: u32 = 0o755;
/// The largest launch or config file that is read back.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// The agents' folders below a [`Layout`].
#[derive(Debug, Clone)]
pub struct AgentFolders {
    layout: Layout,
}

impl AgentFolders {
    /// The folders of this layout.
    pub fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// Runs blocking work on the pool made for it.
    async fn blocking<T, F>(&self, agent: &AgentName, work: F) -> Result<T, HostError>
    where
        T: Send + 'static,
        F: FnOnce(&Layout, &AgentName) -> Result<T, HostError> + Send + 'static,
    {
        let (layout, agent) = (self.layout.clone(), agent.clone());
        let subject = agent.to_string();
        tokio::task::spawn_blocking(move || work(&layout, &agent))
            .await
            .unwrap_or_else(|e| {
                Err(HostError::failed(
                    subject,
                    format!("the work on its folders ended early: {e}"),
                ))
            })
    }
}

#[async_trait]
impl Folders for AgentFolders {
    async fn observe(&self, agent: &AgentName) -> Result<FolderState, HostError> {
        self.blocking(agent, observe).await
    }

    async fn prepare(&self, agent: &AgentName) -> Result<(), HostError> {
        self.blocking(agent, prepare).await
    }

    async fn activate(
        &self,
        agent: &AgentName,
        system: &str,
        launch: &LaunchFile,
        config: &ConfigFile,
    ) -> Result<(), HostError> {
        let (system, launch, config) = (system.to_owned(), launch.clone(), config.clone());
        self.blocking(agent, move |layout, agent| {
            activate(layout, agent, Utf8Path::new(&system), &launch, &config)
        })
        .await
    }

    async fn space(&self) -> Result<Space, HostError> {
        let folder = self.layout.state().to_owned();
        let looked = tokio::task::spawn_blocking(move || {
            let stat = rustix::fs::statvfs(folder.as_std_path()).map_err(|errno| {
                HostError::io("look at the file system of", folder.as_str())(errno.into())
            })?;
            Ok(Space {
                free: stat.f_bavail.saturating_mul(stat.f_frsize),
                total: stat.f_blocks.saturating_mul(stat.f_frsize),
                folder: folder.into_string(),
            })
        });
        looked
            .await
            .unwrap_or_else(|error| Err(HostError::failed("the state folder", error.to_string())))
    }

    async fn archive(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
        self.blocking(agent, move |layout, agent| archive::archive(layout, agent, uid))
            .await
    }

    async fn archived(&self, agent: &AgentName, uid: AgentUid) -> Result<ArchiveState, HostError> {
        self.blocking(agent, move |layout, agent| archive::look(layout, agent, uid))
            .await
    }

    async fn restore(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
        self.blocking(agent, move |layout, agent| archive::restore(layout, agent, uid))
            .await
    }

    async fn doom(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
        self.blocking(agent, move |layout, agent| {
            archive::doom(layout, agent, uid).map(drop)
        })
        .await
    }

    async fn purge(&self, agent: &AgentName, uid: AgentUid) -> Result<(), HostError> {
        self.blocking(agent, move |layout, agent| archive::purge(layout, agent, uid))
            .await
    }
}

fn observe(layout: &Layout, agent: &AgentName) -> Result<FolderState, HostError> {
    let folders = [
        layout.agent(agent),
        layout.launch(agent),
        layout.config(agent),
        layout.agent_state(agent),
        layout.sock(agent),
    ];
    let mut prepared = true;
    for folder in &folders {
        prepared &= is_folder(folder)?;
    }
    Ok(FolderState {
        prepared,
        toplevel: read_digest(&layout.launch_file(agent), Encoding::Toplevel, "launch")?
            .map(|(digest, _)| digest),
        config: read_config_digest(layout, agent)?,
    })
}

/// The config's digest, provided that the tree it speaks of is there too.
fn read_config_digest(layout: &Layout, agent: &AgentName) -> Result<Option<Digest>, HostError> {
    let Some((digest, config)) = read_digest(&layout.config_file(agent), Encoding::Config, "config")? else {
        return Ok(None);
    };
    let commit = config
        .get("commit")
        .and_then(|commit| commit.as_str()?.parse::<CommitOid>().ok());
    let Some(commit) = commit else { return Ok(None) };
    let tree = layout.config(agent).join(tree::name(&commit));
    Ok(is_folder(&tree)?.then_some(digest))
}

/// The digest a file states, with what it is of. A file that is missing, broken, or does not keep what it states
/// counts as not written, so that the next pass writes it again.
fn read_digest(
    path: &Utf8Path,
    encoding: Encoding,
    field: &str,
) -> Result<Option<(Digest, serde_json::Value)>, HostError> {
    let Some(bytes) = read_bounded(path, MAX_FILE)? else {
        return Ok(None);
    };
    let Ok(mut document) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
        return Ok(None);
    };
    let stated = document
        .get("digest")
        .and_then(|digest| digest.as_str()?.parse::<Digest>().ok());
    let content = document.get_mut(field).map(serde_json::Value::take);
    let (Some(stated), Some(content)) = (stated, content) else {
        return Ok(None);
    };
    Ok((canonical::digest_value(encoding, &content) == stated).then_some((stated, content)))
}

/// Reads and checks a launch file: what it holds must be what its digest says.
pub(crate) fn read_launch(path: &Utf8Path) -> Result<LaunchFile, HostError> {
    let broken =
        |why: &str| HostError::failed(path.as_str(), format!("{why}; the next pass writes it again"));
    let bytes = read_bounded(path, MAX_FILE)?.ok_or_else(|| broken("there is no launch file"))?;
    let file: LaunchFile =
        serde_json::from_slice(&bytes).map_err(|e| broken(&format!("not a launch file: {e}")))?;
    match read_digest(path, Encoding::Toplevel, "launch")? {
        Some((digest, _)) if digest == file.digest => Ok(file),
        _ => Err(broken("its content does not have the digest it states")),
    }
}

/// The launch file of an agent, if it keeps what its digest says.
pub(super) fn launch_file(layout: &Layout, agent: &AgentName) -> Result<Option<LaunchFile>, HostError> {
    let path = layout.launch_file(agent);
    Ok(whole(&path, Encoding::Toplevel, "launch")?.map(|(digest, launch)| LaunchFile { digest, launch }))
}

/// The config file of an agent, if it keeps what its digest says.
pub(super) fn config_file(layout: &Layout, agent: &AgentName) -> Result<Option<ConfigFile>, HostError> {
    let path = layout.config_file(agent);
    Ok(whole(&path, Encoding::Config, "config")?.map(|(digest, config)| ConfigFile { digest, config }))
}

fn whole<T: serde::de::DeserializeOwned>(
    path: &Utf8Path,
    encoding: Encoding,
    field: &str,
) -> Result<Option<(Digest, T)>, HostError> {
    let read = read_digest(path, encoding, field)?;
    Ok(read.and_then(|(digest, content)| Some((digest, serde_json::from_value(content).ok()?))))
}

/// Whose archive a folder says it is.
pub(super) fn archive_of(folder: &Utf8Path) -> Result<Option<(AgentName, AgentUid)>, HostError> {
    archive::mark_of(folder)
}

fn prepare(layout: &Layout, agent: &AgentName) -> Result<(), HostError> {
    let socket = layout.agent_socket(agent);
    // An agent whose door can never open must not be started over and over.
    if socket.as_str().len() > MAX_SOCKET_PATH {
        return Err(HostError::refused(
            agent.as_str(),
            format!(
                "its socket path {socket} has {} bytes, at most {MAX_SOCKET_PATH} are possible: choose a shorter \
                 name, or a shorter --run folder",
                socket.as_str().len()
            ),
        ));
    }
    let sock = layout.sock(agent);
    for folder in [layout.state(), layout.run()] {
        ensure_base(folder)?;
    }
    for (folder, mode) in [
        (Some(layout.agents().as_path()), PRIVATE),
        (Some(layout.agent(agent).as_path()), PRIVATE),
        (Some(layout.launch(agent).as_path()), PRIVATE),
        (Some(layout.config(agent).as_path()), SHOWN),
        (Some(layout.agent_state(agent).as_path()), PRIVATE),
        (sock.parent().and_then(Utf8Path::parent), PRIVATE),
        (sock.parent(), PRIVATE),
        (Some(sock.as_path()), SHOWN),
        (Some(layout.egress().as_path()), PRIVATE),
        (Some(layout.egress_of(agent).as_path()), SHOWN),
    ] {
        if let Some(folder) = folder {
            file::ensure_folder(folder, mode)?;
        }
    }
    Ok(())
}

/// Makes the two base folders where nobody else did. Modes of existing ones are the installer's business.
fn ensure_base(folder: &Utf8Path) -> Result<(), HostError> {
    if is_folder_or_link_to_one(folder) {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(HostError::io("make the folder", folder.as_str()))?;
    file::ensure_folder(folder, PRIVATE)
}

fn activate(
    layout: &Layout,
    agent: &AgentName,
    system: &Utf8Path,
    launch: &LaunchFile,
    config: &ConfigFile,
) -> Result<(), HostError> {
    prepare(layout, agent)?;
    let (launch_dir, config_dir) = (layout.launch(agent), layout.config(agent));
    remove_leftovers(&launch_dir, "launch.json")?;
    remove_leftovers(&config_dir, "agent.json")?;

    write_json(&layout.launch_file(agent), launch, 0o600)?;
    let tree = tree::name(&config.config.commit);
    tree::ensure(&system.join("tree"), &config_dir, &tree)?;
    for program in programs::of(&launch.launch) {
        link(&config_dir.join(program.name), &program.inside)?;
    }
    // Last: whoever reads the config file finds everything it speaks of.
    write_json(&layout.config_file(agent), config, 0o644)?;
    tree::remove_others(&config_dir, &tree)
}

/// Makes a link that leads to `target`, in the place of whatever link was there.
fn link(path: &Utf8Path, target: &Utf8Path) -> Result<(), HostError> {
    if std::fs::read_link(path).is_ok_and(|there| there == target) {
        return Ok(());
    }
    let draft = Utf8PathBuf::from(format!("{path}.new"));
    remove_file(&draft)?;
    std::os::unix::fs::symlink(target, &draft).map_err(HostError::io("make the link", draft.as_str()))?;
    std::fs::rename(&draft, path).map_err(HostError::io("place the link", path.as_str()))
}

fn remove_file(path: &Utf8Path) -> Result<(), HostError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(HostError::io("remove", path.as_str())(error))
        }
        _ => Ok(()),
    }
}

fn write_json<T: Serialize>(path: &Utf8Path, value: &T, mode: u32) -> Result<(), HostError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| HostError::failed(path.as_str(), format!("cannot be written as JSON: {e}")))?;
    bytes.push(b'\n');
    // An unchanged file keeps its time stamps, and a repeated activation costs no write.
    if read_bounded(path, MAX_FILE)?.is_some_and(|there| there == bytes) {
        return Ok(());
    }
    write_atomic(path, &bytes, mode)
}

/// Makes a folder for the daemon alone.
pub(crate) fn ensure_private(folder: &Utf8Path) -> Result<(), HostError> {
    file::ensure_folder(folder, PRIVATE)
}

pub(crate) fn remove_folder(folder: &Utf8Path) -> Result<(), HostError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(HostError::io("remove", folder.as_str())(error))
        }
        _ => Ok(()),
    }
}

/// Whether a folder is there; a link to one is not.
fn is_folder(path: &Utf8Path) -> Result<bool, HostError> {
    Ok(metadata(path)?.is_some_and(|metadata| metadata.is_dir()))
}

fn exists(path: &Utf8Path) -> Result<bool, HostError> {
    Ok(metadata(path)?.is_some())
}

fn is_folder_or_link_to_one(path: &Utf8Path) -> bool {
    path.as_std_path().is_dir()
}

fn metadata(path: &Utf8Path) -> Result<Option<std::fs::Metadata>, HostError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(HostError::io("look at", path.as_str())(error)),
    }
}
