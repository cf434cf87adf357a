use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use camino::Utf8PathBuf;

use super::*;

/// A layout in a temporary folder, with an agent's folders.
struct World {
    staged: StagedFiles,
    layout: Layout,
    agent: AgentName,
    _keep: tempfile::TempDir,
}

fn uid() -> AgentUid {
    "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().expect("a uid")
}

impl World {
    fn new() -> Self {
        let keep = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(keep.path()).expect("UTF-8").to_owned();
        let layout = Layout::new(root.join("s"), root.join("r"));
        let agent: AgentName = "helper".parse().expect("a name");
        fs::create_dir_all(layout.agent_state(&agent)).expect("a state folder");
        Self {
            staged: StagedFiles::new(layout.clone()),
            layout,
            agent,
            _keep: keep,
        }
    }

    fn state(&self) -> Utf8PathBuf {
        self.layout.agent_state(&self.agent)
    }

    /// Stages these texts, and gives what the ledger would say of them.
    async fn stage(&self, files: &[(&str, &str)]) -> BTreeMap<StatePath, StagedFile> {
        let mut staged = BTreeMap::new();
        for (path, text) in files {
            let bytes = text.as_bytes().to_vec();
            let size = bytes.len() as u64;
            let digest = self.staged.stage(uid(), bytes).await.expect("staged");
            staged.insert(path.parse().expect("a path"), StagedFile { digest, size });
        }
        staged
    }

    async fn lay_down(&self, files: &BTreeMap<StatePath, StagedFile>) -> Result<(), HostError> {
        self.staged.lay_down(&self.agent, uid(), files).await
    }

    fn objects(&self) -> usize {
        fs::read_dir(self.layout.staged_by(uid())).map_or(0, Iterator::count)
    }
}

fn put(path: impl AsRef<Utf8Path>, text: &str) {
    write_atomic(path.as_ref(), text.as_bytes(), 0o600).expect("written");
}

/// Puts something in the way of a file named `notes`.
type Obstacle<'a> = &'a dyn Fn(&Utf8Path);

