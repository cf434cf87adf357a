//! Messages: how dear it is that they survive.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use super::Effort;
use super::hive::{Hive, agents, name};
use super::http::Client;
use super::raw::{BODY, Commits};
use super::rivals::{self, Keeps, Rival};
use super::row::{Budget, Row, median, ms, number, spread};

const SENDERS: usize = 50;
/// How long a receiver waits before something is sent to it.
const REST: Duration = Duration::from_millis(20);

pub(crate) fn measure(effort: Effort) -> Result<()> {
    let hive = Hive::serving(agents(SENDERS, 0))?;
    hive.until_converged(SENDERS)?;
    let commits = Commits::beside(&hive.layout.ledger())?;
    let folder = hive.layout.ledger().with_file_name("rivals");
    let rivals = rivals::all(&folder);
    one_in_flight(&hive, &commits, &rivals, effort.choose(300, 60))?;
    to_a_waiting_receiver(&hive, &commits, effort.choose(300, 60))?;
    many_in_flight(&hive, &commits, &rivals, effort.choose(8, 2), 10)?;
    Ok(())
}

/// A sender at its own door, and whom it writes to.
struct Sender(Client, String);

impl Sender {
    fn message(&self, text: &str) -> Value {
        json!({ "to": self.1, "kind": "message", "body": text })
    }

    /// The same request where it leads to nothing.
    fn ask_for_nothing(&mut self) -> Result<()> {
        let message = self.message(BODY);
        self.0.post_nowhere(&message)
    }
}

impl Keeps for Sender {
    fn keep(&mut self, text: &str) -> Result<()> {
        let message = self.message(text);
        let _sent: Value = self.0.post("/v1/send", &message)?;
        Ok(())
    }
}

/// A turn's id, a new one for each number.
fn turn(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn one_in_flight(hive: &Hive, commits: &Commits, rivals: &[Rival], rounds: usize) -> Result<()> {
    let mut door = Sender(hive.door(&name(0))?, name(1));
    let mut others = rivals.iter().map(Rival::connect).collect::<Result<Vec<_>>>()?;
    let (mut sends, mut raw, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let mut theirs = vec![Vec::new(); others.len()];
    for _ in 0..rounds {
        raw.push(commits.one()?);
        sends.push(timed(|| door.keep(BODY))?);
        bare.push(timed(|| door.ask_for_nothing())?);
        for (other, times) in others.iter_mut().zip(&mut theirs) {
            times.push(timed(|| other.keep(BODY))?);
        }
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
        .print()?;
    Row::new("request that leads to nothing, one in flight", rate(&bare), "/s")
        .beside("FULL commits", rate(&raw))
        .note(format!(
            "the same text through the same socket, turned away behind all layers; p50 {:.2} ms",
            ms(median(&bare))
        ))
        .print()?;
    Row::new("durable send, one in flight", rate(&sends), "/s")
        .beside(
            "such a request and a FULL commit, one after the other",
            1.0 / (median(&bare) + median(&raw)).as_secs_f64(),
        )
        .note("what no daemon behind a socket of HTTP can be above")
        .print()?;
    for (rival, times) in rivals.iter().zip(&theirs) {
        Row::new("durable send, one in flight", rate(&sends), "/s")
            .beside(rival.name, rate(times))
            .within(Budget::RatioAtLeast(1.0))
            .note(format!("the same text, turn and turn about; {}", rival.version))
            .print()?;
    }
    Ok(())
}

fn timed(done: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let started = Instant::now();
    done()?;
    Ok(started.elapsed())
}

/// How long it takes until each of them has kept so many, all at once.
fn together(keepers: Vec<Box<dyn Keeps>>, each: usize) -> Result<Duration> {
    let ready = Arc::new(Barrier::new(keepers.len() + 1));
    let mut threads = Vec::new();
    for mut keeper in keepers {
        let ready = Arc::clone(&ready);
        threads.push(std::thread::spawn(move || -> Result<()> {
            ready.wait();
            (0..each).try_for_each(|_| keeper.keep(BODY))
        }));
    }
    ready.wait();
    let started = Instant::now();
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a sender panicked"))??;
    }
    Ok(started.elapsed())
}

fn many_in_flight(
    hive: &Hive,
    commits: &Commits,
    rivals: &[Rival],
    rounds: usize,
    each: usize,
) -> Result<()> {
    let (mut sending, mut sent) = (Duration::ZERO, 0);
    let (mut committing, mut committed) = (Duration::ZERO, 0);
    let mut theirs = vec![Duration::ZERO; rivals.len()];
    for _ in 0..rounds {
        let started = Instant::now();
        for _ in 0..SENDERS {
            commits.one()?;
            committed += 1;
        }
        committing += started.elapsed();
        let doors = (0..SENDERS).map(|sender| -> Result<Box<dyn Keeps>> {
            let to = name((sender + 1) % SENDERS);
            Ok(Box::new(Sender(hive.door(&name(sender))?, to)))
        });
        sending += together(doors.collect::<Result<_>>()?, each)?;
        for (rival, time) in rivals.iter().zip(&mut theirs) {
            let clients = (0..SENDERS).map(|_| rival.connect());
            *time += together(clients.collect::<Result<_>>()?, each)?;
        }
        sent += SENDERS * each;
    }
    let rate = |count: usize, time: Duration| number(count as u64) / time.as_secs_f64();
    Row::new("durable send, 50 senders", rate(sent, sending), "/s")
        .beside("FULL commits one by one", rate(committed, committing))
        .note(format!(
            "{sent} messages, each of 50 sockets with one in flight: writes that wait share a sync"
        ))
        .print()?;
    for (rival, time) in rivals.iter().zip(&theirs) {
        Row::new("durable send, 50 senders", rate(sent, sending), "/s")
            .beside(rival.name, rate(sent, *time))
            .within(Budget::RatioAtLeast(1.0))
            .note(format!(
                "as many of the same texts, turn and turn about; {}",
                rival.version
            ))
            .print()?;
    }
    Ok(())
}

fn to_a_waiting_receiver(hive: &Hive, commits: &Commits, rounds: usize) -> Result<()> {
    let mut sender = Sender(hive.door(&name(0))?, name(2));
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
        sender.keep(BODY)?;
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
