//! An open config repo: bounded, in-process reading of objects, and durable writing of new ones.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};
use gix::ObjectId;
use gix::objs::{CommitRefIter, Kind, Write as _};
use shared::CommitOid;

use crate::host::HostError;

/// The largest commit, tag or tree that is read.
pub(super) const MAX_META_BYTES: u64 = 1024 * 1024;

/// A repository of ours, opened without reading any configuration but its own.
pub(super) struct Repo {
    pub(super) inner: gix::Repository,
    pub(super) path: Utf8PathBuf,
    /// How errors name it.
    pub(super) subject: String,
}

/// A commit as far as it concerns us.
pub(super) struct Commit {
    pub(super) tree: ObjectId,
    pub(super) parents: Vec<ObjectId>,
    pub(super) message: Vec<u8>,
}

impl Repo {
    /// Opens the repository; `None` when there is none.
    pub(super) fn open(path: &Utf8Path, subject: String) -> Result<Option<Self>, HostError> {
        match fs::symlink_metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(HostError::io("look at", path.as_str())(error)),
        }
        let options = gix::open::Options::isolated()
            .open_path_as_is(true)
            .with(gix::sec::Trust::Full)
            .strict_config(true);
        match gix::open_opts(path, options) {
            Ok(inner) => Ok(Some(Self {
                inner,
                path: path.to_owned(),
                subject,
            })),
            Err(error) => Err(HostError::failed(
                subject,
                format!(
                    "{path} is not a git repository that can be opened ({}): `git -C {path} fsck --full` names what is damaged; put it back from a backup",
                    crate::error_chain(&error)
                ),
            )),
        }
    }

    /// A failure of the repository itself.
    pub(super) fn failed(&self, what: impl std::fmt::Display) -> HostError {
        HostError::failed(&self.subject, what.to_string())
    }

    /// Something that a commit holds and that is not accepted.
    pub(super) fn refused(&self, what: impl std::fmt::Display) -> HostError {
        HostError::refused(&self.subject, what.to_string())
    }

    /// The size of an object of this kind; `None` when the repository has no such object.
    pub(super) fn size(&self, id: ObjectId, kind: Kind) -> Result<Option<u64>, HostError> {
        // gix takes the empty tree and blob for granted; so does git.
        let header = self.inner.try_find_header(id).map_err(|error| {
            self.failed(format!(
                "object {id} cannot be read: {}",
                crate::error_chain(&error)
            ))
        })?;
        Ok(header
            .filter(|header| header.kind() == kind)
            .map(|header| header.size()))
    }

    /// Whether this is a commit that the repository has.
    pub(super) fn has_commit(&self, id: ObjectId) -> Result<bool, HostError> {
        Ok(self.size(id, Kind::Commit)?.is_some())
    }

    /// The bytes of an object that must be there, of this kind, and of at most `max` bytes.
    pub(super) fn read(&self, id: ObjectId, kind: Kind, max: u64) -> Result<Vec<u8>, HostError> {
        let size = self
            .size(id, kind)?
            .ok_or_else(|| self.failed(format!("{kind} {id} is not there")))?;
        if size > max {
            return Err(self.refused(format!(
                "{kind} {id} has {size} bytes, at most {max} are accepted"
            )));
        }
        let object = self.inner.find_object(id).map_err(|error| {
            self.failed(format!(
                "object {id} cannot be read: {}",
                crate::error_chain(&error)
            ))
        })?;
        Ok(object.detach().data)
    }

    /// A commit, which must be there.
    pub(super) fn commit(&self, id: ObjectId) -> Result<Commit, HostError> {
        let data = self.read(id, Kind::Commit, MAX_META_BYTES)?;
        let parse = || CommitRefIter::from_bytes(&data, id.kind());
        let malformed = |error: gix::Error| {
            self.refused(format!(
                "commit {id} is malformed: {}",
                crate::error_chain(&error)
            ))
        };
        Ok(Commit {
            tree: parse().tree_id().map_err(malformed)?,
            parents: parse().parent_ids().collect(),
            message: parse().message().map_err(malformed)?.to_vec(),
        })
    }

    /// Whether one commit is the other or one of its ancestors. Both must be there. Every path is followed to its
    /// end: the dates in commits are the agent's to choose, so no short cut may rely on them.
    pub(super) fn is_ancestor(&self, ancestor: ObjectId, descendant: ObjectId) -> Result<bool, HostError> {
        self.is_ancestor_within(ancestor, descendant, usize::MAX)
    }

    /// The same, refused when more than `most` commits would have to be read.
    pub(super) fn is_ancestor_within(
        &self,
        ancestor: ObjectId,
        descendant: ObjectId,
        most: usize,
    ) -> Result<bool, HostError> {
        for id in [ancestor, descendant] {
            if !self.has_commit(id)? {
                return Err(self.failed(format!("commit {id} is not there")));
            }
        }
        let mut seen = HashSet::from([descendant]);
        let mut open = vec![descendant];
        while let Some(id) = open.pop() {
            if id == ancestor {
                return Ok(true);
            }
            if seen.len() > most {
                return Err(self.refused(format!(
                    "more than {most} commits lead from {descendant} back to main: squash your commits"
                )));
            }
            open.extend(
                self.commit(id)?
                    .parents
                    .into_iter()
                    .filter(|parent| seen.insert(*parent)),
            );
        }
        Ok(false)
    }

    /// Writes an object, and returns when it would survive a power cut.
    pub(super) fn write(&self, kind: Kind, bytes: &[u8]) -> Result<ObjectId, HostError> {
        let id = self
            .inner
            .objects
            .write_buf(kind, bytes)
            .map_err(|error| self.failed(format!("cannot write a {kind}: {error}")))?;
        let hex = id.to_string();
        let (folder, file) = hex.split_at(2);
        let folder = self.path.join("objects").join(folder);
        sync(&folder.join(file))?;
        sync(&folder)?;
        Ok(id)
    }
}

