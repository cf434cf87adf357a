//! The machine's clock is set under the real daemon.

use std::process::Command;

use camino::Utf8PathBuf;
use jiff::{SignedDuration, Timestamp};
use reconciler::host::folders::write_atomic;
use rustix::process::Signal;
use serde_json::json;
use shared::agent_api::SendResponse;
use shared::plan::WaitingOn;

use super::load::events;
use super::world::{World, program, scripted, signal, spec};

/// The library that stands between a program and its clock, as its own launcher names it.
fn library() -> String {
    let output = program("faketime")
        .args(["-f", "+0", "printenv", "LD_PRELOAD"])
        .output();
    let output = output.expect("faketime is not there: install it (on Debian: apt-get install faketime)");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[expect(
    clippy::disallowed_methods,
    reason = "what the daemon's clock is compared with"
)]
fn real_now() -> Timestamp {
    Timestamp::now()
}

struct Clock {
    file: Utf8PathBuf,
}

impl Clock {
    /// Sets the clock so many hours ahead of the real one.
    fn set(&self, hours: i64) {
        let text = format!("{hours:+}h\n");
        write_atomic(&self.file, text.as_bytes(), 0o644).unwrap_or_else(|e| panic!("{}", e.chain()));
    }

    /// The daemon, which sees this clock and no other.
    fn serve(&self, world: &World) -> Command {
        let mut command = world.serve();
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        command
    }
}

#[test]
fn a_clock_that_is_set_under_the_daemon_stops_nothing_and_restarts_nobody() {
    let mut world = World::new();
    world.spec(&spec(&json!({
        "alice": scripted(&json!([{ "on": "job", "do": [{ "reply": "done" }] }])),
        "bob": scripted(&json!([])),
    })));
    let clock = Clock {
        file: world.root.join("clock"),
    };
    clock.set(0);
    let command = clock.serve(&world);
    world.start_as(command);
    for agent in ["alice", "bob"] {
        world.until_healthy(agent);
    }
    let alice = world.harness_pid("alice");
    // A day and a year ahead, a day back, and back before everything that the ledger holds.
    for (nth, hours) in [24, 24 * 365, 24 * 364, 0, -48].into_iter().enumerate() {
        clock.set(hours);
        let ahead: Timestamp = world.until("the daemon sees the new time", || {
            let now = world.status().now;
            let there = real_now() + SignedDuration::from_hours(hours);
            (now.duration_since(there).abs() < SignedDuration::from_hours(1)).then_some(now)
        });
        let job = json!({ "body": "job" });
        let _sent: SendResponse = world.post("/v1/agents/alice/messages", &job).ok();
        world.until("alice works", || {
            (world
                .said()
                .iter()
                .filter(|said| *said == "alice says: done")
                .count()
                == nth + 1)
                .then_some(())
        });
        // An agent that dies is back after its back-off, whatever the clock said when it died last.
        let before = world.harness_pid("bob").unwrap();
        signal(before, Signal::KILL);
        world.until_agent("bob", "runs again", |bob| {
            let waits = bob.waiting.iter().filter_map(|waiting| match waiting.on {
                WaitingOn::Backoff { until, .. } => Some(until),
                _ => None,
            });
            for until in waits {
                let wait = until.duration_since(ahead);
                assert!(wait < SignedDuration::from_mins(30), "{hours} h: it waits {wait}");
            }
            bob.generations.running_config.is_some()
                && world.harness_pid("bob").is_some_and(|pid| pid != before)
        });
    }
    assert_eq!(world.harness_pid("alice"), alice, "nobody else was restarted");
    let events = events(&world);
    assert!(events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    for kind in ["hotObject", "messageDead", "reverted", "halted"] {
        assert!(events.iter().all(|event| event.kind != kind), "{kind}");
    }
    world.end();
}
