//! What an agent can and cannot see and do.

use std::fs;

use reconciler::host::Runtime as _;
use reconciler::host::process::{Bwrap, Sandbox};
use rustix::process::geteuid;
use shared::spec::{BindSpec, Network};

use crate::world::{World, name, sandbox};

fn bind(source: &str, target: &str, read_only: bool) -> BindSpec {
    BindSpec {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
    }
}

#[tokio::test]
async fn the_sandbox_shows_the_agent_its_own_and_nothing_of_the_hive() {
    let world = World::new();
    let alice = world.agent("alice", "spy").await;
    let bob = world.agent("bob", "obey").await;
    fs::create_dir_all(world.layout.repo(&name("alice"))).expect("a repo");
    for path in [
        world.layout.ledger(),
        world.layout.admin_socket(),
        world.layout.agent_socket(&name("alice")),
    ] {
        fs::File::create(path).expect("a file");
    }
    let (layout, agent) = (&world.layout, &alice.launch.agent);
    let hidden = [
        world.root.clone(),
        layout.state().to_owned(),
        layout.ledger(),
        layout.admin_socket(),
        layout.repo(agent),
        layout.launch_file(agent),
        layout.agent_state(&bob.launch.agent),
        "/root".into(),
        "/home".into(),
        "/var".into(),
        "/sys".into(),
        "/etc/shadow".into(),
        "/etc/ssl/private".into(),
        "/run/systemd".into(),
        "/run/dbus".into(),
        "/dev/mem".into(),
        "/dev/sda".into(),
    ];
    let shown = [
        "/run/hive/hive.sock",
        "/state/paths",
        "/config",
        "/bin/sh",
        "/usr",
        "/etc/passwd",
        "/dev/null",
    ];
    let paths: Vec<&str> = hidden.iter().map(|path| path.as_str()).chain(shown).collect();
    world.put(&alice, "paths", &format!("{}\n", paths.join("\n")));

    // What a daemon inherits from a careless parent is not for its agents.
    let careless = rustix::io::dup(fs::File::open(env!("CARGO_BIN_EXE_hive")).expect("a file"))
        .expect("a copy that exec keeps");
    let daemon = world.daemon().await;
    daemon.start(&alice).await;
    drop(careless);
    let report = world.written(&alice, "report").await;
    daemon.stop(&alice).await;

    let has = |line: &str| report.lines().any(|found| found == line);
    for path in &hidden {
        assert!(!has(&format!("sees {path}")), "{path} is visible:\n{report}");
    }
    for path in shown {
        assert!(has(&format!("sees {path}")), "{path} is not visible:\n{report}");
    }
    assert!(!report.contains("writes "), "{report}");
    for open in world
        .get(&alice, "open")
        .lines()
        .filter_map(|line| line.split(" -> ").nth(1))
    {
        // The shell keeps its script open, and this very list.
        let known = ["/dev/null", "/state/open", "/run/hive-harness-bin/hive-harness"].contains(&open)
            || open.ends_with("/alice/launch/harness.log");
        assert!(known, "the harness has {open} open");
    }
    assert!(!has("makes namespaces"), "{report}");
    assert!(has("socket: /run/hive/hive.sock"), "{report}");
    assert!(has("user: 1000 alice on alice"), "{report}");
    assert!(has("environment: HOME LANG PATH PWD TMPDIR "), "{report}");
    assert!(has("interfaces: lo "), "{report}");
    assert!(has("privileges: 0"), "{report}");
    let processes = report
        .lines()
        .find_map(|line| line.strip_prefix("processes: "))
        .expect("a count");
    assert!(
        processes.parse::<u32>().expect("a number") < 10,
        "sees processes of the host:\n{report}"
    );
}

#[tokio::test]
async fn binds_appear_where_they_were_declared_and_as_they_were_declared() {
    let Sandbox::Bwrap(best) = sandbox().await else {
        panic!("no sandbox")
    };
    for bind_fd in [best.bind_fd, false] {
        let world = World::new();
        let (wiki, notes) = (world.root.join("wiki"), world.root.join("notes"));
        for folder in [&wiki, &notes] {
            fs::create_dir(folder).expect("a folder");
            fs::File::create(folder.join("page")).expect("a page");
        }
        let alice = world
            .agent_with("alice", "spy", |launch| {
                launch.binds = vec![
                    bind(wiki.as_str(), "/wiki", true),
                    bind(notes.as_str(), "/srv/notes", false),
                ];
                launch.network = Network::Host;
            })
            .await;
        world.put(&alice, "paths", "/wiki/page\n/srv/notes/page\n");
        let daemon = world.daemon_with(Sandbox::Bwrap(Bwrap {
            bind_fd,
            ..best.clone()
        }));
        daemon.start(&alice).await;
        let report = world.written(&alice, "report").await;
        daemon.stop(&alice).await;
        for line in ["sees /wiki/page", "sees /srv/notes/page"] {
            assert!(report.lines().any(|found| found == line), "{report}");
        }
    }
}

#[tokio::test]
async fn a_bind_of_the_daemons_folders_is_refused_and_named() {
    let world = World::new();
    let daemon = world.daemon().await;
    let (state, run) = (world.layout.state().to_owned(), world.layout.run().to_owned());
    for source in [
        state.as_str(),
        run.as_str(),
        world.root.as_str(),
        "/",
        "/run",
        "/proc",
    ] {
        let alice = world
            .agent_with("alice", "obey", |launch| {
                launch.binds = vec![bind(source, "/wiki", true)];
            })
            .await;
        let error = daemon.runtime.start(&alice).await.expect_err("bound it");
        assert!(error.is_terminal(), "{error}");
        assert!(
            error
                .to_string()
                .contains(&format!("{source:?} -> \"/wiki\" of alice")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_writable_bind_must_belong_to_the_daemon() {
    let world = World::new();
    let daemon = world.daemon().await;
    // A folder of somebody else: root's for an ordinary user, a stranger's for root.
    let folder = world.root.join("folder");
    fs::create_dir(&folder).expect("a folder");
    let foreign = if geteuid().is_root() {
        std::os::unix::fs::chown(&folder, Some(12345), None).expect("chown");
        folder.as_str()
    } else {
        "/usr/share"
    };
    let alice = world
        .agent_with("alice", "obey", |launch| {
            launch.binds = vec![bind(foreign, "/wiki", false)];
        })
        .await;
    let error = daemon.runtime.start(&alice).await.expect_err("bound it");
    assert!(error.to_string().contains("make it read-only"), "{error}");
}

#[tokio::test]
async fn the_daemons_folders_are_covered_where_the_host_programs_lie_around_them() {
    // Only root can put a hive below /usr; for others the rule is checked by the unit test of `hide`.
    let below = if geteuid().is_root() {
        "/usr/local/share"
    } else {
        "/tmp"
    };
    let keep = tempfile::tempdir_in(below).expect("a folder");
    let world = World::in_folder(keep);
    let alice = world.agent("alice", "spy").await;
    fs::File::create(world.layout.ledger()).expect("a ledger");
    let (ledger, launch) = (
        world.layout.ledger(),
        world.layout.launch_file(&alice.launch.agent),
    );
    world.put(&alice, "paths", &format!("{ledger}\n{launch}\n"));
    let daemon = world.daemon().await;
    daemon.start(&alice).await;
    let report = world.written(&alice, "report").await;
    daemon.stop(&alice).await;
    assert!(!report.contains("sees "), "{report}");
}
