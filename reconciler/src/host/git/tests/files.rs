//! Reading, writing and comparing the files of commits.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

impl World {
    async fn diff(&self, to: &CommitOid, max: usize) -> String {
        self.repos
            .diff(&self.agent, &self.seed, to, max)
            .await
            .expect("a diff")
    }

    async fn read(&self, commit: &CommitOid, path: &str, max: u64) -> Result<Option<Vec<u8>>, HostError> {
        self.repos.read_file(&self.agent, commit, path, max).await
    }
}

#[tokio::test]
async fn files_are_read_whole_or_not_at_all() {
    let world = World::new().await;
    let seed = &world.seed;
    assert_eq!(
        world.read(seed, "notes/a.txt", 14).await.expect("read"),
        Some(b"one\ntwo\nthree\n".to_vec())
    );
    for missing in [
        "agent.nix",
        "notes/b",
        "agent.json/x",
        "notes//a.txt",
        "/agent.json",
        "../agent.json",
        "",
        &"a/".repeat(5000),
    ] {
        assert_eq!(
            world.read(seed, missing, 100).await.expect("read"),
            None,
            "{missing:?}"
        );
    }
    let error = world.read(seed, "notes/a.txt", 13).await.expect_err("too large");
    assert!(
        error.is_terminal() && error.chain().contains("14 bytes"),
        "{}",
        error.chain()
    );
    let error = world.read(seed, "notes", 100).await.expect_err("a folder");
    assert!(error.chain().contains("not a plain file"), "{}", error.chain());
    world
        .read(&oid(&"1".repeat(40)), "agent.json", 100)
        .await
        .expect_err("no such commit");
}

#[tokio::test]
async fn a_tree_is_written_with_fixed_modes() {
    let world = World::new().await;
    world.write("bin/run", "#!/bin/sh\n");
    let run = world.work().join("bin/run");
    fs::set_permissions(run, fs::Permissions::from_mode(0o700)).expect("executable");
    let commit = world.commit("next");
    world.propose().await;
    let target = world.path("out");
    world
        .repos
        .write_tree(&world.agent, &commit, &target)
        .await
        .expect("written");

    let mode = |path: &str| fs::metadata(target.join(path)).expect(path).permissions().mode() & 0o7777;
    assert_eq!(
        ["", "bin", "bin/run", "agent.json", "notes/a.txt"].map(mode),
        [0o755, 0o755, 0o755, 0o644, 0o644]
    );
    assert_eq!(
        fs::read(target.join("notes/a.txt")).expect("a file"),
        b"one\ntwo\nthree\n"
    );
    assert_eq!(fs::read_dir(&target).expect("a folder").count(), 3);
    assert!(!world.path(".out.partial").exists());
}

#[tokio::test]
async fn a_target_that_exists_is_not_touched() {
    let world = World::new().await;
    let target = world.path("out");
    fs::create_dir(&target).expect("a folder");
    world
        .repos
        .write_tree(&world.agent, &world.seed, &target)
        .await
        .expect_err("it exists");
    assert_eq!(fs::read_dir(&target).expect("a folder").count(), 0);
    fs::remove_dir(&target).expect("removed");

    std::os::unix::fs::symlink(world.path("elsewhere"), &target).expect("a link");
    world
        .repos
        .write_tree(&world.agent, &world.seed, &target)
        .await
        .expect_err("it exists");
    assert!(!world.path("elsewhere").exists(), "a link was followed");
}

#[tokio::test]
async fn what_a_crash_left_of_a_tree_does_not_stop_the_next_attempt() {
    let world = World::new().await;
    fs::create_dir_all(world.path(".out.partial/notes")).expect("half a tree");
    world
        .repos
        .write_tree(&world.agent, &world.seed, &world.path("out"))
        .await
        .expect("written");
    assert!(world.path("out/agent.json").exists());
    assert!(!world.path(".out.partial").exists());
}

