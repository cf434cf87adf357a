//! The agent's own config repo: fetched as a bundle, changed by one commit, offered as a bundle.
//!
//! The commit is made in a scratch repository that is thrown away, from nothing but the daemon's bundle, so that
//! neither a crash half-way nor anything in the agent's own work tree can get into its way. The same change to the
//! same `main` for the same message is the same commit, however often it is tried.
//!
//! `<state>/config` is where an agent looks at its config repo. It follows the proposal when it can; uncommitted work
//! in it is never overwritten.

pub mod git;
pub mod offer;

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde_json::{Map, Value};
use shared::AgentName;
use shared::agent_api::{MAX_BUNDLE_BYTES, ProposalInfo};
use shared::config::OVERLAY_FILE;
use shared::spec::ScriptPropose;

use crate::children::Children;
use crate::host_client::retry::until_answered;
use crate::host_client::{ClientError, HostClient};
use git::{Git, GitError};

/// The largest overlay that is read.
const MAX_OVERLAY: u64 = 1024 * 1024;
/// The branch that holds the proposed commit, and the only ref in the bundle.
const BRANCH: &str = "refs/heads/proposal";

/// Why nothing was proposed.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// The daemon did not want it, or did not give the repo.
    #[error(transparent)]
    Daemon(#[from] ClientError),
    /// Git did not work.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A file or folder of the scratch repository cannot be made.
    #[error("cannot prepare {path}")]
    Io {
        /// The file or folder.
        path: Utf8PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// What is committed cannot be merged with.
    #[error("{OVERLAY_FILE} on main is not a JSON object: {0}; fix it by hand with a commit of its own")]
    BadOverlay(String),
    /// The change has no JSON form.
    #[error("the change cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
    /// The commit does not fit.
    #[error("the proposal is larger than {MAX_BUNDLE_BYTES} bytes")]
    TooLarge,
    /// The files are on `main` already.
    #[error("nothing would change: main has these files already")]
    NothingChanged,
    /// What is to be deleted is not there.
    #[error("main has no file {0}: nothing to delete")]
    NoSuchFile(offer::RepoPath),
    /// There is no work tree to take a commit from.
    #[error("there is no repo at {0}: call config_status, which makes it, commit there, then propose")]
    NoWorkTree(Utf8PathBuf),
    /// What is checked out is `main` itself.
    #[error("nothing to propose: what is checked out is main itself; commit your change first")]
    NothingCommitted,
    /// What is checked out has left `main`.
    #[error(
        "the commit does not lie on top of main, which has moved: call config_status to fetch it, rebase on hive/main, \
         then propose again"
    )]
    NotOnMain,
}

/// The agent's side of its config repo.
#[derive(Debug, Clone)]
pub struct ConfigRepo {
    state: Utf8PathBuf,
    children: Children,
}

impl ConfigRepo {
    /// The repo of the agent whose state folder this is.
    pub fn new(state: Utf8PathBuf, children: Children) -> Self {
        Self { state, children }
    }

    /// Commits a change of the overlay on top of `main` and offers it to the daemon. Waits while the daemon is away.
    ///
    /// # Errors
    /// When the change cannot be committed, or the daemon refuses it.
    pub async fn propose(
        &self,
        client: &HostClient,
        agent: &AgentName,
        change: &ScriptPropose,
        at: Timestamp,
    ) -> Result<ProposalInfo, ProposeError> {
        let main = until_answered(|| client.repo_bundle()).await?;
        let scratch = self.scratch(main).await?;
        let proposed = self.propose_from(&scratch, client, agent, change, at).await;
        scratch.discard().await;
        proposed
    }

    async fn propose_from(
        &self,
        scratch: &Scratch,
        client: &HostClient,
        agent: &AgentName,
        change: &ScriptPropose,
        at: Timestamp,
    ) -> Result<ProposalInfo, ProposeError> {
        let git = self.git(agent, at, scratch.repo(), None);
        let bundle = commit(&git, scratch, change).await?;
        let info = until_answered(|| client.propose(bundle.clone())).await?;
        if let Err(error) = self.follow(agent, at, scratch).await {
            let error = crate::error_chain(&error);
            tracing::warn!(error, "work tree of the config repo left as it is");
        }
        Ok(info)
    }

