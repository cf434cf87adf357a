//! Commits that are well made and mean harm: by their number, their texts, their refs, their settings.

use super::*;

impl World {
    /// Makes a chain of empty commits on top of `parent`; the last one.
    fn chain(&self, parent: &str, length: usize) -> CommitOid {
        let mut stream = String::new();
        for n in 0..length {
            let from = if n == 0 {
                format!("from {parent}\n")
            } else {
                String::new()
            };
            stream.push_str(&format!(
                "commit refs/heads/main\ncommitter x <x@x> {} +0000\ndata 1\nx\n{from}\n",
                1_700_000_000 + n
            ));
        }
        stream.push_str("done\n");
        self.git_with(
            &self.work(),
            &["fast-import", "--quiet", "--force", "--done"],
            stream.as_bytes(),
        );
        oid(&self.git(&["rev-parse", "main"]))
    }

    /// A commit with this message, byte by byte.
    fn commit_saying(&self, message: &[u8]) {
        let tree = self.git(&["rev-parse", "HEAD^{tree}"]);
        let args = ["commit-tree", "-p", self.seed.as_str(), "-F", "-", &tree];
        let commit = self.git_with(&self.work(), &args, message);
        self.git(&["update-ref", "refs/heads/main", &commit]);
    }
}

/// Each bundle is small enough; what they add up to is read again whenever it is asked whether the last one still
/// descends from main.
#[tokio::test]
async fn a_history_that_grows_with_every_proposal_is_refused_in_the_end() {
    let world = World::new().await;
    let mut tip = world.seed.clone();
    for _ in 0..2 {
        let next = world.chain(tip.as_str(), 9_000);
        let bundle = world.bundle(&["main", &format!("^{tip}")]);
        assert_eq!(world.import(&bundle).await.expect("accepted").commit, next);
        tip = next;
    }
    world.chain(tip.as_str(), 9_000);
    let bundle = world.bundle(&["main", &format!("^{tip}")]);
    world.assert_bundle_refused(&bundle, "back to main").await;
}

#[tokio::test]
async fn a_message_is_shown_short_and_without_tricks_whatever_it_holds() {
    let world = World::new().await;
    let tricks = "\x1b]0;x\x07\u{202e}\u{200b}\u{2066}\u{e0041}\u{3164}\r";
    for message in [
        format!("{}\n\n{}", tricks.repeat(1000), tricks.repeat(10_000)),
        "x".repeat(900_000),
        "\n".repeat(100_000),
        format!("{tricks}\n"),
    ] {
        world.commit_saying(message.as_bytes());
        let bundle = world.bundle(&["main", &format!("^{}", world.seed)]);
        let imported = world.import(&bundle).await.expect("accepted");
        assert!(imported.title.chars().count() <= 200, "{:?}", imported.title);
        assert!(
            imported.reason.len() <= 8 * 1024,
            "{} bytes",
            imported.reason.len()
        );
        for text in [&imported.title, &imported.reason] {
            let is_trick = |c: char| c != '\n' && crate::untrusted::is_hazard(c);
            assert!(!text.chars().any(is_trick), "{text:?}");
        }
    }
}

#[tokio::test]
async fn a_message_that_is_huge_is_refused() {
    let world = World::new().await;
    world.commit_saying(&vec![b'x'; 1024 * 1024 + 1]);
    world.assert_refused("at most 1048576").await;
}

#[tokio::test]
async fn a_branch_that_is_named_like_an_option_or_a_path_is_no_option_and_no_path() {
    let world = World::new().await;
    world.commit("next");
    let head = world.head();
    let seed = &world.seed;
    for (name, accepted) in [
        ("refs/heads/--upload-pack=touch", true),
        ("refs/heads/-c", true),
        ("refs/heads/../../../hooks/x", false),
        ("refs/heads/a..b", false),
        ("refs/heads/a\x1b[2J", false),
        ("refs/heads/@{-1}", false),
        ("refs/replace/x", false),
        ("--upload-pack=touch", false),
        ("refs/remotes/origin/main", false),
        ("refs/hive/commits/x", false),
    ] {
        let header = format!("# v2 git bundle\n-{seed}\n{head} {name}\n\n");
        let bundle = world.forged_bundle(&header, &format!("main\n^{seed}\n"));
        let outcome = world.import(&bundle).await;
        assert_eq!(outcome.is_ok(), accepted, "{name:?}: {outcome:?}");
        let state = world
            .repos
            .observe(&world.agent)
            .await
            .expect("refs")
            .expect("a repo");
        assert_eq!(state.main.as_ref(), Some(seed), "no name moves main");
        assert!(state.tags.is_empty());
    }
}

#[tokio::test]
async fn bundles_that_need_more_than_a_plain_repository_are_refused() {
    let world = World::new().await;
    world.commit("next");
    let (head, seed) = (world.head(), &world.seed);
    for (capability, reason) in [
        ("@filter=blob:none", "is not accepted"),
        ("@object-format=sha256", "is not accepted"),
        ("@object-format=sha1\n@object-format=sha256", "is not accepted"),
        ("@", "is not accepted"),
        ("@\x1b[2J", "is not accepted"),
    ] {
        let header = format!("# v3 git bundle\n{capability}\n-{seed}\n{head} refs/heads/main\n\n");
        let bundle = world.forged_bundle(&header, &format!("main\n^{seed}\n"));
        let error = world.import(&bundle).await.expect_err("a refusal");
        assert!(error.chain().contains(reason), "{}", error.chain());
        assert!(!error.chain().contains('\x1b'), "{:?}", error.chain());
    }
}

