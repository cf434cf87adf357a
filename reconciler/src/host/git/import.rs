//! Taking in a bundle from an agent.
//!
//! ```text
//! bundle --header read here--> pack --git index-pack--> quarantine --checked here--> config repo
//! ```
//!
//! The quarantine is a fresh repository that borrows the objects of the agent's repo. Its pack moves over only after
//! every check has passed; until then the agent's repo is not touched.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

use camino::{Utf8DirEntry, Utf8Path, Utf8PathBuf};
use gix::ObjectId;
use shared::agent_api::MAX_BUNDLE_BYTES;
use shared::{AgentName, CommitOid};
use tokio::sync::OwnedMutexGuard;

use super::bundle::{self, Header};
use super::program::ProgramError;
use super::repo::{Repo, commit_oid, make_bare, make_private_dir, remove_dir, sync};
use super::text::title_and_reason;
use super::{swap, tree};
use crate::host::{HostError, Imported};

/// The most objects a bundle may bring.
const MAX_OBJECTS: u32 = 20_000;
/// The most deltas that lie between an object and what it is made from. Git makes no more than 50 unless it is told to;
/// reading an object means following all of them.
const MAX_CHAIN: u32 = 250;
/// The most commits that lead from a proposal back to main, those of earlier proposals included. Each is read again
/// whenever it is asked whether the proposal still descends from main.
const MAX_HISTORY: usize = 20_000;
/// How full a repo may be before it takes in more: each bundle that was accepted once stays, whatever became of it.
const FULL: Room = Room {
    packs: 4096,
    bytes: 512 * 1024 * 1024,
};

/// How much of a repo is used, or may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    packs: usize,
    bytes: u64,
}

/// The arguments of the one command that sees what an agent made. It checks each object and that none names one
/// that is missing.
pub(super) const INDEX_PACK: [&str; 5] = ["index-pack", "--stdin", "--fix-thin", "--strict", "--threads=1"];

/// A bundle whose header is good.
pub(super) struct Opened {
    header: Header,
    subject: String,
    main: ObjectId,
}

/// A fresh repository that is removed with this value, and the right to have one.
pub(super) struct Quarantine {
    path: Utf8PathBuf,
    /// Given back after the folder is gone: fields are dropped last.
    _lock: OwnedMutexGuard<()>,
}

impl Quarantine {
    /// Makes one. What an earlier one of this agent left behind is removed.
    fn make(
        incoming: &Utf8Path,
        agent: &AgentName,
        repo: &Utf8Path,
        lock: OwnedMutexGuard<()>,
    ) -> Result<Self, HostError> {
        if !incoming.exists() {
            make_private_dir(incoming)?;
        }
        let path = incoming.join(format!("quarantine-{agent}"));
        remove_dir(&path)?;
        let quarantine = Self { path, _lock: lock };
        make_bare(&quarantine.path, Some(repo))?;
        Ok(quarantine)
    }

    pub(super) fn path(&self) -> &Utf8Path {
        &self.path
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        if let Err(error) = remove_dir(&self.path) {
            tracing::warn!(error = %error.chain(), "quarantine not removed; the next import removes it");
        }
    }
}

/// Opens a bundle and reads its header.
fn header(agent: &AgentName, path: &Utf8Path) -> Result<(Header, File), HostError> {
    let subject = format!("bundle from {agent}");
    let file = fs::OpenOptions::new()
        .read(true)
        // Neither a link nor a FIFO: both could only be there because somebody else put them.
        .custom_flags(open_flags())
        .open(path)
        .map_err(HostError::io("open", path.as_str()))?;
    let metadata = file.metadata().map_err(HostError::io("look at", path.as_str()))?;
    if !metadata.is_file() {
        return Err(HostError::refused(subject, "it is not a plain file"));
    }
    if metadata.len() > MAX_BUNDLE_BYTES {
        let message = format!(
            "it has {} bytes, at most {MAX_BUNDLE_BYTES} are accepted: bundle only what is new, as in `git bundle \
             create FILE main ^origin/main`",
            metadata.len()
        );
        return Err(HostError::refused(subject, message));
    }
    match bundle::read_header(BufReader::new(&file)) {
        Ok(header) => Ok((header, file)),
        Err(bundle::HeaderError::Read(error)) => Err(HostError::io("read", path.as_str())(error)),
        Err(error) => Err(HostError::refused(subject, error.to_string())),
    }
}