/// The object id in a form that gix takes.
pub(super) fn object_id(oid: &CommitOid) -> Result<ObjectId, HostError> {
    ObjectId::from_hex(oid.as_str().as_bytes())
        .map_err(|error| HostError::refused(format!("object id {oid}"), crate::error_chain(&error)))
}

/// The object id in a form that the rest of the daemon takes.
pub(super) fn commit_oid(id: ObjectId) -> Result<CommitOid, HostError> {
    id.to_string()
        .parse()
        .map_err(|error| HostError::failed(format!("object id {id}"), format!("{error}")))
}

/// Waits until a file or folder is on disk.
pub(super) fn sync(path: &Utf8Path) -> Result<(), HostError> {
    fs::File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(HostError::io("sync", path.as_str()))
}

/// Makes a folder, and those above it, for us alone whatever the umask.
pub(super) fn make_private_dir(path: &Utf8Path) -> Result<(), HostError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .map_err(HostError::io("make", path.as_str()))
}

/// Removes a folder and all in it, links themselves included; it need not be there.
pub(super) fn remove_dir(path: &Utf8Path) -> Result<(), HostError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(HostError::io("remove", path.as_str())(error))
        }
        _ => Ok(()),
    }
}

/// The whole configuration of our repositories.
const CONFIG: &str = "\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\tlogAllRefUpdates = false
\tuseReplaceRefs = false
\tfilesRefLockTimeout = 1000
\tpackedRefsTimeout = 1000
[gc]
\tauto = 0
[maintenance]
\tauto = false
";

/// Makes an empty bare repository at a path where nothing is. No templates, hence no hooks.
pub(super) fn make_bare(path: &Utf8Path, alternate: Option<&Utf8Path>) -> Result<(), HostError> {
    make_private_dir(path)?;
    for folder in ["objects/info", "objects/pack", "refs/heads", "refs/tags"] {
        make_private_dir(&path.join(folder))?;
    }
    write_new(&path.join("HEAD"), "ref: refs/heads/main\n")?;
    write_new(&path.join("config"), CONFIG)?;
    if let Some(alternate) = alternate {
        write_new(
            &path.join("objects/info/alternates"),
            &format!("{alternate}/objects\n"),
        )?;
    }
    Ok(())
}

fn write_new(path: &Utf8Path, text: &str) -> Result<(), HostError> {
    use std::io::Write as _;

    fs::File::create_new(path)
        .and_then(|mut file| {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(HostError::io("write", path.as_str()))
}
