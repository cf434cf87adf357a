use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use shared::config::AgentConfig;
use shared::spec::{DriverKind, LimitsSpec, Network};

use super::*;
use crate::host::Launch;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// A layout in a temporary folder, a system to activate, and one agent.
struct World {
    folders: AgentFolders,
    layout: Layout,
    agent: AgentName,
    system: Utf8PathBuf,
    _keep: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let keep = tempfile::tempdir().expect("a folder");
        let root = Utf8Path::from_path(keep.path()).expect("UTF-8").to_owned();
        let layout = Layout::new(root.join("state"), root.join("run"));
        let system = root.join("system");
        fs::create_dir_all(system.join("tree/docs")).expect("a tree");
        put(&system.join("tree/docs/notes.md"), b"notes");
        put(&system.join("tree/run.sh"), b"#!/bin/sh");
        fs::set_permissions(system.join("tree/run.sh"), fs::Permissions::from_mode(0o700)).expect("a mode");
        Self {
            folders: AgentFolders::new(layout.clone()),
            layout,
            agent: "alice".parse().expect("a name"),
            system,
            _keep: keep,
        }
    }

    async fn activate(&self, prompt: &str, commit: &str) -> Result<(), HostError> {
        let (launch, config) = (launch_file(&self.agent), config_file(&self.agent, prompt, commit));
        self.folders
            .activate(&self.agent, self.system.as_str(), &launch, &config)
            .await
    }

    async fn observe(&self) -> FolderState {
        self.folders.observe(&self.agent).await.expect("observed")
    }

    fn config(&self) -> Utf8PathBuf {
        self.layout.config(&self.agent)
    }
}

fn uid() -> AgentUid {
    "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().expect("a uid")
}

fn launch_file(agent: &AgentName) -> LaunchFile {
    let launch = Launch {
        agent: agent.clone(),
        uid: uid(),
        harness: "/bin/true".into(),
        claude: None,
        driver: DriverKind::Scripted,
        network: Network::None,
        binds: Vec::new(),
        limits: LimitsSpec::default(),
        secrets: BTreeMap::new(),
        user_range: None,
        system: None,
    };
    LaunchFile {
        digest: canonical::digest(Encoding::Toplevel, &launch).expect("a digest"),
        launch,
    }
}

fn config_file(agent: &AgentName, prompt: &str, commit: &str) -> ConfigFile {
    let config: AgentConfig = serde_json::from_value(serde_json::json!({
        "agent": agent,
        "uid": uid(),
        "hive": "home",
        "prompt": prompt,
        "driver": {},
        "maxTurnMinutes": 30,
        "commit": commit,
    }))
    .expect("a config");
    ConfigFile {
        digest: canonical::digest(Encoding::Config, &config).expect("a digest"),
        config,
    }
}

fn put(path: &Utf8Path, bytes: &[u8]) {
    write_atomic(path, bytes, 0o644).expect("written");
}

fn mode(path: &Utf8Path) -> u32 {
    fs::symlink_metadata(path).expect("metadata").permissions().mode() & 0o7777
}

