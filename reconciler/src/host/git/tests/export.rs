//! Bundles for agents, and finding git.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;

use jiff::Timestamp;

use super::*;
use crate::host::RefUpdate;

#[tokio::test]
async fn an_exported_bundle_holds_main_and_all_tags_and_nothing_else() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    world.commit("kept but neither branch nor tag");
    world.propose().await;
    let update = RefUpdate::Tag {
        name: "deployed/0".to_owned(),
        from: None,
        commit: world.seed.clone(),
        message: "x".to_owned(),
        at: Timestamp::UNIX_EPOCH,
    };
    world
        .repos
        .update_ref(&world.agent, &update)
        .await
        .expect("a tag");

    let target = world.path("export");
    for _ in 0..2 {
        world.repos.export(&world.agent, &target).await.expect("a bundle");
        let heads = world.git(&["bundle", "list-heads", target.as_str()]);
        let names: Vec<_> = heads
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(_, name)| name)
            .collect();
        assert_eq!(names, ["refs/heads/main", "refs/tags/deployed/0"]);
    }
    world.git(&["fetch", "--quiet", target.as_str(), "main"]);
    assert_eq!(world.git(&["rev-parse", "FETCH_HEAD"]), world.seed.as_str());
}

#[tokio::test]
async fn an_export_says_why_it_failed() {
    let world = World::new().await;
    let error = world
        .repos
        .export(&world.agent, &world.path("no/such/folder/x"))
        .await
        .expect_err("no folder");
    assert!(matches!(error, HostError::Failed { .. }), "{error:?}");
    assert!(error.chain().contains("No such file"), "{}", error.chain());

    let broken = GitRepos::new(world.repos.layout.clone(), "/no/such/git".into());
    let error = broken
        .export(&world.agent, &world.path("export"))
        .await
        .expect_err("no git");
    assert!(error.chain().contains("/no/such/git"), "{}", error.chain());
}

#[tokio::test]
async fn reading_and_moving_refs_start_no_program() {
    let world = World::new().await;
    let repos = GitRepos::new(world.repos.layout.clone(), "/no/such/git".into());
    let bob: AgentName = "bob".parse().expect("a name");
    let seed = repos.ensure(&bob, &seed_files()).await.expect("a repo");
    assert!(repos.observe(&bob).await.expect("refs").is_some());
    assert!(repos.is_ancestor(&bob, &seed, &seed).await.expect("there"));
    assert!(
        repos
            .read_file(&bob, &seed, "agent.json", 100)
            .await
            .expect("there")
            .is_some()
    );
    repos
        .write_tree(&bob, &seed, &world.path("out"))
        .await
        .expect("written");
    assert_eq!(repos.diff(&bob, &seed, &seed, 100).await.expect("compared"), "");
    let main = RefUpdate::Main {
        from: Some(seed.clone()),
        to: seed,
    };
    repos.update_ref(&bob, &main).await.expect("moved");
}

#[test]
fn git_is_looked_for_in_absolute_folders_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let git = folder.path().join("git");
    fs::File::create(&git).expect("a file");
    let search = |path: &str| GitRepos::find_git(OsStr::new(path)).map(Utf8PathBuf::into_std_path_buf);
    let path = format!("relative:{}", folder.path().display());
    assert_ne!(
        search(&path).as_ref(),
        Some(&git),
        "a file that is not executable"
    );
    fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).expect("executable");
    assert_eq!(search(&path).as_ref(), Some(&git));
    assert!(search("relative:.").is_none_or(|path| path.is_absolute()));
}
