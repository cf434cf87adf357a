//! An hour's worth of events, as fast as they can be had: the memory of the daemon stays what it was.

use std::time::Instant;

use anyhow::{Result, anyhow};
use serde_json::{Map, Value, json};

use super::Effort;
use super::hive::{Hive, agent, name, pause};
use super::http::Events;
use super::kernel::resident;
use super::live::{approved, proposed, proposer};
use super::row::{Budget, Row, number};

/// Parts of the hour. Memory is looked at after each.
const PARTS: usize = 20;
/// The first parts fill caches and pools, and are not compared.
const WARM_UP: usize = 4;
/// Agents that get messages, beside the one that proposes.
const CORRESPONDENTS: usize = 8;

pub(crate) fn measure(effort: Effort) -> Result<()> {
    // Of each part; twenty of them are an hour in which something happens every second.
    let messages = effort.choose(180, 30);
    let clients = effort.choose(30, 5);
    let proposals = effort.choose(3, 1);
    let agents = |prompt: &str| -> Map<String, Value> {
        let mut agents: Map<_, _> = (1..=CORRESPONDENTS)
            .map(|number| (name(number), agent("stopped", prompt)))
            .collect();
        agents.insert(name(0), proposer(PARTS * proposals));
        agents
    };
    let hive = Hive::serving(agents("You read."))?;
    hive.until_converged(CORRESPONDENTS + 1)?;
    let first = hive.status()?.seq;
    let started = Instant::now();
    let mut samples = Vec::new();
    for part in 0..PARTS {
        correspond(&hive, messages, part)?;
        for _ in 0..clients {
            // Comes, reads all there is, waits, and goes.
            let mut events = Events::after(&hive.layout.admin_socket(), 0)?;
            let newest = hive.status()?.seq;
            events.until(|event| event.seq >= newest)?;
        }
        for number in 0..proposals {
            let gate = proposed(&hive, &name(0), part * proposals + number)?;
            approved(&hive, &gate)?;
        }
        hive.declare(&agents(&format!("You read part {part}.")))?;
        hive.until_converged(CORRESPONDENTS + 1)?;
        pause(std::time::Duration::from_millis(500));
        samples.push(resident(hive.pid()?)?);
    }
    let events = hive.status()?.seq - first;
    let warm = samples.get(WARM_UP..).unwrap_or_default();
    let (from, to) = (
        warm.first().copied().unwrap_or_default(),
        warm.last().copied().unwrap_or_default(),
    );
    let of_warm = |count: usize| count * PARTS;
    let curve: Vec<String> = samples.iter().map(|sample| format!("{sample:.1}")).collect();
    Row::new("memory after an hour's worth of events", to, "MB")
        .beside("after the first fifth of it", from)
        .within(Budget::RatioAtMost(1.1))
        .note(format!(
            "{} messages, {} readers of the live stream, {} deployed proposals, {PARTS} changes of the spec, {events} \
             events in {:.0} s; slope {:+.3} MB for each 1,000 events; MB after each part: {}",
            of_warm(messages),
            of_warm(clients),
            of_warm(proposals),
            started.elapsed().as_secs_f64(),
            slope(warm) * number(PARTS as u64) / number(events.max(1)) * 1000.0,
            curve.join(" ")
        ))
        .print()
}

/// Rise for each sample, by least squares.
fn slope(samples: &[f64]) -> f64 {
    let count = number(samples.len() as u64);
    let (middle, mean) = ((count - 1.0) / 2.0, samples.iter().sum::<f64>() / count);
    let (mut above, mut below) = (0.0, 0.0);
    for (at, sample) in (0_u64..).zip(samples) {
        let x = number(at) - middle;
        above += x * (sample - mean);
        below += x * x;
    }
    above / below
}

/// Messages to and fro: sent by some, received and acknowledged in batches by others.
fn correspond(hive: &Hive, messages: usize, part: usize) -> Result<()> {
    let threads = 6;
    let mut senders = Vec::new();
    for sender in 1..=threads {
        let mut door = hive.door(&name(sender))?;
        senders.push(std::thread::spawn(move || -> Result<()> {
            let to = name(sender % CORRESPONDENTS + 1);
            for _ in 0..messages / threads {
                let body = json!({ "to": to, "kind": "message", "body": super::raw::BODY });
                let _sent: Value = door.post("/v1/send", &body)?;
            }
            Ok(())
        }));
    }
    for sender in senders {
        sender.join().map_err(|_| anyhow!("a sender panicked"))??;
    }
    for reader in 1..=CORRESPONDENTS {
        let mut door = hive.door(&name(reader))?;
        for batch in 0.. {
            let turn = format!("00000000-0000-4000-8{reader:03x}-{part:06x}{batch:06x}");
            let got: Value = door.post("/v1/recv", &json!({ "turn": turn, "max": 32 }))?;
            if got["messages"].as_array().is_none_or(Vec::is_empty) {
                break;
            }
            let _done: Value = door.post("/v1/ack", &json!({ "turn": turn, "done": true }))?;
        }
    }
    Ok(())
}
