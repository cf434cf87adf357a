//! Secrets: read when an agent is started, and handed over by open descriptor.
//!
//! A secret's content is in the memory of the launcher and in a file without a name that `bwrap` inherits, copies into the
//! sandbox's own memory, and closes. It is on no disk, in no argument and in no environment, and the daemon never
//! needs it again: a new daemon adopts an agent that has its secrets already.

use std::collections::BTreeMap;
use std::io::{self, Read as _};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use shared::AgentName;
use shared::secret::{MAX_SECRET, SecretValue};
use shared::spec::{AgentSpec, BindSpec, SecretSpec};

use crate::host::layout::Layout;
use crate::host::{HostError, Launch};
use crate::model::inventory::Known;

/// Reads every secret of the agent, by its name, which is that of its file inside.
///
/// # Errors
/// For the first one that cannot be handed over: [`HostError::Refused`] when the agent itself may be behind the file, else
/// one that goes away once the file is put right. Never with any of the content.
pub(in crate::host) fn read(
    launch: &Launch,
    layout: &Layout,
) -> Result<BTreeMap<String, SecretValue>, HostError> {
    let secrets = launch.secrets.iter();
    secrets
        .map(|(name, spec)| {
            let subject = || format!("the secret {name} of {}, {}", launch.agent, spec.file);
            let (value, _) = read_one(Utf8Path::new(&spec.file), &launch.binds, layout).map_err(|fault| match fault {
                Fault::Planted(folder) => HostError::refused(
                    subject(),
                    format!(
                        "it lies in {folder}, where an agent can write: keep it elsewhere and correct secrets.{name}.file \
                         in the spec"
                    ),
                ),
                Fault::Unusable(what) => HostError::failed(subject(), what),
            })?;
            Ok((name.clone(), value))
        })
        .collect()
}

/// The mode of each secret file that an agent is declared with, named for a person, or what is wrong with it.
pub(in crate::host) fn inspect(
    agent: &AgentName,
    spec: &AgentSpec,
    layout: &Layout,
) -> Vec<(String, Known<u32>)> {
    let secrets = spec.secrets.iter();
    secrets
        .map(|(name, SecretSpec { file, version: _ })| {
            let subject = format!("{file} (the secret {name} of {agent})");
            let read = read_one(Utf8Path::new(file), &spec.binds, layout);
            let mode = read.map(|(_, mode)| mode).map_err(|fault| match fault {
                Fault::Planted(folder) => format!("it lies in {folder}, where an agent can write"),
                Fault::Unusable(what) => what,
            });
            (subject, mode)
        })
        .collect()
}

/// Refuses secrets where there is no sandbox: whatever runs as the daemon's user could read those of every agent.
pub(super) fn permit_unsandboxed(launch: &Launch, why: &str) -> Result<(), HostError> {
    if launch.secrets.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = launch.secrets.keys().map(String::as_str).collect();
    Err(HostError::refused(
        format!("the start of {}", launch.agent),
        format!(
            "it has secrets ({}), and there is no sandbox ({why}), without which every agent could read them: make bwrap \
             work, or take `secrets` out of the spec",
            names.join(", ")
        ),
    ))
}

/// Why a secret is not handed over.
#[derive(Debug)]
enum Fault {
    /// It lies in this folder, or a link leads from there: an agent could have it name any file of the host.
    Planted(Utf8PathBuf),
    /// For this reason.
    Unusable(String),
}

impl Fault {
    fn of(error: &io::Error) -> Self {
        Self::Unusable(match error.kind() {
            io::ErrorKind::NotFound => "it is not there: create it, or correct `file` in the spec".to_owned(),
            io::ErrorKind::PermissionDenied => format!(
                "it cannot be read by the user the daemon runs as (uid {}): let that user read it, and its folder be \
                 entered",
                rustix::process::geteuid().as_raw()
            ),
            _ => format!("it cannot be read: {error}"),
        })
    }
}

/// What the file holds, and its mode.
fn read_one(declared: &Utf8Path, binds: &[BindSpec], layout: &Layout) -> Result<(SecretValue, u32), Fault> {
    // Programs that manage secrets put links there, so they are followed, but by the real path only once.
    let path = declared.canonicalize_utf8().map_err(|error| Fault::of(&error))?;
    let writable = binds.iter().filter(|bind| !bind.read_only);
    let writable = writable.map(|bind| Utf8Path::new(&bind.source).to_owned());
    for folder in writable.chain([layout.agents()]) {
        let real = folder.canonicalize_utf8().unwrap_or_else(|_| folder.clone());
        if [declared, &path]
            .iter()
            .any(|path| path.starts_with(&folder) || path.starts_with(&real))
        {
            return Err(Fault::Planted(folder));
        }
    }
    // Opening must not wait for whoever writes into a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat2(
        CWD,
        path.as_std_path(),
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )
    .map_err(|errno| Fault::of(&errno.into()))?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| Fault::of(&errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Fault::Unusable("it is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(MAX_SECRET + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Fault::of(&error))?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(Fault::Unusable(format!(
            "it is larger than {} KiB: a secret is a key or a password",
            MAX_SECRET / 1024
        )));
    }
    let value = SecretValue::new(bytes);
    if value.line().is_empty() {
        return Err(Fault::Unusable(
            "it is empty: write the secret into it".to_owned(),
        ));
    }
    Ok((value, stat.st_mode))
}

#[cfg(test)]
mod tests;
