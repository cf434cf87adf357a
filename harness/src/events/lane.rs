//! What waits for one reader: bounded, and honest about what it had to drop (pure).

use std::collections::VecDeque;

use shared::agent_event::{AgentEvent, AgentEventKind, MAX_TEXT_BYTES};

/// The most events that wait.
pub(super) const MOST: usize = 1024;
/// The most bytes of text that wait.
pub(super) const MOST_BYTES: usize = 512 * 1024;
/// What an event takes besides its text, at most, more or less.
const ROW: usize = 128;

/// Events on their way, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Lane {
    events: VecDeque<AgentEvent>,
    bytes: usize,
    /// The last of those that were dropped since the last that was let in, and how many they are.
    lost: Option<(AgentEvent, u64)>,
}

impl Lane {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Lets an event in, or notes that there was no room for it. How a turn begins and ends is always let in: there
    /// are few of these.
    pub(super) fn push(&mut self, event: AgentEvent) {
        if self.joins(&event) {
            return;
        }
        let must = matches!(event.kind, AgentEventKind::Started | AgentEventKind::Ended);
        let full = self.events.len() >= MOST || self.bytes + weight(&event) > MOST_BYTES;
        if full && !must {
            let count = self.lost.take().map_or(0, |(_, count)| count);
            self.lost = Some((event, count + 1));
            return;
        }
        if let Some(lost) = self.lost.take() {
            self.let_in(lost_event(lost));
        }
        self.let_in(event);
    }

    /// Takes out the oldest events: at most so many, and of so many bytes unless a single one has more.
    pub(super) fn take(&mut self, most: usize, most_bytes: usize) -> Vec<AgentEvent> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(event) = self.events.front() {
            let weight = weight(event);
            if taken.len() >= most || !taken.is_empty() && bytes + weight > most_bytes {
                return taken;
            }
            bytes += weight;
            self.bytes = self.bytes.saturating_sub(weight);
            taken.extend(self.events.pop_front());
        }
        taken.extend(self.lost.take().map(lost_event));
        taken
    }

    /// Puts pieces of text together, so that each word is no row of its own.
    fn joins(&mut self, event: &AgentEvent) -> bool {
        if event.kind != AgentEventKind::Text || self.lost.is_some() {
            return false;
        }
        let room = MOST_BYTES.saturating_sub(self.bytes);
        let Some(last) = self.events.back_mut() else {
            return false;
        };
        let fits = last.text.len() + event.text.len() <= MAX_TEXT_BYTES && event.text.len() <= room;
        if last.kind != AgentEventKind::Text || last.turn != event.turn || !fits {
            return false;
        }
        last.text.push_str(&event.text);
        last.seq = event.seq;
        self.bytes += event.text.len();
        true
    }

    fn let_in(&mut self, event: AgentEvent) {
        self.bytes += weight(&event);
        self.events.push_back(event);
    }
}

fn weight(event: &AgentEvent) -> usize {
    event.text.len() + ROW
}

fn lost_event((last, count): (AgentEvent, u64)) -> AgentEvent {
    AgentEvent {
        kind: AgentEventKind::Lost,
        text: format!("{count} events are missing here: there were more at once than could be passed on"),
        tool: None,
        ok: None,
        used: None,
        ..last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, kind: AgentEventKind, text: &str) -> AgentEvent {
        AgentEvent {
            seq,
            at: jiff::Timestamp::UNIX_EPOCH,
            turn: None,
            kind,
            text: text.to_owned(),
            tool: None,
            ok: None,
            used: None,
        }
    }

    fn notice(seq: u64) -> AgentEvent {
        event(seq, AgentEventKind::Notice, "n")
    }

    fn short(events: &[AgentEvent]) -> Vec<(u64, AgentEventKind)> {
        events.iter().map(|event| (event.seq, event.kind)).collect()
    }

    #[test]
    fn what_finds_no_room_is_counted_where_it_is_missing() {
        let mut lane = Lane::default();
        for seq in 1..=MOST as u64 + 3 {
            lane.push(notice(seq));
        }
        assert_eq!(lane.take(2, usize::MAX).len(), 2);
        lane.push(notice(2000));
        let rest = lane.take(usize::MAX, usize::MAX);
        let end = &rest[rest.len() - 3..];
        let expected = [
            (1024, AgentEventKind::Notice),
            (1027, AgentEventKind::Lost),
            (2000, AgentEventKind::Notice),
        ];
        assert_eq!(short(end), expected);
        assert!(end[1].text.starts_with("3 events are missing"), "{}", end[1].text);
        assert!(lane.is_empty());
    }

    #[test]
    fn what_was_dropped_last_of_all_is_told_when_the_rest_is_taken() {
        let mut lane = Lane::default();
        for seq in 1..=MOST as u64 + 1 {
            lane.push(notice(seq));
        }
        let taken = lane.take(usize::MAX, usize::MAX);
        assert_eq!(short(&taken[MOST..]), [(1025, AgentEventKind::Lost)]);
        assert!(lane.take(usize::MAX, usize::MAX).is_empty(), "it is told once");
    }

    #[test]
    fn the_end_of_a_turn_is_let_in_however_full_it_is() {
        let mut lane = Lane::default();
        for seq in 1..=MOST as u64 + 1 {
            lane.push(notice(seq));
        }
        lane.push(event(9000, AgentEventKind::Ended, "ok"));
        let taken = lane.take(usize::MAX, usize::MAX);
        let expected = [(1025, AgentEventKind::Lost), (9000, AgentEventKind::Ended)];
        assert_eq!(short(&taken[MOST..]), expected);
    }

    #[test]
    fn pieces_of_text_are_put_together_up_to_the_size_of_an_event() {
        let mut lane = Lane::default();
        let piece = "x".repeat(MAX_TEXT_BYTES / 2);
        for seq in 1..=3 {
            lane.push(event(seq, AgentEventKind::Text, &piece));
        }
        lane.push(notice(4));
        lane.push(event(5, AgentEventKind::Text, "y"));
        let taken = lane.take(usize::MAX, usize::MAX);
        let expected = [
            (2, AgentEventKind::Text),
            (3, AgentEventKind::Text),
            (4, AgentEventKind::Notice),
            (5, AgentEventKind::Text),
        ];
        assert_eq!(short(&taken), expected);
        assert_eq!(taken[0].text.len(), MAX_TEXT_BYTES);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_too() {
        let mut lane = Lane::default();
        let long = "x".repeat(MAX_TEXT_BYTES);
        for seq in 1..=1000 {
            lane.push(event(seq, AgentEventKind::ToolResult, &long));
        }
        let taken = lane.take(usize::MAX, usize::MAX);
        let bytes: usize = taken.iter().map(|event| event.text.len()).sum();
        assert!(bytes <= MOST_BYTES + 1000, "{bytes} bytes");
        assert_eq!(taken.last().map(|event| event.kind), Some(AgentEventKind::Lost));
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty_while_something_waits() {
        let mut lane = Lane::default();
        for seq in 1..=3 {
            lane.push(event(seq, AgentEventKind::Notice, "a long text"));
        }
        assert_eq!(lane.take(usize::MAX, 1).len(), 1);
        assert_eq!(lane.take(1, usize::MAX).len(), 1);
        assert_eq!(lane.take(usize::MAX, usize::MAX).len(), 1);
    }
}
