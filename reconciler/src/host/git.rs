//! Config repos: one bare git repository per agent, owned by the daemon.
//!
//! Reading, and writing of refs and tags, happens in this process; a converged pass starts no program. The `git`
//! program is started for two things: to index the pack of a bundle, in quarantine, and to write a bundle. It never
//! runs in a folder that an agent can write, and never sees a name that an agent chose.
//!
//! Whatever changes a repo holds its agent's lock until it is done, even when the caller goes away.

pub mod bundle;
mod diff;
mod import;
pub mod names;
mod program;
mod refs;
mod repo;
mod seed;
mod survey;
mod swap;
mod text;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use shared::{AgentName, CommitOid};
use tokio::sync::OwnedMutexGuard;

use self::program::Program;
use self::refs::KnownTags;
use self::repo::{Repo, commit_oid, object_id};
pub use self::survey::{RepoSurvey, SurveyedTag, survey};
use super::layout::Layout;
use super::{HostError, Imported, RefUpdate, RepoState, Repos};

/// Who writes seeds and tags.
const SIGNATURE: &str = "hyperhive <hive@localhost>";

/// Where git lies when no search path leads to it.
const WELL_KNOWN: [&str; 4] = [
    "/run/current-system/sw/bin/git",
    "/usr/bin/git",
    "/usr/local/bin/git",
    "/bin/git",
];

/// The config repos of a hive.
#[derive(Debug)]
pub struct GitRepos {
    layout: Layout,
    git: Program,
    known_tags: Arc<KnownTags>,
    locks: Mutex<BTreeMap<AgentName, Arc<tokio::sync::Mutex<()>>>>,
}

impl GitRepos {
    /// The repos below `layout`, with the `git` program at this absolute path.
    pub fn new(layout: Layout, git: Utf8PathBuf) -> Self {
        Self {
            layout,
            git: Program::new(git),
            known_tags: Arc::default(),
            locks: Mutex::default(),
        }
    }

    /// Looks for `git` in the absolute folders of a search path, then in well-known places.
    pub fn find_git(path: &OsStr) -> Option<Utf8PathBuf> {
        let is_program = |path: &Utf8PathBuf| {
            path.is_absolute()
                && std::fs::metadata(path)
                    .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        std::env::split_paths(path)
            .filter_map(|folder| Utf8PathBuf::from_path_buf(folder.join("git")).ok())
            .chain(WELL_KNOWN.map(Utf8PathBuf::from))
            .find(is_program)
    }

    /// Reads the refs, and makes sure that all objects they lead to are there.
    ///
    /// # Errors
    /// When something is missing or cannot be read.
    pub async fn check(&self, agent: &AgentName) -> Result<(), HostError> {
        self.observe(agent).await?;
        let args = ["fsck", "--connectivity-only", "--no-dangling", "--no-progress"];
        let checked = self.git.run(&self.layout.repo(agent), &args, None).await;
        checked.map_err(|error| HostError::failed(subject(agent), crate::error_chain(&error)))
    }

    /// Waits for the right to change an agent's repo.
    async fn lock(&self, agent: &AgentName) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(locks.entry(agent.clone()).or_default())
        };
        lock.lock_owned().await
    }

    /// Runs something on an agent's repo, which must be there, where blocking is allowed.
    async fn with_repo<T: Send + 'static>(
        &self,
        agent: &AgentName,
        work: impl FnOnce(&Repo) -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, HostError> {
        let path = self.layout.repo(agent);
        let subject = subject(agent);
        blocking(move || work(&open(&path, subject)?)).await
    }
}

fn subject(agent: &AgentName) -> String {
    format!("repo of {agent}")
}

fn open(path: &Utf8Path, subject: String) -> Result<Repo, HostError> {
    Repo::open(path, subject.clone())?.ok_or_else(|| {
        HostError::failed(
            subject,
            format!("there is none at {path}: the next pass makes it"),
        )
    })
}

/// Runs something where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> Result<T, HostError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(HostError::failed("git repository", error.to_string())))
}

#[async_trait]
impl Repos for GitRepos {
    async fn ensure(
        &self,
        agent: &AgentName,
        seed: &BTreeMap<String, String>,
    ) -> Result<CommitOid, HostError> {
        let guard = self.lock(agent).await;
        let path = self.layout.repo(agent);
        // No agent's name starts with a dot.
        let scratch = self.layout.repos().join(format!(".{agent}.git.new"));
        let (subject, seed) = (subject(agent), seed.clone());
        blocking(move || {
            let _guard = guard;
            seed::ensure(&path, &scratch, &subject, &seed).and_then(commit_oid)
        })
        .await
    }

    async fn observe(&self, agent: &AgentName) -> Result<Option<RepoState>, HostError> {
        let path = self.layout.repo(agent);
        let subject = subject(agent);
        let known = Arc::clone(&self.known_tags);
        blocking(move || refs::observe(&path, &subject, &known)).await
    }

