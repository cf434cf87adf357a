//! Commits that an agent asks for by its tools: files laid on top of a base, or what it committed itself.
//!
//! As in [`super`], the commit that is offered comes from a scratch repository that holds nothing but the daemon's
//! bundle and, for a commit of the agent's own, what that commit needs.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use shared::AgentName;
use shared::agent_api::MAX_BUNDLE_BYTES;

use super::git::{Git, GitError};
use super::{ConfigRepo, ProposeError, Scratch, bundled, commit_index, message, stage, switch, take_in};

/// The longest path of a file, in bytes.
const MAX_PATH: usize = 200;

/// Where a file is in a config repo: relative, below nothing that git keeps for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoPath(String);

/// A text is not the path of a file in a config repo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be the path of a file in a config repo: {rule}")]
pub struct InvalidRepoPath {
    text: String,
    rule: &'static str,
}

impl RepoPath {
    /// The path, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepoPath {
    type Err = InvalidRepoPath;

    fn from_str(text: &str) -> Result<Self, InvalidRepoPath> {
        let rule = if text.is_empty() || text.len() > MAX_PATH {
            Some("it has 1 to 200 bytes")
        } else if text.chars().any(|c| c.is_control() || c == '\\') {
            Some("it holds neither control characters nor backslashes")
        } else if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            Some("it is relative to the repo's root, with single slashes and no `.` or `..`")
        } else if text
            .split('/')
            .any(|part| part.to_ascii_lowercase().starts_with(".git"))
        {
            Some("what begins with .git is for git itself")
        } else {
            None
        };
        match rule {
            None => Ok(Self(text.to_owned())),
            Some(rule) => Err(InvalidRepoPath {
                text: text.chars().take(MAX_PATH).collect(),
                rule,
            }),
        }
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for RepoPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for RepoPath {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RepoPath".into()
    }

    /// The rule in full is [`Self::from_str`].
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_PATH })
    }
}

/// A change of files.
#[derive(Debug, Clone)]
pub struct Change {
    /// The commit's title.
    pub title: String,
    /// Why, for the operator.
    pub reason: String,
    /// The whole new text of each file; `None` deletes it.
    pub files: BTreeMap<RepoPath, Option<String>>,
}

/// Who commits, and when.
#[derive(Debug, Clone)]
pub struct Author {
    /// The agent.
    pub agent: AgentName,
    /// The time in the commit.
    pub at: Timestamp,
}

/// A commit, ready to be offered.
#[derive(Debug)]
pub struct Offer {
    /// The bundle.
    pub bundle: Vec<u8>,
    /// The commit.
    pub commit: String,
    /// Its title.
    pub title: String,
    scratch: Scratch,
}

/// How the work tree stands to `main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkTree {
    /// Where it is.
    pub folder: Utf8PathBuf,
    /// What is checked out.
    pub head: String,
    /// Commits that `main` does not have.
    pub ahead: u64,
    /// Commits of `main` that it does not have.
    pub behind: u64,
    /// Whether there is work that is not committed.
    pub uncommitted: bool,
}

impl ConfigRepo {
    /// Commits a change on top of what `base` calls `main`. The offer is to be [discarded](Self::done).
    ///
    /// # Errors
    /// When nothing would change, or git does not work.
    pub async fn commit_files(
        &self,
        base: Vec<u8>,
        author: &Author,
        change: &Change,
    ) -> Result<Offer, ProposeError> {
        let scratch = self.scratch(base).await?;
        let git = self.git(&author.agent, author.at, scratch.repo(), None);
        match commit_files(&git, &scratch, change).await {
            Ok((bundle, commit)) => Ok(Offer {
                bundle,
                commit,
                title: crate::tame(&change.title, 200),
                scratch,
            }),
            Err(error) => {
                scratch.discard().await;
                Err(error)
            }
        }
    }

    /// Takes the commit that is checked out in the work tree. The offer is to be [discarded](Self::done).
    ///
    /// # Errors
    /// When there is none that goes beyond `main`, or git does not work.
    pub async fn take_head(&self, main: Vec<u8>, author: &Author) -> Result<Offer, ProposeError> {
        let folder = self.work_tree();
        if !folder.join(".git").exists() {
            return Err(ProposeError::NoWorkTree(folder));
        }
        let scratch = self.scratch(main).await?;
        let git = self.git(&author.agent, author.at, scratch.repo(), None);
        match take_head(&git, &scratch, &folder).await {
            Ok((bundle, commit, title)) => Ok(Offer {
                bundle,
                commit,
                title,
                scratch,
            }),
            Err(error) => {
                scratch.discard().await;
                Err(error)
            }
        }
    }

    /// Ends with an offer that was taken: the work tree follows it, unless that would overwrite uncommitted work.
    pub async fn follow_offer(&self, offer: Offer, author: &Author) -> bool {
        let followed = self.follow(&author.agent, author.at, &offer.scratch).await;
        offer.scratch.discard().await;
        match followed {
            Ok(()) => true,
            Err(error) => {
                let error = crate::error_chain(&error);
                tracing::warn!(error, "work tree of the config repo left as it is");
                false
            }
        }
    }

    /// Ends with an offer, and leaves the work tree alone.
    pub async fn done(&self, offer: Offer) {
        offer.scratch.discard().await;
    }

