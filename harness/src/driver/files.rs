//! The files that drivers keep in the state folder.

use std::io::{Read as _, Write as _};

use camino::{Utf8Path, Utf8PathBuf};

/// Reads a file, at most so many bytes of it. Blocks.
///
/// # Errors
/// The operating system's.
pub(super) fn read(path: &Utf8Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file that is there in whole or not at all, in a folder that is made if need be. Blocks.
///
/// # Errors
/// The operating system's.
pub(super) fn write(path: &Utf8Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Utf8Path::new("."));
    std::fs::create_dir_all(folder)?;
    let new = Utf8PathBuf::from(format!("{path}.new"));
    // Of a run that was cut short; never followed if somebody made it a link.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::File::create_new(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_of_a_file_is_in_nobodys_way() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = Utf8Path::from_path(dir.path()).expect("UTF-8");
        let (file, target) = (state.join("claude/file"), state.join("elsewhere"));
        write(&file, b"old").expect("written");
        std::os::unix::fs::symlink(&target, format!("{file}.new")).expect("a link");
        write(&file, b"new").expect("written again");
        assert!(!target.exists(), "it was written through a link");
        assert_eq!(read(&file, 100).expect("read"), b"new");
        assert_eq!(read(&file, 2).expect("read"), b"ne", "no more than was asked for");
    }
}
