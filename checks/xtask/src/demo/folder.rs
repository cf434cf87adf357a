//! A scratch folder with a short path: a unix socket's path has at most 107 bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use camino::Utf8Path;
use tempfile::TempDir;

/// `/tmp/hive-XXXXXX`, removed on drop. `TMPDIR` is left out of account: it may be long.
#[derive(Debug)]
pub(crate) struct ShortFolder {
    folder: TempDir,
}

impl ShortFolder {
    /// Makes it.
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("hive-")
            .tempdir_in("/tmp")
            .context("making /tmp/hive-…")?;
        // Whatever the umask: ours, and nobody else's.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))
            .context("opening /tmp/hive-…")?;
        Ok(Self { folder })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Utf8Path {
        // The prefix and what tempfile appends are ASCII.
        Utf8Path::from_path(self.folder.path()).unwrap_or(Utf8Path::new("/nonexistent"))
    }

    /// A program in it that is this shell script. A child writes it: a test beside this one that starts a program at
    /// that moment would inherit our open file, and then a program open for writing could not be started.
    #[cfg(test)]
    pub(super) fn program(&self, script: &str) -> camino::Utf8PathBuf {
        let path = self.path().join("hive");
        let write = r##"printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod 755 "$1""##;
        let status = std::process::Command::new("sh")
            .args(["-c", write, "sh", path.as_str(), script])
            .status();
        assert!(status.expect("sh runs").success());
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leaves_room_for_a_socket_and_is_gone_when_dropped() {
        let folder = ShortFolder::new().expect("made");
        let path = folder.path().to_owned();
        assert!(path.as_str().len() < 24, "{path}");
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o700
        );
        drop(folder);
        assert!(!path.exists());
    }
}
