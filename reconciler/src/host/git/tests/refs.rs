//! Making repos, observing and moving refs.

use std::os::unix::fs::PermissionsExt as _;

use jiff::Timestamp;

use super::*;
use crate::host::RefUpdate;

fn tag(name: &str, from: Option<&CommitOid>, commit: &CommitOid, message: &str) -> RefUpdate {
    RefUpdate::Tag {
        name: name.to_owned(),
        from: from.cloned(),
        commit: commit.clone(),
        message: message.to_owned(),
        at: Timestamp::from_second(1_700_000_000).expect("a time"),
    }
}

fn assert_moved(result: Result<(), HostError>) {
    assert!(matches!(result, Err(HostError::Moved { .. })), "{result:?}");
}

#[tokio::test]
async fn the_same_seed_is_the_same_commit_in_every_hive() {
    let (one, other) = (World::new().await, World::new().await);
    assert_eq!(one.seed, other.seed);
    // Fixed for ever: it is in the ledgers of hives that exist.
    assert_eq!(one.seed.as_str(), "1e181198f5e8b37c62252ffb520f6d4cbe08b780");
    assert_eq!(
        one.git(&["log", "--format=%an <%ae> %at %s"]),
        "hyperhive <hive@localhost> 0 seed"
    );
    assert_eq!(one.git(&["show", "HEAD:notes/a.txt"]), "one\ntwo\nthree");
}

#[tokio::test]
async fn making_a_repo_again_changes_nothing_and_still_names_the_seed() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let next = world.commit("next");
    world.propose().await;
    let update = RefUpdate::Main {
        from: Some(world.seed.clone()),
        to: next.clone(),
    };
    world
        .repos
        .update_ref(&world.agent, &update)
        .await
        .expect("main moves");

    let again = world
        .repos
        .ensure(&world.agent, &BTreeMap::new())
        .await
        .expect("a repo");
    assert_eq!(again, world.seed);
    let state = world
        .repos
        .observe(&world.agent)
        .await
        .expect("refs")
        .expect("a repo");
    assert_eq!(state.main, Some(next));
}

