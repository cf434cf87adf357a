//! Messages: how dear it is that they survive.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use super::Effort;
use super::hive::{Hive, agents, name};
use super::http::Client;
use super::raw::{BODY, Commits};
use super::row::{Budget, Row, median, ms, number, spread};

const SENDERS: usize = 50;
/// How long a receiver waits before something is sent to it.
const REST: Duration = Duration::from_millis(20);

pub(crate) fn measure(effort: Effort) -> Result<()> {
    let hive = Hive::serving(agents(SENDERS, 0))?;
    hive.until_converged(SENDERS)?;
    let commits = Commits::beside(&hive.layout.ledger())?;
    one_in_flight(&hive, &commits, effort.choose(300, 60))?;
    to_a_waiting_receiver(&hive, &commits, effort.choose(300, 60))?;
    many_in_flight(&hive, &commits, effort.choose(8, 2), 10)?;
    Ok(())
}

fn send(door: &mut Client, to: &str) -> Result<()> {
    let _sent: Value = door.post("/v1/send", &json!({ "to": to, "kind": "message", "body": BODY }))?;
    Ok(())
}

/// A turn's id, a new one for each number.
fn turn(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn one_in_flight(hive: &Hive, commits: &Commits, rounds: usize) -> Result<()> {
    let mut door = hive.door(&name(0))?;
    let (mut sends, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        raw.push(commits.one()?);
        let started = Instant::now();
        send(&mut door, &name(1))?;
        sends.push(started.elapsed());
    }
    let rate = |times: &[Duration]| 1.0 / median(times).as_secs_f64();
    let (p50, p90) = spread(&sends);
    Row::new("durable send, one in flight", rate(&sends), "/s")
        .beside("FULL commits", rate(&raw))
        .within(Budget::RatioAtLeast(0.7))
        .note(format!(
            "{rounds} messages of {} bytes through an agent's socket; p50 {:.2} ms, p90 {:.2} ms",
            BODY.len(),
            ms(p50),
            ms(p90)
        ))
        .print()
}

fn many_in_flight(hive: &Hive, commits: &Commits, rounds: usize, each: usize) -> Result<()> {
    let (mut sending, mut sent) = (Duration::ZERO, 0);
    let (mut committing, mut committed) = (Duration::ZERO, 0);
    for _ in 0..rounds {
        let started = Instant::now();
        for _ in 0..SENDERS {
            commits.one()?;
            committed += 1;
        }
        committing += started.elapsed();
        let ready = Arc::new(Barrier::new(SENDERS + 1));
        let mut senders = Vec::new();
        for sender in 0..SENDERS {
            let mut door = hive.door(&name(sender))?;
            let ready = Arc::clone(&ready);
            senders.push(std::thread::spawn(move || -> Result<()> {
                ready.wait();
                for _ in 0..each {
                    send(&mut door, &name((sender + 1) % SENDERS))?;
                }
                Ok(())
            }));
        }
        ready.wait();
        let started = Instant::now();
        for sender in senders {
            sender.join().map_err(|_| anyhow!("a sender panicked"))??;
        }
        sending += started.elapsed();
        sent += SENDERS * each;
    }
    let rate = |count: usize, time: Duration| number(count as u64) / time.as_secs_f64();
    Row::new("durable send, 50 senders", rate(sent, sending), "/s")
        .beside("FULL commits one by one", rate(committed, committing))
        .note(format!(
            "{sent} messages, each of 50 sockets with one in flight: writes that wait share a sync"
        ))
        .print()
}

fn to_a_waiting_receiver(hive: &Hive, commits: &Commits, rounds: usize) -> Result<()> {
    let mut sender = hive.door(&name(0))?;
    let (mut times, mut raw) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // A processor and a disk that have rested are slower to begin: the anchor has the same rest before it.
        super::hive::pause(REST);
        raw.push(commits.one()?);
        let mut receiver = hive.door(&name(2))?;
        let mut waiting = hive.door(&name(2))?;
        let (told, hears) = std::sync::mpsc::channel();
        let receives = std::thread::spawn(move || -> Result<Instant> {
            told.send(()).map_err(|_| anyhow!("nobody listens"))?;
            let request = json!({ "turn": turn(round), "max": 1, "waitSecs": 60 });
            let answer: Value = waiting.post("/v1/recv", &request)?;
            let heard = Instant::now();
            let leased = answer["messages"].as_array().map_or(0, Vec::len);
            (leased == 1)
                .then_some(heard)
                .ok_or_else(|| anyhow!("{leased} messages leased"))
        });
        hears.recv()?;
        // It waits once its request has been read.
        super::hive::pause(REST);
        let started = Instant::now();
        send(&mut sender, &name(2))?;
        let heard = receives.join().map_err(|_| anyhow!("the receiver panicked"))??;
        times.push(heard.saturating_duration_since(started));
        let _done: Value = receiver.post("/v1/ack", &json!({ "turn": turn(round), "done": true }))?;
    }
    let (p50, p90) = spread(&times);
    Row::new("send to leased by a waiting receiver, p50", ms(p50), "ms")
        .beside("one FULL commit", ms(median(&raw)))
        .within(Budget::RatioAtMost(2.0))
        .note(format!(
            "{rounds} messages from socket to socket; p90 {:.2} ms",
            ms(p90)
        ))
        .print()
}