fn mode(path: &Utf8Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn staged_files_are_laid_down_for_the_agent_alone_and_a_second_time_changes_nothing() {
    let world = World::new();
    let files = world
        .stage(&[("notes.md", "one"), ("a/b/deep.txt", "two"), ("a/empty", "")])
        .await;
    assert_eq!(mode(&world.layout.staged_by(uid())), 0o700);
    world.lay_down(&files).await.expect("laid down");
    let state = world.state();
    let (notes, deep) = (state.join("notes.md"), state.join("a/b/deep.txt"));
    assert_eq!(fs::read(&notes).expect("notes"), b"one");
    assert_eq!(fs::read(&deep).expect("deep"), b"two");
    assert_eq!((mode(&notes), mode(&state.join("a/b"))), (0o600, 0o700));
    let before = fs::metadata(&notes)
        .expect("metadata")
        .modified()
        .expect("a time");
    world.lay_down(&files).await.expect("again");
    assert_eq!(
        fs::metadata(&notes)
            .expect("metadata")
            .modified()
            .expect("a time"),
        before
    );
    assert_eq!(
        fs::read_dir(&state).expect("a folder").count(),
        2,
        "nothing else is left there"
    );
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_replaced() {
    let world = World::new();
    let files = world.stage(&[("notes.md", "whole")]).await;
    put(world.state().join(LAYING), "ha");
    world.lay_down(&files).await.expect("laid down");
    assert_eq!(fs::read(world.state().join("notes.md")).expect("notes"), b"whole");
    assert!(!world.state().join(LAYING).exists());
}

#[tokio::test]
async fn nothing_is_overwritten_and_no_link_is_followed() {
    let outside = tempfile::tempdir().expect("a folder");
    let target = Utf8Path::from_path(outside.path()).expect("UTF-8").join("target");
    put(&target, "precious");

    let in_the_way: [(&str, Obstacle<'_>); 5] = [
        ("another file", &|at| {
            put(at.join("notes"), "mine");
        }),
        ("a link to a file", &|at| {
            symlink(&target, at.join("notes")).expect("a link");
        }),
        ("a dangling link", &|at| {
            symlink("nowhere", at.join("notes")).expect("a link");
        }),
        ("a folder", &|at| {
            fs::create_dir(at.join("notes")).expect("a folder");
        }),
        ("a pipe", &|at| {
            rustix::fs::mknodat(
                rustix::fs::CWD,
                at.join("notes").as_std_path(),
                rustix::fs::FileType::Fifo,
                Mode::RWXU,
                0,
            )
            .expect("a pipe");
        }),
    ];
    for (what, obstruct) in in_the_way {
        let world = World::new();
        let files = world.stage(&[("notes", "staged")]).await;
        obstruct(&world.state());
        let refused = world.lay_down(&files).await.expect_err(what);
        assert!(refused.is_terminal(), "{what}: {}", refused.chain());
        assert_eq!(fs::read(&target).expect("the target"), b"precious", "{what}");
    }

    for (what, to) in [
        ("a link out", outside.path()),
        ("a link within", std::path::Path::new(".")),
    ] {
        let world = World::new();
        let files = world.stage(&[("a/notes", "staged")]).await;
        symlink(to, world.state().join("a")).expect("a link");
        let refused = world.lay_down(&files).await.expect_err(what);
        assert!(refused.is_terminal(), "{what}: {}", refused.chain());
        assert!(!outside.path().join("notes").exists(), "{what}");
        assert!(!world.state().join("notes").exists(), "{what}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_what_was_approved_are_not_laid_down() {
    let world = World::new();
    let files = world.stage(&[("notes", "staged")]).await;
    let digest = &files.values().next().expect("a file").digest;
    let object = world.layout.staged_by(uid()).join(digest.hex());
    put(&object, "forged");
    assert!(world.lay_down(&files).await.expect_err("forged").is_terminal());
    assert_eq!(world.staged.read(uid(), digest).await.expect("read"), None);
    fs::remove_file(&object).expect("removed");
    assert!(world.lay_down(&files).await.expect_err("lost").is_terminal());
    assert!(!world.state().join("notes").exists());
}

#[tokio::test]
async fn what_nothing_refers_to_goes_and_the_rest_stays() {
    let world = World::new();
    let files = world.stage(&[("a", "one"), ("b", "two"), ("c", "one")]).await;
    assert_eq!(world.objects(), 2, "the same bytes are kept once");
    let keep = BTreeSet::from([files.values().next().expect("a file").digest.clone()]);
    world.staged.keep(uid(), keep.clone()).await.expect("kept");
    assert_eq!(world.objects(), 1);
    world
        .staged
        .keep_drafts(BTreeSet::from([uid()]))
        .await
        .expect("swept");
    assert_eq!(world.objects(), 1);
    world.staged.keep_drafts(BTreeSet::new()).await.expect("swept");
    assert!(!world.layout.staged_by(uid()).exists());
    world
        .staged
        .keep(uid(), BTreeSet::new())
        .await
        .expect("nothing there is fine");
}

#[tokio::test]
async fn a_draft_is_deleted_and_an_agent_is_not() {
    let world = World::new();
    world.stage(&[("a", "one")]).await;
    let launch = world.layout.launch_file(&world.agent);
    fs::create_dir_all(launch.parent().expect("a folder")).expect("a folder");
    put(&launch, "{}");
    let refused = world
        .staged
        .discard(&world.agent, uid())
        .await
        .expect_err("it was started");
    assert!(refused.is_terminal());
    assert!(world.state().exists());
    fs::remove_file(&launch).expect("removed");
    for _ in 0..2 {
        world.staged.discard(&world.agent, uid()).await.expect("deleted");
    }
    assert!(!world.layout.agent(&world.agent).exists());
    assert!(!world.layout.staged_by(uid()).exists());
}