    async fn update_ref(&self, agent: &AgentName, update: &RefUpdate) -> Result<(), HostError> {
        let guard = self.lock(agent).await;
        let update = update.clone();
        self.with_repo(agent, move |repo| {
            let _guard = guard;
            swap::update(repo, &update)
        })
        .await
    }

    async fn is_ancestor(
        &self,
        agent: &AgentName,
        ancestor: &CommitOid,
        descendant: &CommitOid,
    ) -> Result<bool, HostError> {
        let (ancestor, descendant) = (object_id(ancestor)?, object_id(descendant)?);
        self.with_repo(agent, move |repo| repo.is_ancestor(ancestor, descendant))
            .await
    }

    async fn offered(&self, agent: &AgentName, bundle: &Utf8Path) -> Result<CommitOid, HostError> {
        let (agent, bundle) = (agent.clone(), bundle.to_owned());
        blocking(move || import::offered(&agent, &bundle)).await
    }

    async fn import(
        &self,
        agent: &AgentName,
        bundle: &Utf8Path,
        main: &CommitOid,
    ) -> Result<Imported, HostError> {
        // The quarantine holds the lock. When the caller goes away, so does git, then the quarantine, then the lock.
        let lock = self.lock(agent).await;
        let (opened, quarantine, pack) = {
            let (agent, bundle, main) = (agent.clone(), bundle.to_owned(), object_id(main)?);
            let incoming = self.layout.incoming();
            self.with_repo(&agent.clone(), move |repo| {
                import::open(repo, &agent, &incoming, &bundle, main, lock)
            })
            .await?
        };
        self.git
            .run(quarantine.path(), &import::INDEX_PACK, Some(pack))
            .await
            .map_err(|error| import::indexing_failed(agent, error))?;
        self.with_repo(agent, move |repo| import::accept(repo, opened, quarantine))
            .await
    }

    async fn export(&self, agent: &AgentName, target: &Utf8Path) -> Result<(), HostError> {
        let args = [
            "bundle",
            "create",
            "--quiet",
            target.as_str(),
            "refs/heads/main",
            "--tags",
        ];
        self.git
            .run(&self.layout.repo(agent), &args, None)
            .await
            .map_err(|error| HostError::failed(subject(agent), crate::error_chain(&error)))
    }

    async fn repeat(
        &self,
        agent: &AgentName,
        parent: &CommitOid,
        content: &CommitOid,
        message: &str,
        at: Timestamp,
    ) -> Result<CommitOid, HostError> {
        let guard = self.lock(agent).await;
        let (parent, content) = (object_id(parent)?, object_id(content)?);
        let message = message.to_owned();
        self.with_repo(agent, move |repo| {
            let _guard = guard;
            seed::repeat(repo, parent, content, &message, at).and_then(commit_oid)
        })
        .await
    }

    async fn commit(
        &self,
        agent: &AgentName,
        parent: &CommitOid,
        files: &BTreeMap<String, String>,
        message: &str,
        at: Timestamp,
    ) -> Result<CommitOid, HostError> {
        let guard = self.lock(agent).await;
        let (parent, files, message) = (object_id(parent)?, files.clone(), message.to_owned());
        self.with_repo(agent, move |repo| {
            let _guard = guard;
            seed::commit(repo, parent, &files, &message, at).and_then(commit_oid)
        })
        .await
    }

    async fn delete(&self, agent: &AgentName) -> Result<(), HostError> {
        let guard = self.lock(agent).await;
        let path = self.layout.repo(agent);
        // No agent's name starts with a dot.
        let doomed = self.layout.repos().join(format!(".{agent}.git.old"));
        blocking(move || {
            let _guard = guard;
            seed::delete(&path, &doomed)
        })
        .await
    }

    async fn read_file(
        &self,
        agent: &AgentName,
        commit: &CommitOid,
        path: &str,
        max: u64,
    ) -> Result<Option<Vec<u8>>, HostError> {
        let (commit, path) = (object_id(commit)?, path.to_owned());
        self.with_repo(agent, move |repo| tree::read_file(repo, commit, &path, max))
            .await
    }

    async fn write_tree(
        &self,
        agent: &AgentName,
        commit: &CommitOid,
        target: &Utf8Path,
    ) -> Result<(), HostError> {
        let (commit, target) = (object_id(commit)?, target.to_owned());
        self.with_repo(agent, move |repo| tree::write(repo, commit, &target))
            .await
    }

    async fn diff(
        &self,
        agent: &AgentName,
        from: &CommitOid,
        to: &CommitOid,
        max: usize,
    ) -> Result<String, HostError> {
        let (from, to) = (object_id(from)?, object_id(to)?);
        self.with_repo(agent, move |repo| diff::diff(repo, from, to, max))
            .await
    }
}
