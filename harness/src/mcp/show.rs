//! How things are shown to the model: plain text, in which what others wrote cannot be taken for what the hive says.

use jiff::Timestamp;
use shared::agent_api::{DeliveryState, Message, MessageKind};

/// A text of somebody else's between two lines that it cannot forge: it was written before the marker was made.
pub(super) fn bordered(marker: &str, what: &str, text: &str) -> String {
    let text = legible(text);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("----- {what}, begin {marker} -----\n{text}{end}----- end {marker} -----\n")
}

/// Without what a terminal or a parser would take for a command; lines and tabs stay.
fn legible(text: &str) -> String {
    text.replace("\r\n", "\n")
        .chars()
        .map(|c| {
            if c.is_control() && !matches!(c, '\n' | '\t') {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// One line of somebody else's, in quotation marks.
pub(super) fn quoted(text: &str, max: usize) -> String {
    format!("{:?}", crate::tame(text, max))
}

/// A time to the second.
pub(super) fn time(at: Timestamp) -> String {
    // Never fails: a second is a valid unit.
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}

/// The kind of a message in one word.
pub(super) fn kind(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Message => "message",
        MessageKind::Question => "question",
        MessageKind::Answer => "answer",
        MessageKind::System => "system",
        MessageKind::Unknown => "of a kind this harness does not know",
    }
}

/// Where a message is, in words.
pub(super) fn delivery(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Queued => "waits for a turn of the recipient",
        DeliveryState::Leased => "a turn of the recipient has it",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Dead => "dead: it is not delivered any more",
        DeliveryState::Unknown => "in a state this harness does not know",
    }
}

/// What the daemon says of a message: everything but its body.
pub(super) fn head(message: &Message) -> String {
    let Message {
        id,
        from,
        kind,
        topic,
        reply_to,
        at,
        body: _,
        redelivered,
    } = message;
    let mut line = format!(
        "id {id} | from {from} | kind {} | at {}",
        self::kind(*kind),
        time(*at)
    );
    if let Some(topic) = topic {
        line.push_str(&format!(" | topic {}", topic.as_str()));
    }
    if let Some(reply_to) = reply_to {
        line.push_str(&format!(" | replyTo {reply_to}"));
    }
    if *redelivered {
        line.push_str(
            " | redelivered: an earlier turn had it and did not end well, look whether it is done already",
        );
    }
    line
}

/// The first bytes of a text, at most so many, cut between characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("é", 1), "");
        assert_eq!(cut("", 5), "");
    }

    #[test]
    fn the_end_of_a_body_stands_on_a_line_of_its_own() {
        for text in ["a", "a\n"] {
            assert_eq!(
                bordered("m", "body", text),
                "----- body, begin m -----\na\n----- end m -----\n"
            );
        }
    }
}