/// The commit that a bundle says it offers. Nothing else of it is looked at.
pub(super) fn offered(agent: &AgentName, path: &Utf8Path) -> Result<CommitOid, HostError> {
    commit_oid(header(agent, path)?.0.commit)
}

/// Opens a bundle, reads its header, and makes the quarantine. The file returned stands at the pack.
pub(super) fn open(
    repo: &Repo,
    agent: &AgentName,
    incoming: &Utf8Path,
    path: &Utf8Path,
    main: ObjectId,
    lock: OwnedMutexGuard<()>,
) -> Result<(Opened, Quarantine, File), HostError> {
    let subject = format!("bundle from {agent}");
    let (header, mut file) = header(agent, path)?;
    for id in &header.prerequisites {
        if !repo.has_commit(*id)? {
            return Err(HostError::refused(
                subject,
                format!(
                    "it builds on commit {id}, which this repository does not have: fetch main and rebase onto it"
                ),
            ));
        }
    }
    if !repo.has_commit(main)? {
        return Err(repo.failed(format!("main {main} is not there")));
    }
    check_room(repo, &subject, FULL)?;
    file.seek(SeekFrom::Start(header.length))
        .map_err(HostError::io("read", path.as_str()))?;
    let quarantine = Quarantine::make(incoming, agent, &repo.path, lock)?;
    Ok((
        Opened {
            header,
            subject,
            main,
        },
        quarantine,
        file,
    ))
}

/// Turns what git said about the pack into an error for the agent, or for us.
pub(super) fn indexing_failed(agent: &AgentName, error: ProgramError) -> HostError {
    let subject = format!("bundle from {agent}");
    if error.is_ours() {
        return HostError::failed(subject, crate::error_chain(&error));
    }
    HostError::refused(
        subject,
        format!("its objects do not pass git's checks, or need more memory or time than is granted: {error}"),
    )
}

/// Checks what arrived, and moves it into the agent's repo.
pub(super) fn accept(repo: &Repo, opened: Opened, quarantine: Quarantine) -> Result<Imported, HostError> {
    let Opened {
        header,
        subject,
        main,
    } = opened;
    let id = header.commit;
    let inside = Repo::open(quarantine.path(), subject.clone())?
        .ok_or_else(|| HostError::failed(&subject, "its quarantine vanished: is another daemon running?"))?;
    let packs = packs(&quarantine)?;
    check_sizes(&inside, &packs)?;
    if !inside.has_commit(id)? {
        return Err(inside.refused(format!(
            "its ref names {id}, which is not a commit: offer a branch"
        )));
    }
    if id == main {
        return Err(inside.refused(format!(
            "its commit {id} is main already: there is nothing to propose"
        )));
    }
    if !inside.is_ancestor_within(main, id, MAX_HISTORY)? {
        return Err(inside.refused(format!(
            "its commit {id} does not descend from main {main}: rebase onto main"
        )));
    }
    tree::list(&inside, id)?;
    let (title, reason) = title_and_reason(&inside.commit(id)?.message);

    let kept = format!("refs/hive/commits/{id}");
    // What is there already is not stored twice, so that offering the same commit again costs nothing.
    if !(repo.has_commit(id)? && swap::exists(repo, &kept)?) {
        for pack in &packs {
            adopt(repo, pack)?;
        }
        // Opened anew: it must see what just arrived.
        let repo = Repo::open(&repo.path, repo.subject.clone())?.ok_or_else(|| repo.failed("it vanished"))?;
        if !repo.has_commit(id)? {
            return Err(repo.failed(format!("commit {id} did not arrive: try again")));
        }
        swap::keep(&repo, &kept, id)?;
    }
    Ok(Imported {
        commit: commit_oid(id)?,
        title,
        reason,
    })
}

/// Refuses when the repo is full. Git never tidies it up by itself, so that no proposal is lost; people may.
fn check_room(repo: &Repo, subject: &str, full: Room) -> Result<(), HostError> {
    let folder = repo.path.join("objects/pack");
    let mut used = Room { packs: 0, bytes: 0 };
    for entry in folder
        .read_dir_utf8()
        .map_err(HostError::io("read", folder.as_str()))?
    {
        let entry = entry.map_err(HostError::io("read", folder.as_str()))?;
        used.packs += usize::from(entry.path().extension() == Some("pack"));
        used.bytes += entry
            .metadata()
            .map_err(HostError::io("look at", entry.path().as_str()))?
            .len();
    }
    if used.packs < full.packs && used.bytes < full.bytes {
        return Ok(());
    }
    let message = format!(
        "the config repo is full: it has {} packs with {} bytes, below {} packs and {} bytes more is accepted; ask the \
         operator to run `git -C {} repack -ad`",
        used.packs, used.bytes, full.packs, full.bytes, repo.path
    );
    Err(HostError::refused(subject, message))
}

