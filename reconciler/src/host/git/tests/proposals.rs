//! What an honest agent offers, and what becomes of it.

use super::*;

#[tokio::test]
async fn a_commit_on_top_of_main_is_taken_in_and_no_branch_or_tag_moves() {
    let world = World::new().await;
    world.write("agent.json", "{\"prompt\":\"x\"}\n");
    let commit = world.commit("Add a \x1b[31mprompt\n\nIt was missing.\nReally.");
    let before = world.repos.observe(&world.agent).await.expect("refs");
    let bundle = world.bundle(&["main", &format!("^{}", world.seed)]);
    let imported = world.import(&bundle).await.expect("accepted");
    assert_eq!(
        imported,
        Imported {
            commit: commit.clone(),
            title: "Add a \u{fffd}[31mprompt".to_owned(),
            reason: "It was missing.\nReally.".to_owned(),
        }
    );
    assert_eq!(world.repos.observe(&world.agent).await.expect("refs"), before);
    let descends = world.repos.is_ancestor(&world.agent, &world.seed, &commit).await;
    assert!(descends.expect("both are there"));
    let ascends = world.repos.is_ancestor(&world.agent, &commit, &world.seed).await;
    assert!(!ascends.expect("both are there"));
}

#[tokio::test]
async fn a_commit_that_was_taken_in_survives_garbage_collection() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let commit = world.commit("next");
    world.propose().await;
    world.git_with(&world.repo(), &["gc", "--quiet", "--prune=now"], b"");
    let read = world
        .repos
        .read_file(&world.agent, &commit, "agent.json", 100)
        .await;
    assert_eq!(read.expect("readable"), Some(b"{ }\n".to_vec()));
    world.git_with(&world.repo(), &["fsck", "--strict"], b"");
}

#[tokio::test]
async fn the_same_bundle_again_is_accepted_and_stored_once() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let commit = world.commit("next");
    assert_eq!(world.propose().await, commit);
    let before = world.git_with(&world.repo(), &["count-objects", "-v"], b"");
    assert_eq!(world.propose().await, commit);
    // The same commit in another pack: a full bundle without prerequisites.
    let full = world.bundle(&["main"]);
    assert_eq!(world.import(&full).await.expect("accepted").commit, commit);
    assert_eq!(
        before,
        world.git_with(&world.repo(), &["count-objects", "-v"], b"")
    );
}

#[tokio::test]
async fn a_bundle_that_builds_on_an_earlier_proposal_is_accepted() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let first = world.commit("first");
    world.propose().await;
    world.write("agent.json", "{  }\n");
    let second = world.commit("second");
    let bundle = world.bundle(&["main", &format!("^{first}")]);
    assert_eq!(world.import(&bundle).await.expect("accepted").commit, second);
}

#[tokio::test]
async fn a_merge_that_contains_main_is_accepted() {
    let world = World::new().await;
    world.git(&["checkout", "--quiet", "--orphan", "other"]);
    world.write("other.txt", "x");
    world.commit("unrelated");
    world.git(&[
        "merge",
        "--quiet",
        "--allow-unrelated-histories",
        "-s",
        "ours",
        "-m",
        "merge",
        world.seed.as_str(),
    ]);
    let merged = world.head();
    let bundle = world.bundle(&["other"]);
    assert_eq!(world.import(&bundle).await.expect("accepted").commit, merged);
}

#[tokio::test]
async fn a_bundle_of_head_is_accepted_like_one_of_a_branch() {
    let world = World::new().await;
    let commit = world.commit("nothing but a message");
    let bundle = world.bundle(&["HEAD"]);
    assert_eq!(world.import(&bundle).await.expect("accepted").commit, commit);
}

#[tokio::test]
async fn a_quarantine_that_a_crash_left_behind_does_not_stop_the_next_import() {
    let world = World::new().await;
    let left = world.repos.layout.incoming().join("quarantine-alice/objects");
    fs::create_dir_all(&left).expect("half a quarantine");
    fs::File::create(left.join("junk")).expect("a file");
    let commit = world.commit("next");
    assert_eq!(world.propose().await, commit);
}

#[tokio::test]
async fn what_a_crash_between_pack_and_ref_left_behind_is_completed_by_the_next_import() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let commit = world.commit("next");
    world.propose().await;
    let kept = world.repo().join(format!("refs/hive/commits/{commit}"));
    fs::remove_file(&kept).expect("the ref that keeps it");
    world.propose().await;
    assert!(kept.exists());
}

#[tokio::test]
async fn an_import_that_is_given_up_leaves_no_quarantine_and_the_repo_usable() {
    let world = World::new().await;
    let commit = world.commit("next");
    let bundle = world.bundle(&["main"]);
    {
        let import = world.repos.import(&world.agent, &bundle, &world.seed);
        tokio::pin!(import);
        // One poll starts it; then its caller goes away.
        tokio::select! {
            biased;
            _ = &mut import => {}
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(world.propose().await, commit);
}

#[tokio::test]
async fn old_content_comes_back_as_a_commit_on_top_of_the_new() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let newer = world.commit("next");
    world.propose().await;
    let at = "2026-11-21T12:00:00Z".parse().expect("a time");
    let repeat = || {
        world
            .repos
            .repeat(&world.agent, &newer, &world.seed, "Roll back", at)
    };
    let commit = repeat().await.expect("a commit");
    assert_eq!(repeat().await.expect("the same again"), commit);
    let descends = world.repos.is_ancestor(&world.agent, &newer, &commit).await;
    assert!(descends.expect("both are there"));
    let read = |commit| world.repos.read_file(&world.agent, commit, "agent.json", 100);
    assert_eq!(
        read(&commit).await.expect("readable"),
        read(&world.seed).await.expect("readable")
    );
    world.git_with(&world.repo(), &["fsck", "--strict"], b"");
}

#[tokio::test]
async fn what_is_not_in_the_repo_does_not_come_back() {
    let world = World::new().await;
    let missing = "0123456789abcdef0123456789abcdef01234567".parse().expect("an id");
    let at = jiff::Timestamp::UNIX_EPOCH;
    for (parent, content) in [(&missing, &world.seed), (&world.seed, &missing)] {
        let refused = world
            .repos
            .repeat(&world.agent, parent, content, "Roll back", at)
            .await;
        assert!(refused.is_err(), "{refused:?}");
    }
}
