use serde_json::json;
use shared::agent_api::MessageKind;
use shared::status::TurnState;

use crate::world::{Nest, config_file};

#[tokio::test]
async fn a_new_config_is_loaded_while_idle_and_its_rules_hold() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "old" }] }]));
    let _harness = nest.start();
    nest.until_idle(&nest.announced()).await;
    let new = nest.deploy(json!([{ "on": "", "do": [{ "reply": "new" }] }]));
    nest.until_idle(&new).await;
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    assert_eq!(nest.daemon.world().bodies(), ["new"]);
}

#[tokio::test]
async fn a_new_config_waits_for_the_end_of_the_turn() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "old" }] }]));
    let old = nest.announced();
    // The turn lasts until the daemon takes its message.
    nest.daemon.change(|world| world.no_sends = true);
    let _harness = nest.start();
    nest.until_idle(&old).await;
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    let thinking = |world: &crate::daemon::World| world.reported(|report| report.turn == TurnState::Thinking);
    nest.daemon.until("a turn", thinking).await;
    let new = nest.deploy(json!([]));
    let polls = nest.daemon.world().polls;
    nest.daemon
        .until("polls during the turn", |world| world.polls > polls + 2)
        .await;
    assert_eq!(nest.daemon.world().report().config, Some(old.clone()));

    nest.daemon.change(|world| world.no_sends = false);
    nest.until_idle(&new).await;
    let world = nest.daemon.world();
    assert_eq!((world.dones(), world.bodies()), (vec![true], vec!["old"]));
    let mixed = world
        .reports
        .iter()
        .any(|report| report.turn == TurnState::Thinking && report.config.as_ref() == Some(&new));
    assert!(!mixed, "the new config was in force during the turn");
}

#[tokio::test]
async fn a_broken_config_is_reported_and_the_old_one_stays_in_force() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "old" }] }]));
    let old = nest.announced();
    let _harness = nest.start();
    nest.until_idle(&old).await;
    let (new, text) = config_file(json!({ "prompt": "new" }));
    nest.write_config(&text[..text.len() / 2]);
    nest.announce(&new);
    nest.daemon.until_config_error("is not valid JSON").await;
    assert_eq!(nest.daemon.world().report().config, Some(old));
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    assert_eq!(nest.daemon.world().bodies(), ["old"]);

    nest.write_config(&text);
    nest.until_idle(&new).await;
    assert_eq!(nest.daemon.world().report().config_error, None);
}

#[tokio::test]
async fn a_config_with_a_wrong_digest_is_not_loaded() {
    let nest = Nest::new(json!([]));
    let (digest, text) = config_file(json!({ "prompt": "one" }));
    nest.write_config(&text.replace("one", "two"));
    nest.announce(&digest);
    let _harness = nest.start();
    nest.daemon.until_config_error("changed by hand").await;
    let world = nest.daemon.world();
    assert_eq!(world.report().config, None);
    assert_eq!(world.report().turn, TurnState::Starting);
}

#[tokio::test]
async fn a_config_for_a_driver_without_its_program_is_named_and_takes_no_turns() {
    let nest = Nest::new(json!([]));
    let digest = nest.deploy_config(json!({ "driver": { "kind": "claude" } }));
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    // A machine that has the program must not matter.
    let programs = nest.path("bin");
    std::fs::create_dir(&programs).unwrap();
    let mut command = tokio::process::Command::new(crate::world::PROGRAM);
    command.args(nest.args());
    let _harness = crate::world::Harness::start_with_path(command, programs.as_os_str());
    nest.daemon
        .until_config_error("there is no program `claude` in ")
        .await;
    let time = std::time::Duration::from_millis(500);
    assert!(nest.daemon.never(time, |world| world.recvs > 0).await);
    assert_eq!(nest.daemon.world().report().config, Some(digest));
    // The message is still there for a config that works.
    nest.deploy(json!([]));
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
}

#[tokio::test]
async fn a_script_on_the_command_line_replaces_the_one_in_the_config() {
    let nest = Nest::new(json!([{ "on": "", "do": [{ "reply": "config" }] }]));
    let path = nest.path("script.json");
    std::fs::write(&path, r#"[{ "on": "", "do": [{ "reply": "file" }] }]"#).unwrap();
    let _harness = nest.start_with(&["--script", path.as_str()]);
    nest.daemon.message(MessageKind::Message, "operator", "hello");
    nest.daemon.until("an ack", |world| world.acks.len() == 1).await;
    assert_eq!(nest.daemon.world().bodies(), ["file"]);
}
