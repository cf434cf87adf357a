//! What a hostile agent offers. Each test is one attack.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Settings and hooks that would run a program, in the clone that the bundle is made from and below its home.
#[tokio::test]
async fn hooks_and_fsmonitor_of_the_agents_clone_never_run_here() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    world.commit("next");
    let bundle = world.bundle(&["main"]);
    let mark = world.path("mark");
    let script = world.path("script");
    fs::File::create(&script)
        .and_then(|mut file| file.write_all(format!("#!/bin/sh\necho ran >> {mark}\n").as_bytes()))
        .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
        .expect("a script");
    // As if the agent had got its settings into every place that git reads: its clone, its home, the repo's hooks.
    for setting in [
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "uploadpack.packObjectsHook",
        "core.alternateRefsCommand",
    ] {
        world.git(&["config", setting, script.as_str()]);
        world.git(&[
            "config",
            "--file",
            world.path("home/.gitconfig").as_str(),
            setting,
            script.as_str(),
        ]);
    }
    let hooks = world.repo().join("hooks");
    fs::create_dir(&hooks).expect("a folder");
    for hook in [
        "post-checkout",
        "reference-transaction",
        "post-index-change",
        "pre-auto-gc",
        "update",
        "pre-receive",
    ] {
        fs::copy(&script, hooks.join(hook)).expect("a hook");
        fs::copy(&script, world.work().join(".git/hooks").join(hook)).expect("a hook");
    }
    let imported = world.import(&bundle).await.expect("accepted");
    world
        .repos
        .export(&world.agent, &world.path("export"))
        .await
        .expect("exported");
    world
        .repos
        .write_tree(&world.agent, &imported.commit, &world.path("out"))
        .await
        .expect("written");
    assert!(!mark.exists(), "something ran");
}

#[tokio::test]
async fn a_symbolic_link_is_refused() {
    let world = World::new().await;
    std::os::unix::fs::symlink("/etc/passwd", world.work().join("link")).expect("a link");
    world.commit("next");
    world.assert_refused("\"link\"").await;
    world.assert_refused("symbolic link").await;
}

#[tokio::test]
async fn a_submodule_is_refused() {
    let world = World::new().await;
    let commit = world.commit_tree(&[("160000", b"sub", world.seed.as_str())]);
    assert_eq!(world.head(), commit);
    world.assert_refused("submodule").await;
}