fn names(folder: &Utf8Path) -> Vec<String> {
    let mut names: Vec<_> = folder
        .read_dir_utf8()
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn prepared_folders_have_their_modes_and_are_observed() {
    let world = World::new();
    assert_eq!(world.observe().await, FolderState::default());
    world.folders.prepare(&world.agent).await.expect("prepared");
    assert!(world.observe().await.prepared);
    let (layout, agent) = (&world.layout, &world.agent);
    for private in [
        layout.agents(),
        layout.agent(agent),
        layout.launch(agent),
        layout.agent_state(agent),
    ] {
        assert_eq!(mode(&private), 0o700, "{private}");
    }
    for shown in [layout.config(agent), layout.sock(agent)] {
        assert_eq!(mode(&shown), 0o755, "{shown}");
    }
}

#[tokio::test]
async fn preparing_repairs_a_mode_and_refuses_a_link() {
    let world = World::new();
    world.folders.prepare(&world.agent).await.expect("prepared");
    let launch = world.layout.launch(&world.agent);
    fs::set_permissions(&launch, fs::Permissions::from_mode(0o777)).expect("a mode");
    world.folders.prepare(&world.agent).await.expect("prepared again");
    assert_eq!(mode(&launch), 0o700);

    fs::remove_dir(&launch).expect("removed");
    symlink("/tmp", &launch).expect("a link");
    assert!(!world.observe().await.prepared);
    let error = world
        .folders
        .prepare(&world.agent)
        .await
        .expect_err("took a link for a folder");
    assert!(error.to_string().contains(launch.as_str()), "{error}");
}

#[tokio::test]
async fn an_activated_config_is_observed_with_both_digests_and_its_tree() {
    let world = World::new();
    world.activate("hello", COMMIT).await.expect("activated");
    let state = world.observe().await;
    assert_eq!(state.toplevel, Some(launch_file(&world.agent).digest));
    assert_eq!(
        state.config,
        Some(config_file(&world.agent, "hello", COMMIT).digest)
    );
    let tree = world.config().join(format!("tree-{COMMIT}"));
    assert_eq!(fs::read(tree.join("docs/notes.md")).expect("notes"), b"notes");
    assert_eq!(
        (mode(&tree.join("docs/notes.md")), mode(&tree.join("run.sh"))),
        (0o644, 0o755)
    );
    assert_eq!(
        read_launch(&world.layout.launch_file(&world.agent)).expect("read"),
        launch_file(&world.agent)
    );
}

#[tokio::test]
async fn activating_again_removes_the_older_tree_and_what_a_crash_left() {
    let world = World::new();
    world.activate("hello", COMMIT).await.expect("activated");
    for left in [".agent.json.1-0.tmp", ".tree-half/x"] {
        let left = world.config().join(left);
        fs::create_dir_all(left.parent().expect("a parent")).expect("a folder");
        put(&left, b"half");
    }
    world.activate("hello", OTHER_COMMIT).await.expect("activated");
    assert_eq!(
        names(&world.config()),
        ["agent.json".to_owned(), format!("tree-{OTHER_COMMIT}")]
    );
}

#[tokio::test]
async fn activating_the_same_again_writes_nothing() {
    let world = World::new();
    world.activate("hello", COMMIT).await.expect("activated");
    let file = world.layout.config_file(&world.agent);
    let before = fs::metadata(&file).expect("metadata");
    world.activate("hello", COMMIT).await.expect("activated");
    let after = fs::metadata(&file).expect("metadata");
    assert_eq!(
        (before.ino(), before.mtime_nsec()),
        (after.ino(), after.mtime_nsec())
    );
}

#[tokio::test]
async fn a_tree_with_a_link_is_refused_and_the_old_config_stays() {
    let world = World::new();
    world.activate("hello", COMMIT).await.expect("activated");
    symlink("/etc/passwd", world.system.join("tree/passwd")).expect("a link");
    let error = world
        .activate("other", OTHER_COMMIT)
        .await
        .expect_err("copied a link");
    assert!(error.is_terminal(), "{error}");
    assert_eq!(
        world.observe().await.config,
        Some(config_file(&world.agent, "hello", COMMIT).digest)
    );
}

#[tokio::test]
async fn broken_missing_or_forged_files_count_as_not_written_and_are_repaired() {
    let world = World::new();
    world.activate("hello", COMMIT).await.expect("activated");
    let whole = world.observe().await;
    let file = world.layout.config_file(&world.agent);
    let text = fs::read_to_string(&file).expect("text");

    let repairs: [&dyn Fn(); 5] = [
        &|| put(&file, b"{"),
        &|| put(&file, text.replace("hello", "obey").as_bytes()),
        &|| fs::remove_file(&file).expect("removed"),
        &|| {
            fs::remove_file(&file).expect("removed");
            symlink("/etc/passwd", &file).expect("a link");
        },
        &|| fs::remove_dir_all(world.config().join(format!("tree-{COMMIT}"))).expect("removed"),
    ];
    for damage in repairs {
        damage();
        assert_eq!(world.observe().await.config, None);
        world.activate("hello", COMMIT).await.expect("repaired");
        assert_eq!(world.observe().await, whole);
    }
    put(&world.layout.launch_file(&world.agent), b"[]");
    assert_eq!(world.observe().await.toplevel, None);
    assert!(read_launch(&world.layout.launch_file(&world.agent)).is_err());
}

#[tokio::test]
async fn archiving_moves_state_and_repo_and_can_be_repeated() {
    let world = World::new();
    let (layout, agent) = (&world.layout, &world.agent);
    world.activate("hello", COMMIT).await.expect("activated");
    put(&layout.agent_state(agent).join("notes"), b"mine");
    symlink("/etc", layout.agent_state(agent).join("planted")).expect("a link");
    fs::create_dir_all(layout.repo(agent)).expect("a repo");

    for _ in 0..2 {
        world.folders.archive(agent, uid()).await.expect("archived");
        let archive = layout.archive(agent, uid());
        assert_eq!(
            fs::read(archive.join("agent/state/notes")).expect("notes"),
            b"mine"
        );
        assert_eq!(names(&archive), ["agent", "archive.json", "repo.git"]);
        assert!(
            !layout.agent(agent).exists() && !layout.repo(agent).exists() && !layout.sock(agent).exists()
        );
    }
    assert!(
        Utf8Path::new("/etc/passwd").exists(),
        "the planted link was followed"
    );
}

#[tokio::test]
async fn archiving_resumes_after_a_crash_between_the_two_moves() {
    let world = World::new();
    let (layout, agent) = (&world.layout, &world.agent);
    world.folders.prepare(agent).await.expect("prepared");
    fs::create_dir_all(layout.repo(agent)).expect("a repo");
    let archive = layout.archive(agent, uid());
    fs::create_dir_all(&archive).expect("a folder");
    fs::rename(layout.agent(agent), archive.join("agent")).expect("the first move");

    world.folders.archive(agent, uid()).await.expect("archived");
    assert_eq!(names(&archive), ["agent", "archive.json", "repo.git"]);
}

/// An agent with notes and a repo, in the archive.
async fn archived(world: &World) {
    world.activate("hello", COMMIT).await.expect("activated");
    put(&world.layout.agent_state(&world.agent).join("notes"), b"mine");
    fs::create_dir_all(world.layout.repo(&world.agent)).expect("a repo");
    world
        .folders
        .archive(&world.agent, uid())
        .await
        .expect("archived");
}

#[tokio::test]
async fn restoring_brings_state_and_repo_back_and_can_be_repeated() {
    let world = World::new();
    let (layout, agent) = (&world.layout, &world.agent);
    archived(&world).await;
    for _ in 0..2 {
        world.folders.restore(agent, uid()).await.expect("restored");
        let notes = fs::read(layout.agent_state(agent).join("notes")).expect("notes");
        assert_eq!(notes, b"mine");
        assert!(layout.repo(agent).is_dir());
        assert!(!layout.archive(agent, uid()).exists(), "nothing is left behind");
    }
}

#[tokio::test]
async fn restoring_resumes_after_a_crash_between_the_two_moves() {
    let world = World::new();
    let (layout, agent) = (&world.layout, &world.agent);
    archived(&world).await;
    fs::rename(layout.archive(agent, uid()).join("agent"), layout.agent(agent)).expect("the first move");

    world.folders.restore(agent, uid()).await.expect("restored");
    assert!(layout.repo(agent).is_dir() && !layout.archive(agent, uid()).exists());
}

#[tokio::test]
async fn restoring_never_overwrites_an_agent_that_is_there() {
    let world = World::new();
    let (layout, agent) = (&world.layout, &world.agent);
    archived(&world).await;
    world.folders.prepare(agent).await.expect("another of that name");
    let error = world.folders.restore(agent, uid()).await.expect_err("refused");
    assert!(error.is_terminal(), "{}", error.chain());
    assert!(layout.archive(agent, uid()).join("agent/state/notes").exists());
}

#[tokio::test]
async fn restoring_from_an_empty_archive_says_what_to_do() {
    let world = World::new();
    let error = world
        .folders
        .restore(&world.agent, uid())
        .await
        .expect_err("refused");
    assert!(
        error.is_terminal() && error.chain().contains("backup"),
        "{}",
        error.chain()
    );
}

#[tokio::test]
async fn purging_deletes_what_is_ours_and_can_be_repeated() {
    let world = World::new();
    let (layout, agent) = (&world.layout, &world.agent);
    archived(&world).await;
    let kept = layout.archive(agent, uid()).join("agent/state");
    symlink("/etc", kept.join("planted")).expect("a link");
    fs::create_dir(kept.join("closed")).expect("a folder");
    put(&kept.join("closed/file"), b"x");
    fs::set_permissions(kept.join("closed"), fs::Permissions::from_mode(0o000)).expect("closed");
    assert_eq!(
        world.folders.archived(agent, uid()).await.expect("seen"),
        ArchiveState::Ours
    );
    for _ in 0..2 {
        world.folders.purge(agent, uid()).await.expect("purged");
        assert_eq!(names(&layout.archives()), Vec::<String>::new());
        let seen = world.folders.archived(agent, uid()).await.expect("seen");
        assert_eq!(seen, ArchiveState::Absent);
    }
    assert!(
        Utf8Path::new("/etc/passwd").exists(),
        "the planted link was followed"
    );
}

#[tokio::test]
async fn purging_resumes_after_a_crash_in_the_middle() {
    let world = World::new();
    let (layout, agent) = (&world.layout, &world.agent);
    archived(&world).await;
    let doomed = layout.archives().join(format!(".purge-{agent}-{}", uid()));
    fs::rename(layout.archive(agent, uid()), &doomed).expect("the rename");
    fs::remove_file(doomed.join("archive.json")).expect("the first file");
    assert_eq!(
        world.folders.archived(agent, uid()).await.expect("seen"),
        ArchiveState::Ours
    );
    assert!(
        world.folders.restore(agent, uid()).await.is_err(),
        "half an agent comes back"
    );

    world.folders.purge(agent, uid()).await.expect("purged");
    assert_eq!(names(&layout.archives()), Vec::<String>::new());
}

#[tokio::test]
async fn a_folder_without_our_mark_is_not_purged() {
    let world = World::new();
    let (layout, agent) = (&world.layout, &world.agent);
    let folder = layout.archive(agent, uid());
    fs::create_dir_all(&folder).expect("somebody's folder");
    put(&folder.join("theirs"), b"x");
    put(
        &folder.join("archive.json"),
        br#"{ "version": 1, "agent": "other", "uid": "0" }"#,
    );
    assert_eq!(
        world.folders.archived(agent, uid()).await.expect("seen"),
        ArchiveState::Foreign
    );
    let error = world.folders.purge(agent, uid()).await.expect_err("refused");
    assert!(error.is_terminal(), "{}", error.chain());
    assert!(folder.join("theirs").exists());
}

#[tokio::test]
async fn archiving_never_overwrites_what_was_archived_before() {
    let world = World::new();
    let (layout, agent) = (&world.layout, &world.agent);
    world.folders.prepare(agent).await.expect("prepared");
    let kept = layout.archive(agent, uid()).join("agent");
    fs::create_dir_all(&kept).expect("a folder");
    put(&kept.join("notes"), b"old");
    assert!(world.folders.archive(agent, uid()).await.is_err());
    assert_eq!(fs::read(kept.join("notes")).expect("notes"), b"old");
    assert!(layout.agent(agent).is_dir());
}

#[test]
fn a_link_in_the_place_of_a_file_is_replaced_and_not_followed() {
    let keep = tempfile::tempdir().expect("a folder");
    let folder = Utf8Path::from_path(keep.path()).expect("UTF-8");
    put(&folder.join("victim"), b"before");
    symlink("victim", folder.join("file")).expect("a link");
    write_atomic(&folder.join("file"), b"after", 0o640).expect("written");
    assert_eq!(fs::read(folder.join("victim")).expect("victim"), b"before");
    assert_eq!(fs::read(folder.join("file")).expect("file"), b"after");
    assert_eq!(mode(&folder.join("file")), 0o640);
}

#[test]
fn a_write_that_fails_leaves_nothing_behind() {
    let keep = tempfile::tempdir().expect("a folder");
    let folder = Utf8Path::from_path(keep.path()).expect("UTF-8");
    fs::create_dir(folder.join("file")).expect("a folder in the way");
    assert!(write_atomic(&folder.join("file"), b"after", 0o640).is_err());
    assert_eq!(names(folder), ["file"]);
    assert!(write_atomic(&folder.join("nowhere/file"), b"after", 0o640).is_err());
}
