//! What an agent's secrets are to it, and to everybody else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use reconciler::host::folders::write_atomic;
use reconciler::host::{LaunchFile, Runtime as _};
use shared::spec::{DriverKind, SecretSpec};

use crate::world::{World, no_sandbox, options};

const SECRET: &str = "sk-made-up-and-not-told";
const BACKWARDS: &str = "dlot-ton-dna-pu-edam-ks";

async fn agent(world: &World, file: &Utf8Path) -> LaunchFile {
    let secret = SecretSpec {
        file: file.to_string(),
        version: "1".to_owned(),
    };
    let secrets = [("key".to_owned(), secret)];
    let agent = world.agent_with("alice", "secrets", |launch| launch.secrets = secrets.into());
    agent.await
}

fn secret_file(world: &World) -> Utf8PathBuf {
    let file = world.root.join("key");
    write_atomic(&file, SECRET.as_bytes(), 0o400).expect("written");
    file
}

/// Every file below this folder that holds the secret.
fn holders(folder: &Utf8Path, found: &mut Vec<Utf8PathBuf>) {
    for entry in folder.read_dir_utf8().expect("a folder").flatten() {
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            holders(entry.path(), found);
        } else if kind.is_file() && holds(entry.path()) {
            found.push(entry.path().to_owned());
        }
    }
}

fn holds(file: &Utf8Path) -> bool {
    let content = fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    content
        .windows(SECRET.len())
        .any(|part| part == SECRET.as_bytes())
}

#[tokio::test]
async fn a_secret_is_the_agents_to_read_and_is_nowhere_else() {
    let world = World::new();
    let file = secret_file(&world);
    let alice = agent(&world, &file).await;
    let daemon = world.daemon().await;
    daemon.start(&alice).await;
    let report = world.written(&alice, "report").await;
    assert_eq!(
        report.lines().collect::<Vec<_>>(),
        [
            &format!("/run/credentials/key 1000 600 {BACKWARDS}"),
            "environment: CREDENTIALS_DIRECTORY HOME LANG PATH PWD TMPDIR ",
        ]
    );

    let mut found = Vec::new();
    holders(&world.root, &mut found);
    assert_eq!(found, [file]);
    for pid in [world.outer_pid(&alice), world.harness_pid(&alice)] {
        for told in ["cmdline", "environ"] {
            assert!(
                !holds(format!("/proc/{pid}/{told}").as_str().into()),
                "{told} of {pid}"
            );
        }
        let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
        let open = open.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        let open: Vec<_> = open
            .filter(|file| file.to_string_lossy().contains("memfd"))
            .collect();
        assert!(open.is_empty(), "{pid} has {open:?} open");
    }
    daemon.stop(&alice).await;
}

/// The daemon that adopts an agent hands it nothing, and need not: what it has does not depend on the file.
#[tokio::test]
async fn an_adopted_agent_has_its_secrets_although_their_files_are_gone() {
    let world = World::new();
    let file = secret_file(&world);
    let alice = agent(&world, &file).await;
    let daemon = world.daemon().await;
    daemon.start(&alice).await;
    world.written(&alice, "report").await;
    let run = daemon.run(&alice).await;
    drop(daemon);
    fs::remove_file(&file).expect("removed");

    let daemon = world.daemon().await;
    assert_eq!(daemon.run(&alice).await, run);
    let inside = format!("/proc/{}/root/run/credentials/key", world.harness_pid(&alice));
    assert!(holds(inside.as_str().into()));
    daemon.stop(&alice).await;
    // It is not started without, and the error is for the operator.
    let error = daemon.runtime.start(&alice).await.expect_err("started");
    let said = error.chain();
    assert!(!error.is_terminal(), "{said}");
    assert_eq!(
        said,
        format!("the secret key of alice, {file}: it is not there: create it, or correct `file` in the spec")
    );
}

#[tokio::test]
async fn without_a_sandbox_an_agent_is_not_started_with_secrets_whatever_is_allowed_otherwise() {
    let world = World::new();
    let file = secret_file(&world);
    let alice = agent(&world, &file).await;
    assert_eq!(alice.launch.driver, DriverKind::Claude);
    let (mut options, _ended) = options(world.layout.clone(), no_sandbox());
    options.unsafe_no_sandbox = true;
    let daemon = reconciler::host::process::ProcessRuntime::new(options).expect("a runtime");
    let error = daemon.start(&alice).await.expect_err("started");
    assert!(
        error.is_terminal() && error.chain().contains("it has secrets (key)"),
        "{}",
        error.chain()
    );
    assert_eq!(world.get(&alice, "starts"), "");
    assert_eq!(
        fs::metadata(file).expect("a file").permissions().mode() & 0o777,
        0o400
    );
}