    /// Lets the work tree follow. Git refuses when that would overwrite uncommitted work.
    async fn follow(&self, agent: &AgentName, at: Timestamp, scratch: &Scratch) -> Result<(), ProposeError> {
        let git = self.work_repo(agent, at).await?;
        let source = scratch.repo();
        let refs = "+refs/heads/*:refs/remotes/hive/*";
        let fetch = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            source.as_str(),
            refs,
        ];
        git.run(&fetch, b"", 1024).await?;
        switch(&git, "proposal").await
    }

    /// Where the agent looks at its config repo.
    pub fn work_tree(&self) -> Utf8PathBuf {
        self.state.join("config")
    }

    /// The repo of the work tree; it is made when there is none.
    async fn work_repo(&self, agent: &AgentName, at: Timestamp) -> Result<Git, ProposeError> {
        let folder = self.work_tree();
        make_folder(&folder).await?;
        let git = self.git(agent, at, folder.join(".git"), Some(folder));
        if !git.git_dir.join("HEAD").exists() {
            let init = ["init", "--quiet", "--template=", "--initial-branch=main"];
            git.run(&init, b"", 1024).await?;
        }
        Ok(git)
    }

    /// A scratch folder with this bundle in it. There is one at a time.
    async fn scratch(&self, bundle: Vec<u8>) -> Result<Scratch, ProposeError> {
        Scratch::make(self.state.join("proposal.tmp"), bundle).await
    }

    fn git(
        &self,
        agent: &AgentName,
        at: Timestamp,
        git_dir: Utf8PathBuf,
        work_tree: Option<Utf8PathBuf>,
    ) -> Git {
        Git {
            children: self.children.clone(),
            git_dir,
            work_tree,
            identity: agent.as_str().to_owned(),
            at,
        }
    }
}

/// Makes the commit and returns it as a bundle.
async fn commit(git: &Git, scratch: &Scratch, change: &ScriptPropose) -> Result<Vec<u8>, ProposeError> {
    let main = take_in(git, scratch).await?;
    let overlay = merged(&read_overlay(git, &main).await?, &change.set)?;
    git.run(&["read-tree", &main], b"", 1024).await?;
    stage(git, "100644", OVERLAY_FILE, &overlay).await?;
    let (bundle, _commit) = commit_index(git, &main, &message(&change.title, &change.reason)).await?;
    Ok(bundle)
}

/// Puts a file into the index.
async fn stage(git: &Git, mode: &str, path: &str, text: &[u8]) -> Result<(), ProposeError> {
    let blob = git.word(&["hash-object", "-w", "--stdin"], text).await?;
    let entry = format!("{mode},{blob},{path}");
    git.run(&["update-index", "--add", "--cacheinfo", &entry], b"", 1024)
        .await?;
    Ok(())
}

/// Commits what is in the index on top of `main`; returns the commit as a bundle, and its id.
async fn commit_index(git: &Git, main: &str, message: &str) -> Result<(Vec<u8>, String), ProposeError> {
    let tree = git.word(&["write-tree"], b"").await?;
    let before = git.word(&["rev-parse", &format!("{main}^{{tree}}")], b"").await?;
    if tree == before {
        return Err(ProposeError::NothingChanged);
    }
    let commit = git
        .word(&["commit-tree", &tree, "-p", main], message.as_bytes())
        .await?;
    Ok((bundled(git, main, &commit).await?, commit))
}

/// Checks out a branch of the daemon's as one of the same name. Git refuses when that would overwrite uncommitted work.
async fn switch(git: &Git, branch: &str) -> Result<(), ProposeError> {
    let from = format!("refs/remotes/hive/{branch}");
    let switch = ["switch", "--quiet", "--no-track", "-C", branch, &from];
    git.run(&switch, b"", 1024).await?;
    Ok(())
}

/// Makes the scratch repository from the daemon's bundle; returns the commit that is `main`.
async fn take_in(git: &Git, scratch: &Scratch) -> Result<String, ProposeError> {
    git.run(&["init", "--quiet", "--bare", "--template="], b"", 1024)
        .await?;
    let incoming = scratch.incoming();
    let fetch = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        incoming.as_str(),
    ];
    git.run(
        &[&fetch[..], &["+refs/heads/main:refs/heads/main"]].concat(),
        b"",
        1024,
    )
    .await?;
    Ok(git
        .word(&["rev-parse", "--verify", "refs/heads/main^{commit}"], b"")
        .await?)
}

/// A bundle of what a commit has beyond `main`, under the name of the proposed branch.
async fn bundled(git: &Git, main: &str, commit: &str) -> Result<Vec<u8>, ProposeError> {
    git.run(&["update-ref", BRANCH, commit], b"", 1024).await?;
    let without_main = format!("^{main}");
    let args = ["bundle", "create", "--quiet", "-", BRANCH, &without_main];
    match git.run(&args, b"", MAX_BUNDLE_BYTES).await {
        Err(GitError::TooMuch { .. }) => Err(ProposeError::TooLarge),
        bundle => Ok(bundle?),
    }
}

