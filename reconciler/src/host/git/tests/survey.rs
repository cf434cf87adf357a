//! What a repo tells when nothing else is left.

use jiff::Timestamp;

use super::super::survey;
use super::*;
use crate::host::RefUpdate;

async fn update(world: &World, update: RefUpdate) {
    world
        .repos
        .update_ref(&world.agent, &update)
        .await
        .expect("a ref moves");
}

#[tokio::test]
async fn a_survey_finds_every_tag_with_its_time_and_its_commit() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let first = world.commit("Look after the garden\n\nBecause.");
    world.propose().await;
    let at = Timestamp::from_second(1_700_000_000).expect("a time");
    let tag = |name: &str, commit: &CommitOid| RefUpdate::Tag {
        name: name.to_owned(),
        from: None,
        commit: commit.clone(),
        message: format!("{name}\n\nby: unix:root\n"),
        at,
    };
    update(&world, tag("proposal/1", &first)).await;
    update(&world, tag("deployed/1", &world.seed)).await;
    update(
        &world,
        RefUpdate::Main {
            from: Some(world.seed.clone()),
            to: world.seed.clone(),
        },
    )
    .await;
    world.git_with(&world.repo(), &["tag", "light", world.seed.as_str()], b"");
    let blob = world.git_with(&world.repo(), &["hash-object", "-w", "--stdin"], b"x");
    world.git_with(&world.repo(), &["update-ref", "refs/tags/blob", &blob], b"");

    let found = survey(&world.repo(), "repo of alice")
        .expect("it is read")
        .expect("it is there");
    assert_eq!(
        (found.main.as_ref(), found.root.as_ref()),
        (Some(&world.seed), Some(&world.seed))
    );
    let proposal = &found.tags["proposal/1"];
    assert_eq!(
        (&proposal.commit, &proposal.root, proposal.at),
        (&first, &world.seed, at)
    );
    assert_eq!(
        (proposal.title.as_str(), proposal.reason.as_str()),
        ("Look after the garden", "Because.")
    );
    assert!(
        proposal.message.starts_with("proposal/1\n\nby: unix:root"),
        "{:?}",
        proposal.message
    );
    assert!(!proposal.below_main && found.tags["deployed/1"].below_main);
    assert_eq!(found.tags["light"].at, Timestamp::UNIX_EPOCH);
    assert_eq!(found.broken.keys().collect::<Vec<_>>(), ["blob"]);
}

#[tokio::test]
async fn a_main_that_leads_nowhere_hides_no_tag_and_what_is_no_repo_is_an_error() {
    let world = World::new().await;
    let main = world.repo().join("refs/heads/main");
    std::fs::remove_file(&main).expect("main goes");
    let found = survey(&world.repo(), "repo of alice")
        .expect("it is read")
        .expect("it is there");
    assert_eq!(found.main, None);
    let missing = "1111111111111111111111111111111111111111\n";
    world.write("x", missing);
    std::fs::copy(world.work().join("x"), &main).expect("main leads nowhere");
    let found = survey(&world.repo(), "repo of alice")
        .expect("it is read")
        .expect("it is there");
    assert!(found.broken.contains_key("main"), "{found:?}");

    assert_eq!(
        survey(&world.path("nothing"), "repo").expect("nothing is no error"),
        None
    );
    std::fs::remove_file(world.repo().join("HEAD")).expect("HEAD goes");
    assert!(survey(&world.repo(), "repo of alice").is_err());
}
