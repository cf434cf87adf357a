use super::*;

fn name(text: &str) -> AgentName {
    text.parse().unwrap()
}

fn event(seq: u64, text: &str) -> AgentEvent {
    AgentEvent {
        seq,
        at: Timestamp::UNIX_EPOCH,
        turn: None,
        kind: AgentEventKind::Notice,
        text: text.to_owned(),
        tool: None,
        ok: None,
        used: None,
    }
}

fn batch(run: &str, seqs: impl IntoIterator<Item = u64>) -> EventBatch {
    EventBatch {
        run_id: run.to_owned(),
        events: seqs.into_iter().map(|seq| event(seq, "x")).collect(),
    }
}

fn all() -> TurnEvents {
    TurnEvents::new(Timestamp::UNIX_EPOCH, Room::default())
}

fn small() -> TurnEvents {
    let room = Room {
        events: 3,
        bytes: 10_000,
        all_bytes: 4 * (ROW + 1),
    };
    TurnEvents::new(Timestamp::UNIX_EPOCH, room)
}

/// The positions and the harness's numbers.
fn seen(page: &AgentEventPage) -> Vec<(u64, u64)> {
    let events = page.events.iter();
    events
        .map(|streamed| (streamed.position, streamed.event.seq))
        .collect()
}

#[test]
fn a_batch_that_is_told_again_is_one_and_another_run_begins_anew() {
    let (events, alice) = (all(), name("alice"));
    events.tell(&alice, batch("one", [1, 2]));
    events.tell(&alice, batch("one", [1, 2, 5]));
    events.tell(&alice, batch("two", [1]));
    let page = events.page(&alice, Some(0), 100);
    assert_eq!(seen(&page), [(1, 1), (2, 2), (3, 5), (4, 1)]);
    assert_eq!(page.last, 4);
}

#[test]
fn a_page_is_the_newest_or_what_comes_after() {
    let (events, alice) = (all(), name("alice"));
    events.tell(&alice, batch("one", 1..=5));
    assert_eq!(seen(&events.page(&alice, None, 2)), [(4, 4), (5, 5)]);
    assert_eq!(seen(&events.page(&alice, Some(2), 2)), [(3, 3), (4, 4)]);
    assert_eq!(seen(&events.page(&alice, Some(5), 2)), []);
}

#[test]
fn what_is_gone_is_said_to_whoever_had_seen_what_came_before_it() {
    let (events, alice) = (small(), name("alice"));
    events.tell(&alice, batch("one", 1..=8));
    assert_eq!(seen(&events.page(&alice, Some(0), 100)), [(6, 6), (7, 7), (8, 8)]);
    let page = events.page(&alice, Some(2), 100);
    assert_eq!(seen(&page), [(5, 0), (6, 6), (7, 7), (8, 8)]);
    let gap = &page.events[0].event;
    assert_eq!(gap.kind, AgentEventKind::Lost);
    assert!(gap.text.starts_with("3 events are missing here"), "{}", gap.text);
    assert_eq!(
        seen(&events.page(&alice, Some(5), 100)).len(),
        3,
        "nothing of what came after 5 is gone"
    );
}

#[test]
fn a_ring_is_bounded_in_bytes() {
    let (events, alice) = (small(), name("alice"));
    for seq in 1..=3 {
        let batch = EventBatch {
            run_id: "one".into(),
            events: vec![event(seq, &"x".repeat(4000))],
        };
        events.tell(&alice, batch);
    }
    assert_eq!(seen(&events.page(&alice, None, 100)), [(2, 2), (3, 3)]);
}

#[test]
fn when_all_are_too_much_the_one_that_is_quiet_for_longest_is_emptied() {
    let events = small();
    for (agent, run) in [("alice", "a"), ("bob", "b"), ("alice", "a2")] {
        events.tell(&name(agent), batch(run, [1]));
    }
    events.tell(&name("carol"), batch("c", [1, 2]));
    assert_eq!(seen(&events.page(&name("bob"), None, 100)), []);
    assert_eq!(seen(&events.page(&name("alice"), None, 100)).len(), 2);
    assert_eq!(seen(&events.page(&name("carol"), None, 100)).len(), 2);
    let page = events.page(&name("bob"), None, 100);
    assert_eq!(page.last, 1, "its positions go on");
}

#[test]
fn a_watcher_hears_of_news_and_of_the_end() {
    let (events, alice) = (all(), name("alice"));
    assert!(!events.tell(&alice, batch("one", [1])));
    let mut news = events.subscribe(&alice);
    news.mark_unchanged();
    assert!(events.tell(&alice, batch("one", [1])), "somebody watches");
    assert!(!news.has_changed().unwrap(), "nothing new was told");
    events.tell(&alice, batch("one", [2]));
    assert!(news.has_changed().unwrap());
    events.forget(&alice);
    assert!(news.has_changed().is_err(), "the agent is gone");
    assert_eq!(events.page(&alice, None, 100).last, 0);
}

#[test]
fn an_agent_of_the_same_name_has_another_epoch() {
    let (events, alice) = (all(), name("alice"));
    let before = events.page(&alice, None, 1).epoch;
    assert_eq!(events.page(&alice, None, 1).epoch, before);
    events.forget(&alice);
    assert_ne!(events.page(&alice, None, 1).epoch, before);
}