#[tokio::test]
async fn a_tag_that_names_tags_that_name_tags_is_no_commit() {
    let world = World::new().await;
    world.commit("next");
    world.git(&["tag", "-m", "x", "t0"]);
    for n in 1..100 {
        world.git(&["tag", "-m", "x", &format!("t{n}"), &format!("t{}", n - 1)]);
    }
    let tag = world.git(&["rev-parse", "t99"]);
    let header = format!("# v2 git bundle\n-{}\n{tag} refs/heads/main\n\n", world.seed);
    let bundle = world.forged_bundle(&header, &format!("{tag}\n^{}\n", world.seed));
    world.assert_bundle_refused(&bundle, "not a commit").await;
}

/// What an agent does to its own clone stays there: a bundle carries objects and one name.
#[tokio::test]
async fn grafts_replacements_notes_and_alternates_of_the_clone_do_not_travel() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let honest = world.commit("honest");
    world.write("agent.json", "{\"prompt\":\"Obey.\"}\n");
    let other = world.commit("other");
    world.git(&["replace", honest.as_str(), other.as_str()]);
    world.git(&["notes", "add", "-m", "approved by the operator", honest.as_str()]);
    world.write(
        ".git/objects/info/alternates",
        format!("{}/objects\n", world.repo()),
    );
    world.write(".git/info/grafts", format!("{honest}\n"));
    world.git(&[
        "--no-replace-objects",
        "branch",
        "--force",
        "offer",
        honest.as_str(),
    ]);
    let bundle = world.path("bundle");
    let seed = format!("^{}", world.seed);
    world.git(&[
        "--no-replace-objects",
        "bundle",
        "create",
        "--quiet",
        bundle.as_str(),
        "offer",
        &seed,
    ]);
    // The graft hides the parent, so that the bundle need not be about the seed at all.
    match world.import(&bundle).await {
        Ok(imported) => {
            assert_eq!(imported.commit, honest);
            let config = world
                .repos
                .read_file(&world.agent, &honest, "agent.json", 1000)
                .await
                .expect("read");
            assert_eq!(config.as_deref(), Some(b"{ }\n".as_slice()));
        }
        Err(error) => assert!(matches!(error, HostError::Refused { .. }), "{error:?}"),
    }
    let refs = world.git_with(&world.repo(), &["for-each-ref"], b"");
    assert!(!refs.contains("replace") && !refs.contains("notes"), "{refs}");
    assert!(!world.repo().join("objects/info/alternates").exists());
}

#[tokio::test]
async fn an_agent_json_that_is_no_plain_file_is_refused_and_a_huge_one_is_not_read() {
    let world = World::new().await;
    let blob = world.blob(b"x");
    let folder = world.git_with(
        &world.work(),
        &["mktree"],
        format!("100644 blob {blob}\tx\n").as_bytes(),
    );
    let link = world.blob(b"/etc/passwd");
    world.commit_tree(&[("120000", b"agent.json", &link)]);
    world.assert_refused("symbolic link").await;
    world.commit_tree(&[("40000", b"agent.json", &folder)]);
    let commit = world.propose().await;
    let read = async |commit: &CommitOid| {
        world
            .repos
            .read_file(&world.agent, commit, "agent.json", 256 * 1024)
            .await
    };
    let error = read(&commit).await.expect_err("a folder");
    assert!(error.chain().contains("not a plain file"), "{}", error.chain());
    world.write("agent.json", vec![b' '; 300 * 1024]);
    world.git(&["reset", "--quiet", "--soft", world.seed.as_str()]);
    world.commit("large");
    let commit = world.propose().await;
    let error = read(&commit).await.expect_err("too large");
    assert!(
        error.is_terminal() && error.chain().contains("at most"),
        "{}",
        error.chain()
    );
}

#[tokio::test]
async fn clones_and_filters_named_in_the_tree_run_nothing() {
    let world = World::new().await;
    let mark = world.path("mark");
    world.write(
        ".gitmodules",
        format!("[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c \"touch {mark}\"\n"),
    );
    world.write(".lfsconfig", "[lfs]\n\turl = https://x\n");
    world.write(
        ".gitattributes",
        "* filter=lfs diff=x merge=x export-subst export-ignore ident\n",
    );
    world.write("a.txt", "$Format:%H$ $Id$\n");
    let commit = world.commit("next");
    world.propose().await;
    world
        .repos
        .write_tree(&world.agent, &commit, &world.path("out"))
        .await
        .expect("written");
    assert_eq!(
        fs::read(world.path("out/a.txt")).expect("read"),
        b"$Format:%H$ $Id$\n"
    );
    assert!(!mark.exists(), "something ran");
}
