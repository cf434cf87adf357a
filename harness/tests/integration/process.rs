use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use shared::agent_api::MessageKind;
use shared::status::TurnState;
use tokio::process::Command;

use crate::world::{Harness, Nest, PROGRAM};

#[tokio::test]
async fn a_second_harness_with_the_same_state_refuses() {
    let nest = Nest::new(json!([]));
    let first = nest.start();
    nest.until_idle(&nest.announced()).await;
    let (status, log) = nest.start().ended().await;
    assert_eq!(status.code(), Some(1));
    assert!(
        log.contains("another harness already runs with the state folder"),
        "{log}"
    );
    // The lock is free when its holder is gone, however it went.
    first.killed().await;
    let run = nest.daemon.world().report().run_id.clone();
    let third = nest.start();
    nest.daemon
        .until("a report of another run", |world| world.report().run_id != run)
        .await;
    assert!(third.terminated().await.0.success());
}

#[tokio::test]
async fn an_idle_harness_ends_at_once_when_told() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let nest = Nest::new(json!([]));
        let harness = nest.start();
        nest.until_idle(&nest.announced()).await;
        let begun = Instant::now();
        harness.signal(signal);
        let (status, log) = harness.ended().await;
        assert!(status.success(), "{log}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_turn_that_outlasts_the_grace_is_given_back() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "hang": true }] }]));
    let harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    let in_turn = |world: &crate::daemon::World| {
        world.leased.len() == 1 && world.reported(|report| report.turn == TurnState::Thinking)
    };
    nest.daemon.until("a turn", in_turn).await;
    let begun = Instant::now();
    let (status, log) = harness.terminated().await;
    assert!(status.success(), "{log}");
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    let world = nest.daemon.world();
    assert_eq!(world.dones(), [false]);
    assert_eq!(world.report().turn, TurnState::Stopping);
    assert!(world.inbox.len() == 1 && world.inbox[0].redelivered);
}

#[tokio::test]
async fn a_turn_that_ends_within_the_grace_is_acknowledged_and_no_other_begins() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "hi" }] }]));
    nest.daemon.change(|world| world.no_sends = true);
    let harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    let thinking = |world: &crate::daemon::World| world.reported(|report| report.turn == TurnState::Thinking);
    nest.daemon.until("a turn", thinking).await;
    nest.daemon.message(MessageKind::Message, "operator", "later");
    harness.signal(rustix::process::Signal::TERM);
    nest.daemon
        .until("stopping", |world| world.report().turn == TurnState::Stopping)
        .await;
    nest.daemon.change(|world| world.no_sends = false);
    let (status, log) = harness.ended().await;
    assert!(status.success(), "{log}");
    let world = nest.daemon.world();
    assert_eq!((world.dones(), world.inbox.len()), (vec![true], 1));
}

#[tokio::test]
async fn a_crash_ends_the_harness_with_its_status_and_leaves_the_leases() {
    let nest = Nest::new(json!([{ "on": "boom", "do": [{ "crash": 42 }] }]));
    let harness = nest.start();
    nest.daemon.message(MessageKind::Message, "operator", "boom");
    let (status, log) = harness.ended().await;
    assert_eq!(status.code(), Some(42), "{log}");
    let world = nest.daemon.world();
    assert_eq!((world.acks.len(), world.leased.len()), (0, 1));
}

/// Settings of drivers that are not used.
fn no_programs() -> harness::driver::program::Settings {
    harness::driver::program::Settings {
        claude: None,
        environment: BTreeMap::new(),
        secrets: harness::secrets::Secrets::default(),
        own_server: harness::driver::program::OwnServer {
            program: PROGRAM.into(),
            args: Vec::new(),
        },
        ways: harness::relay::Ways::default(),
        silence: Duration::from_secs(60),
        grace: Duration::from_secs(10),
    }
}

#[tokio::test]
async fn a_turn_longer_than_the_config_allows_is_given_back() {
    let nest = Nest::new(json!([]));
    nest.deploy_config(json!({
        "maxTurnMinutes": 1,
        "driver": { "kind": "scripted", "script": [{ "on": "", "do": [{ "hang": true }] }] },
    }));
    let settings = harness::serve::Settings {
        socket: nest.path("sock/hive.sock"),
        config: nest.path("config"),
        state: nest.path("state"),
        egress: "/nonexistent/hive-egress".into(),
        script: None,
        minute: Duration::from_millis(200),
        programs: no_programs(),
    };
    let serving = tokio::spawn(harness::serve::serve(
        settings,
        harness::children::Children::default(),
    ));
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon
        .until("given back twice", |world| {
            world.dones().starts_with(&[false, false])
        })
        .await;
    serving.abort();
}

#[tokio::test]
async fn a_descriptor_left_open_by_the_launcher_reaches_no_child() {
    let nest = Nest::new(json!([]));
    let look = "[ -e /proc/self/fd/9 ] && echo inherited >&2 || echo kept >&2";
    nest.deploy_config(json!({ "mcpServers": { "look": { "command": "sh", "args": ["-c", look] } } }));
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec 9>\"$1\"; shift; exec \"$@\"", "sh"])
        .arg(nest.path("launcher.lock"))
        .arg(PROGRAM)
        .args(nest.args());
    let harness = Harness::start(command);
    nest.daemon
        .until("a probe", |world| {
            !world.reports.is_empty() && !world.report().mcp.is_empty()
        })
        .await;
    let held = std::fs::exists(format!("/proc/{}/fd/9", harness.pid())).unwrap();
    assert!(held, "the harness itself must keep it");
    let error = nest.daemon.world().report().mcp["look"].error.clone().unwrap();
    assert!(error.ends_with("it wrote: kept"), "{error}");
}

#[tokio::test]
async fn what_a_tool_leaves_behind_is_ended_and_collected() {
    let nest = Nest::new(json!([]));
    let leave = "sleep 1000 & echo $! >&2; exit 1";
    nest.deploy_config(json!({ "mcpServers": { "leave": { "command": "sh", "args": ["-c", leave] } } }));
    let harness = nest.start();
    nest.daemon
        .until("a probe", |world| {
            !world.reports.is_empty() && !world.report().mcp.is_empty()
        })
        .await;
    let error = nest.daemon.world().report().mcp["leave"].error.clone().unwrap();
    let orphan: u32 = error.rsplit(' ').next().unwrap().parse().expect(&error);
    let deadline = Instant::now() + Duration::from_secs(10);
    // Not even as a zombie.
    while std::fs::exists(format!("/proc/{orphan}")).unwrap() {
        assert!(Instant::now() < deadline, "process {orphan} was not collected");
        tokio::task::yield_now().await;
    }
    assert!(harness.terminated().await.0.success());
}

#[tokio::test]
async fn the_version_is_told_without_any_folder() {
    let mut command = Command::new(PROGRAM);
    let output = command.arg("--version").output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, format!("hive-harness {}\n", env!("CARGO_PKG_VERSION")));
}
