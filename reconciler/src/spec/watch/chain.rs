//! The way from `/` to a file: every entry that has to stay as it is for the way to lead where it does.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// Paths below it never change, and the folder itself is busy whenever something is built.
const IMMUTABLE: &str = "/nix/store";

/// The entries on the way, each as the real folder it lies in and its name there. The last one is the file, or the
/// first that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    entries: Vec<(PathBuf, OsString)>,
    /// What the links say, so that two equal chains lead to the same place.
    links: Vec<PathBuf>,
}

impl Chain {
    /// Walks an absolute path, link by link.
    pub(super) fn walk(path: &Path) -> Self {
        let mut chain = Self {
            entries: Vec::new(),
            links: Vec::new(),
        };
        let mut here = PathBuf::from("/");
        let mut ahead: VecDeque<OsString> = parts(path).collect();
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                here.pop();
                continue;
            }
            let entry = here.join(&name);
            if !here.starts_with(IMMUTABLE) {
                chain.entries.push((here.clone(), name));
            }
            let Ok(metadata) = std::fs::symlink_metadata(&entry) else {
                break;
            };
            if !metadata.is_symlink() {
                here = entry;
                continue;
            }
            let Ok(target) = std::fs::read_link(&entry) else {
                break;
            };
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            for part in parts(&target).rev() {
                ahead.push_front(part);
            }
            chain.links.push(target);
            if chain.links.len() > MAX_LINKS {
                break;
            }
        }
        chain
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&Path, &OsStr)> {
        self.entries
            .iter()
            .map(|(folder, name)| (folder.as_path(), name.as_os_str()))
    }
}

/// The names in a path, and `..`.
fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir};
    use std::os::unix::fs::symlink;

    use super::*;

    /// The entries below `root`, as `folder/name` relative to it.
    fn below(root: &Path, chain: &Chain) -> Vec<String> {
        chain
            .entries()
            .filter_map(|(folder, name)| {
                let entry = folder.join(name);
                let inside = entry.strip_prefix(root).ok()?;
                (inside != Path::new("")).then(|| inside.display().to_string())
            })
            .collect()
    }

    #[test]
    fn every_link_and_folder_on_the_way_is_an_entry() {
        let folder = tempfile::tempdir().expect("temp dir");
        let root = folder.path().canonicalize().expect("root");
        create_dir(root.join("etc")).expect("etc");
        create_dir(root.join("store")).expect("store");
        File::create(root.join("store/hive.json")).expect("file");
        symlink("../store", root.join("etc/static")).expect("link");
        symlink(root.join("etc/static/hive.json"), root.join("etc/hive.json")).expect("link");
        let chain = Chain::walk(&root.join("etc/hive.json"));
        assert_eq!(
            below(&root, &chain),
            [
                "etc",
                "etc/hive.json",
                "etc",
                "etc/static",
                "store",
                "store/hive.json"
            ]
        );
    }

    #[test]
    fn the_way_ends_at_what_is_missing() {
        let folder = tempfile::tempdir().expect("temp dir");
        let root = folder.path().canonicalize().expect("root");
        let chain = Chain::walk(&root.join("a/b/c"));
        assert_eq!(below(&root, &chain), ["a"]);
    }

    #[test]
    fn links_in_a_circle_end() {
        let folder = tempfile::tempdir().expect("temp dir");
        let root = folder.path().canonicalize().expect("root");
        symlink("b", root.join("a")).expect("link");
        symlink("a", root.join("b")).expect("link");
        let chain = Chain::walk(&root.join("a"));
        assert!(below(&root, &chain).contains(&"b".to_owned()));
    }

    #[test]
    fn the_store_is_not_watched() {
        let chain = Chain::walk(Path::new("/nix/store/abc/hive.json"));
        assert!(
            chain
                .entries()
                .all(|(folder, _)| !folder.starts_with("/nix/store"))
        );
    }
}