#[tokio::test]
async fn a_name_that_stands_for_gits_folder_is_refused() {
    let world = World::new().await;
    let blob = world.blob(b"x");
    for name in [
        ".git",
        ".GIT",
        ".git ",
        ".git.",
        "git~1",
        ".g\u{200c}it",
        ".git::$INDEX_ALLOCATION",
    ] {
        world.commit_tree(&[("100644", name.as_bytes(), &blob)]);
        let bundle = world.bundle(&["main"]);
        let error = world.import(&bundle).await.expect_err(name);
        assert!(matches!(error, HostError::Refused { .. }), "{name:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_or_misleads_is_refused() {
    let world = World::new().await;
    let blob = world.blob(b"x");
    let names: [&[u8]; 9] = [
        b"..",
        b".",
        b"../x",
        b"a/b",
        b"a\nb",
        b"a\x1b[2J",
        b"\xff",
        "a\u{202e}b".as_bytes(),
        &[b'x'; 256],
    ];
    for name in names {
        world.commit_tree(&[("100644", name, &blob)]);
        let bundle = world.bundle(&["main"]);
        let error = world.import(&bundle).await.expect_err("a refusal");
        assert!(matches!(error, HostError::Refused { .. }), "{name:?}: {error:?}");
        assert!(
            !error.chain().contains(['\x1b', '\n', '\u{202e}']),
            "{:?}",
            error.chain()
        );
    }
}

#[tokio::test]
async fn names_that_collide_on_some_file_systems_are_refused() {
    let world = World::new().await;
    let blob = world.blob(b"x");
    let pairs: [[&str; 2]; 3] = [
        ["AGENT.json", "agent.json"],
        ["E\u{301}", "\u{e9}"],
        ["same", "same"],
    ];
    for [one, other] in pairs {
        world.commit_tree(&[
            ("100644", one.as_bytes(), &blob),
            ("100644", other.as_bytes(), &blob),
        ]);
        let bundle = world.bundle(&["main"]);
        let error = world.import(&bundle).await.expect_err("a refusal");
        assert!(
            matches!(error, HostError::Refused { .. }),
            "{one:?} {other:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn an_unusual_mode_is_refused() {
    let world = World::new().await;
    let blob = world.blob(b"x");
    for mode in ["100666", "104755", "100600", "140000"] {
        world.commit_tree(&[(mode, b"x", &blob)]);
        let bundle = world.bundle(&["main"]);
        let error = world.import(&bundle).await.expect_err(mode);
        assert!(matches!(error, HostError::Refused { .. }), "{mode}: {error:?}");
    }
}

#[tokio::test]
async fn a_tree_with_too_many_entries_is_refused() {
    let world = World::new().await;
    let blob = world.blob(b"x");
    let names: Vec<String> = (0..2_001).map(|n| format!("{n:04}")).collect();
    let entries: Vec<_> = names
        .iter()
        .map(|name| ("100644", name.as_bytes(), blob.as_str()))
        .collect();
    world.commit_tree(&entries);
    world.assert_refused("more than 2000").await;
}

/// Ten folders that each name the next one ten times: few objects, 10^10 files.
#[tokio::test]
async fn a_tree_that_multiplies_is_refused_before_it_is_walked() {
    let world = World::new().await;
    let mut id = world.blob(b"x");
    let mut mode = "100644";
    for _ in 0..10 {
        let lines: String = (0..10)
            .map(|n| {
                let kind = if mode == "040000" { "tree" } else { "blob" };
                format!("{mode} {kind} {id}\tn{n}\n")
            })
            .collect();
        id = world.git_with(&world.work(), &["mktree"], lines.as_bytes());
        mode = "040000";
    }
    world.commit_tree(&[("40000", b"bomb", &id)]);
    world.assert_refused("more than 2000").await;
}

#[tokio::test]
async fn a_tree_that_is_too_deep_is_refused() {
    let world = World::new().await;
    world.write(&format!("{}x", "d/".repeat(16)), "x");
    world.commit("next");
    world.assert_refused("too deep").await;
}

/// A few kilobytes of zlib that become more than is accepted.
#[tokio::test]
async fn objects_that_unpack_to_too_much_are_refused() {
    let world = World::new().await;
    world.write("zeros", vec![0; 65 * 1024 * 1024]);
    world.commit("next");
    fs::remove_file(world.work().join("zeros")).expect("removed");
    world.commit("hidden in history");
    world.assert_refused("unpack to more").await;
}

/// An object larger than the memory that git is granted.
#[tokio::test]
async fn an_object_that_would_fill_the_memory_is_refused() {
    let world = World::new().await;
    let zeros = world.path("zeros");
    fs::File::create(&zeros)
        .and_then(|file| file.set_len(600 * 1024 * 1024))
        .expect("a sparse file");
    let blob = world.git(&["hash-object", "-w", zeros.as_str()]);
    world.commit_tree(&[("100644", b"zeros", &blob)]);
    world.assert_refused("unpack to more").await;
}

/// Small deltas, each of which unpacks to as much as its base.
#[tokio::test]
async fn deltas_that_unpack_to_too_much_are_refused() {
    let world = World::new().await;
    let mut text: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    for n in 0..20 {
        text[0] = n;
        world.write("large", &text);
        world.commit("next");
    }
    world.git(&["repack", "--quiet", "-adf", "--window=50"]);
    let bundle = world.bundle(&["main"]);
    assert!(
        fs::metadata(&bundle).expect("a bundle").len() < 8_000_000,
        "the deltas are not small"
    );
    world.assert_bundle_refused(&bundle, "unpack to more").await;
}

#[tokio::test]
async fn a_bundle_that_is_too_large_is_refused_unread() {
    let world = World::new().await;
    let path = world.path("bundle");
    fs::File::create(&path)
        .and_then(|file| file.set_len(shared::agent_api::MAX_BUNDLE_BYTES + 1))
        .expect("a sparse file");
    world.assert_bundle_refused(&path, "at most 33554432").await;
}

#[tokio::test]
async fn a_link_or_a_pipe_in_place_of_a_bundle_is_not_read() {
    let world = World::new().await;
    world.commit("next");
    let bundle = world.bundle(&["main"]);
    let link = world.path("link");
    std::os::unix::fs::symlink(&bundle, &link).expect("a link");
    world.import(&link).await.expect_err("a link");
    let pipe = world.path("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        pipe.as_std_path(),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .expect("a pipe");
    world.assert_bundle_refused(&pipe, "not a plain file").await;
}

#[tokio::test]
async fn garbage_is_refused() {
    let world = World::new().await;
    for bytes in [
        b"".as_slice(),
        b"\0",
        b"PACK\0\0\0\x02",
        &[0xff; 10_000],
        b"# v2 git bundle\n",
        b"# v2 git bundle\n\n",
    ] {
        let bundle = world.fake_bundle(bytes);
        let error = world.import(&bundle).await.expect_err("a refusal");
        assert!(matches!(error, HostError::Refused { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_bundle_cut_off_anywhere_is_refused() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    world.commit("next");
    let whole = fs::read(world.bundle(&["main"])).expect("a bundle");
    let header = whole
        .windows(2)
        .position(|pair| pair == b"\n\n")
        .expect("a header");
    for end in [
        10,
        header,
        header + 2,
        header + 6,
        header + 14,
        whole.len() / 2,
        whole.len() - 21,
        whole.len() - 1,
    ] {
        let bundle = world.fake_bundle(&whole[..end]);
        world.assert_bundle_refused(&bundle, "").await;
    }
    for at in (header + 2..whole.len()).step_by(whole.len() / 8) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        world
            .assert_bundle_refused(&world.fake_bundle(&flipped), "")
            .await;
    }
}

#[tokio::test]
async fn a_header_without_end_is_refused() {
    let world = World::new().await;
    let mut bytes = b"# v2 git bundle\n".to_vec();
    for _ in 0..100_000 {
        bytes.extend_from_slice(format!("-{} x\n", world.seed).as_bytes());
    }
    world
        .assert_bundle_refused(&world.fake_bundle(&bytes), "more than 1024")
        .await;
    let mut bytes = b"# v2 git bundle\n-".to_vec();
    bytes.resize(1 << 20, b'x');
    world
        .assert_bundle_refused(&world.fake_bundle(&bytes), "line of more than")
        .await;
}

#[tokio::test]
async fn an_unrelated_history_is_refused() {
    let world = World::new().await;
    world.git(&["checkout", "--quiet", "--orphan", "other"]);
    world.commit("unrelated");
    let bundle = world.bundle(&["other"]);
    world
        .assert_bundle_refused(&bundle, "does not descend from main")
        .await;
}

#[tokio::test]
async fn a_commit_that_builds_on_what_we_do_not_have_is_refused() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let first = world.commit("never offered");
    world.write("agent.json", "{  }\n");
    world.commit("next");
    let bundle = world.bundle(&["main", &format!("^{first}")]);
    world
        .assert_bundle_refused(&bundle, "fetch main and rebase")
        .await;

    // The same with a header that keeps silent about it.
    let header = format!("# v2 git bundle\n{} refs/heads/main\n\n", world.head());
    let bundle = world.forged_bundle(&header, &format!("main\n^{first}\n"));
    world.assert_bundle_refused(&bundle, "checks").await;
}

#[tokio::test]
async fn main_itself_is_refused() {
    let world = World::new().await;
    let bundle = world.bundle(&["main"]);
    world.assert_bundle_refused(&bundle, "is main already").await;
}

#[tokio::test]
async fn an_ancestor_of_main_is_refused() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let next = world.commit("next");
    world.propose().await;
    world.git(&["reset", "--quiet", "--hard", world.seed.as_str()]);
    let bundle = world.bundle(&["main"]);
    let error = world
        .repos
        .import(&world.agent, &bundle, &next)
        .await
        .expect_err("a step back");
    assert!(
        error.is_terminal() && error.chain().contains("does not descend"),
        "{}",
        error.chain()
    );
}

#[tokio::test]
async fn a_bundle_that_would_set_a_tag_is_refused() {
    let world = World::new().await;
    world.commit("next");
    world.git(&["tag", "-m", "x", "deployed/1"]);
    let bundle = world.bundle(&["deployed/1"]);
    world
        .assert_bundle_refused(&bundle, "neither HEAD nor a branch")
        .await;
    let state = world
        .repos
        .observe(&world.agent)
        .await
        .expect("refs")
        .expect("a repo");
    assert!(state.tags.is_empty());
}

#[tokio::test]
async fn a_bundle_with_two_refs_is_refused() {
    let world = World::new().await;
    world.commit("next");
    world.git(&["branch", "other"]);
    let bundle = world.bundle(&["main", "other"]);
    world.assert_bundle_refused(&bundle, "more than one ref").await;
}

#[tokio::test]
async fn a_ref_that_names_no_commit_is_refused() {
    let world = World::new().await;
    world.commit("next");
    world.git(&["tag", "-m", "x", "annotated"]);
    let tag = world.git(&["rev-parse", "annotated"]);
    let blob = world.blob(b"not in any tree");
    for id in [tag, blob, "1".repeat(40)] {
        let header = format!("# v2 git bundle\n{id} refs/heads/main\n\n");
        let wanted = if id.starts_with("1111") { "main" } else { &id };
        let bundle = world.forged_bundle(&header, wanted);
        world.assert_bundle_refused(&bundle, "not a commit").await;
    }
}

#[tokio::test]
async fn a_malformed_commit_is_refused() {
    let world = World::new().await;
    let tree = world.git(&["rev-parse", "HEAD^{tree}"]);
    let raw = format!("tree {tree}\nparent {}\nauthor x\n\nno committer\n", world.seed);
    let id = world.git_with(
        &world.work(),
        &["hash-object", "-t", "commit", "--literally", "-w", "--stdin"],
        raw.as_bytes(),
    );
    let header = format!("# v2 git bundle\n{id} refs/heads/main\n\n");
    // A pack that holds it alone: git will not walk such a commit.
    let pack = world.path("pack");
    let hash = world.git_with(
        &world.work(),
        &["pack-objects", "--quiet", pack.as_str()],
        format!("{id}\n").as_bytes(),
    );
    let mut bytes = header.into_bytes();
    bytes.extend(fs::read(format!("{pack}-{hash}.pack")).expect("a pack"));
    world
        .assert_bundle_refused(&world.fake_bundle(&bytes), "checks")
        .await;
}

/// One agent cannot reach what is in another agent's repo.
#[tokio::test]
async fn the_commits_of_another_agent_are_not_there() {
    let world = World::new().await;
    world.write("agent.json", "{ }\n");
    let first = world.commit("alice's own");
    world.propose().await;
    let bob: AgentName = "bob".parse().expect("a name");
    world.repos.ensure(&bob, &seed_files()).await.expect("a repo");
    world.commit("on top");
    let bundle = world.bundle(&["main", &format!("^{first}")]);
    let error = world
        .repos
        .import(&bob, &bundle, &world.seed)
        .await
        .expect_err("not bob's");
    assert!(
        error.is_terminal() && error.chain().contains("does not have"),
        "{}",
        error.chain()
    );
}
