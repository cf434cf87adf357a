//! `cargo xtask check-tree`: rules of the tree that no compiler knows.
//!
//! Every rule is a function from what was read ([`Tree`], [`Metadata`], deny.toml) to findings, so that each is tested
//! with a planted violation. Rules that a reader may ask about say why in their message.

mod docs;
mod files;
mod licences;
mod manifests;
mod mutants;
mod packages;
mod rust_source;

use std::fmt;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

use crate::toolchain;
use licences::DenyConfig;
use packages::Metadata;

/// What a rule has to say about one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    severity: Severity,
    /// `path` or `path:line`.
    place: String,
    /// What is wrong and what to do.
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    /// Worth knowing; fails nothing.
    Note,
    /// Fails the check.
    Violation,
}

impl Finding {
    fn violation(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Violation,
            place: place.into(),
            message: message.into(),
        }
    }

    fn note(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Note,
            place: place.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Note => "note",
            Severity::Violation => "error",
        };
        write!(f, "{word}: {}: {}", self.place, self.message)
    }
}

/// A file of the tree.
#[derive(Debug)]
struct TreeFile {
    /// Relative to the root, with `/`.
    path: Utf8PathBuf,
    size: u64,
    /// `None`: a link, not UTF-8, or too large to be read.
    text: Option<String>,
}

/// The files that belong to the project: tracked by git or about to be.
#[derive(Debug, Default)]
struct Tree {
    files: Vec<TreeFile>,
}

/// Larger files are a finding of their own and are not read.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl Tree {
    /// Reads the tree at `root`.
    fn read(root: &Utf8Path) -> Result<Self> {
        let mut files = Vec::new();
        for path in paths(root)? {
            // A file that is tracked but deleted is no part of the tree any more.
            let Ok(metadata) = fs::symlink_metadata(root.join(&path)) else {
                continue;
            };
            let readable = metadata.is_file() && metadata.len() <= MAX_FILE_BYTES;
            let text = if readable {
                let bytes = fs::read(root.join(&path)).with_context(|| format!("reading {path}"))?;
                String::from_utf8(bytes).ok()
            } else {
                None
            };
            files.push(TreeFile {
                path,
                size: metadata.len(),
                text,
            });
        }
        Ok(Self { files })
    }

    /// The text of a file.
    fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path)?.text.as_deref()
    }

    /// Whether this is a file of the tree or a folder that holds one.
    fn contains(&self, path: &Utf8Path) -> bool {
        self.files.iter().any(|file| file.path.starts_with(path))
    }

    /// The readable files with this extension.
    fn with_extension<'a>(&'a self, extension: &'a str) -> impl Iterator<Item = (&'a Utf8Path, &'a str)> {
        self.files
            .iter()
            .filter(move |file| file.path.extension() == Some(extension))
            .filter_map(|file| Some((file.path.as_path(), file.text.as_deref()?)))
    }

    #[cfg(test)]
    fn planted(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| TreeFile {
            path: (*path).into(),
            size: text.len() as u64,
            text: Some((*text).to_owned()),
        });
        Self {
            files: files.collect(),
        }
    }
}

/// The files that belong to the project, relative to its root, sorted.
pub(crate) fn paths(root: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let mut paths = if root.join(".git").exists() {
        git_files(root)?
    } else {
        walk(root)?
    };
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn git_files(root: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let mut command = Command::new("git");
    command.current_dir(root).stdin(Stdio::null());
    // A checkout that belongs to somebody else (a CI mount) is still the checkout to read.
    command.arg("-c").arg(format!("safe.directory={root}"));
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    toolchain::isolate(&mut command, Utf8Path::new("/nonexistent"));
    let output = command.output().context("starting `git ls-files`")?;
    if !output.status.success() {
        bail!(
            "`git ls-files` in {root} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let list = String::from_utf8(output.stdout).context("a tracked file's name is not UTF-8: rename it")?;
    Ok(list.split_terminator('\0').map(Utf8PathBuf::from).collect())
}

/// The files of an exported tree, which has no git to ask.
pub(crate) fn walk(root: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![Utf8PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in root
            .join(&folder)
            .read_dir_utf8()
            .with_context(|| format!("listing {folder}"))?
        {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let generated = path == "target" || entry.file_name() == "node_modules";
            if !entry.file_type()?.is_dir() {
                found.push(path);
            } else if !generated {
                folders.push(path);
            }
        }
    }
    Ok(found)
}

/// Checks the tree of this workspace; prints what it finds and fails if any of it is a violation.
pub(crate) fn check() -> Result<()> {
    let root = toolchain::workspace_root()?;
    let tree = Tree::read(&root)?;
    let deny = DenyConfig::parse(tree.text("deny.toml").context("the tree has a deny.toml")?)?;
    let metadata = Metadata::load(&deny.targets())?;

    let mut findings = Vec::new();
    findings.extend(files::check(&tree));
    findings.extend(rust_source::check(&tree));
    findings.extend(docs::check(&tree));
    findings.extend(manifests::check(&tree)?);
    findings.extend(mutants::check(&tree));
    findings.extend(packages::check(&metadata, &deny));
    findings.extend(licences::check(&metadata, &deny)?);
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    let violations = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Violation)
        .count();
    println!(
        "{} files, {} packages, {violations} violations",
        tree.files.len(),
        metadata.packages.len()
    );
    if violations > 0 {
        bail!("the tree breaks {violations} rules, listed above");
    }
    Ok(())
}

/// Runs `cargo xtask check-tree`.
pub(crate) fn run() -> Result<ExitCode> {
    check()?;
    Ok(ExitCode::SUCCESS)
}

/// The places of all violations, for tests of rules.
#[cfg(test)]
fn places(findings: &[Finding]) -> Vec<&str> {
    let violations = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Violation);
    violations.map(|finding| finding.place.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exported_tree_is_read_without_git_and_without_what_was_built() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(folder.path()).expect("UTF-8");
        for (path, text) in [
            ("a/b.rs", "fn b() {}"),
            ("target/debug/x.rs", "no"),
            ("c.bin", "\u{fffd}"),
        ] {
            fs::create_dir_all(root.join(path).parent().expect("a parent")).expect("made");
            fs::write(root.join(path), text).expect("written");
        }
        fs::write(root.join("c.bin"), [0xff, 0xfe]).expect("written");
        let tree = Tree::read(root).expect("read");
        let paths: Vec<&str> = tree.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["a/b.rs", "c.bin"]);
        assert_eq!(tree.text("a/b.rs"), Some("fn b() {}"));
        assert_eq!(tree.text("c.bin"), None);
        assert!(tree.contains(Utf8Path::new("a")));
        assert!(!tree.contains(Utf8Path::new("b")));
    }

    #[test]
    fn files_not_yet_tracked_are_read_and_ignored_ones_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(folder.path()).expect("UTF-8");
        let mut init = Command::new("git");
        init.args(["init", "--quiet"]).current_dir(root);
        toolchain::isolate(&mut init, root);
        assert!(init.status().expect("git runs").success());
        for (name, text) in [(".gitignore", "/ignored\n"), ("ignored", ""), ("new", "")] {
            fs::write(root.join(name), text).expect("written");
        }
        let tree = Tree::read(root).expect("read");
        let paths: Vec<&str> = tree.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".gitignore", "new"]);
    }
}
