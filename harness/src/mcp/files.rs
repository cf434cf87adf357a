//! Files that tools lay down in the state folder: texts that are too long for where they came from.

use std::fs::File;
use std::io::{ErrorKind, Write as _};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, fsync, mkdirat, openat, renameat, unlinkat};

use super::error::ToolError;

/// What becomes of older files in the same folder.
#[derive(Debug, Clone, Copy)]
pub(super) enum Older {
    /// This many of the newest stay. Names are numbers, and the highest is the newest.
    Dropped(usize),
    /// They stay; with this many, nothing more is written.
    Kept(usize),
}

/// Writes `<state>/<folder>/<name>` so that it is whole or not there, for this user alone. Neither the folder nor the
/// file is ever followed as a link.
pub(super) async fn keep(
    state: &Utf8Path,
    folder: &'static str,
    name: String,
    text: String,
    older: Older,
) -> Result<Utf8PathBuf, ToolError> {
    let path = state.join(folder).join(&name);
    let state = state.to_owned();
    let written = tokio::task::spawn_blocking(move || write(&state, folder, &name, text.as_bytes(), older));
    written
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|source| ToolError::File {
            path: path.clone(),
            source,
        })?;
    Ok(path)
}

fn write(state: &Utf8Path, folder: &str, name: &str, text: &[u8], older: Older) -> std::io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let state = rustix::fs::open(state.as_std_path(), flags, Mode::empty())?;
    match mkdirat(&state, folder, Mode::RWXU) {
        Err(error) if error != rustix::io::Errno::EXIST => return Err(error.into()),
        _ => {}
    }
    let folder = openat(&state, folder, flags | OFlags::NOFOLLOW, Mode::empty())?;
    if let Older::Kept(most) = older
        && names(&folder)?.len() >= most
    {
        let error = format!("there are {most} files already: delete those that are no longer needed");
        return Err(std::io::Error::new(ErrorKind::QuotaExceeded, error));
    }
    let new = format!(".{name}.new");
    match unlinkat(&folder, &new, AtFlags::empty()) {
        Err(error) if error != rustix::io::Errno::NOENT => return Err(error.into()),
        _ => {}
    }
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&folder, &new, create, Mode::RUSR | Mode::WUSR)?);
    let written = file.write_all(text).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a text on a full disk is of no use to anybody.
        if let Err(error) = unlinkat(&folder, &new, AtFlags::empty()) {
            tracing::debug!(%error, name, "half a file is left");
        }
        return Err(error);
    }
    renameat(&folder, &new, &folder, name)?;
    fsync(&folder)?;
    if let Older::Dropped(keep) = older {
        let mut numbers: Vec<(u64, String)> = names(&folder)?
            .into_iter()
            .filter_map(|name| Some((name.split('.').next()?.parse().ok()?, name)))
            .collect();
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        for (_, name) in numbers.iter().skip(keep) {
            unlinkat(&folder, name.as_str(), AtFlags::empty())?;
        }
    }
    Ok(())
}

fn names(folder: &impl std::os::fd::AsFd) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    Ok(names)
}
