//! Moving refs by compare-and-swap.

use std::time::Duration;

use gix::ObjectId;
use gix::lock::acquire::Fail;
use gix::objs::Kind;
use gix::refs::transaction::{PreviousValue, RefEdit};
use gix::refs::{FullName, Target};
use jiff::Timestamp;

use super::SIGNATURE;
use super::refs::{Found, MAIN, Refs, full_name};
use super::repo::{MAX_META_BYTES, Repo, object_id, sync};
use crate::host::{HostError, RefUpdate};

/// How long a lock of somebody else is respected before it counts as left behind.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Carries out a compare-and-swap. The caller holds the agent's lock.
pub(super) fn update(repo: &Repo, update: &RefUpdate) -> Result<(), HostError> {
    match update {
        RefUpdate::Main { from, to } => {
            let to = object_id(to)?;
            need_commit(repo, to)?;
            swap(repo, MAIN, from.as_ref().map(object_id).transpose()?, Some(to))
        }
        RefUpdate::Tag {
            name,
            from,
            commit,
            message,
            at,
        } => {
            let from = from.as_ref().map(object_id).transpose()?;
            let full = full_name(&format!("refs/tags/{name}"))?;
            let commit = object_id(commit)?;
            need_commit(repo, commit)?;
            let bytes = tag_bytes(name, commit, message, *at);
            if bytes.len() as u64 > MAX_META_BYTES {
                return Err(repo.refused(format!(
                    "the annotation of tag {name} is over {MAX_META_BYTES} bytes"
                )));
            }
            // Looked at before writing, so that a swap that fails leaves no object behind.
            let wanted = gix::objs::compute_hash(commit.kind(), Kind::Tag, &bytes)
                .map_err(|error| repo.failed(format!("cannot hash tag {name}: {error}")))?;
            let found = Refs::of(repo).find(&full)?;
            if found
                .as_ref()
                .is_some_and(|found| found.target == Target::Object(wanted))
            {
                return Ok(());
            }
            check_from(repo, &full, from, found.as_ref())?;
            let wanted = repo.write(Kind::Tag, &bytes)?;
            swap(repo, &format!("refs/tags/{name}"), from, Some(wanted))
        }
        RefUpdate::DeleteTag { name, from } => {
            swap(repo, &format!("refs/tags/{name}"), Some(object_id(from)?), None)
        }
    }
}

/// Points a ref at an object, whatever it was before; for refs that keep objects and mean nothing else.
pub(super) fn keep(repo: &Repo, name: &str, id: ObjectId) -> Result<(), HostError> {
    let name = full_name(name)?;
    if Refs::of(repo)
        .find(&name)?
        .is_some_and(|found| found.target == Target::Object(id))
    {
        return Ok(());
    }
    edit(repo, RefEdit::update(name.clone(), id, PreviousValue::Any, ""))?;
    make_durable(repo, &name)
}

/// Whether there is a ref of this name.
pub(super) fn exists(repo: &Repo, name: &str) -> Result<bool, HostError> {
    Ok(Refs::of(repo).find(&full_name(name)?)?.is_some())
}

/// The bytes of an annotated tag. The same arguments give the same object.
fn tag_bytes(name: &str, commit: ObjectId, message: &str, at: Timestamp) -> Vec<u8> {
    let seconds = at.as_second().max(0);
    format!("object {commit}\ntype commit\ntag {name}\ntagger {SIGNATURE} {seconds} +0000\n\n{message}\n")
        .into_bytes()
}

fn need_commit(repo: &Repo, id: ObjectId) -> Result<(), HostError> {
    if repo.has_commit(id)? {
        return Ok(());
    }
    Err(repo.failed(format!("commit {id} is not there: no ref was moved to it")))
}

/// Moves a ref from one object to another; `None` stands for no ref.
fn swap(repo: &Repo, name: &str, from: Option<ObjectId>, to: Option<ObjectId>) -> Result<(), HostError> {
    let name = full_name(name)?;
    let found = Refs::of(repo).find(&name)?;
    if found.as_ref().map(|found| &found.target) == to.map(Target::Object).as_ref() {
        return Ok(());
    }
    check_from(repo, &name, from, found.as_ref())?;
    // What is compared under the ref's lock is what its file said a moment ago: a name, if it was one.
    let expected = found.map_or(PreviousValue::MustNotExist, |found| {
        PreviousValue::MustExistAndMatch(found.target)
    });
    let change = match to {
        Some(to) => RefEdit::update(name.clone(), to, expected, ""),
        None => RefEdit::delete(name.clone(), expected),
    };
    match edit(repo, change) {
        Ok(()) => make_durable(repo, &name),
        // Somebody was faster: say so rather than what the transaction said.
        Err(error) => check_from(repo, &name, from, Refs::of(repo).find(&name)?.as_ref()).and(Err(error)),
    }
}

/// Fails when a ref is not where it was expected.
fn check_from(
    repo: &Repo,
    name: &FullName,
    from: Option<ObjectId>,
    found: Option<&Found>,
) -> Result<(), HostError> {
    let (is_as_expected, there) = match found {
        None => (from.is_none(), "nothing".to_owned()),
        Some(Found { target, object }) => (from.is_some() && *object == from, target.to_string()),
    };
    if is_as_expected {
        return Ok(());
    }
    let expected = from.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
    Err(HostError::Moved {
        subject: format!("{name} of the {}", repo.subject),
        message: format!("it is at {there}, expected at {expected}; look at it before trying again"),
    })
}

fn edit(repo: &Repo, change: RefEdit) -> Result<(), HostError> {
    let attempt = || {
        repo.inner
            .refs
            .transaction()
            .prepare(
                [change.clone()],
                Fail::AfterDurationWithBackoff(LOCK_PATIENCE),
                Fail::AfterDurationWithBackoff(LOCK_PATIENCE),
            )?
            .commit(None)
    };
    let Err(first) = attempt() else {
        return Ok(());
    };
    // We are the only writer and git itself holds such a lock for an instant: this one was left by a crash.
    let mut removed = false;
    for lock in [format!("{}.lock", change.name), "packed-refs.lock".to_owned()] {
        removed |= std::fs::remove_file(repo.path.join(lock)).is_ok();
    }
    let again = if removed { attempt() } else { Err(first) };
    again.map(drop).map_err(|error| {
        repo.failed(format!(
            "{} cannot be moved: {}",
            crate::error_chain(&error),
            change.name
        ))
    })
}

/// Waits until a ref that was just written or deleted is so on disk.
fn make_durable(repo: &Repo, name: &FullName) -> Result<(), HostError> {
    let mut path = repo.path.join(name.to_string());
    if path.exists() {
        sync(&path)?;
    }
    // Folders that became empty were removed with the ref, and new ones made for it.
    while path.pop() && path.starts_with(&repo.path) {
        if path.exists() {
            sync(&path)?;
        }
    }
    Ok(())
}