#[tokio::test]
async fn filters_and_substitutions_asked_for_in_gitattributes_have_no_effect() {
    let world = World::new().await;
    world.git(&["config", "filter.evil.smudge", "touch /tmp/never"]);
    let attributes = "a.txt export-ignore\nb.txt export-subst\nc.txt text eol=crlf ident\nd.txt filter=evil working-tree-encoding=UTF-16\n";
    // As raw objects, so that the agent's own git applies none of it on the way in.
    let blobs = [
        (".gitattributes", attributes),
        ("a.txt", "kept\n"),
        ("b.txt", "$Format:%H$\n"),
        ("c.txt", "$Id$\nline\n"),
        ("d.txt", "plain\n"),
    ];
    let ids = blobs.map(|(_, text)| world.blob(text.as_bytes()));
    let entries: Vec<_> = blobs
        .iter()
        .zip(&ids)
        .map(|((name, _), id)| ("100644", name.as_bytes(), id.as_str()))
        .collect();
    let commit = world.commit_tree(&entries);
    world.propose().await;
    let target = world.path("out");
    world
        .repos
        .write_tree(&world.agent, &commit, &target)
        .await
        .expect("written");
    for (name, text) in blobs {
        assert_eq!(fs::read_to_string(target.join(name)).expect(name), text, "{name}");
    }
}

#[tokio::test]
async fn a_diff_shows_every_kind_of_change() {
    let world = World::new().await;
    world.write("agent.json", "{ \"a\": 1 }");
    world.write("new.txt", "new\n");
    world.write("data", b"\0\x01");
    fs::remove_file(world.work().join("notes/a.txt")).expect("removed");
    world.git(&["add", "--all"]);
    world.git(&["update-index", "--chmod=+x", "new.txt"]);
    let commit = world.git(&[
        "commit-tree",
        "-p",
        world.seed.as_str(),
        "-m",
        "x",
        &world.git(&["write-tree"]),
    ]);
    world.git(&["update-ref", "refs/heads/main", &commit]);
    let commit = world.propose().await;
    let shown = world.diff(&commit, 100_000).await;
    insta::assert_snapshot!(shown, @r#"
    diff --git a/agent.json b/agent.json
    --- a/agent.json
    +++ b/agent.json
    @@ -1 +1 @@
    -{}
    +{ "a": 1 }
    \ No newline at end of file
    diff --git a/data b/data
    new file mode 100644
    Binary files differ (0 bytes before, 2 after)
    diff --git a/new.txt b/new.txt
    new file mode 100755
    --- /dev/null
    +++ b/new.txt
    @@ -0,0 +1 @@
    +new
    diff --git a/notes/a.txt b/notes/a.txt
    deleted file mode 100644
    --- a/notes/a.txt
    +++ /dev/null
    @@ -1,3 +0,0 @@
    -one
    -two
    -three
    "#);
    let back = world
        .repos
        .diff(&world.agent, &commit, &world.seed, 100_000)
        .await
        .expect("a diff");
    assert!(back.contains("-new\n") && back.contains("+three\n"), "{back}");
}

#[tokio::test]
async fn a_diff_that_is_cut_says_what_is_missing() {
    let world = World::new().await;
    world.write("a-large", "line é\n".repeat(5_000));
    world.write("z-hostile", "x\n");
    let commit = world.commit("next");
    world.propose().await;
    let whole = world.diff(&commit, 1_000_000).await;
    assert!(whole.contains("z-hostile") && !whole.contains("[cut"));
    for max in [0, 1, 10, 100, 1_000, 1_001, 1_002, 10_000] {
        let shown = world.diff(&commit, max).await;
        assert!(shown.len() <= max, "{} > {max}", shown.len());
        if max >= 1_000 {
            let last = shown.lines().last().expect("a line");
            assert_eq!(
                last,
                format!(
                    "[cut at {max} bytes: 2 of 2 changed files are not shown in full: a-large, z-hostile]"
                )
            );
            assert!(shown.starts_with("diff --git a/a-large b/a-large\n"), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_diff_cannot_play_tricks_on_a_terminal_or_a_reader() {
    let world = World::new().await;
    world.write("agent.json", "a\x1b[2Jb\rc\u{202e}d\u{2066}\x07\x08\u{9b}1m\n");
    let commit = world.commit("next");
    world.propose().await;
    let shown = world.diff(&commit, 10_000).await;
    assert!(
        shown.contains("+a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}\u{fffd}\u{fffd}\u{fffd}1m\n"),
        "{shown:?}"
    );
    let is_hidden = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!shown.chars().any(is_hidden), "{shown:?}");
}

#[tokio::test]
async fn a_change_of_bytes_that_cannot_be_shown_is_still_shown_as_a_change() {
    let world = World::new().await;
    world.write("x", b"a\xff\n");
    let first = world.commit("one");
    world.propose().await;
    world.write("x", b"a\xfe\n");
    let second = world.commit("two");
    world.propose().await;
    let shown = world
        .repos
        .diff(&world.agent, &first, &second, 10_000)
        .await
        .expect("a diff");
    assert!(shown.contains("-a\u{fffd}\n+a\u{fffd}\n"), "{shown}");
}
