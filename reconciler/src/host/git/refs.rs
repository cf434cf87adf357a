//! Reading refs, and moving them by compare-and-swap.

use std::time::Duration;

use gix::ObjectId;
use gix::lock::acquire::Fail;
use gix::objs::{Kind, TagRefIter};
use gix::refs::transaction::{PreviousValue, RefEdit};
use gix::refs::{FullName, Target};
use jiff::Timestamp;

use super::SIGNATURE;
use super::repo::{MAX_META_BYTES, Repo, commit_oid, object_id, sync};
use crate::host::{HostError, RefUpdate, RepoState, TagState};

/// How many tags of tags, or names of names, are followed.
const MAX_HOPS: usize = 8;

/// How long a lock of somebody else is respected before it counts as left behind.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

const MAIN: &str = "refs/heads/main";

/// A ref as it lies on disk.
struct Found {
    /// What its file says.
    target: Target,
    /// The object it leads to, through other names if need be; `None` when it leads nowhere.
    object: Option<ObjectId>,
}

/// Where `main` leads.
pub(super) fn observe_main(repo: &Repo) -> Result<Option<ObjectId>, HostError> {
    match find(repo, &full_name(MAIN)?)? {
        None => Ok(None),
        Some(Found { object: Some(id), .. }) => Ok(Some(id)),
        // Unknown is not absent.
        Some(Found { target, .. }) => {
            Err(repo.failed(format!("main leads to {target}, which leads nowhere")))
        }
    }
}

/// Reads `main` and all tags.
pub(super) fn observe(repo: &Repo) -> Result<RepoState, HostError> {
    let mut state = RepoState {
        main: observe_main(repo)?.map(commit_oid).transpose()?,
        ..RepoState::default()
    };
    let unreadable = |error: String| repo.failed(format!("its tags cannot be read: {error}"));
    let prefix = b"refs/tags/"
        .as_slice()
        .try_into()
        .map_err(|error: gix::Error| unreadable(format!("{error:#}")))?;
    let refs = repo
        .inner
        .refs
        .iter()
        .map_err(|error| unreadable(format!("{error:#}")))?;
    for found in refs
        .prefixed(prefix)
        .map_err(|error| unreadable(error.to_string()))?
    {
        let found = found.map_err(|error| unreadable(format!("{error:#}")))?;
        let name = String::from_utf8_lossy(found.name.as_bstr()).into_owned();
        let Some(object) = resolve(repo, &found.target)? else {
            return Err(repo.failed(format!(
                "{name} leads nowhere: delete it with `git symbolic-ref -d`"
            )));
        };
        let name = name.strip_prefix("refs/tags/").unwrap_or(&name).to_owned();
        state.tags.insert(name, tag_state(repo, object)?);
    }
    Ok(state)
}

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
            let found = find(repo, &full)?;
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
    if find(repo, &name)?.is_some_and(|found| found.target == Target::Object(id)) {
        return Ok(());
    }
    edit(repo, RefEdit::update(name.clone(), id, PreviousValue::Any, ""))?;
    make_durable(repo, &name)
}

/// Whether there is a ref of this name.
pub(super) fn exists(repo: &Repo, name: &str) -> Result<bool, HostError> {
    Ok(find(repo, &full_name(name)?)?.is_some())
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
    let found = find(repo, &name)?;
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
        Err(error) => check_from(repo, &name, from, find(repo, &name)?.as_ref()).and(Err(error)),
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
    again
        .map(drop)
        .map_err(|error| repo.failed(format!("{} cannot be moved: {error:#}", change.name)))
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

fn full_name(name: &str) -> Result<FullName, HostError> {
    FullName::try_from(name).map_err(|error| {
        HostError::refused(
            format!("ref name {name:?}"),
            format!("not a valid name: {error:#}"),
        )
    })
}

fn find(repo: &Repo, name: &FullName) -> Result<Option<Found>, HostError> {
    let reference = repo
        .inner
        .refs
        .try_find(name.as_ref())
        .map_err(|error| repo.failed(format!("{name} cannot be read: {error:#}")))?;
    // Short names match other refs too, and a full one is found as itself alone.
    let Some(reference) = reference.filter(|reference| reference.name == *name) else {
        return Ok(None);
    };
    let object = resolve(repo, &reference.target)?;
    Ok(Some(Found {
        target: reference.target,
        object,
    }))
}

/// The object a ref's content leads to.
fn resolve(repo: &Repo, target: &Target) -> Result<Option<ObjectId>, HostError> {
    let mut target = target.clone();
    for _ in 0..MAX_HOPS {
        match target {
            Target::Object(id) => return Ok(Some(id)),
            Target::Symbolic(name) => {
                let next = repo
                    .inner
                    .refs
                    .try_find(name.as_ref())
                    .map_err(|error| repo.failed(format!("{name} cannot be read: {error:#}")))?;
                match next {
                    Some(next) if next.name == name => target = next.target,
                    _ => return Ok(None),
                }
            }
        }
    }
    Ok(None)
}

/// What a tag says. One that leads to no commit is not ours; it is shown as leading to itself, so that it can be
/// seen to differ and be replaced.
fn tag_state(repo: &Repo, object: ObjectId) -> Result<TagState, HostError> {
    let mut commit = object;
    let mut message = String::new();
    for hop in 0..MAX_HOPS {
        if repo.has_commit(commit)? {
            break;
        }
        let is_small = |size| size <= MAX_META_BYTES;
        if !repo.size(commit, Kind::Tag)?.is_some_and(is_small) {
            commit = object;
            break;
        }
        let data = repo.read(commit, Kind::Tag, MAX_META_BYTES)?;
        if hop == 0 {
            message = annotation(&data);
        }
        match TagRefIter::from_bytes(&data, commit.kind()).target_id() {
            Ok(target) => commit = target,
            Err(_) => break,
        }
    }
    Ok(TagState {
        object: commit_oid(object)?,
        commit: commit_oid(commit)?,
        message,
    })
}

/// The message of a tag object, without the line feed that ends it.
fn annotation(tag: &[u8]) -> String {
    let start = tag
        .windows(2)
        .position(|pair| pair == b"\n\n")
        .map_or(tag.len(), |at| at + 2);
    let message = &tag[start..];
    String::from_utf8_lossy(message.strip_suffix(b"\n").unwrap_or(message)).into_owned()
}
