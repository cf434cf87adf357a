//! The daemon may end at any time: agents do not notice, and the next daemon finds them.

use std::fs;
use std::process::{Command, Stdio};

use reconciler::host::folders::write_atomic;
use reconciler::host::process::ProcessRuntime;
use reconciler::host::{ExitCause, LaunchFile, Runtime as _, UnitState};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use crate::world::{DEADLINE, World, handle, kill, layout_at, options, sandbox, until};

/// The file that makes [`daemon_stand_in`] work; it lies in its working folder.
const STAND_IN: &str = "daemon-stand-in.json";

#[tokio::test]
async fn a_new_daemon_adopts_what_runs_and_sees_its_end() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let old = world.daemon().await;
    old.start(&alice).await;
    let run = old.run(&alice).await;

    let mut new = world.daemon().await;
    assert_eq!(new.run(&alice).await, run);
    new.start(&alice).await;
    assert_eq!(new.run(&alice).await, run);
    world.written(&alice, "starts").await;
    kill(world.harness_pid(&alice));
    new.told(&alice).await;
    // bwrap wrote it down, although it is not our child.
    assert!(matches!(
        new.state(&alice).await,
        UnitState::Exited {
            cause: ExitCause::Signal(9),
            ..
        }
    ));
}

#[tokio::test]
async fn an_end_that_nobody_watched_is_found_with_its_cause_and_does_not_change() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    {
        let daemon = world.daemon().await;
        daemon.start(&alice).await;
        let outer = world.outer_pid(&alice);
        world.written(&alice, "starts").await;
        kill(world.harness_pid(&alice));
        until("the end of bwrap", || handle(outer).is_none().then_some(())).await;
    }
    until("the note", || {
        world.run_file(&alice, "exit.json").exists().then_some(())
    })
    .await;
    fs::remove_file(world.run_file(&alice, "exit.json")).expect("the note of the old daemon");

    let new = world.daemon().await;
    let state = new.state(&alice).await;
    assert!(
        matches!(
            &state,
            UnitState::Exited {
                cause: ExitCause::Signal(9),
                ..
            }
        ),
        "{state:?}"
    );
    assert_eq!(new.state(&alice).await, state);

    write_atomic(&world.run_file(&alice, "run.lock"), b"", 0o600).expect("an account without an end");
    let state = new.state(&alice).await;
    assert!(
        matches!(
            &state,
            UnitState::Exited {
                cause: ExitCause::Unseen,
                ..
            }
        ),
        "{state:?}"
    );
    assert_eq!(new.state(&alice).await, state);
}

#[tokio::test]
async fn a_process_id_that_was_used_again_is_neither_running_nor_hit() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let daemon = world.daemon().await;
    let mut bystander = stand_by();
    let pid = i32::try_from(bystander.id()).expect("a process id");
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
    let start_time = start_time(pid);

    for (start_time, boot_id) in [(start_time - 1, boot_id.trim()), (start_time, "another-boot")] {
        let record = json!({
            "run": "r", "pid": pid, "startTime": start_time, "bootId": boot_id,
            "toplevel": alice.digest, "since": "2026-01-01T00:00:00Z", "sandboxed": true,
        });
        write_atomic(
            &world.run_file(&alice, "run.json"),
            record.to_string().as_bytes(),
            0o600,
        )
        .expect("a record");
        let account = format!("{{ \"child-pid\": {pid}, \"pid-namespace\": 1 }}\n");
        write_atomic(&world.run_file(&alice, "run.lock"), account.as_bytes(), 0o600).expect("an account");
        let state = daemon.state(&alice).await;
        assert!(
            matches!(
                state,
                UnitState::Exited {
                    cause: ExitCause::Unseen,
                    ..
                }
            ),
            "{state:?}"
        );
        daemon.stop(&alice).await;
    }
    assert_eq!(
        bystander.try_wait().expect("waited"),
        None,
        "the bystander was hit"
    );
    daemon.start(&alice).await;
    daemon.stop(&alice).await;
    bystander.kill().expect("killed");
    bystander.wait().expect("waited");
}

#[tokio::test]
async fn a_lock_without_a_record_is_foreign_and_keeps_a_second_instance_away() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let daemon = world.daemon().await;
    let lock = fs::File::create(world.run_file(&alice, "run.lock")).expect("a lock");
    flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("locked");
    assert!(matches!(daemon.state(&alice).await, UnitState::Foreign { .. }));
    let error = daemon
        .runtime
        .start(&alice)
        .await
        .expect_err("started beside another instance");
    assert!(error.to_string().contains("run.lock"), "{error}");

    let launch = ["launch-process", "--bwrap", "/bin/false", "--run", "r"];
    let (state, run) = (world.layout.state().as_str(), world.layout.run().as_str());
    let folders = [
        "--agent",
        "alice",
        "--state",
        state,
        "--run-dir",
        run,
        "--digest",
        alice.digest.as_str(),
    ];
    let launcher = program(env!("CARGO_BIN_EXE_hive"))
        .args(launch)
        .args(folders)
        .output()
        .expect("the launcher");
    assert_eq!(launcher.status.code(), Some(75), "{launcher:?}");

    drop(lock);
    daemon.start(&alice).await;
    daemon.stop(&alice).await;
}

#[tokio::test]
async fn an_agent_survives_the_death_of_the_daemon_that_started_it() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let bytes = serde_json::to_vec(&alice).expect("JSON");
    write_atomic(&world.root.join(STAND_IN), &bytes, 0o600).expect("the stand-in's task");
    let mut stand_in = program(
        std::env::current_exe()
            .expect("this program")
            .to_str()
            .expect("UTF-8"),
    )
    .args(["--exact", "survival::daemon_stand_in", "--ignored"])
    .current_dir(&world.root)
    .stdout(Stdio::null())
    .spawn()
    .expect("a stand-in");
    world.written(&alice, "starts").await;
    stand_in.kill().expect("killed");
    stand_in.wait().expect("waited");

    let mut new = world.daemon().await;
    let run = new.run(&alice).await;
    assert_eq!(world.record(&alice)["run"], run);
    new.stop(&alice).await;
    new.told(&alice).await;
    assert_eq!(world.get(&alice, "starts"), "started\n");
    assert_eq!(world.get(&alice, "ended"), "TERM\n");
}

/// Starts the agent its working folder names, and waits to be killed.
#[tokio::test]
#[ignore = "a process of its own, started by an_agent_survives_the_death_of_the_daemon_that_started_it"]
async fn daemon_stand_in() {
    let Ok(task) = fs::read(STAND_IN) else { return };
    let alice: LaunchFile = serde_json::from_slice(&task).expect("a launch file");
    let root = std::env::current_dir().expect("a folder");
    let root = camino::Utf8PathBuf::from_path_buf(root).expect("UTF-8");
    let (options, _ended) = options(layout_at(&root), sandbox().await);
    let runtime = ProcessRuntime::new(options).expect("a runtime");
    runtime.start(&alice).await.expect("started");
    // Not for ever, should the test that kills it die first.
    drop(tokio::time::timeout(DEADLINE, std::future::pending::<()>()).await);
}

#[expect(clippy::disallowed_methods, reason = "a test starts programs")]
fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    command
}

/// A process that has nothing to do with any agent.
fn stand_by() -> std::process::Child {
    program("/bin/sh")
        .args(["-c", "exec sleep 600"])
        .spawn()
        .expect("a bystander")
}

fn start_time(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    rest.split_ascii_whitespace()
        .nth(19)
        .expect("field 22")
        .parse()
        .expect("a number")
}