/// The overlay on `main`; empty when there is none.
async fn read_overlay(git: &Git, main: &str) -> Result<Vec<u8>, ProposeError> {
    let listed = git
        .word(
            &[
                "ls-tree",
                "--format=%(objectmode) %(objectname)",
                main,
                "--",
                OVERLAY_FILE,
            ],
            b"",
        )
        .await?;
    match listed.split_once(' ') {
        None => Ok(Vec::new()),
        Some(("100644" | "100755", object)) => {
            Ok(git.run(&["cat-file", "blob", object], b"", MAX_OVERLAY).await?)
        }
        Some(_) => Err(ProposeError::BadOverlay("it is not a regular file".into())),
    }
}

/// The overlay with these fields replaced; `null` removes one.
fn merged(overlay: &[u8], set: &BTreeMap<String, Value>) -> Result<Vec<u8>, ProposeError> {
    let mut fields: Map<String, Value> = if overlay.is_empty() {
        Map::new()
    } else {
        serde_json::from_slice(overlay).map_err(|error| ProposeError::BadOverlay(error.to_string()))?
    };
    for (key, value) in set {
        if value.is_null() {
            fields.remove(key);
        } else {
            fields.insert(key.clone(), value.clone());
        }
    }
    let mut text = serde_json::to_vec_pretty(&fields).map_err(ProposeError::Unwritable)?;
    text.push(b'\n');
    Ok(text)
}

/// Title and reason as a commit message.
fn message(title: &str, reason: &str) -> String {
    let title = crate::tame(title, 200);
    let reason: String = reason
        .chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .take(8 * 1024)
        .collect();
    format!("{title}\n\n{}\n", reason.trim()).trim_end().to_owned() + "\n"
}

/// A folder that is empty at the start. What a run that was cut short leaves of it, the next one removes.
#[derive(Debug)]
struct Scratch {
    path: Utf8PathBuf,
}

impl Scratch {
    async fn make(path: Utf8PathBuf, bundle: Vec<u8>) -> Result<Self, ProposeError> {
        let scratch = Self { path };
        let (path, repo, incoming) = (scratch.path.clone(), scratch.repo(), scratch.incoming());
        blocking(path.clone(), move || {
            // What an earlier run left when it was killed.
            remove(&path)?;
            std::fs::create_dir_all(&repo)?;
            let mut file = std::fs::File::create_new(&incoming)?;
            std::io::Write::write_all(&mut file, &bundle)
        })
        .await?;
        Ok(scratch)
    }

    async fn discard(self) {
        let path = self.path.clone();
        if let Err(error) = blocking(self.path, move || remove(&path)).await {
            tracing::debug!(error = crate::error_chain(&error), "scratch folder not removed");
        }
    }

    fn repo(&self) -> Utf8PathBuf {
        self.path.join("repo")
    }

    fn incoming(&self) -> Utf8PathBuf {
        self.path.join("main.bundle")
    }
}

fn remove(path: &Utf8Path) -> std::io::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn make_folder(path: &Utf8Path) -> Result<(), ProposeError> {
    let made = path.to_owned();
    blocking(path.to_owned(), move || std::fs::create_dir_all(made)).await
}

async fn blocking(
    path: Utf8PathBuf,
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> Result<(), ProposeError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|source| ProposeError::Io { path, source })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(fields: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(fields).expect("an object")
    }

    #[test]
    fn fields_are_replaced_and_null_removes_one() {
        let text = merged(
            br#"{"prompt":"a","network":"none"}"#,
            &set(json!({ "prompt": "b", "network": null, "tools": {} })),
        )
        .expect("merged");
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(value, json!({ "prompt": "b", "tools": {} }));
        assert!(text.ends_with(b"}\n"));
    }

    #[test]
    fn an_absent_overlay_is_empty_and_a_broken_one_is_refused() {
        assert_eq!(merged(b"", &BTreeMap::new()).expect("merged"), b"{}\n");
        for broken in ["[]", "{", "\u{0}", "3"] {
            assert!(matches!(
                merged(broken.as_bytes(), &BTreeMap::new()),
                Err(ProposeError::BadOverlay(_))
            ));
        }
    }

    #[test]
    fn a_title_stays_one_line_and_control_characters_never_reach_the_commit() {
        let text = message("a\nb", "why\x1b[31m\nbecause\n\n");
        assert_eq!(text, "a b\n\nwhy[31m\nbecause\n");
        assert_eq!(message("a", ""), "a\n");
    }
}