    /// Brings `hive/main` and the tags of the work tree's repo up to date, and makes both when there are none. What is
    /// checked out is never touched.
    ///
    /// # Errors
    /// When git does not work.
    pub async fn refresh(&self, main: Vec<u8>, author: &Author) -> Result<WorkTree, ProposeError> {
        let git = self.work_repo(&author.agent, author.at).await?;
        let scratch = self.scratch(main).await?;
        let refreshed = refresh(&git, &scratch, self.work_tree()).await;
        scratch.discard().await;
        refreshed
    }
}

async fn commit_files(
    git: &Git,
    scratch: &Scratch,
    change: &Change,
) -> Result<(Vec<u8>, String), ProposeError> {
    let main = take_in(git, scratch).await?;
    git.run(&["read-tree", &main], b"", 1024).await?;
    for (path, text) in &change.files {
        let literal = format!(":(literal){path}");
        let known = git
            .run(
                &["ls-files", "--stage", "-z", "--", &literal],
                b"",
                MAX_BUNDLE_BYTES,
            )
            .await?;
        let Some(text) = text else {
            // A folder lists the files in it; only a file by itself is deleted.
            if !String::from_utf8_lossy(&known).ends_with(&format!("\t{path}\0")) {
                return Err(ProposeError::NoSuchFile(path.clone()));
            }
            // `--force-remove` wants a work tree; mode 0 removes an entry without one.
            let entry = format!("0 {}\t{path}\0", "0".repeat(40));
            git.run(&["update-index", "-z", "--index-info"], entry.as_bytes(), 1024)
                .await?;
            continue;
        };
        // A script stays one that can be run.
        let mode = if known.starts_with(b"100755") {
            "100755"
        } else {
            "100644"
        };
        stage(git, mode, path.as_str(), text.as_bytes()).await?;
    }
    commit_index(git, &main, &message(&change.title, &change.reason)).await
}

async fn take_head(
    git: &Git,
    scratch: &Scratch,
    folder: &Utf8Path,
) -> Result<(Vec<u8>, String, String), ProposeError> {
    let main = take_in(git, scratch).await?;
    let fetch = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--",
        folder.as_str(),
        "+HEAD:refs/heads/head",
    ];
    git.run(&fetch, b"", 1024).await?;
    let commit = git
        .word(&["rev-parse", "--verify", "refs/heads/head^{commit}"], b"")
        .await?;
    if commit == main {
        return Err(ProposeError::NothingCommitted);
    }
    match git
        .run(&["merge-base", "--is-ancestor", &main, &commit], b"", 1024)
        .await
    {
        Ok(_) => {}
        Err(GitError::Failed { .. }) => return Err(ProposeError::NotOnMain),
        Err(error) => return Err(error.into()),
    }
    let title = git
        .run(&["log", "-1", "--format=%s", &commit], b"", 64 * 1024)
        .await?;
    let title = crate::tame(&String::from_utf8_lossy(&title), 200);
    Ok((bundled(git, &main, &commit).await?, commit, title))
}

async fn refresh(git: &Git, scratch: &Scratch, folder: Utf8PathBuf) -> Result<WorkTree, ProposeError> {
    let incoming = scratch.incoming();
    let fetch = [
        "fetch",
        "--quiet",
        "--no-write-fetch-head",
        incoming.as_str(),
        "+refs/heads/main:refs/remotes/hive/main",
        "+refs/tags/*:refs/tags/*",
    ];
    git.run(&fetch, b"", 64 * 1024).await?;
    // Without a commit nothing of the agent's own can be there yet but loose files, which git does not overwrite.
    let born = git
        .run(&["rev-parse", "--verify", "--quiet", "HEAD"], b"", 1024)
        .await;
    if born.is_err() {
        switch(git, "main").await?;
    }
    let head = git.word(&["rev-parse", "--abbrev-ref", "HEAD"], b"").await?;
    let range = "HEAD...refs/remotes/hive/main";
    let counts = git
        .word(&["rev-list", "--left-right", "--count", range], b"")
        .await?;
    let (ahead, behind) = counts.split_once('\t').unwrap_or(("0", "0"));
    let status = ["status", "--porcelain", "--untracked-files=normal"];
    let uncommitted = match git.run(&status, b"", 64 * 1024).await {
        Ok(listed) => !listed.is_empty(),
        Err(GitError::TooMuch { .. }) => true,
        Err(error) => return Err(error.into()),
    };
    Ok(WorkTree {
        folder,
        head: crate::tame(&head, 100),
        ahead: ahead.parse().unwrap_or(0),
        behind: behind.parse().unwrap_or(0),
        uncommitted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_the_repo_and_out_of_what_git_keeps_for_itself() {
        for good in [
            "agent.json",
            "a/b/c.nix",
            ".editorconfig",
            "notes, and more.md",
            "é",
        ] {
            assert_eq!(good.parse::<RepoPath>().expect(good).as_str(), good);
        }
        let long = "a".repeat(MAX_PATH + 1);
        for bad in [
            "",
            "/",
            "/etc/passwd",
            ".",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "a\nb",
            "a\0b",
            "a\\b",
            ".git",
            ".git/config",
            "a/.GIT/hooks/x",
            ".gitattributes",
            ".gitmodules",
            &long,
        ] {
            bad.parse::<RepoPath>().expect_err(bad);
        }
    }
}
