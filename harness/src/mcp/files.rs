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

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = Utf8Path::from_path(dir.path()).expect("UTF-8 path").to_owned();
        (dir, path)
    }

    fn there(state: &Utf8Path) -> Vec<String> {
        let mut names: Vec<String> = state
            .join("texts")
            .read_dir_utf8()
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_owned())
            .collect();
        names.sort();
        names
    }

    async fn keep_one(state: &Utf8Path, name: &str, older: Older) -> Result<Utf8PathBuf, ToolError> {
        keep(state, "texts", name.to_owned(), "text".to_owned(), older).await
    }

    #[tokio::test]
    async fn the_newest_by_number_stay_and_what_is_no_number_is_not_ours() {
        let (_dir, state) = folder();
        for name in ["9.txt", "10.txt", "notes.md", "8.txt", "100.txt"] {
            keep_one(&state, name, Older::Dropped(3)).await.expect(name);
        }
        assert_eq!(there(&state), ["10.txt", "100.txt", "9.txt", "notes.md"]);
    }

    #[tokio::test]
    async fn a_full_folder_takes_no_more_and_says_what_to_do() {
        let (_dir, state) = folder();
        for name in ["a", "b"] {
            keep_one(&state, name, Older::Kept(2)).await.expect(name);
        }
        let error = keep_one(&state, "c", Older::Kept(2)).await.expect_err("full");
        assert!(
            error
                .to_string()
                .contains("delete those that are no longer needed"),
            "{error}"
        );
        assert_eq!(there(&state), ["a", "b"]);
    }

    #[tokio::test]
    async fn what_a_crash_left_half_is_replaced_and_never_counts() {
        let (_dir, state) = folder();
        std::fs::create_dir(state.join("texts")).expect("made");
        std::fs::File::create(state.join("texts/.a.new")).expect("made");
        let path = keep_one(&state, "a", Older::Kept(1)).await.expect("kept");
        assert_eq!(std::fs::read_to_string(path).expect("read"), "text");
        assert_eq!(there(&state), ["a"]);
    }
}
