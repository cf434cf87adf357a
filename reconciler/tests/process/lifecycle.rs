//! Start, observe, stop; at most one instance; why a run ended.

use std::fs;
use std::time::Duration;

use reconciler::host::folders::write_atomic;
use reconciler::host::process::{Bwrap, ProcessRuntime, Sandbox};
use reconciler::host::{ExitCause, Runtime as _, UnitState};
use shared::spec::{DriverKind, Network};

use crate::world::{Daemon, World, handle, kill, name, no_sandbox, options, sandbox, until};

fn cause(state: &UnitState) -> &ExitCause {
    match state {
        UnitState::Exited { cause, .. } => cause,
        other => panic!("not ended: {other:?}"),
    }
}

#[tokio::test]
async fn an_agent_is_started_observed_and_stopped() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let mut daemon = world.daemon().await;
    assert_eq!(daemon.state(&alice).await, UnitState::Absent);

    daemon.start(&alice).await;
    let first = daemon.run(&alice).await;
    world.written(&alice, "starts").await;
    let (outer, harness) = (world.outer_pid(&alice), world.harness_pid(&alice));

    daemon.stop(&alice).await;
    assert_eq!(
        world.get(&alice, "ended"),
        "TERM\n",
        "the harness was not asked first"
    );
    let stopped = daemon.state(&alice).await;
    assert_eq!(cause(&stopped), &ExitCause::Clean);
    daemon.told(&alice).await;
    assert!(
        handle(outer).is_none() && handle(harness).is_none(),
        "a process or a zombie stayed behind"
    );

    daemon.stop(&alice).await;
    assert_eq!(
        daemon.state(&alice).await,
        stopped,
        "a second stop changed something"
    );
    daemon.start(&alice).await;
    assert_ne!(daemon.run(&alice).await, first);
    daemon.stop(&alice).await;
}

#[tokio::test]
async fn starting_what_runs_already_changes_nothing() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let daemon = world.daemon().await;
    daemon.start(&alice).await;
    let run = daemon.run(&alice).await;
    daemon.start(&alice).await;
    assert_eq!(daemon.run(&alice).await, run);

    let other = world
        .agent_with("alice", "obey", |launch| launch.network = Network::Model)
        .await;
    let error = daemon
        .runtime
        .start(&other)
        .await
        .expect_err("started over a running agent");
    assert!(error.to_string().contains("stop it first"), "{error}");
    assert_eq!(daemon.run(&alice).await, run);
    daemon.stop(&alice).await;
    assert_eq!(world.get(&alice, "starts"), "started\n");
}

#[tokio::test]
async fn racing_daemons_make_one_instance() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let sandbox = sandbox().await;
    let daemons: Vec<Daemon> = (0..6).map(|_| world.daemon_with(sandbox.clone())).collect();
    let starts = daemons.iter().map(|daemon| daemon.runtime.start(&alice));
    let outcomes = futures_util::future::join_all(starts).await;

    assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
    // Who was refused may have looked before the winner had written his record; asked again, he agrees.
    let run = daemons[0].run(&alice).await;
    for daemon in &daemons {
        daemon.start(&alice).await;
        assert_eq!(daemon.run(&alice).await, run);
    }
    world.written(&alice, "starts").await;
    daemons[0].stop(&alice).await;
    assert_eq!(world.get(&alice, "starts"), "started\n");
}

#[tokio::test]
async fn a_killed_harness_is_reported_with_its_signal() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let mut daemon = world.daemon().await;
    daemon.start(&alice).await;
    world.written(&alice, "starts").await;
    kill(world.harness_pid(&alice));
    daemon.told(&alice).await;
    assert_eq!(cause(&daemon.state(&alice).await), &ExitCause::Signal(9));
}

#[tokio::test]
async fn a_harness_that_fails_is_reported_with_its_status() {
    let world = World::new();
    let alice = world.agent("alice", "fail").await;
    let mut daemon = world.daemon().await;
    // It may be over before the start is; then its last words are the error.
    if let Err(error) = daemon.runtime.start(&alice).await {
        assert!(error.to_string().contains("fails as it was told"), "{error}");
    }
    daemon.told(&alice).await;
    assert_eq!(cause(&daemon.state(&alice).await), &ExitCause::Code(3));
    let log = fs::read_to_string(world.run_file(&alice, "harness.log")).expect("a log");
    assert!(log.contains("fails as it was told"), "{log}");
}

#[tokio::test]
async fn a_deaf_harness_is_killed_after_the_grace_and_that_is_no_fault() {
    let world = World::new();
    let alice = world.agent("alice", "deaf").await;
    let (mut options, _ended) = options(world.layout.clone(), sandbox().await);
    options.grace = Duration::from_millis(100);
    let runtime = ProcessRuntime::new(options).expect("a runtime");
    runtime.start(&alice).await.expect("started");
    world.written(&alice, "starts").await;
    let harness = world.harness_pid(&alice);
    runtime.stop(&alice.launch.agent).await.expect("stopped");
    assert!(handle(harness).is_none());
    let states = runtime.observe(&[name("alice")]).await.expect("observed");
    assert_eq!(cause(&states[&name("alice")]), &ExitCause::Clean);
}

