use std::collections::{BTreeMap, BTreeSet};

use shared::plan::Waiting;
use shared::status::Condition;

use super::*;

fn condition<T>(value: T) -> Condition<T> {
    Condition {
        value,
        reason: "because".to_owned(),
        message: "it \"is\"\nso".to_owned(),
        since: Timestamp::UNIX_EPOCH,
    }
}

fn alice() -> AgentStatus {
    AgentStatus {
        name: "alice".parse().expect("a name"),
        uid: None,
        role: shared::spec::Role::Worker,
        sync: condition(Sync::OutOfSync),
        health: condition(Health::Degraded),
        activity: condition(Activity::AwaitingGate),
        turn: None,
        model: None,
        waiting: Vec::<Waiting>::new(),
        gates: Vec::new(),
        generations: shared::status::Generations::default(),
        mcp: BTreeMap::new(),
        egress: None,
        inbox: 0,
        faults: Vec::new(),
        notices: vec!["{evil=\"1\"} 1".to_owned()],
        config: None,
        origins: BTreeMap::new(),
    }
}

fn snapshot() -> Snapshot {
    let at = Timestamp::from_millisecond(1_800_000_000_250).expect("a time");
    Snapshot {
        agents: vec![alice()],
        counts: Counts {
            open_gates: BTreeMap::from([("deployWidens".to_owned(), 2)]),
            inboxes: BTreeMap::from([("alice".to_owned(), 3), ("gone".to_owned(), 9)]),
            dead_messages: 1,
        },
        tally: vec![
            (
                Counted::Pass {
                    of: "agent",
                    outcome: "failed",
                },
                4,
            ),
            (
                Counted::Step {
                    kind: "deploy",
                    outcome: "done",
                },
                5,
            ),
            (
                Counted::Event {
                    kind: "halted",
                    level: "alert",
                },
                6,
            ),
            (Counted::Message { kind: "question" }, 7),
            (
                Counted::Decision {
                    class: "spawn",
                    verdict: "approved",
                    by: "policy",
                },
                8,
            ),
        ],
        queue_depth: 10,
        failing: 1,
        started_at: at,
        last_pass_at: Some(at),
        spec: Some(Spec {
            generation: 11,
            faults: 2,
            stale: true,
        }),
        usage: Some(Usage {
            resident_bytes: 12,
            open_files: 13,
            max_files: Some(14),
        }),
    }
}

#[test]
fn what_is_told_is_the_state_of_the_hive() {
    let text = render(&snapshot());
    for line in [
        "hyperhive_agents_by_sync{sync=\"outOfSync\"} 1",
        "hyperhive_agents_by_sync{sync=\"inSync\"} 0",
        "hyperhive_agents_by_health{health=\"degraded\"} 1",
        "hyperhive_agents_by_activity{activity=\"awaitingGate\"} 1",
        "hyperhive_agent_status{agent=\"alice\",sync=\"outOfSync\",health=\"degraded\",activity=\"awaitingGate\"} 1",
        "hyperhive_agent_inbox_messages{agent=\"alice\"} 3",
        "hyperhive_gates_open{class=\"deployWidens\"} 2",
        "hyperhive_gates_open{class=\"purge\"} 0",
        "hyperhive_messages_dead 1",
        "hyperhive_queue_depth 10",
        "hyperhive_keys_failing 1",
        "hyperhive_last_pass_timestamp_seconds 1800000000.250",
        "hyperhive_passes_total{of=\"agent\",outcome=\"failed\"} 4",
        "hyperhive_steps_total{kind=\"deploy\",outcome=\"done\"} 5",
        "hyperhive_events_total{kind=\"halted\",level=\"alert\"} 6",
        "hyperhive_messages_total{kind=\"question\"} 7",
        "hyperhive_decisions_total{class=\"spawn\",verdict=\"approved\",by=\"policy\"} 8",
        "hyperhive_spec_generation 11",
        "hyperhive_spec_faults 2",
        "hyperhive_spec_stale 1",
        "process_resident_memory_bytes 12",
        "process_open_fds 13",
        "process_max_fds 14",
    ] {
        assert!(
            text.lines().any(|known| known == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(!text.contains("evil") && !text.contains("gone"), "{text}");
}

#[test]
fn what_is_not_known_is_not_told() {
    let nothing = Snapshot {
        last_pass_at: None,
        spec: None,
        usage: None,
        ..snapshot()
    };
    let text = render(&nothing);
    for name in ["last_pass", "hyperhive_spec", "process_open_fds"] {
        assert!(!text.contains(name), "{text}");
    }
}

/// The rules that `promtool check metrics` knows, and those of the format itself.
#[test]
fn the_text_keeps_the_rules_of_the_format() {
    let text = render(&snapshot());
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut series = BTreeSet::new();
    let mut current = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(helped.insert(name) && !help.is_empty(), "{line}");
            current = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(name, current);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(families.insert(name, kind).is_none(), "{name} comes twice");
        } else {
            let (labelled, value) = line.rsplit_once(' ').expect("a value");
            let name = labelled.split('{').next().unwrap_or_default();
            assert_eq!(name, current, "samples stand with their family");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            assert!(series.insert(labelled), "{labelled} comes twice");
        }
    }
    assert_eq!(families.keys().copied().collect::<BTreeSet<_>>(), helped);
    assert!(text.ends_with('\n'));
}
