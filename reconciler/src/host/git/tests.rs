//! The config repos against the real `git`, with an agent that does its worst.

mod attacks;
mod export;
mod files;
mod histories;
mod packs;
mod proposals;
mod refs;
mod survey;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use shared::{AgentName, CommitOid};

use super::GitRepos;
use crate::host::layout::Layout;
use crate::host::{HostError, Imported, Repos as _};

/// A hive with one agent, and the folder in which that agent works.
struct World {
    folder: tempfile::TempDir,
    repos: GitRepos,
    agent: AgentName,
    seed: CommitOid,
}

#[expect(
    clippy::disallowed_methods,
    reason = "where git lies is the test machine's business"
)]
pub(super) fn git_program() -> Utf8PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    GitRepos::find_git(&path).expect("these tests need git")
}

fn seed_files() -> BTreeMap<String, String> {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    BTreeMap::from([
        file("agent.json", "{}\n"),
        file("notes/a.txt", "one\ntwo\nthree\n"),
    ])
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("a UTF-8 path");
        let repos = GitRepos::new(Layout::new(root.join("state"), root.join("run")), git_program());
        let agent: AgentName = "alice".parse().expect("a name");
        let seed = repos.ensure(&agent, &seed_files()).await.expect("a repo");
        let world = Self {
            folder,
            repos,
            agent,
            seed,
        };
        fs::create_dir_all(world.work()).expect("a work folder");
        fs::create_dir_all(world.path("home")).expect("an empty home");
        world.git(&["init", "--quiet", "--initial-branch=main", "."]);
        world.git(&["fetch", "--quiet", world.repo().as_str(), "main"]);
        world.git(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
        world
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.folder.path())
            .expect("a UTF-8 path")
            .join(name)
    }

    fn repo(&self) -> Utf8PathBuf {
        self.repos.layout.repo(&self.agent)
    }

    /// The agent's clone.
    fn work(&self) -> Utf8PathBuf {
        self.path("work")
    }

    /// Runs git as the agent; what it prints, trimmed.
    fn git(&self, args: &[&str]) -> String {
        self.git_with(&self.work(), args, b"")
    }

    #[expect(clippy::disallowed_methods, reason = "the agent's own git")]
    fn git_with(&self, folder: &Utf8Path, args: &[&str], input: &[u8]) -> String {
        let mut child = Command::new(git_program())
            .args(args)
            .current_dir(folder)
            .env_clear()
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", self.path("home"))
            .envs(["AUTHOR", "COMMITTER"].into_iter().flat_map(|who| {
                [
                    (format!("GIT_{who}_NAME"), "Alice".to_owned()),
                    (format!("GIT_{who}_EMAIL"), "alice@localhost".to_owned()),
                    (format!("GIT_{who}_DATE"), "2026-01-02T03:04:05Z".to_owned()),
                ]
            }))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("git starts");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(input)
            .expect("git reads");
        let output = child.wait_with_output().expect("git ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Writes a file in the agent's clone.
    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::File::create(&path)
            .and_then(|mut file| file.write_all(bytes.as_ref()))
            .expect("a file");
    }

    /// Commits all that is in the agent's clone.
    fn commit(&self, message: &str) -> CommitOid {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.head()
    }

    fn head(&self) -> CommitOid {
        oid(&self.git(&["rev-parse", "HEAD"]))
    }

    /// Commits a tree made of raw entries, as `git mktree` would refuse to make it, on top of the seed.
    fn commit_tree(&self, entries: &[(&str, &[u8], &str)]) -> CommitOid {
        let mut raw = Vec::new();
        for (mode, name, id) in entries {
            raw.extend_from_slice(mode.as_bytes());
            raw.push(b' ');
            raw.extend_from_slice(name);
            raw.push(0);
            raw.extend(
                (0..40)
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&id[at..at + 2], 16).expect("hex")),
            );
        }
        let tree = self.git_with(
            &self.work(),
            &["hash-object", "-t", "tree", "--literally", "-w", "--stdin"],
            &raw,
        );
        let commit = self.git(&["commit-tree", "-p", self.seed.as_str(), "-m", "raw", &tree]);
        self.git(&["update-ref", "refs/heads/main", &commit]);
        oid(&commit)
    }

    fn blob(&self, bytes: &[u8]) -> String {
        self.git_with(&self.work(), &["hash-object", "-w", "--stdin"], bytes)
    }

    /// A bundle of these revisions.
    fn bundle(&self, revisions: &[&str]) -> Utf8PathBuf {
        let path = self.path("bundle");
        let mut args = vec!["bundle", "create", "--quiet", path.as_str()];
        args.extend(revisions);
        self.git(&args);
        path
    }

    /// A file in place of a bundle.
    fn fake_bundle(&self, bytes: &[u8]) -> Utf8PathBuf {
        let path = self.path("bundle");
        fs::File::create(&path)
            .and_then(|mut file| file.write_all(bytes))
            .expect("a file");
        path
    }

    /// A bundle with a header of our own making around the pack of these revisions.
    fn forged_bundle(&self, header: &str, revisions: &str) -> Utf8PathBuf {
        let pack = self.path("pack");
        let hash = self.git_with(
            &self.work(),
            &["pack-objects", "--quiet", "--revs", pack.as_str()],
            revisions.as_bytes(),
        );
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(fs::read(format!("{pack}-{hash}.pack")).expect("a pack"));
        self.fake_bundle(&bytes)
    }

    async fn import(&self, bundle: &Utf8Path) -> Result<Imported, HostError> {
        let result = self.repos.import(&self.agent, bundle, &self.seed).await;
        let left: Vec<_> = fs::read_dir(self.repos.layout.incoming())
            .map(|entries| entries.flatten().collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "left behind in quarantine: {left:?}");
        result
    }

    /// Offers `main` of the agent's clone, which must be accepted.
    async fn propose(&self) -> CommitOid {
        let bundle = self.bundle(&["main", &format!("^{}", self.seed)]);
        self.import(&bundle).await.expect("an accepted proposal").commit
    }

    /// Offers `main` of the agent's clone, which must be refused for this reason.
    async fn assert_refused(&self, reason: &str) {
        let bundle = self.bundle(&["main", &format!("^{}", self.seed)]);
        self.assert_bundle_refused(&bundle, reason).await;
    }

    async fn assert_bundle_refused(&self, bundle: &Utf8Path, reason: &str) {
        let before = self.git_with(&self.repo(), &["count-objects", "-v"], b"");
        let error = self.import(bundle).await.expect_err("a refusal");
        assert!(matches!(error, HostError::Refused { .. }), "{error:?}");
        assert!(
            error.chain().contains(reason),
            "{reason:?} is not in {:?}",
            error.chain()
        );
        let after = self.git_with(&self.repo(), &["count-objects", "-v"], b"");
        assert_eq!(before, after, "a refused bundle left objects in the repo");
    }
}

fn oid(text: &str) -> CommitOid {
    text.parse().expect("an object id")
}