/// The paths of the quarantine's packs without their endings.
fn packs(quarantine: &Quarantine) -> Result<Vec<Utf8PathBuf>, HostError> {
    let folder = quarantine.path().join("objects/pack");
    let read = HostError::io("read", folder.as_str());
    let entries: Vec<_> = folder.read_dir_utf8().and_then(Iterator::collect).map_err(read)?;
    let indexes = entries
        .iter()
        .map(Utf8DirEntry::path)
        .filter(|path| path.extension() == Some("idx"));
    Ok(indexes.map(|path| path.with_extension("")).collect())
}

/// Refuses too many objects, and objects that are too large alone or together. Later reading relies on it: a delta
/// is resolved against its base, however small the result.
fn check_sizes(inside: &Repo, packs: &[Utf8PathBuf]) -> Result<(), HostError> {
    let mut total = 0;
    for pack in packs {
        let path = pack.with_extension("idx");
        let index =
            gix::odb::pack::index::File::at(path.as_std_path(), gix::hash::Kind::Sha1).map_err(|error| {
                inside.failed(format!(
                    "its index cannot be read: {}",
                    crate::error_chain(&error)
                ))
            })?;
        if index.num_objects() > MAX_OBJECTS {
            return Err(inside.refused(format!(
                "it brings {} objects, at most {MAX_OBJECTS} are accepted: squash your commits",
                index.num_objects()
            )));
        }
        for entry in index.iter() {
            let header = inside.inner.find_header(entry.oid).map_err(|error| {
                inside.failed(format!(
                    "object {} cannot be read: {}",
                    entry.oid,
                    crate::error_chain(&error)
                ))
            })?;
            if let Some(deltas) = header.num_deltas()
                && deltas > MAX_CHAIN
            {
                return Err(inside.refused(format!(
                    "object {} hangs on a chain of {deltas} deltas, at most {MAX_CHAIN} are accepted: run `git repack \
                     -adf` and bundle again",
                    entry.oid
                )));
            }
            total += header.size();
            if total > tree::MAX_TOTAL_BYTES {
                return Err(inside.refused(format!(
                    "its objects unpack to more than {} bytes: remove large files, also from earlier commits",
                    tree::MAX_TOTAL_BYTES
                )));
            }
        }
    }
    Ok(())
}

/// Moves a pack into the agent's repo. Its index goes last: without it a pack is not looked at.
fn adopt(repo: &Repo, pack: &Utf8Path) -> Result<(), HostError> {
    let folder = repo.path.join("objects/pack");
    for ending in ["rev", "pack", "idx"] {
        let from = pack.with_extension(ending);
        let to = folder.join(from.file_name().unwrap_or_default());
        // The name of a pack says what is in it: one that is there already is the same.
        match fs::rename(&from, &to) {
            Ok(()) => sync(&to)?,
            Err(error) if error.kind() == ErrorKind::NotFound && ending == "rev" => {}
            Err(error) => return Err(HostError::io("move", from.as_str())(error)),
        }
    }
    sync(&folder)
}

/// The flags that keep opening a file from following links and from waiting.
fn open_flags() -> i32 {
    (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK)
        .bits()
        .cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_repo_says_so_and_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8PathBuf::from_path_buf(folder.path().join("x.git")).expect("a UTF-8 path");
        make_bare(&path, None).expect("a repository");
        let repo = Repo::open(&path, "repo of alice".into())
            .expect("opened")
            .expect("there");
        let room = Room { packs: 2, bytes: 100 };
        let put = |name: &str, bytes: u64| {
            File::create(path.join("objects/pack").join(name))
                .and_then(|file| file.set_len(bytes))
                .expect("a file");
        };
        put("one.pack", 50);
        put("one.idx", 49);
        check_room(&repo, "bundle from alice", room).expect("there is room");
        put("one.rev", 1);
        let error = check_room(&repo, "bundle from alice", room).expect_err("too many bytes");
        assert!(
            error.is_terminal() && error.chain().contains("repack -ad"),
            "{}",
            error.chain()
        );
        put("one.pack", 1);
        put("two.pack", 1);
        let error = check_room(&repo, "bundle from alice", room).expect_err("too many packs");
        assert!(error.is_terminal(), "{error:?}");
    }
}