#[tokio::test]
async fn a_harness_that_outlives_its_bwrap_still_counts_and_can_be_stopped() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let daemon = world.daemon().await;
    daemon.start(&alice).await;
    let run = daemon.run(&alice).await;
    world.written(&alice, "starts").await;
    let outer = world.outer_pid(&alice);
    kill(outer);
    until("the end of bwrap", || handle(outer).is_none().then_some(())).await;

    let successor = world.daemon().await;
    for daemon in [&daemon, &successor] {
        assert_eq!(daemon.run(&alice).await, run);
        daemon.start(&alice).await;
        assert_eq!(daemon.run(&alice).await, run);
    }
    successor.stop(&alice).await;
    assert_eq!(world.get(&alice, "starts"), "started\n");
    assert_eq!(world.get(&alice, "ended"), "TERM\n");
}

#[tokio::test]
async fn a_launch_file_that_changed_since_is_not_started() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let newer = world
        .agent_with("alice", "obey", |launch| launch.network = Network::Model)
        .await;
    let daemon = world.daemon().await;
    let error = daemon
        .runtime
        .start(&alice)
        .await
        .expect_err("started from another launch file");
    assert!(error.to_string().contains("ask again"), "{error}");

    let mut forged = newer.clone();
    forged.launch.network = Network::Host;
    world.put_launch(&forged);
    let error = daemon
        .runtime
        .start(&newer)
        .await
        .expect_err("started from a forged launch file");
    assert!(error.to_string().contains("digest"), "{error}");
    assert_eq!(daemon.state(&alice).await, UnitState::Absent);
}

#[tokio::test]
async fn what_bwrap_says_is_part_of_the_error() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let config = world.layout.config(&alice.launch.agent);
    fs::remove_dir(&config).expect("removed");
    let daemon = world.daemon().await;
    let error = daemon
        .runtime
        .start(&alice)
        .await
        .expect_err("started without a config folder");
    assert!(error.to_string().contains(config.as_str()), "{error}");
    assert!(!error.is_terminal(), "{error}");
}

#[tokio::test]
async fn a_launcher_that_cannot_be_started_is_an_error() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    for launcher in [
        vec![],
        vec!["/nowhere/hive".to_owned()],
        vec!["/bin/false".to_owned()],
    ] {
        let (mut options, _ended) = options(world.layout.clone(), sandbox().await);
        options.launcher = launcher;
        let runtime = ProcessRuntime::new(options).expect("a runtime");
        let error = runtime
            .start(&alice)
            .await
            .expect_err("started without a launcher");
        assert!(error.to_string().contains("alice"), "{error}");
        let states = runtime.observe(&[name("alice")]).await.expect("observed");
        assert_eq!(states[&name("alice")], UnitState::Absent);
    }
}

#[tokio::test]
async fn a_sandbox_that_stopped_working_is_an_error_and_the_run_is_over() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let broken = Bwrap {
        program: "/bin/false".into(),
        disable_userns: true,
        bind_fd: true,
    };
    let mut daemon = world.daemon_with(Sandbox::Bwrap(broken));
    let error = daemon
        .runtime
        .start(&alice)
        .await
        .expect_err("started in no sandbox");
    assert!(error.to_string().contains("harness.log"), "{error}");
    daemon.told(&alice).await;
    assert_eq!(cause(&daemon.state(&alice).await), &ExitCause::Code(1));
}

#[tokio::test]
async fn a_large_log_is_put_aside_at_the_start() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let log = world.run_file(&alice, "harness.log");
    write_atomic(&log, &vec![b'x'; 4 * 1024 * 1024 + 1], 0o600).expect("a log");
    let daemon = world.daemon().await;
    daemon.start(&alice).await;
    assert!(log.metadata().expect("a new log").len() < 1024);
    assert!(
        world
            .run_file(&alice, "harness.log.1")
            .metadata()
            .expect("the old log")
            .len()
            > 4 * 1024 * 1024
    );
    daemon.stop(&alice).await;
}

#[tokio::test]
async fn without_a_sandbox_only_the_scripted_driver_starts() {
    let world = World::new();
    let alice = world.agent("alice", "obey").await;
    let daemon = world.daemon_with(no_sandbox());
    let error = daemon
        .runtime
        .start(&alice)
        .await
        .expect_err("started claude without a sandbox");
    assert!(error.is_terminal(), "{error}");
    for part in ["there is no bwrap", "unsafeNoSandbox", "alice"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(daemon.runtime.unsandboxed().as_deref(), Some("there is no bwrap"));

    let alice = world
        .agent_with("alice", "leftover", |launch| launch.driver = DriverKind::Scripted)
        .await;
    daemon.start(&alice).await;
    let leftover: i32 = world
        .written(&alice, "leftover")
        .await
        .trim()
        .parse()
        .expect("a process id");
    daemon.stop(&alice).await;
    assert_eq!(world.get(&alice, "ended"), "TERM\n");
    until("the end of what the harness left", || {
        handle(leftover).is_none().then_some(())
    })
    .await;
    assert_eq!(cause(&daemon.state(&alice).await), &ExitCause::Clean);
}

#[tokio::test]
async fn without_a_sandbox_every_driver_starts_when_the_operator_insists() {
    let world = World::new();
    let alice = world.agent("alice", "fail").await;
    let (mut options, mut ended) = options(world.layout.clone(), no_sandbox());
    options.unsafe_no_sandbox = true;
    let runtime = ProcessRuntime::new(options).expect("a runtime");
    drop(runtime.start(&alice).await);
    assert_eq!(ended.recv().await, Some(name("alice")));
    let states = runtime.observe(&[name("alice")]).await.expect("observed");
    assert_eq!(cause(&states[&name("alice")]), &ExitCause::Code(3));
}
