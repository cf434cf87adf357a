//! Commits of the daemon's own: the seed of a config repo, and old content anew.

use std::collections::BTreeMap;

use camino::Utf8Path;
use gix::ObjectId;
use gix::objs::tree::{Entry, EntryKind};
use gix::objs::{Kind, Tree, WriteTo as _};
use jiff::Timestamp;

use super::refs::Refs;
use super::repo::{Repo, commit_oid, make_bare, make_private_dir, remove_dir, sync};
use super::{SIGNATURE, names, swap};
use crate::host::{HostError, RefUpdate};

/// A folder of the seed.
#[derive(Default)]
struct Folder<'a> {
    files: BTreeMap<&'a str, &'a str>,
    folders: BTreeMap<&'a str, Self>,
}

/// Makes the repo unless it is there, and returns its root commit. A crash leaves either no repo or a whole one,
/// because it is made beside its place and moved there. The caller holds the agent's lock.
pub(super) fn ensure(
    path: &Utf8Path,
    scratch: &Utf8Path,
    subject: &str,
    seed: &BTreeMap<String, String>,
) -> Result<ObjectId, HostError> {
    if let Some(repo) = Repo::open(path, subject.to_owned())? {
        return root(&repo);
    }
    let tree = folder(subject, seed)?;
    let parent = path.parent().unwrap_or(path);
    make_private_dir(parent)?;
    remove_dir(scratch)?;
    make_bare(scratch, None)?;
    let repo = Repo::open(scratch, subject.to_owned())?.ok_or_else(|| {
        HostError::failed(
            subject,
            "it vanished while it was being made: is another daemon running?",
        )
    })?;
    let tree = write_folder(&repo, &tree)?;
    let commit = format!("tree {tree}\nauthor {SIGNATURE} 0 +0000\ncommitter {SIGNATURE} 0 +0000\n\nseed\n");
    let commit = repo.write(Kind::Commit, commit.as_bytes())?;
    let main = RefUpdate::Main {
        from: None,
        to: commit_oid(commit)?,
    };
    swap::update(&repo, &main)?;
    sync(&scratch.join("objects"))?;
    sync(scratch)?;
    std::fs::rename(scratch, path).map_err(HostError::io("put in place", path.as_str()))?;
    sync(parent)?;
    Ok(commit)
}

/// A commit of ours on top of `parent` with the tree of `content`.
pub(super) fn repeat(
    repo: &Repo,
    parent: ObjectId,
    content: ObjectId,
    message: &str,
    at: Timestamp,
) -> Result<ObjectId, HostError> {
    // What is built on top of something that is not there could not be read again.
    repo.commit(parent)?;
    let tree = repo.commit(content)?.tree;
    write_commit(repo, tree, parent, message, at)
}

/// A commit of ours on top of `parent` that holds these files.
pub(super) fn commit(
    repo: &Repo,
    parent: ObjectId,
    files: &BTreeMap<String, String>,
    message: &str,
    at: Timestamp,
) -> Result<ObjectId, HostError> {
    repo.commit(parent)?;
    let tree = write_folder(repo, &folder(&repo.subject, files)?)?;
    write_commit(repo, tree, parent, message, at)
}

fn write_commit(
    repo: &Repo,
    tree: ObjectId,
    parent: ObjectId,
    message: &str,
    at: Timestamp,
) -> Result<ObjectId, HostError> {
    let at = at.as_second();
    let commit = format!(
        "tree {tree}\nparent {parent}\nauthor {SIGNATURE} {at} +0000\ncommitter {SIGNATURE} {at} +0000\n\n{message}\n"
    );
    repo.write(Kind::Commit, commit.as_bytes())
}

/// Deletes a repo. A crash leaves it whole or away from its place.
pub(super) fn delete(path: &Utf8Path, doomed: &Utf8Path) -> Result<(), HostError> {
    remove_dir(doomed)?;
    match std::fs::rename(path, doomed) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(HostError::io("move away", path.as_str())(error)),
    }
    sync(path.parent().unwrap_or(path))?;
    remove_dir(doomed)
}

/// The first commit of `main`, by first parents.
fn root(repo: &Repo) -> Result<ObjectId, HostError> {
    let Some(main) = Refs::of(repo).main()? else {
        return Err(repo.failed("it has no main: restore it from its tags with `hive recover`"));
    };
    let mut id = main;
    while let Some(parent) = repo.commit(id)?.parents.first() {
        id = *parent;
    }
    Ok(id)
}

fn folder<'a>(subject: &str, seed: &'a BTreeMap<String, String>) -> Result<Folder<'a>, HostError> {
    let mut root = Folder::default();
    for (path, text) in seed {
        let refused =
            |why: &str| HostError::refused(format!("seed of the {subject}"), format!("{path:?} {why}"));
        let mut folder = &mut root;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            names::check(part.as_bytes()).map_err(refused)?;
            let taken = if parts.peek().is_some() {
                folder.files.contains_key(part)
            } else {
                folder.folders.contains_key(part)
            };
            if taken {
                return Err(refused("is both a file and a folder"));
            }
            if parts.peek().is_some() {
                folder = folder.folders.entry(part).or_default();
            } else {
                folder.files.insert(part, text);
            }
        }
    }
    Ok(root)
}

fn write_folder(repo: &Repo, folder: &Folder<'_>) -> Result<ObjectId, HostError> {
    let mut tree = Tree::empty();
    let mut push = |kind: EntryKind, name: &str, oid| {
        tree.entries.push(Entry {
            mode: kind.into(),
            filename: name.into(),
            oid,
        });
    };
    for (name, text) in &folder.files {
        push(EntryKind::Blob, name, repo.write(Kind::Blob, text.as_bytes())?);
    }
    for (name, below) in &folder.folders {
        push(EntryKind::Tree, name, write_folder(repo, below)?);
    }
    tree.entries.sort();
    let mut bytes = Vec::new();
    tree.write_to(&mut bytes)
        .map_err(|error| repo.failed(format!("cannot encode the seed's tree: {error}")))?;
    repo.write(Kind::Tree, &bytes)
}