#[tokio::test]
async fn a_repo_is_for_the_daemon_alone_and_passes_gits_checks() {
    let world = World::new().await;
    for folder in [
        world.repo(),
        world.repo().join("objects"),
        world.repos.layout.repos(),
    ] {
        let mode = fs::metadata(&folder).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
    assert!(!world.repo().join("hooks").exists());
    world.git_with(&world.repo(), &["fsck", "--strict", "--no-dangling"], b"");
}

#[tokio::test]
async fn what_a_crash_left_behind_does_not_stop_a_repo_from_being_made() {
    let world = World::new().await;
    let bob: AgentName = "bob".parse().expect("a name");
    let scratch = world.repos.layout.repos().join(".bob.git.new");
    fs::create_dir_all(scratch.join("objects/ab")).expect("half a repo");
    fs::File::create(scratch.join("HEAD")).expect("an empty file");

    let seed = world.repos.ensure(&bob, &seed_files()).await.expect("a repo");
    assert_eq!(seed, world.seed);
    assert!(!scratch.exists());
}

#[tokio::test]
async fn a_folder_that_is_no_repo_is_reported_and_left_alone() {
    let world = World::new().await;
    let bob: AgentName = "bob".parse().expect("a name");
    let folder = world.repos.layout.repo(&bob);
    fs::create_dir_all(folder.join("precious")).expect("a folder");
    let error = world
        .repos
        .ensure(&bob, &seed_files())
        .await
        .expect_err("no repo");
    assert!(
        error.chain().contains("not a git repository"),
        "{}",
        error.chain()
    );
    assert!(folder.join("precious").exists());
    world
        .repos
        .observe(&bob)
        .await
        .expect_err("unknown is not absent");
}

#[tokio::test]
async fn a_repo_that_lost_its_main_is_not_taken_for_a_new_one() {
    let world = World::new().await;
    fs::remove_file(world.repo().join("refs/heads/main")).expect("main");
    let error = world
        .repos
        .ensure(&world.agent, &seed_files())
        .await
        .expect_err("no main");
    assert!(error.chain().contains("hive recover"), "{}", error.chain());
}

#[tokio::test]
async fn a_seed_with_hostile_paths_is_refused() {
    let world = World::new().await;
    let bob: AgentName = "bob".parse().expect("a name");
    for paths in [
        &["../x"][..],
        &[".git/config"],
        &["/etc/x"],
        &["a//b"],
        &["a", "a/b"],
    ] {
        let seed = paths
            .iter()
            .map(|path| ((*path).to_owned(), String::new()))
            .collect();
        let result = world.repos.ensure(&bob, &seed).await;
        assert!(
            matches!(result, Err(HostError::Refused { .. })),
            "{paths:?}: {result:?}"
        );
    }
    assert_eq!(world.repos.observe(&bob).await.expect("observed"), None);
}

#[tokio::test]
async fn tags_are_observed_as_they_were_written() {
    let world = World::new().await;
    let message = "decision: 7\n\n-----BEGIN PGP SIGNATURE-----\nnot one\n";
    let update = tag("proposal/1", None, &world.seed, message);
    world
        .repos
        .update_ref(&world.agent, &update)
        .await
        .expect("a tag");
    world.git_with(&world.repo(), &["fsck", "--strict"], b"");

    let state = world
        .repos
        .observe(&world.agent)
        .await
        .expect("refs")
        .expect("a repo");
    assert_eq!(state.main.as_ref(), Some(&world.seed));
    let seen = &state.tags["proposal/1"];
    assert_eq!((&seen.commit, seen.message.as_str()), (&world.seed, message));
    assert_ne!(seen.object, seen.commit);

    let other = World::new().await;
    other
        .repos
        .update_ref(&other.agent, &update)
        .await
        .expect("a tag");
    let again = other
        .repos
        .observe(&other.agent)
        .await
        .expect("refs")
        .expect("a repo");
    assert_eq!(state, again, "the same tag is the same object everywhere");
}

#[tokio::test]
async fn refs_that_git_packed_are_seen_and_moved_all_the_same() {
    let world = World::new().await;
    let update = tag("proposal/1", None, &world.seed, "x");
    world
        .repos
        .update_ref(&world.agent, &update)
        .await
        .expect("a tag");
    let before = world.repos.observe(&world.agent).await.expect("refs");
    world.git_with(&world.repo(), &["pack-refs", "--all"], b"");
    assert!(!world.repo().join("refs/tags/proposal/1").exists());
    assert_eq!(world.repos.observe(&world.agent).await.expect("refs"), before);

    let from = before.expect("a repo").tags["proposal/1"].object.clone();
    let delete = RefUpdate::DeleteTag {
        name: "proposal/1".to_owned(),
        from,
    };
    world
        .repos
        .update_ref(&world.agent, &delete)
        .await
        .expect("deleted");
    world
        .repos
        .update_ref(&world.agent, &delete)
        .await
        .expect("still deleted");
    let after = world
        .repos
        .observe(&world.agent)
        .await
        .expect("refs")
        .expect("a repo");
    assert!(after.tags.is_empty(), "{after:?}");
}

#[tokio::test]
async fn an_update_that_is_carried_out_already_succeeds_and_writes_nothing() {
    let world = World::new().await;
    for update in [
        tag("proposal/1", None, &world.seed, "x"),
        RefUpdate::Main {
            from: None,
            to: world.seed.clone(),
        },
    ] {
        world.repos.update_ref(&world.agent, &update).await.expect("done");
        let before = world.git_with(&world.repo(), &["count-objects", "-v"], b"");
        world
            .repos
            .update_ref(&world.agent, &update)
            .await
            .expect("done already");
        assert_eq!(
            before,
            world.git_with(&world.repo(), &["count-objects", "-v"], b"")
        );
    }
}

#[tokio::test]
async fn a_ref_that_moved_behind_our_back_is_not_overwritten() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let next = world.commit("next");
    world.propose().await;
    let repo = world.repo();

    world
        .repos
        .update_ref(&world.agent, &tag("proposal/1", None, &world.seed, "x"))
        .await
        .expect("a tag");
    let seen = world
        .repos
        .observe(&world.agent)
        .await
        .expect("refs")
        .expect("a repo");
    let object = &seen.tags["proposal/1"].object;
    world.git_with(&repo, &["update-ref", "refs/tags/proposal/1", next.as_str()], b"");
    assert_moved(
        world
            .repos
            .update_ref(&world.agent, &tag("proposal/1", Some(object), &next, "y"))
            .await,
    );
    assert_moved(
        world
            .repos
            .update_ref(&world.agent, &tag("proposal/1", None, &next, "y"))
            .await,
    );
    let delete = |from: &CommitOid| RefUpdate::DeleteTag {
        name: "proposal/1".to_owned(),
        from: from.clone(),
    };
    assert_moved(world.repos.update_ref(&world.agent, &delete(object)).await);

    let state = world
        .repos
        .observe(&world.agent)
        .await
        .expect("refs")
        .expect("a repo");
    assert_eq!(
        state.tags["proposal/1"].object, next,
        "a lightweight tag names the commit itself"
    );
    assert_eq!(state.tags["proposal/1"].message, "");
    world
        .repos
        .update_ref(&world.agent, &tag("proposal/1", Some(&next), &next, "y"))
        .await
        .expect("repaired");

    let main = |from: Option<&CommitOid>, to: &CommitOid| RefUpdate::Main {
        from: from.cloned(),
        to: to.clone(),
    };
    assert_moved(world.repos.update_ref(&world.agent, &main(None, &next)).await);
    assert_moved(
        world
            .repos
            .update_ref(&world.agent, &main(Some(&next), &next))
            .await,
    );
    let state = world
        .repos
        .observe(&world.agent)
        .await
        .expect("refs")
        .expect("a repo");
    assert_eq!(state.main.as_ref(), Some(&world.seed));
}

