//! The daemon is killed again and again while messages flow.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::http;
use super::numbers::Numbers;
use super::world::{DEADLINE, World, scripted, spec, within};

const KILLS: u64 = 20;

#[test]
fn a_daemon_killed_at_any_moment_loses_no_message_and_handles_none_twice() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut numbers = Numbers::from_seed(seed);
    let mut world = World::serving(&spec(&json!({
        "alice": scripted(&json!([{ "on": "job", "do": [
            { "send": { "to": "bob", "body": "please check" } },
            { "reply": "done" },
        ] }])),
        "bob": scripted(&json!([{ "on": "please check", "do": [{ "send": { "to": "operator", "body": "checked" } }] }])),
    })));
    let before = [world.until_healthy("alice"), world.until_healthy("bob")];
    let pids = [world.harness_pid("alice"), world.harness_pid("bob")];
    let socket = world.socket();
    let over = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                // The same message until it is taken: its id makes it one.
                let message = json!({ "body": "job", "dedupe": format!("job-{sent}") });
                let taken = within(DEADLINE, || {
                    let answer = http::post(&socket, "/v1/agents/alice/messages", &message).ok()?;
                    (answer.status == 200).then_some(())
                });
                taken.expect("the daemon takes it in the end");
                sent += 1;
                // Not faster than agents can work, or the end takes long.
                let _pause = within(Duration::from_millis(30), || None::<()>);
            }
            sent
        });
        for _ in 0..KILLS {
            // Sometimes before it answers, sometimes in the middle of the work.
            if numbers.below(4) > 0 {
                world.up();
            }
            let _moment = within(Duration::from_millis(numbers.below(300)), || None::<()>);
            world.kill();
            let command = world.serve();
            world.launch(command);
        }
        over.store(true, Ordering::Relaxed);
        world.up();
        sender.join().unwrap()
    });
    assert!(sent >= 10, "too little happened: {sent} messages");
    let count = || {
        let rows = world.messages("SELECT body, state FROM messages WHERE kind <> 'system'");
        let mut count = BTreeMap::new();
        for row in rows {
            *count.entry(row).or_insert(0) += 1;
        }
        count
    };
    let expected: BTreeMap<String, usize> =
        ["job acked", "please check acked", "done acked", "checked acked"]
            .map(|row| (row.to_owned(), sent))
            .into();
    let settled = within(DEADLINE, || (count() == expected).then_some(()));
    assert!(
        settled.is_some(),
        "seed {seed}: {:?} instead of {expected:?}; {}",
        count(),
        world.log()
    );
    let after = [world.until_healthy("alice"), world.until_healthy("bob")];
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.generations, after.generations);
        assert_eq!(before.uid, after.uid);
        assert_eq!(after.inbox, 0);
    }
    assert_eq!(
        [world.harness_pid("alice"), world.harness_pid("bob")],
        pids,
        "the agents never noticed"
    );
    let dead = world
        .events()
        .iter()
        .filter(|event| event.kind == "messageDead")
        .count();
    assert_eq!(dead, 0);
}
