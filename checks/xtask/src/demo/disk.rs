//! What a daemon has written: the traces it leaves below its state folder, and what the kernel counts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};

/// What was written up to one moment. Equal at two moments: nothing was written in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// Bytes that the daemon caused to be sent to a disk; 0 where the folder is in memory.
    bytes: u64,
    /// Every file, with what changes when it is written, replaced or cut.
    files: BTreeMap<Utf8PathBuf, (u64, u64, i64, i64)>,
}

impl Written {
    /// Looks at the process and at everything below the folder.
    pub(super) fn look(pid: u32, state: &Utf8Path) -> Result<Self> {
        let io = format!("/proc/{pid}/io");
        let text = fs::read_to_string(&io).with_context(|| format!("reading {io}"))?;
        let bytes = text
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "))
            .and_then(|bytes| bytes.parse().ok())
            .with_context(|| format!("{io} has no write_bytes"))?;
        let mut files = BTreeMap::new();
        let mut folders = vec![state.to_owned()];
        while let Some(folder) = folders.pop() {
            // Agents come and go with files of their own while we look.
            for entry in folder.read_dir_utf8().into_iter().flatten().flatten() {
                let Ok(metadata) = fs::symlink_metadata(entry.path()) else {
                    continue;
                };
                if metadata.is_dir() {
                    folders.push(entry.path().to_owned());
                } else if entry.path().extension() != Some("db-shm") {
                    // SQLite's shared memory is written by readers, too, and never synced.
                    let traces = (
                        metadata.ino(),
                        metadata.len(),
                        metadata.mtime(),
                        metadata.mtime_nsec(),
                    );
                    files.insert(entry.path().to_owned(), traces);
                }
            }
        }
        Ok(Self { bytes, files })
    }

    /// What differs from an earlier look, in words.
    pub(super) fn since(&self, earlier: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.bytes != earlier.bytes {
            found.push(format!(
                "{} bytes to the disk",
                self.bytes.wrapping_sub(earlier.bytes)
            ));
        }
        let paths = self.files.keys().chain(earlier.files.keys());
        for path in paths.filter(|path| self.files.get(*path) != earlier.files.get(*path)) {
            let path = path.to_string();
            if !found.contains(&path) {
                found.push(path);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::folder::ShortFolder;
    use super::*;

    #[test]
    fn a_file_that_is_written_made_or_removed_is_noticed_and_one_that_is_read_is_not() {
        let folder = ShortFolder::new().expect("made");
        let look = || {
            Written::look(std::process::id(), folder.path())
                .expect("seen")
                .files
        };
        let differs = |a: BTreeMap<_, _>, b: BTreeMap<_, _>| {
            let (a, b) = (Written { bytes: 0, files: a }, Written { bytes: 0, files: b });
            b.since(&a)
        };
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).expect("made");
        fs::write(inner.join("a"), "one").expect("written");
        let before = look();
        fs::read(inner.join("a")).expect("read");
        assert_eq!(differs(before.clone(), look()), Vec::<String>::new());
        fs::write(inner.join("a"), "three").expect("written");
        fs::write(folder.path().join("b"), "").expect("written");
        assert_eq!(
            differs(before.clone(), look()),
            [folder.path().join("b").as_str(), inner.join("a").as_str()]
        );
        fs::remove_file(inner.join("a")).expect("removed");
        fs::remove_file(folder.path().join("b")).expect("removed");
        assert_eq!(differs(before, look()), [inner.join("a").as_str()]);
    }

    #[test]
    fn what_the_kernel_counts_is_part_of_it() {
        let earlier = Written {
            bytes: 0,
            files: BTreeMap::new(),
        };
        let later = Written {
            bytes: 4096,
            files: BTreeMap::new(),
        };
        assert_eq!(later.since(&earlier), ["4096 bytes to the disk"]);
    }
}