#[tokio::test]
async fn a_ref_that_was_deleted_behind_our_back_is_not_made_anew() {
    let world = World::new().await;
    let update = tag("proposal/1", Some(&world.seed), &world.seed, "x");
    assert_moved(world.repos.update_ref(&world.agent, &update).await);
    let state = world
        .repos
        .observe(&world.agent)
        .await
        .expect("refs")
        .expect("a repo");
    assert!(state.tags.is_empty());
}

#[tokio::test]
async fn a_tag_that_leads_to_no_commit_can_be_seen_and_replaced() {
    let world = World::new().await;
    let blob = world.git_with(&world.repo(), &["hash-object", "-w", "--stdin"], b"x");
    world.git_with(&world.repo(), &["update-ref", "refs/tags/proposal/1", &blob], b"");
    world.git_with(
        &world.repo(),
        &["symbolic-ref", "refs/tags/proposal/2", "refs/heads/main"],
        b"",
    );
    let state = world
        .repos
        .observe(&world.agent)
        .await
        .expect("refs")
        .expect("a repo");
    assert_eq!(state.tags["proposal/1"].commit.as_str(), blob);
    assert_eq!(state.tags["proposal/2"].object, world.seed);
    for (name, seen) in &state.tags {
        let update = tag(name, Some(&seen.object), &world.seed, "x");
        world
            .repos
            .update_ref(&world.agent, &update)
            .await
            .expect("replaced");
    }
    let state = world
        .repos
        .observe(&world.agent)
        .await
        .expect("refs")
        .expect("a repo");
    assert!(
        state
            .tags
            .values()
            .all(|tag| tag.commit == world.seed && tag.message == "x"),
        "{state:?}"
    );
    assert_eq!(
        state.main.as_ref(),
        Some(&world.seed),
        "main moved through a symbolic tag"
    );
}

#[tokio::test]
async fn a_lock_that_a_crash_left_behind_does_not_stop_an_update() {
    let world = World::new().await;
    fs::create_dir_all(world.repo().join("refs/tags/proposal")).expect("a folder");
    fs::File::create(world.repo().join("refs/tags/proposal/1.lock")).expect("a stale lock");
    let update = tag("proposal/1", None, &world.seed, "x");
    world
        .repos
        .update_ref(&world.agent, &update)
        .await
        .expect("a tag");
    assert!(!world.repo().join("refs/tags/proposal/1.lock").exists());
}

#[tokio::test]
async fn no_ref_is_moved_to_a_commit_that_is_not_there() {
    let world = World::new().await;
    let missing = oid(&"1".repeat(40));
    let main = RefUpdate::Main {
        from: Some(world.seed.clone()),
        to: missing.clone(),
    };
    for update in [main, tag("proposal/1", None, &missing, "x")] {
        let error = world
            .repos
            .update_ref(&world.agent, &update)
            .await
            .expect_err("dangling");
        assert!(error.chain().contains("is not there"), "{}", error.chain());
    }
}

#[tokio::test]
async fn tag_names_that_are_no_ref_names_are_refused() {
    let world = World::new().await;
    for name in ["", "../heads/main", "a b", "a..b", "x.lock", "/x", "a\nb"] {
        let result = world
            .repos
            .update_ref(&world.agent, &tag(name, None, &world.seed, "x"))
            .await;
        assert!(
            matches!(result, Err(HostError::Refused { .. })),
            "{name:?}: {result:?}"
        );
    }
}

#[tokio::test]
async fn two_updates_at_once_leave_one_winner() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let next = world.commit("next");
    world.propose().await;
    let updates = [
        tag("proposal/1", None, &world.seed, "x"),
        tag("proposal/1", None, &next, "y"),
    ];
    let (one, other) = tokio::join!(
        world.repos.update_ref(&world.agent, &updates[0]),
        world.repos.update_ref(&world.agent, &updates[1])
    );
    assert_ne!(one.is_ok(), other.is_ok(), "{one:?} {other:?}");
    assert_moved(one.and(other));
}

#[tokio::test]
async fn an_agent_without_a_repo_is_absent() {
    let world = World::new().await;
    let bob: AgentName = "bob".parse().expect("a name");
    assert_eq!(world.repos.observe(&bob).await.expect("observed"), None);
}
