//! Reading refs.
//!
//! It happens for every agent in every pass, so it reads the refs' files and little else: the repository is opened
//! only for tags that were never seen before.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};

use camino::Utf8Path;
use gix::ObjectId;
use gix::objs::{Kind, TagRefIter};
use gix::refs::file::Store;
use gix::refs::{FullName, Target};

use super::repo::{MAX_META_BYTES, Repo, commit_oid};
use crate::host::{HostError, RepoState, TagState};

/// How many tags of tags, or names of names, are followed.
const MAX_HOPS: usize = 8;

/// How many tags are remembered.
const MAX_KNOWN: usize = 20_000;

pub(super) const MAIN: &str = "refs/heads/main";

/// A ref as it lies on disk.
pub(super) struct Found {
    /// What its file says.
    pub(super) target: Target,
    /// The object it leads to, through other names if need be; `None` when it leads nowhere.
    pub(super) object: Option<ObjectId>,
}

/// The refs of one repository.
pub(super) struct Refs<'a> {
    store: &'a Store,
    subject: &'a str,
}

/// What tags say, by the id of what their ref names. An object never changes, so neither does this.
#[derive(Debug, Default)]
pub(super) struct KnownTags(Mutex<HashMap<ObjectId, TagState>>);

/// Reads `main` and all tags of the repository at this path; `None` when there is none.
pub(super) fn observe(
    path: &Utf8Path,
    subject: &str,
    known: &KnownTags,
) -> Result<Option<RepoState>, HostError> {
    if let Err(error) = std::fs::symlink_metadata(path.join("HEAD")) {
        if error.kind() != ErrorKind::NotFound {
            return Err(HostError::io("look at", path.as_str())(error));
        }
        // Unknown is not absent: opening says what is wrong with a folder that is no repository.
        return Repo::open(path, subject.to_owned())?
            .map(|_| Ok(RepoState::default()))
            .transpose();
    }
    let store = Store::at(path.as_std_path().to_owned(), gix::hash::Kind::Sha1);
    let refs = Refs {
        store: &store,
        subject,
    };
    let mut state = RepoState {
        main: refs.main()?.map(commit_oid).transpose()?,
        ..RepoState::default()
    };
    let mut opened = None;
    for (name, object) in refs.tags()? {
        let tag = match known.get(object) {
            Some(tag) => tag,
            None => {
                let repo = match &opened {
                    Some(repo) => repo,
                    None => opened.insert(super::open(path, subject.to_owned())?),
                };
                known.learn(repo, object)?
            }
        };
        state.tags.insert(name, tag);
    }
    Ok(Some(state))
}

impl<'a> Refs<'a> {
    /// Those of an open repository.
    pub(super) fn of(repo: &'a Repo) -> Self {
        Self {
            store: &repo.inner.refs,
            subject: &repo.subject,
        }
    }

    fn failed(&self, message: String) -> HostError {
        HostError::failed(self.subject, message)
    }

    /// Where `main` leads.
    pub(super) fn main(&self) -> Result<Option<ObjectId>, HostError> {
        match self.find(&full_name(MAIN)?)? {
            None => Ok(None),
            Some(Found { object: Some(id), .. }) => Ok(Some(id)),
            // Unknown is not absent.
            Some(Found { target, .. }) => Err(self.failed(format!(
                "main leads to {target}, which leads nowhere: restore it with `hive recover`"
            ))),
        }
    }

    /// The tags' names, and what their refs lead to.
    pub(super) fn tags(&self) -> Result<Vec<(String, ObjectId)>, HostError> {
        let unreadable = |error: gix::Error| {
            self.failed(format!("its tags cannot be read: {}", crate::error_chain(&error)))
        };
        let prefix = b"refs/tags/".as_slice().try_into().map_err(unreadable)?;
        let platform = self.store.iter().map_err(unreadable)?;
        let tags = platform
            .prefixed(prefix)
            .map_err(HostError::io("read", format!("the tags of the {}", self.subject)))?;
        let mut read = Vec::new();
        for tag in tags {
            let tag = tag.map_err(unreadable)?;
            let name = String::from_utf8_lossy(tag.name.as_bstr()).into_owned();
            let Some(object) = self.resolve(&tag.target)? else {
                return Err(self.failed(format!(
                    "{name} leads nowhere: delete it with `git symbolic-ref -d {name}`"
                )));
            };
            read.push((
                name.strip_prefix("refs/tags/").unwrap_or(&name).to_owned(),
                object,
            ));
        }
        Ok(read)
    }

    /// Reads one ref.
    pub(super) fn find(&self, name: &FullName) -> Result<Option<Found>, HostError> {
        let Some(target) = self.read(name)? else {
            return Ok(None);
        };
        let object = self.resolve(&target)?;
        Ok(Some(Found { target, object }))
    }

    fn read(&self, name: &FullName) -> Result<Option<Target>, HostError> {
        let found = self
            .store
            .try_find(name.as_ref())
            .map_err(|error| self.failed(format!("{name} cannot be read: {}", crate::error_chain(&error))))?;
        // A name is tried as a short one too; only the very ref counts.
        Ok(found
            .filter(|found| found.name == *name)
            .map(|found| found.target))
    }

    /// The object that a ref's content leads to.
    fn resolve(&self, target: &Target) -> Result<Option<ObjectId>, HostError> {
        let mut target = target.clone();
        for _ in 0..MAX_HOPS {
            match target {
                Target::Object(id) => return Ok(Some(id)),
                Target::Symbolic(name) => match self.read(&name)? {
                    Some(next) => target = next,
                    None => return Ok(None),
                },
            }
        }
        Ok(None)
    }
}

impl KnownTags {
    fn get(&self, object: ObjectId) -> Option<TagState> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&object).cloned()
    }

    /// Reads a tag. One that leads to no commit is not ours; it is shown as leading to itself, so that it can be seen
    /// to differ and be replaced, and it is not remembered: what is missing may come.
    fn learn(&self, repo: &Repo, object: ObjectId) -> Result<TagState, HostError> {
        let Some((commit, message)) = follow(repo, object)? else {
            let object = commit_oid(object)?;
            return Ok(TagState {
                commit: object.clone(),
                object,
                message: String::new(),
            });
        };
        let tag = TagState {
            object: commit_oid(object)?,
            commit: commit_oid(commit)?,
            message,
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(object, tag.clone());
        Ok(tag)
    }
}

/// The commit that a tag leads to, and its annotation.
pub(super) fn follow(repo: &Repo, object: ObjectId) -> Result<Option<(ObjectId, String)>, HostError> {
    let mut id = object;
    let mut message = None;
    for _ in 0..MAX_HOPS {
        if repo.has_commit(id)? {
            return Ok(Some((id, message.unwrap_or_default())));
        }
        let size = repo.size(id, Kind::Tag)?;
        if size.is_none_or(|size| size > MAX_META_BYTES) {
            return Ok(None);
        }
        let data = repo.read(id, Kind::Tag, MAX_META_BYTES)?;
        message.get_or_insert_with(|| annotation(&data));
        match TagRefIter::from_bytes(&data, id.kind()).target_id() {
            Ok(target) => id = target,
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// A ref's name, checked.
pub(super) fn full_name(name: &str) -> Result<FullName, HostError> {
    FullName::try_from(name).map_err(|error| {
        HostError::refused(
            format!("ref name {name:?}"),
            format!("not a valid name: {}", crate::error_chain(&error)),
        )
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
