//! A store, a config repo and a builder of their own below a temporary folder. No network, none of the machine's settings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use reconciler::host::folders::write_atomic;
use reconciler::host::git::GitRepos;
use reconciler::host::layout::Layout;
use reconciler::host::nix::evaluate::{Evaluate, Evaluated, Job, Limits, Log, Sandboxed};
use reconciler::host::nix::{NixBuilder, NixOptions, Store};
use reconciler::host::process::Sandbox;
use reconciler::host::{Builder as _, HostError, Repos};
use reconciler::model::build::{BuildOutput, BuildRequest, GrantMode, NixInputs};
use serde_json::{Value, json};
use shared::{AgentName, AgentUid, CommitOid, Digest};

/// What an evaluation of a test may use.
pub(crate) const LIMITS: Limits = Limits {
    memory: 1 << 30,
    time: Duration::from_secs(20),
};

/// Where a shell of the build sandbox comes from.
const SHELL: &str = "/bin/busybox";

/// Evaluates, and counts how often.
pub(crate) struct Counting {
    inner: Sandboxed,
    pub(crate) count: AtomicUsize,
}

#[async_trait]
impl Evaluate for Counting {
    async fn evaluate(&self, key: &Digest, job: Job, log: &Log) -> Result<Evaluated, HostError> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.inner.evaluate(key, job, log).await
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

pub(crate) struct World {
    pub(crate) root: Utf8PathBuf,
    pub(crate) layout: Layout,
    pub(crate) store: Store,
    pub(crate) repos: Arc<dyn Repos>,
    pub(crate) evaluator: Arc<Counting>,
    pub(crate) builder: NixBuilder,
    folder: tempfile::TempDir,
}

#[expect(clippy::disallowed_methods, reason = "where the programs of this machine are")]
fn search_path() -> std::ffi::OsString {
    std::env::var_os("PATH").expect("a PATH")
}

/// A file of the test bed.
pub(crate) fn testbed(name: &str) -> String {
    let folder = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../checks/testbed");
    let folder = folder.canonicalize_utf8().expect("the test bed");
    folder.join(name).into_string()
}

pub(crate) fn alice() -> AgentName {
    "alice".parse().expect("a name")
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(LIMITS).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("UTF-8");
        let layout = Layout::new(root.join("state"), root.join("run"));
        for made in [layout.repos(), layout.systems()] {
            std::fs::create_dir_all(made).expect("a folder");
        }
        let store = Store::below(&root.join("nix"));
        let path = search_path();
        assert!(
            Utf8Path::new(SHELL).is_file(),
            "{SHELL} is missing: install busybox-static (cargo xtask prerequisites --install)"
        );
        let bwrap = match Sandbox::probe(&path).await {
            Sandbox::Bwrap(bwrap) => bwrap,
            Sandbox::None { why } => panic!("these tests need a sandbox: {why}"),
        };
        let git = GitRepos::find_git(&path).expect("git is missing: install git");
        let repos: Arc<dyn Repos> = Arc::new(GitRepos::new(layout.clone(), git));
        let evaluator = Arc::new(Counting {
            inner: Sandboxed {
                hive: env!("CARGO_BIN_EXE_hive").into(),
                bwrap,
                store: store.clone(),
                jobs: layout.builds(),
                limits,
            },
            count: AtomicUsize::new(0),
        });
        let shell = format!("/bin/sh={SHELL}");
        let settings = [
            ("substituters", ""),
            ("sandbox", "true"),
            ("sandbox-paths", shell.as_str()),
            ("hashed-mirrors", ""),
            ("connect-timeout", "1"),
        ];
        let options = NixOptions {
            layout: layout.clone(),
            store: store.clone(),
            profiles: root.join("profiles"),
            settings: settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            evaluator: Arc::clone(&evaluator) as _,
            time: Duration::from_secs(60),
        };
        let builder = NixBuilder::new(options, Arc::clone(&repos), &path)
            .expect("nix and nix-store are missing: install nix-bin (cargo xtask prerequisites --install)");
        Self {
            root,
            layout,
            store,
            repos,
            evaluator,
            builder,
            folder,
        }
    }

    /// Commits these files on top of the seed.
    pub(crate) async fn commit(&self, files: &[(&str, &str)]) -> CommitOid {
        let seed = BTreeMap::from([("README.md".to_owned(), "Seed\n".to_owned())]);
        let parent = self.repos.ensure(&alice(), &seed).await.expect("a repo");
        if files.is_empty() {
            return parent;
        }
        let files = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let at = "2026-01-01T00:00:00Z".parse().expect("a time");
        self.repos
            .commit(&alice(), &parent, &files.collect(), "Change", at)
            .await
            .expect("a commit")
    }

    /// A request for a commit of an agent declared so.
    pub(crate) fn request(&self, commit: CommitOid, spec: Value) -> BuildRequest {
        BuildRequest {
            agent: alice(),
            uid: AgentUid(uuid::Uuid::from_u128(7)),
            hive: "home".to_owned(),
            operator: Default::default(),
            commit,
            spec: serde_json::from_value(spec).expect("an agent"),
            harness: "/bin/hive-harness".into(),
            programs: Default::default(),
            model_url: None,
            provides_key: None,
            user_range: None,
            nix: Some(NixInputs {
                nixpkgs: testbed("nixpkgs"),
                guest_module: testbed("guest"),
                inputs: BTreeMap::new(),
                hosts: BTreeSet::new(),
            }),
            grants: GrantMode::Asked,
        }
    }

    /// Builds a commit that holds this module.
    pub(crate) async fn build(&self, module: &str) -> Result<BuildOutput, HostError> {
        let commit = self.commit(&[("agent.nix", module)]).await;
        self.builder.build(&self.request(commit, json!({}))).await
    }

    /// The refusal of a module.
    pub(crate) async fn refused(&self, module: &str) -> String {
        match self.build(module).await {
            Err(error) if error.is_terminal() => error.chain(),
            other => panic!("{module} is not refused: {other:?}"),
        }
    }

    pub(crate) async fn is_present(&self, system: &str) -> bool {
        let present = self.builder.present(&[system.to_owned()]).await.expect("looked");
        present[system]
    }

    /// A file in the store that nothing keeps.
    pub(crate) fn add(&self, name: &str) -> String {
        let file = self.root.join(name);
        write_atomic(&file, name.as_bytes(), 0o644).expect("written");
        let mut adding = self.nix_store(&["--add", file.as_str()]);
        let output = adding
            .stdout(std::process::Stdio::piped())
            .output()
            .expect("started");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .expect("a path")
            .trim()
            .to_owned()
    }

    /// Runs Nix's garbage collector.
    pub(crate) fn collect_garbage(&self) {
        let status = self.nix_store(&["--gc"]).status().expect("nix-store starts");
        assert!(status.success(), "{status}");
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a program of the test, on the test's own store"
    )]
    pub(crate) fn nix_store(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new("nix-store");
        command
            .args(args)
            .env("NIX_STORE_DIR", &self.store.dir)
            .env("NIX_STATE_DIR", &self.store.state)
            .env("NIX_LOG_DIR", &self.store.log)
            .env("NIX_CONF_DIR", self.root.join("nix/conf"))
            .env("NIX_REMOTE", "local")
            .env("NIX_CONFIG", "build-users-group =\nsubstituters =\n")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command
    }
}

impl Drop for World {
    /// What is in a store cannot be written, so its folders cannot be removed as they are.
    fn drop(&mut self) {
        fn open(folder: &std::path::Path) {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(folder, mode).unwrap_or_default();
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open(&entry.path());
                }
            }
        }
        open(self.folder.path());
    }
}
