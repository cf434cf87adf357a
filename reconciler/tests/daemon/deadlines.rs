//! What time alone does: questions run out and reminders come, also when no daemon was there at that time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::world::{World, silent, spec, within};

fn ask(world: &World, secs: u64) -> u64 {
    let question = json!({ "to": "bob", "body": "red or blue?", "ttlSecs": secs, "default": "blue" });
    let asked: Value = world.ask("alice", "/v1/questions", &question).ok();
    asked["id"].as_u64().unwrap()
}

fn until_it_ran_out(world: &World, id: u64) {
    world.until("the question has run out", || {
        let all: Value = world.get("/v1/questions?all=true").ok();
        let mut all = all.as_array().unwrap().iter();
        let question = all.find(|question| question["id"] == id).unwrap();
        (question["state"] == "expired").then_some(())
    });
}

/// What the daemon sent to alice.
fn told(world: &World) -> Vec<String> {
    let mail: Value = world.get("/v1/messages?to=alice&from=system").ok();
    let mail = mail.as_array().unwrap().iter().rev();
    mail.map(|message| message["body"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_question_runs_out_and_a_reminder_comes_by_themselves_and_at_the_next_start() {
    let mut world = World::serving(&spec(&json!({ "alice": silent(), "bob": silent() })));
    for agent in ["alice", "bob"] {
        world.until_stopped(agent);
    }
    let before = told(&world).len();
    // One that lies far ahead must not hide one that comes sooner.
    let far = ask(&world, 3600);
    let soon = ask(&world, 1);
    let reminder = json!({ "schedule": { "afterSecs": 1 }, "body": "water the plants" });
    let _set: Value = world.ask("alice", "/v1/reminders", &reminder).ok();
    until_it_ran_out(&world, soon);
    let mail = world.until("answer and reminder", || {
        Some(told(&world)).filter(|mail| mail.len() == before + 2)
    });
    assert!(mail.contains(&"blue".to_owned()), "{mail:?}");
    assert!(
        mail.iter().any(|body| body.ends_with(": water the plants")),
        "{mail:?}"
    );

    let meanwhile = ask(&world, 1);
    let asked = Instant::now();
    world.kill();
    let passed = || (asked.elapsed() > Duration::from_millis(1500)).then_some(());
    within(Duration::from_secs(10), passed).unwrap();
    world.start();
    until_it_ran_out(&world, meanwhile);
    assert_eq!(told(&world).len(), before + 3);
    let open: Value = world.get("/v1/questions").ok();
    assert_eq!(open[0]["id"], far);
    assert_eq!(open.as_array().unwrap().len(), 1);
}
